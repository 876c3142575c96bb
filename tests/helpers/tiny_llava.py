"""Small real things for tests: a world with a correlation, a tiny LLaVA, and examples."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from theodolite.data.examples import ExampleSet, draw_questions
from theodolite.models.construction.build import DecoderSize, build_vlm
from theodolite.worlds.shapes.world import Shapes

TINY = DecoderSize(num_layers=2, width=32, num_heads=2, expansion=2)
WORLD = Shapes().correlate("shape", "colour", 0.8)


def tiny_vlm(seed: int = 0, frontend: str = "conv") -> tuple[Any, Any]:
    """A LLaVA of two layers with random decoder and its processor, in fp32."""
    return build_vlm(WORLD.texts, seed, decoder=TINY, frontend=frontend)  # type: ignore[arg-type]


@cache
def examples(policy: str = "shape,row", num_pictures: int = 24, seed: int = 0) -> ExampleSet:
    scenes = WORLD.sample(num_pictures, np.random.default_rng(seed))
    return ExampleSet(WORLD.render(scenes), draw_questions(WORLD, scenes, WORLD.policy(policy), seed))
