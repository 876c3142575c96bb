"""Examples of the tiny world with partners, their collator and a batch."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from helpers.tiny_llava import WORLD
from theodolite.data.collate import Collator
from theodolite.data.examples import ExampleSet, draw_questions, question_rng
from theodolite.data.partners import draw_partners
from theodolite.models.construction.frontends import Pixels
from theodolite.models.conversation_tokenizer import QuestionTokenizer

# Questions about half of the factors, so that many a partner moves a truth.
ASKED = "shape,colour,size,row,texture"


@cache
def paired_examples(frac: float = 1.0, num_pictures: int = 24, policy: str = ASKED) -> ExampleSet:
    scenes, asked = WORLD.sample(num_pictures, np.random.default_rng(0)), WORLD.policy(policy)
    queries = asked.draw(scenes, WORLD.prior, question_rng(0))
    return ExampleSet(
        WORLD.render(scenes), draw_questions(WORLD, scenes, asked, 0), partners=draw_partners(WORLD, scenes, queries, 0, frac)
    )


def paired_collator(processor: Any, examples: ExampleSet | None = None) -> Collator:
    return Collator(examples or paired_examples(), QuestionTokenizer(processor, 64), Pixels(processor.image_processor))
