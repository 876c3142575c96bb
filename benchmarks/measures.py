"""Seconds of every measure inside a model, with 729 vision tokens, 27 layers of sites and 200 scenes.

    OMP_NUM_THREADS=2 python benchmarks/measures.py --json
    git worktree add ../before COMMIT && PYTHONPATH=../before/src python benchmarks/measures.py --json    # the same of another commit

The model is a LLaVA on a SigLIP tower of 27 layers with a Llama of 27 layers, random weights, of so small a width that the arithmetic on
its activations is what is timed; `passes_s` are the seconds of its own forward and backward passes. The pictures are those of the shapes
world. Seconds are of the clock and of the processor: only the latter can be compared on a machine that does other work, and there only
with one thread (OMP_NUM_THREADS=1, --threads 1), since threads of BLAS that wait for each other use the processor too (a kernel
regression: 0.4 s with one, 10 s with two). Each measure is written to standard error when it is finished. Commits that lack a measure
are compared by --measures.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl
import torch
from transformers import (
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    SiglipImageProcessorPil,
    SiglipVisionConfig,
)

from theodolite.asking.local import LocalAsker
from theodolite.measurement.internals.context import MeasureContext, questions_of
from theodolite.measurement.internals.registry import CAPTURE, MEASURES, look_inside
from theodolite.measurement.pairs.interventions import first_scenes, interventions_of
from theodolite.measurement.pairs.plan import plan_world
from theodolite.measurement.survey.answers import answer_plan
from theodolite.models.construction.build import CHAT_TEMPLATE, word_tokenizer
from theodolite.records.progress import Progress, silent
from theodolite.worlds.shapes.world import Shapes
from theodolite.worlds.world import Pairs

PATCH = 14


@dataclass
class Clock:
    """Seconds of the clock and of the processor by part, and those that the model's own passes took within each."""

    wall: dict[str, float] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)
    passes: dict[str, float] = field(default_factory=dict)
    part: str = ""

    @contextmanager
    def step(self, name: str, cost: str) -> Iterator[Progress]:
        """Times one part of `look_inside`."""
        self.part = name
        wall, cpu = time.perf_counter(), time.process_time()
        yield silent
        self.wall[name], self.cpu[name] = time.perf_counter() - wall, time.process_time() - cpu
        self.passes.setdefault(name, 0.0)
        line = {"part": name, "wall_s": round(self.wall[name], 2), "cpu_s": round(self.cpu[name], 2)}
        print(json.dumps({**line, "passes_cpu_s": round(self.passes[name], 2)}), file=sys.stderr, flush=True)

    def counts(self, owner: Any, method: str) -> None:
        """Counts every call of a method as a pass of the model (this process does nothing but measure)."""
        stock: Callable[..., Any] = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            before = time.process_time()
            try:
                return stock(*args, **kwargs)
            finally:
                self.passes[self.part] = self.passes.get(self.part, 0.0) + time.process_time() - before

        setattr(owner, method, timed)


class FewFactors(Shapes):
    """The shapes world with interventions on its first factors alone."""

    def __init__(self, num_factors: int) -> None:
        super().__init__()
        self.changed = (*self.space.names[:num_factors], "")

    def pairs(self, num_scenes: int, rng: np.random.Generator) -> Pairs:
        pairs = super().pairs(num_scenes, rng)
        keep = np.isin(np.array(pairs.factor), self.changed)
        used = np.unique(np.concatenate([pairs.before[keep], pairs.after[keep]]))
        before, after = (np.searchsorted(used, side[keep]) for side in (pairs.before, pairs.after))
        factor = tuple(factor for factor in pairs.factor if factor in self.changed)
        return Pairs(pairs.kind, pairs.pool.take(used), pairs.scene_id[keep], factor, before, after)


