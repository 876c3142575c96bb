"""A tiny model of a family with its processor and pictures, and questions to ask of it."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from helpers.tiny_families import tiny
from theodolite.asking.answer import Question
from theodolite.asking.model_inputs import survey_size
from theodolite.models.processor import ProcessorParts

ASKS = [
    Question(picture, question, choices)
    for picture in (1, 0)
    for question, choices in (("what colour", ("red", "blue")), ("what shape a b c", ("round", "a b c", "d e")), ("yes no", ("yes", "no")))
]


@cache
def pictures(size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (2, *size, 3), dtype=np.uint8)


def built(name: str) -> tuple[Any, ProcessorParts, np.ndarray]:
    model, image_processor, tokenizer = tiny(name)
    side = min(survey_size(image_processor), 56)
    return model, ProcessorParts(image_processor, tokenizer, model.config), pictures((side, side))
