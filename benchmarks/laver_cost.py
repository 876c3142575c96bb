"""What LaVer costs beside plain next-token training: step time and peak memory on one model, next to the floor counted in FLOPs.

    python benchmarks/laver_cost.py --json

Arms: `plain` next-token prediction on the stock model; `mixed` the same with mixed attention and 2D positions; `joint` and `separate`
LaVer. Each arm of each repeat runs in a process of its own, and the arms take turns, so that a noisy machine falls on all alike.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ARMS = ("plain", "mixed", "joint", "separate")
GIB = 2**30
GIVING_BACK = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}


@dataclass(frozen=True)
class Shape:
    """The model and batch that are measured."""

    num_layers: int = 8
    width: int = 512
    num_heads: int = 8
    feed_forward: int = 1408
    vocabulary: int = 8192
    side: int = 16
    tokens: int = 640
    batch: int = 4
    # 2.3 times the width, as 8,192 is of 3,584 in the paper.
    head_hidden: int = 1178
    mask_ratio: float = 0.05

    def num_pictures(self, vision_frac: float) -> int:
        return round(vision_frac * self.tokens / self.side**2)


def flops(shape: Shape, vision_frac: float) -> dict[str, float]:
    """Floating-point operations of one step by arm, forward 1 and backward 2, counted by matrix product.

    Attention is counted over the pairs that may see each other: causal ones, and under mixed attention those within a picture as well.
    """
    pictures, cells = shape.num_pictures(vision_frac), shape.side**2
    vision, tokens, width = pictures * cells, shape.tokens, shape.width
    linear = 2 * shape.num_layers * (4 * width**2 + 3 * width * shape.feed_forward)
    within = pictures * cells**2
    pair = 4 * shape.num_layers * width

    def backbone(num: int, pairs: float) -> float:
        return num * linear + pairs * pair

    causal, mixed = tokens * (tokens + 1) / 2, tokens * (tokens + 1) / 2 + pictures * cells * (cells - 1) / 2
    vocabulary = 2 * (tokens - vision) * width * shape.vocabulary
    head = 2 * vision * (2 * width * shape.head_hidden + shape.head_hidden**2)
    gram = 2 * within * width
    # The teacher's prefix ends with the last picture; pictures come first here.
    prefix = backbone(vision, vision * (vision + 1) / 2 + pictures * cells * (cells - 1) / 2)
    alone = backbone(vision, within)
    # Student and teacher products, and one back to the student.
    visual = 4 * head + 4 * gram
    plain = 3 * (backbone(tokens, causal) + vocabulary)
    both = 3 * (backbone(tokens, mixed) + vocabulary)
    return {"plain": plain, "mixed": both, "joint": both + prefix + visual, "separate": both + 4 * alone + visual}


def build(shape: Shape) -> Any:
    """A LLaVA of the shape, with raw patches for an encoder, so that next to nothing but the language model is measured."""
    import torch
    from transformers import LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, SiglipVisionConfig

    vision = SiglipVisionConfig(
        image_size=4 * shape.side,
        patch_size=4,
        hidden_size=48,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=1,
        vision_use_head=False,
    )
    text = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.feed_forward,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_heads,
    )
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=vision,
            text_config=text,
            image_token_id=1,
            image_seq_length=shape.side**2,
            vision_feature_layer=-1,
            vision_feature_select_strategy="full",
        )
    )
    model.model.vision_tower.requires_grad_(False)
    return model


def batch_of(shape: Shape, vision_frac: float) -> dict[str, Any]:
    """Random pictures first, then text that is all predicted; every row one sample."""
    import torch

    from theodolite.models.exported.grids import token_grid
    from theodolite.models.exported.layout import mark_pictures
    from theodolite.objectives.masking import draw_ranks

    generator = torch.Generator().manual_seed(0)
    pictures, cells = shape.num_pictures(vision_frac), shape.side**2
    vision = pictures * cells
    ids = torch.randint(2, shape.vocabulary, (shape.batch, shape.tokens), generator=generator)
    ids[:, :vision] = 1
    total = shape.batch * pictures
    picture, cell = mark_pictures(ids == 1, [token_grid(shape.side, shape.side)] * total)
    drawn = [draw_ranks(cells, 0, "sample", 0, number) for number in range(total)]
    rank = torch.full_like(ids, -1)
    rank[ids == 1] = torch.cat([torch.as_tensor(ranks) for ranks, _ in drawn])
    dither = torch.zeros(ids.shape, dtype=torch.float64)
    dither[ids == 1] = torch.tensor([value for _, value in drawn], dtype=torch.float64).repeat_interleave(cells)
    places = torch.arange(ids.numel()).view_as(ids)[:, vision - 1 : -1]
    return {
        "input_ids": ids,
        "sample": torch.arange(shape.batch)[:, None].repeat(1, shape.tokens),
        "branch": torch.zeros_like(ids),
        "picture": picture,
        "cell": cell,
        "rank": rank,
        "dither": dither,
        "predicts": places.flatten(),
        "labels": ids[:, vision:].flatten(),
        "pixel_values": torch.rand(total, 3, 4 * shape.side, 4 * shape.side, generator=generator),
    }


def objective_of(arm: str, shape: Shape, config: Any) -> Any:
    from theodolite.models.forward import Adaptation
    from theodolite.objectives.language import Language
    from theodolite.objectives.laver import LaVer, LaverConfig

    if arm in ("plain", "mixed"):
        return Language(Adaptation() if arm == "plain" else Adaptation("mixed", "2d"))
    return LaVer(config, LaverConfig(branch=arm, mask_ratio=shape.mask_ratio, mask_ramp="constant", head_hidden=shape.head_hidden))  # type: ignore[arg-type]


def measure(arm: str, vision_frac: float, dtype: str, steps: int) -> dict[str, float]:
    """Median seconds of a step after one to warm up, and the peak of memory over what was there after loading, in GiB."""
    import torch

    from theodolite.models.forward import adapt
    from theodolite.objectives.laver import LaVer
    from theodolite.objectives.terms import combine
    from theodolite.training.objective_module import ObjectiveModule
    from theodolite.training.teacher_callback import TeacherCallback

    shape = Shape()
    model = build(shape)
    batch = batch_of(shape, vision_frac)
    objective = objective_of(arm, shape, model.config)
    adapt(model, objective.settings.adaptation if isinstance(objective, LaVer) else objective.adaptation)
    objective_module = ObjectiveModule(model, objective)
    teacher_callback = TeacherCallback(objective_module, objective) if isinstance(objective, LaVer) else None
    optimizer = torch.optim.AdamW([value for value in objective_module.parameters() if value.requires_grad], lr=1e-4)
    baseline = resident("VmRSS")
    seconds = []
    for step in range(1, steps + 2):
        started = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bf16"):
            prepared = objective.prepare(batch, step, steps + 1)
            counts = objective.counts(prepared)
            taught = teacher_callback.teach(objective_module, prepared, step) if teacher_callback else prepared
            loss = combine(objective_module(taught, step), counts)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if teacher_callback:
            teacher_callback.follow(step, steps + 1)
        seconds.append(time.perf_counter() - started)
    teacher = (
        sum(value.nbytes for value in teacher_callback.teacher.shadow.values()) if teacher_callback and teacher_callback.teacher else 0
    )
    return {"step_s": statistics.median(seconds[1:]), "peak_gib": (resident("VmHWM") - baseline) / GIB, "teacher_gib": teacher / GIB}


def resident(field: str) -> int:
    """Bytes of this process in memory: now (`VmRSS`), or at most so far (`VmHWM`)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def run_arm(arm: str, vision_frac: float, dtype: str, steps: int, threads: int, *, memory: bool) -> dict[str, float]:
    """One arm in a process of its own, for its time or for its memory."""
    command = [sys.executable, __file__, "--arm", arm, "--vision", str(vision_frac), "--dtype", dtype, "--steps", str(steps)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), **(GIVING_BACK if memory else {})}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise RuntimeError(f"arm {arm} ended with {done.returncode}: {done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def compare(vision_frac: float, dtype: str, repeats: int, steps: int, threads: int) -> dict[str, Any]:
    """All arms, in turns; medians over the repeats."""
    found: dict[str, list[dict[str, float]]] = {arm: [] for arm in ARMS}
    for repeat in range(repeats):
        for arm in ARMS:
            timed = run_arm(arm, vision_frac, dtype, steps, threads, memory=False)
            weighed = run_arm(arm, vision_frac, dtype, 1, threads, memory=True)
            found[arm].append({**weighed, "step_s": timed["step_s"]})
            print(f"{vision_frac} {dtype} {repeat + 1}/{repeats} {arm}: {found[arm][-1]}", file=sys.stderr, flush=True)
    counted = flops(Shape(), vision_frac)
    arms = {
        arm: {
            "step_s": statistics.median(run["step_s"] for run in runs),
            "peak_gib": statistics.median(run["peak_gib"] for run in runs),
            "floor": counted[arm] / counted["plain"],
        }
        for arm, runs in found.items()
    }
    return {"vision_frac": vision_frac, "dtype": dtype, "teacher_gib": found["joint"][0]["teacher_gib"], **arms}


def show(results: Sequence[Mapping[str, Any]]) -> None:
    """A table of ratios to plain training."""
    from rich.console import Console
    from rich.table import Table

    for result in results:
        plain = result["plain"]
        table = Table(title=f"{result['vision_frac']} of the tokens are vision, {result['dtype']}")
        for column in ("arm", "step s", "time ratio", "floor", "over floor", "peak GiB", "peak ratio"):
            table.add_column(column, justify="left" if column == "arm" else "right")
        for arm in ARMS:
            row = result[arm]
            ratio = row["step_s"] / plain["step_s"]
            figures = (row["step_s"], ratio, row["floor"], ratio / row["floor"], row["peak_gib"], row["peak_gib"] / plain["peak_gib"])
            table.add_row(arm, *(f"{figure:.3f}" for figure in figures))
        Console().print(table, f"the teacher's copy takes {result['teacher_gib']:.3f} GiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32", help="bf16 is autocast over fp32 weights")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="measured steps of each process")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--vision", type=float, help="one fraction of vision tokens instead of 0.4 and 0.8")
    parser.add_argument("--arm", choices=ARMS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.arm:
        print(json.dumps(measure(given.arm, given.vision, given.dtype, given.steps)))
        return
    fractions = [given.vision] if given.vision else [0.4, 0.8]
    results = [compare(fraction, given.dtype, given.repeats, given.steps, given.threads) for fraction in fractions]
    if given.json:
        print(json.dumps(results, indent=1))
    else:
        show(results)


if __name__ == "__main__":
    main()
