"""Batches of a world's pictures, all of one size: several questions about each in one sequence, each blind to the others."""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt

import numpy as np
from torch import Tensor

from theodolite.data.examples import ExampleSet
from theodolite.data.packing import pack
from theodolite.data.samples import Sample, join_conversations
from theodolite.data.tokenized import TokenizedConversation
from theodolite.models.construction.frontends import Pixels
from theodolite.models.exported.grids import token_grid
from theodolite.models.prompts import Prompter, TokenizedQuestion
from theodolite.objectives.language import IGNORE
from theodolite.records.errors import BadInput


class Collator:
    """Batches of examples as one row a picture: the picture's tokens once, then each question with its answer as a branch.

    A question sees the picture and itself, as if it stood there alone, so that training many questions a picture equals
    training each on its own copy of the picture (a test holds the logits together). The batch is that of `packing.PackingCollator`, made
    faster: every picture goes through the image processor's arithmetic at once. Raises `BadInput` where pictures are no square of tokens.
    """

    def __init__(self, examples: ExampleSet, prompter: Prompter, pixels: Pixels, seed: int = 0) -> None:
        self.examples, self.prompter, self.pixels, self.seed = examples, prompter, pixels, seed
        side = isqrt(prompter.num_picture_tokens)
        if side**2 != prompter.num_picture_tokens:
            raise BadInput(f"a picture has {prompter.num_picture_tokens} tokens, which is no square; such models need a PackingCollator")
        self.grid = token_grid(side, side)

    def __call__(self, draws: Sequence[int | tuple[int, int]]) -> dict[str, Tensor]:
        """The batch of the examples at (epoch, index); an index alone is of epoch 0."""
        pairs = [(0, draw) if isinstance(draw, int) else draw for draw in draws]
        rows = [[self._sample(index)] for _, index in pairs]
        processor = self.prompter.processor
        batch = pack(rows, [[epoch] for epoch, _ in pairs], processor.tokenizer.pad_token_id, processor.image_token_id, self.seed)
        return {**batch, "pixel_values": self.pixels(self.examples.pictures[np.array([index for _, index in pairs])])}

    def _sample(self, index: int) -> Sample:
        turns = [self.prompter.turn(item.question, item.answer) for item in self.examples.asked[index]]
        if not turns:
            raise ValueError(f"example {index} has no questions; each picture needs one or more")
        return join_conversations(
            self.examples.key(index), [_transcript(turn) for turn in turns], self.prompter.processor.image_token_id, (self.grid,)
        )


def _transcript(turn: TokenizedQuestion) -> TokenizedConversation:
    # The last answer token is only ever predicted, so it needs no place of its own.
    silent = len(turn.prefix) + len(turn.question) - 1
    return TokenizedConversation(turn.prefix + turn.question + turn.answer[:-1], (IGNORE,) * silent + turn.answer)
