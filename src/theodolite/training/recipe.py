"""A run is a function that returns its whole typed configuration; variants change a field or two of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from theodolite.models.build import DecoderSize
from theodolite.models.frontends import FrontEnd


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what training does to a model, data apart.

    One question batch is `batch` pictures with all their questions. The schedule warms up linearly and decays to 0 along a cosine.
    """

    name: str
    steps: int
    batch: int = 64
    learning_rate: float = 1e-3
    warmup_frac: float = 0.1
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    precision: Literal["bf16", "fp32"] = "bf16"
    # For sequences of 82 tokens on a CPU, eager takes half the time of sdpa, whose backward pass in bf16 is slow there.
    attention: Literal["eager", "sdpa"] = "eager"
    decoder: DecoderSize = field(default_factory=DecoderSize)
    frontend: FrontEnd = "conv"


def tour_shapes() -> Recipe:
    """The tour of the shapes world: 300 steps of 64 pictures, two questions each."""
    return Recipe(name="tour-shapes", steps=300)


def tour_easy_vqa() -> Recipe:
    """The tour of easy-VQA with policies: few pictures survive the selection, so they are seen often."""
    return Recipe(name="tour-easy-vqa", steps=300)


def easy_vqa_official() -> Recipe:
    """All official easy-VQA training questions."""
    return Recipe(name="easy-vqa-official", steps=500)
