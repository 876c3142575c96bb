"""What one standard training run costs on one core, and where its time goes.

    python benchmarks/standard_run.py [--steps N] [--fp32]

A standard run: the small LLaVA (4 layers, width 128), 64 vision tokens and one question a picture, 1,000 steps of 64 pictures of the
shapes world in bf16, through `theodolite.training.run.train`. Seconds of the processor count other work on the machine far less than
seconds of the clock do, though what shares its caches and its core still shows.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

STEPS_OF_A_RUN = 1000
NUM_PICTURES = 12_000
WARM_UP = 5


class Clock:
    """Seconds of the processor by part, what is timed within a part taken out of it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._within = [0.0]

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        started = time.process_time()
        self._within.append(0.0)
        yield
        spent = time.process_time() - started
        self.seconds[name] += spent - self._within.pop()
        self._within[-1] += spent

    def wrap(self, owner: Any, method: str, name: str) -> None:
        """Times every call of a method of a class (this process does nothing but measure)."""
        stock: Callable[..., Any] = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.part(name):
                return stock(*args, **kwargs)

        setattr(owner, method, timed)


def flops(rows: int, tokens: int, words: int, answers: int, config: Any) -> float:
    """Floating-point operations of a step, forward 1 and backward 2, counted by matrix product; the frozen tower is left out."""
    text = config.text_config
    width, inner, layers = text.hidden_size, text.intermediate_size, text.num_hidden_layers
    places, vision = rows * tokens, rows * (tokens - words)
    linear, attention = 2 * (4 * width**2 + 3 * width * inner), 4 * width * tokens
    connector = 2 * vision * (config.vision_config.hidden_size * width + width**2)
    head = 2 * answers * width * text.vocab_size
    return 3.0 * (places * layers * (linear + attention) + connector + head)


def peak_flops(size: int = 2048, repeats: int = 5) -> float:
    """Operations a second of a plain square matrix product in bf16, the best of a few."""
    import torch

    from theodolite.models.cpu_products import fast_bf16_products

    left, right = torch.randn(2, size, size).bfloat16()
    seconds = []
    with fast_bf16_products():
        for _ in range(repeats + 1):
            started = time.process_time()
            left @ right
            seconds.append(time.process_time() - started)
    return 2 * size**3 / min(seconds[1:])


def measure(steps: int, precision: Any) -> dict[str, Any]:
    import torch

    torch.set_num_threads(1)
    from theodolite.data.collate import Collator
    from theodolite.models.construction.build import build_vlm
    from theodolite.models.construction.frontends import SIZE
    from theodolite.models.exported.conv_tower import ConvTower
    from theodolite.studies.engine.arms import examples_of, shapes_arms
    from theodolite.training import run, stage_data
    from theodolite.training.objective_module import ObjectiveModule
    from theodolite.training.recipe import Recipe
    from theodolite.worlds.registry import world_named

    recipe = Recipe(name="standard", steps=steps, precision=precision)
    num_pictures = min(NUM_PICTURES, steps * recipe.batch)
    arm = replace(shapes_arms()[1], policy="shape", recipe=recipe, num_pictures=num_pictures)
    world = world_named("shapes", arm.strength)
    examples = examples_of(arm, world, SIZE, 0)
    model, processor = build_vlm(world.texts, 0)
    clock, seen, told = Clock(), dict[str, int](), list[tuple[float, float, dict[str, float]]]()
    for owner, method, name in (
        (Collator, "__call__", "collate"),
        (ConvTower, "forward", "tower"),
        (ObjectiveModule, "forward", "forward"),
        (torch.Tensor, "backward", "backward"),
        (torch.optim.AdamW, "step", "optimiser"),
    ):
        clock.wrap(owner, method, name)

    class Counted(Collator):
        def __call__(self, draws: Any) -> Any:
            batch = super().__call__(draws)
            rows, tokens = batch["input_ids"].shape
            seen.update(rows=rows, tokens=tokens, words=tokens - 64, answers=len(batch["labels"]))
            return batch

    stage_data.Collator = Counted  # type: ignore[misc]
    origin = run.Origin(arm.name, "standard", world.name, arm.strength, arm.source, arm.policy)

    def progress(done: int, total: int, note: str = "") -> None:
        told.append((time.process_time(), time.perf_counter(), dict(clock.seconds)))

    run.train_on_examples(model, processor, examples, recipe, origin=origin, seed=0, progress=progress)
    return summary(told, flops(**seen, config=model.config), recipe.batch)


def summary(told: list[tuple[float, float, dict[str, float]]], counted: float, batch: int) -> dict[str, Any]:
    """What a step costs, from the times told after each: (of the processor, of the clock, of the processor by part)."""
    first, last = told[WARM_UP], told[-1]
    count = len(told) - 1 - WARM_UP
    parts = {name: (last[2][name] - first[2].get(name, 0.0)) / count for name in last[2]}
    cpu = (last[0] - first[0]) / count
    parts["rest of the Trainer"] = cpu - sum(parts.values())
    # Here nearly every picture is new to the tower; of the visits of a standard run, only the first of each picture is.
    spared = parts["tower"] * (1 - NUM_PICTURES / (STEPS_OF_A_RUN * batch))
    parts["tower"] -= spared
    cpu -= spared
    peak = peak_flops()
    return {
        "steps": count,
        "wall_s": (last[1] - first[1]) / count,
        "cpu_s": cpu,
        "run_s": cpu * STEPS_OF_A_RUN,
        "parts_s": parts,
        "gflop": counted / 1e9,
        "peak_gflops": peak / 1e9,
        "peak_frac": counted / cpu / peak,
        "at_peak_s": counted * STEPS_OF_A_RUN / peak,
    }


def show(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"a step, over {found['steps']} steps on one thread")
    for column in ("part", "CPU s", "share"):
        table.add_column(column, justify="left" if column == "part" else "right")
    for name, value in sorted(found["parts_s"].items(), key=lambda item: -item[1]):
        table.add_row(name, f"{value:.4f}", f"{value / found['cpu_s']:.2f}")
    Console().print(
        table,
        f"a step: {found['cpu_s']:.3f} s of the processor, {found['wall_s']:.3f} s of the clock; 1,000 steps: {found['run_s']:.0f} s",
        f"{found['gflop']:.1f} GFLOP a step; a plain matrix product reaches "
        f"{found['peak_gflops']:.0f} GFLOP/s, so {found['peak_frac']:.2f} of the peak; 1,000 steps at the peak: {found['at_peak_s']:.0f} s",
        sep="\n",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--fp32", action="store_true", help="without autocast to bf16")
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    if given.steps < WARM_UP + 2:
        parser.error(f"--steps is {given.steps}; give {WARM_UP + 2} or more")
    found = measure(given.steps, "fp32" if given.fp32 else "bf16")
    print(json.dumps(found, indent=1)) if given.json else show(found)


if __name__ == "__main__":
    main()
