"""What LaVer costs on a GPU at real sizes: step time over plain training and over its floor, peak memory, and waits for the device.

    python benchmarks/gpu/laver_cost.py --json        # all models, on a GPU of 80 GB
    python benchmarks/gpu/laver_cost.py --tiny        # the same table of a tiny model, on a CPU in seconds

Random weights and AdamW states in bf16 (vision head in fp32, autocast to bf16), SigLIP-so400m with 729 tokens a picture. Each model is
measured in a process of its own, which gives memory back between the arms (see `laver_arms`). `copies` is the peak over plain's in
bf16 copies of what is trained; the aim is one copy, and 5 % of the sum.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from laver_arms import ARMS, FLOOR, GIB, ArmRun, Shape, Tower, flops, resident

SO400M = Tower(num_layers=27, width=1152, num_heads=16, feed_forward=4304, patch=14)
B1_5 = Shape(28, 1536, 12, 2, 8960, 151936, SO400M, side=27, pictures=1, text=711, rows=4, head_hidden=8192)
TINY_TOWER = Tower(num_layers=1, width=16, num_heads=2, feed_forward=32, patch=4)


@dataclass(frozen=True)
class Case:
    """A model to measure. `attention` is that of LaVer's and the mixed arm; plain training has sdpa's causal kernel."""

    shape: Shape
    attention: str = "sdpa"
    # The most that an arm's time may be of its floor.
    aims: Mapping[str, float] | None = None


CASES = {
    "7b": Case(
        Shape(28, 3584, 28, 4, 18944, 152064, SO400M, side=27, pictures=1, text=711, rows=4, head_hidden=8192, checkpointing=True),
        aims={"joint": 1.05, "separate": 1.05},
    ),
    "1.5b": Case(B1_5, aims={"joint": 1.15, "separate": 1.15}),
    "0.5b": Case(replace(B1_5, num_layers=24, width=896, num_heads=14, feed_forward=4864)),
    "1.5b-flex-4096": Case(replace(B1_5, text=4096 - 729, rows=2), attention="flex_attention"),
}
# Of the mixed arm with flex attention, over plain.
FLEX_AIM = 1.02
# Few weights and many tokens: what the pairs of tokens take.
LONG = replace(B1_5, num_layers=2, width=64, num_heads=4, num_key_value_heads=2, feed_forward=128, vocabulary=512, tower=TINY_TOWER)
SMALL = {
    "tiny": Case(Shape(2, 64, 4, 2, 128, 512, TINY_TOWER, side=4, pictures=1, text=12, rows=2, head_hidden=128)),
    "tiny-8192": Case(replace(LONG, pictures=8, text=8192 - 8 * 729, rows=1, head_hidden=128)),
}


def measure(case: Case, device: str, steps: int, warmup: int, compiled: bool) -> dict[str, Any]:
    """Every arm of a case: its seconds, peak memory, teacher and waits, or the reason why it has none."""
    arms: dict[str, Any] = {}
    for arm in ARMS:
        attention = "sdpa" if arm == "plain" else case.attention
        try:
            arms[arm] = measure_arm(case.shape, arm, device, attention, steps, warmup, compiled)
        except out_of_memory() as error:
            arms[arm] = {"attention": attention, "failed": f"out of memory: {str(error).splitlines()[0]}"}
        give_back(device)
    return arms


def measure_arm(shape: Shape, arm: str, device: str, attention: str, steps: int, warmup: int, compiled: bool) -> dict[str, Any]:
    """One arm: `warmup` steps, then `steps` timed ones, then one whose waits are counted."""
    import torch

    from theodolite.training.host_syncs import counted_host_syncs

    on_gpu = device == "cuda"
    reset_peak(device)
    run = ArmRun(shape, arm, device=device, dtype=torch.bfloat16 if on_gpu else torch.float32, autocast=on_gpu, attention=attention)
    if compiled:
        run.compile_layers()
    ends = [now(device)]
    for number in range(1, warmup + steps + 1):
        run.step(number, warmup + steps + 1)
        ends.append(now(device))
    seconds = seconds_between(ends)
    peak = peak_bytes(device)
    with counted_host_syncs(device) as waits:
        run.step(warmup + steps + 1, warmup + steps + 1)
    timed = seconds[warmup:]
    return {
        "attention": attention,
        "step_s": statistics.median(timed),
        "fastest_s": min(timed),
        "slowest_s": max(timed),
        "peak_gib": peak / GIB,
        "bf16_copy_gib": run.trained_bytes_in_bf16 / GIB,
        "teacher_average_gib": run.teacher_bytes / GIB,
        "host_syncs": sum(waits.values()),
        "host_syncs_at": dict(waits.most_common(12)),
    }


def now(device: str) -> Any:
    """The moment at which the device has done all that was queued so far: the host goes on, as between steps of the trainer."""
    import torch

    if device != "cuda":
        return time.perf_counter()
    moment = torch.cuda.Event(enable_timing=True)
    moment.record()
    return moment


def seconds_between(moments: Sequence[Any]) -> list[float]:
    """Seconds from each moment to the next."""
    if isinstance(moments[0], float):
        return [later - earlier for earlier, later in pairwise(moments)]
    moments[-1].synchronize()
    return [earlier.elapsed_time(later) / 1e3 for earlier, later in pairwise(moments)]


def out_of_memory() -> type[Exception]:
    import torch

    kind: type[Exception] = torch.OutOfMemoryError
    return kind


def give_back(device: str) -> None:
    """Returns the memory of the last arm to the device."""
    import torch

    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()


def reset_peak(device: str) -> None:
    import torch

    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again from what is there


def peak_bytes(device: str) -> int:
    import torch

    return torch.cuda.max_memory_allocated() if device == "cuda" else resident("VmHWM")


def compared(name: str, case: Case, arms: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The arms of a model with their ratios to plain and to the floor, and whether the aims are met."""
    counted, plain, rows = flops(case.shape), arms["plain"], {}
    for arm, own in arms.items():
        floor = counted[arm] / counted["plain"]
        row: dict[str, Any] = {**own, "floor": floor}
        if "failed" not in own and "failed" not in plain:
            ratio = own["step_s"] / plain["step_s"]
            over_plain, copy = own["peak_gib"] - plain["peak_gib"], plain["bf16_copy_gib"]
            row |= {"ratio": ratio, "over_floor": ratio / floor, "over_plain_gib": over_plain, "copies": over_plain / copy}
            if arm == "joint":
                row["memory_aim_met"] = own["peak_gib"] <= 1.05 * (plain["peak_gib"] + copy)
            if case.aims and arm in case.aims:
                row |= {"aim_over_floor": case.aims[arm], "time_aim_met": row["over_floor"] <= case.aims[arm]}
            if arm == "mixed" and case.attention == "flex_attention":
                row |= {"aim_over_plain": FLEX_AIM, "time_aim_met": ratio <= FLEX_AIM}
        rows[arm] = row
    shape = case.shape
    sizes = {"rows": shape.rows, "vision_tokens": shape.vision, "text_tokens": shape.text, "checkpointing": shape.checkpointing}
    return {"model": name, **sizes, "arms": rows}