def narrow_vlm(options: argparse.Namespace) -> tuple[Any, Any]:
    """A LLaVA of real classes with random weights: `grid` x `grid` vision tokens, narrow, with its processor."""
    world, side = Shapes(), options.grid * PATCH
    tokenizer = word_tokenizer(world.texts)
    common = {"hidden_size": options.width, "intermediate_size": 2 * options.width, "num_attention_heads": 1}
    vision = SiglipVisionConfig(image_size=side, patch_size=PATCH, num_hidden_layers=options.vision_layers, vision_use_head=False, **common)
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        num_hidden_layers=options.layers,
        num_key_value_heads=1,
        max_position_embeddings=2048,
        initializer_range=0.2,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **common,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=options.grid**2,
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
    )
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config).eval()
    processor = LlavaProcessor(
        SiglipImageProcessorPil(size={"height": side, "width": side}, image_mean=[0.5] * 3, image_std=[0.5] * 3),
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="full",
        image_token="<image>",
        chat_template=CHAT_TEMPLATE,
    )
    return model, processor


def context_of(options: argparse.Namespace) -> MeasureContext:
    """A survey's answers about the interventions on the first factors, without those of training scenes, which no measure here reads."""
    world = FewFactors(options.factors)
    model, processor = narrow_vlm(options)
    asker = LocalAsker(model, processor)
    plan = plan_world(world, world.policy(options.policy), options.scenes, 0, options.grid * PATCH)
    plan = replace(plan, rows=plan.rows.filter(pl.col("kind") != "training"))
    rows = answer_plan(plan, asker)
    plan, rows = first_scenes(plan, rows, options.scenes)
    values = {factor.name: factor.values for factor in world.space.factors}
    groups = {factor.name: factor.groups for factor in world.space.factors if factor.groups}
    return MeasureContext(model, asker, plan, rows, interventions_of(rows, values), groups, questions_of(rows, world), 0.95, 0)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(options.threads)
    context, clock = context_of(options), Clock()
    names = options.measures.split(",") if options.measures else list(MEASURES)
    for method in ("encode_pictures", "score"):
        clock.counts(LocalAsker, method)
    clock.counts(torch.autograd, "grad")
    inside, _ = look_inside(context, names, clock.step)
    if options.records:
        with open(options.records, "w") as file:
            file.write(inside.model_dump_json())
    total = sum(clock.cpu.values())
    return {
        "wall_s": {name: round(value, 2) for name, value in clock.wall.items()},
        "cpu_s": {name: round(value, 2) for name, value in clock.cpu.items()},
        "passes_cpu_s": {name: round(value, 2) for name, value in clock.passes.items()},
        "total_wall_s": round(sum(clock.wall.values()), 2),
        "total_cpu_s": round(total, 2),
        "arithmetic_cpu_s": round(total - sum(clock.passes.values()), 2),
        "largest_frac": round(max(clock.cpu.values()) / max(total, 1e-9), 3),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3),
        "num_pictures": len(context.pictures),
        "num_sites": len(context.activations.sites) if CAPTURE in clock.wall else None,
        "options": {name: value for name, value in vars(options).items() if name not in ("json", "records")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON only")
    parser.add_argument("--grid", type=int, default=27, help="vision tokens a side")
    parser.add_argument("--layers", type=int, default=27, help="of the language model: its sites")
    parser.add_argument("--vision-layers", type=int, default=27)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--factors", type=int, default=3, help="that interventions change, of the ten of the world")
    parser.add_argument("--policy", default="shape,colour,row", help="the questions")
    parser.add_argument("--measures", help="a list; default all")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--records", help="file for the records, to compare two commits")
    options = parser.parse_args()
    results = measure(options)
    if options.json:
        print(json.dumps(results, indent=1))
        return
    for name, seconds in results["cpu_s"].items():
        print(f"{name:16} {seconds:9.1f} s of the processor, {results['passes_cpu_s'][name]:.1f} of them the model's passes")
    print(f"in all           {results['total_cpu_s']:9.1f} s")


if __name__ == "__main__":
    main()
