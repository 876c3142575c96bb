"""Batches of a world's pictures of one size; the questions about a picture share its sequence and do not attend to each other."""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt
from typing import Any

import numpy as np

from theodolite.data.examples import ExampleSet
from theodolite.data.packing import pack
from theodolite.data.samples import Sample, join_conversations
from theodolite.models.construction.frontends import Pixels
from theodolite.models.conversation_tokenizer import QuestionTokenizer
from theodolite.models.exported.grids import token_grid
from theodolite.models.pass_inputs import BatchPlan
from theodolite.records.errors import BadInput


class Collator:
    """Batches of examples, one row per picture: the picture's tokens once, then each question with its answer as a branch.

    A question attends to the picture and itself, so training several questions per picture equals training each on its own copy
    of the picture. The batch equals that of `packing.PackingCollator`, but image processing is vectorised over pictures, hence faster.
    Raises `BadInput` if a picture's tokens do not form a square.
    """

    def __init__(self, examples: ExampleSet, tokenizer: QuestionTokenizer, pixels: Pixels, seed: int = 0) -> None:
        self.examples, self.tokenizer, self.pixels, self.seed = examples, tokenizer, pixels, seed
        side = isqrt(tokenizer.num_picture_tokens)
        if side**2 != tokenizer.num_picture_tokens:
            raise BadInput(f"a picture has {tokenizer.num_picture_tokens} tokens, which is no square; use a PackingCollator")
        self.grid = token_grid(side, side)

    def __call__(self, draws: Sequence[int | tuple[int, int]]) -> dict[str, Any]:
        """The batch of the examples at (epoch, index); a plain index means epoch 0."""
        pairs = [(0, draw) if isinstance(draw, int) else draw for draw in draws]
        rows = [[self._sample(index)] for _, index in pairs]
        processor = self.tokenizer.processor
        batch = pack(rows, [[epoch] for epoch, _ in pairs], processor.tokenizer.pad_token_id, processor.image_token_id, self.seed)
        pixels = self.pixels(self.examples.pictures[np.array([index for _, index in pairs])])
        return {**batch, "pixel_values": pixels, "plan": BatchPlan.of(batch)}

    def _sample(self, index: int) -> Sample:
        questions = [self.tokenizer.tokenize(item.question, item.answer) for item in self.examples.questions[index]]
        if not questions:
            raise ValueError(f"example {index} has no questions; each picture needs one or more")
        conversations = [question.as_conversation() for question in questions]
        return join_conversations(self.examples.key(index), conversations, self.tokenizer.processor.image_token_id, (self.grid,))
