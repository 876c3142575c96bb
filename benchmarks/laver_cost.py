"""What LaVer costs beside plain next-token training: step time and peak memory on one model, next to the floor counted in FLOPs.

    python benchmarks/laver_cost.py --json
    python benchmarks/laver_cost.py --auxiliary    # auxiliary losses too

Each arm (see `laver_arms`) of each repeat runs in a process of its own, and the arms take turns, so that a noisy machine falls on all
alike. Beside the seconds of a step stand the processor's own (of all threads), which other work on the cores moves far less.
Time and memory are taken in different processes: for memory the C library is told to give large blocks back at once, since what it
keeps for later moves the peak by a quarter from run to run.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from laver_arms import ARMS, AUXILIARY, GIB, ArmRun, Shape, Tower, flops, resident

GIVING_BACK = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
TOKENS, SIDE = 640, 16


def shape_of(vision_frac: float) -> Shape:
    """Eight layers of width 512; raw patches for an encoder, so that next to nothing but the language model is measured."""
    pictures = round(vision_frac * TOKENS / SIDE**2)
    return Shape(
        num_layers=8,
        width=512,
        num_heads=8,
        num_key_value_heads=8,
        feed_forward=1408,
        vocabulary=8192,
        tower=Tower(num_layers=1, width=48, num_heads=1, feed_forward=48, patch=4),
        side=SIDE,
        pictures=pictures,
        text=TOKENS - pictures * SIDE**2,
        rows=4,
        head_hidden=1178,  # 2.3 times the width, as 8,192 is of 3,584 in the paper
        language_model="llama",
    )


def measure(arm: str, vision_frac: float, dtype: str, steps: int) -> dict[str, float]:
    """Median seconds of a step after one to warm up, and the peak of memory over what was there after loading, in GiB."""
    run = ArmRun(shape_of(vision_frac), arm, autocast=dtype == "bf16")
    baseline = resident("VmRSS")
    seconds, processor = [], []
    for step in range(1, steps + 2):
        started, begun = time.perf_counter(), time.process_time()
        run.step(step, steps + 1)
        seconds.append(time.perf_counter() - started)
        processor.append(time.process_time() - begun)
    return {
        "step_s": statistics.median(seconds[1:]),
        "processor_s": statistics.median(processor[1:]),
        "peak_gib": (resident("VmHWM") - baseline) / GIB,
        "teacher_gib": run.teacher_bytes / GIB,
    }


def run_arm(arm: str, vision_frac: float, dtype: str, steps: int, threads: int, *, memory: bool) -> dict[str, float]:
    """One arm in a process of its own, for its time or for its memory."""
    command = [sys.executable, __file__, "--arm", arm, "--vision", str(vision_frac), "--dtype", dtype, "--steps", str(steps)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), **(GIVING_BACK if memory else {})}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise RuntimeError(f"arm {arm} ended with {done.returncode}: {done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def compare(vision_frac: float, dtype: str, repeats: int, steps: int, threads: int, names: Sequence[str]) -> dict[str, Any]:
    """All arms, in turns; medians over the repeats."""
    runs: dict[str, list[dict[str, float]]] = {arm: [] for arm in names}
    for repeat in range(repeats):
        for arm in names:
            timed = run_arm(arm, vision_frac, dtype, steps, threads, memory=False)
            weighed = run_arm(arm, vision_frac, dtype, 1, threads, memory=True)
            runs[arm].append({**timed, "peak_gib": weighed["peak_gib"]})
            print(f"{vision_frac} {dtype} {repeat + 1}/{repeats} {arm}: {runs[arm][-1]}", file=sys.stderr, flush=True)
    counted = flops(shape_of(vision_frac))
    arms = {
        arm: {
            **{name: statistics.median(run[name] for run in own) for name in ("step_s", "processor_s", "peak_gib")},
            "floor": counted[arm] / counted["plain"],
        }
        for arm, own in runs.items()
    }
    return {"vision_frac": vision_frac, "dtype": dtype, "teacher_gib": runs["joint"][0]["teacher_gib"], **arms}


def show(results: Sequence[Mapping[str, Any]]) -> None:
    """A table of ratios to plain training."""
    from rich.console import Console
    from rich.table import Table

    for result in results:
        plain = result["plain"]
        table = Table(title=f"{result['vision_frac']} of the tokens are vision, {result['dtype']}")
        for column in ("arm", "step s", "time ratio", "processor ratio", "floor", "over floor", "peak GiB", "peak ratio"):
            table.add_column(column, justify="left" if column == "arm" else "right")
        for arm in (*ARMS, *(arm for arm in AUXILIARY if arm in result)):
            row = result[arm]
            ratio, processor, peak = (row[name] / plain[name] for name in ("step_s", "processor_s", "peak_gib"))
            figures = (row["step_s"], ratio, processor, row["floor"], processor / row["floor"], row["peak_gib"], peak)
            table.add_row(arm, *(f"{figure:.3f}" for figure in figures))
        Console().print(table, f"the teacher's copy takes {result['teacher_gib']:.3f} GiB; over floor: of the processor's seconds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32", help="bf16 is autocast over fp32 weights")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="measured steps of each process")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--vision", type=float, help="one fraction of vision tokens instead of 0.4 and 0.8")
    parser.add_argument("--auxiliary", action="store_true", help="the auxiliary losses and their sum too")
    parser.add_argument("--arm", choices=(*ARMS, *AUXILIARY), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.arm:
        print(json.dumps(measure(given.arm, given.vision, given.dtype, given.steps)))
        return
    fractions = [given.vision] if given.vision else [0.4, 0.8]
    names = (*ARMS, *AUXILIARY) if given.auxiliary else ARMS
    results = [compare(fraction, given.dtype, given.repeats, given.steps, given.threads, names) for fraction in fractions]
    if given.json:
        print(json.dumps(results, indent=1))
    else:
        show(results)


if __name__ == "__main__":
    main()
