"""Time and memory of the Gram loss, forward and backward, tiled against written out: `python benchmarks/gram.py [--json]`.

Every arm runs in a process of its own, on two threads. Time is the median of the repeats. Memory is the peak of the resident set over
what it was once the inputs existed, so it holds the student's gradient and everything made on the way to it. Linux only: the kernel
keeps the peak.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from theodolite.objectives.gram import gram_loss

THREADS = 2
CASES = [([4096], 512), ([4096], 1178), ([256] * 4, 512), ([64] * 64, 512)]


def dense_gram_loss(student: Tensor, teacher: Tensor, sizes: list[int]) -> Tensor:
    """The clipped form as its formula stands, one picture after the other."""
    loss = student.new_zeros(())
    for z, y in zip(student.split(sizes), teacher.split(sizes), strict=True):
        z, y = F.normalize(z, dim=1), F.normalize(y, dim=1)
        loss = loss + (z @ z.T - y @ y.T).clamp(min=0).square().sum()
    return loss


ARMS: dict[str, Callable[[Tensor, Tensor, list[int]], Tensor]] = {"dense": dense_gram_loss, "tiled": gram_loss}


def measure(arm: str, sizes: list[int], dim: int, repeats: int) -> dict[str, float]:
    """Median seconds and peak MiB of one arm, in this process."""
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    student, teacher = torch.randn(sum(sizes), dim) + 0.3, torch.randn(sum(sizes), dim) + 0.25
    student.requires_grad_()
    (torch.ones(64, 64) @ torch.ones(64, 64)).sum()  # threads and libraries start before the baseline is read
    reset_peak()
    baseline, taken = resident("VmRSS"), []
    for _ in range(repeats):
        student.grad = None
        started = time.perf_counter()
        ARMS[arm](student, teacher, sizes).backward()
        taken.append(time.perf_counter() - started)
    return {"s": statistics.median(taken), "peak_mib": resident("VmHWM") - baseline}


def reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def resident(field: str) -> float:
    """Resident set in MiB: "VmRSS" as it is, "VmHWM" at its highest since the last reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def apart(arm: str, sizes: list[int], dim: int, repeats: int) -> dict[str, float]:
    """`measure` in a fresh process."""
    command = [sys.executable, __file__, "--arm", arm, "--sizes", *map(str, sizes), "--dim", str(dim), "--repeats", str(repeats)]
    # Threads that spin while they wait for each other cost seconds as soon as anything else runs on the cores, in either arm.
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def compare(sizes: list[int], dim: int, repeats: int) -> dict[str, Any]:
    dense, tiled = apart("dense", sizes, dim, repeats), apart("tiled", sizes, dim, repeats)
    return {
        "pictures": len(sizes),
        "tokens": sum(sizes),
        "dim": dim,
        **{f"{arm}_{name}": value for arm, found in (("dense", dense), ("tiled", tiled)) for name, value in found.items()},
        "times_less_memory": dense["peak_mib"] / tiled["peak_mib"],
        "times_faster": dense["s"] / tiled["s"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--arm", choices=ARMS, help="measure this arm alone, in this process, and print it")
    parser.add_argument("--sizes", type=int, nargs="+", help="tokens of each picture")
    parser.add_argument("--dim", type=int, default=512)
    options = parser.parse_args()
    if options.arm:
        print(json.dumps(measure(options.arm, options.sizes, options.dim, options.repeats)))
        return
    cases = [(options.sizes, options.dim)] if options.sizes else CASES
    found = [compare(sizes, dim, options.repeats) for sizes, dim in cases]
    if options.json:
        print(json.dumps(found))
        return
    for case in found:
        print(
            f"{case['pictures']} pictures, {case['tokens']} tokens in all, dim {case['dim']}: "
            f"{case['tiled_s'] * 1000:.0f} ms and {case['tiled_peak_mib']:.0f} MiB, "
            f"{case['times_faster']:.1f} times faster and {case['times_less_memory']:.1f} times less memory than dense"
        )


if __name__ == "__main__":
    main()