def machine(device: str, compiled: bool) -> dict[str, Any]:
    """Where and with what the figures were taken."""
    import torch
    import transformers

    card = f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    if device == "cuda":
        card = f"{torch.cuda.get_device_name()}, {torch.cuda.get_device_properties(0).total_memory / GIB:.1f} GiB"
    versions = {"torch": torch.__version__, "cuda": torch.version.cuda, "transformers": transformers.__version__}
    dtype = "bf16 weights, vision head fp32, autocast bf16" if device == "cuda" else "fp32"
    counter = "torch.cuda.set_sync_debug_mode" if device == "cuda" else "stand-in (theodolite.training.host_syncs)"
    return {"device": card, "versions": versions, "dtype": dtype, "compiled_layers": compiled, "host_syncs_counted_by": counter}


def run_case(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """One model in a process of its own: what it prints as its last line."""
    command = [sys.executable, __file__, "--case", name, "--device", given.device]
    options = ["--steps", str(given.steps), "--warmup", str(given.warmup), *(["--compile"] if given.compile else [])]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return {"failed": f"{name} ended with {done.returncode}: {last}"}
    return dict(json.loads(done.stdout.splitlines()[-1]))


def show(record: Mapping[str, Any]) -> None:
    """A table of ratios to plain training for each model."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print(f"{record['device']}; {record['dtype']}; torch {record['versions']['torch']}; medians of {record['steps']} steps")
    for model in record["models"]:
        table = Table(title=f"{model['model']}: {model['rows']} x ({model['vision_tokens']} + {model['text_tokens']}) tokens")
        for column in ("arm", "attention", "step s", "to plain", "floor", "over floor", "peak GiB", "copies", "waits"):
            table.add_column(column, justify="left" if column in ("arm", "attention") else "right")
        for arm, row in model["arms"].items():
            if "ratio" in row:
                figures = (row[name] for name in ("step_s", "ratio", "floor", "over_floor", "peak_gib", "copies"))
                table.add_row(arm, row["attention"], *(f"{figure:.3f}" for figure in figures), str(row["host_syncs"]))
            else:
                table.add_row(arm, row["attention"], row.get("failed", "no plain arm to compare with"))
        console.print(table)
    console.print(f"floor: {record['floor']}")


def device_for(cases: Mapping[str, Case], wanted: str | None) -> str | None:
    """The device that is wanted, else the GPU, or for small models a CPU; None if it is not there."""
    import torch

    if torch.cuda.is_available():
        return wanted or "cuda"
    return "cpu" if wanted == "cpu" or (wanted is None and cases.keys() <= SMALL.keys()) else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--tiny", action="store_true", help="a tiny model, on a CPU if there is no GPU")
    parser.add_argument("--models", nargs="+", choices=[*CASES, *SMALL], default=list(CASES))
    parser.add_argument("--steps", type=int, default=7, help="timed steps of each arm, whose median is taken")
    parser.add_argument("--warmup", type=int, default=3, help="steps before them: compilation, and AdamW's states")
    parser.add_argument("--device", choices=("cuda", "cpu"), help="default: cuda; for small models cpu where there is none")
    parser.add_argument("--compile", action="store_true", help="compile the decoder layers, as torch_compile does in training")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.case:
        print(json.dumps(measure({**CASES, **SMALL}[given.case], given.device, given.steps, given.warmup, given.compile)))
        return
    cases = {name: {**CASES, **SMALL}[name] for name in (["tiny"] if given.tiny else given.models)}
    given.device = device_for(cases, given.device)
    if given.device is None:
        sys.exit("laver_cost: no CUDA device; run it on a GPU, or give --tiny for a tiny model on a CPU")
    models: list[dict[str, Any]] = []
    failures: list[str] = []
    for name, case in cases.items():
        arms = run_case(name, given)
        if "failed" in arms:
            failures.append(arms["failed"])
            continue
        models.append(compared(name, case, arms))
        failures += [f"{name}, {arm}: {own['failed']}" for arm, own in arms.items() if "failed" in own]
    # Only now: what it asks of a GPU takes memory there, which the models would miss.
    record = {**machine(given.device, given.compile), "steps": given.steps, "floor": FLOOR, "models": models}
    if given.json:
        print(json.dumps({**record, "failures": failures}, indent=1))
    else:
        show(record)
    if failures:
        sys.exit("laver_cost: " + "; ".join(failures))


if __name__ == "__main__":
    main()
