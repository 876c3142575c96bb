"""From examples to tensors: several questions about one picture in one sequence, each blind to the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from theodolite.data.examples import ExampleSet
from theodolite.models.frontends import Pixels
from theodolite.models.prompts import Prompter, Turn
from theodolite.models.tree import Segment, lay_out


class Collator:
    """Batches of examples as one sequence a picture: the picture's tokens once, then each question with its answer.

    A question sees the picture and itself, as if it stood there alone, so that training many questions a picture equals
    training each on its own copy of the picture (a test holds the logits together).
    """

    def __init__(self, examples: ExampleSet, prompter: Prompter, pixels: Pixels) -> None:
        self.examples, self.prompter, self.pixels = examples, prompter, pixels

    def __call__(self, indices: Sequence[int]) -> Mapping[str, Tensor]:
        rows = [self._turns(index) for index in indices]
        pictures = self.examples.pictures[np.asarray(indices)]
        return {**pack(rows, self.prompter.processor.tokenizer.pad_token_id), "pixel_values": self.pixels(pictures)}

    def _turns(self, index: int) -> list[Turn]:
        return [self.prompter.turn(item.question, item.answer) for item in self.examples.asked[index]]


def pack(rows: Sequence[Sequence[Turn]], pad: int) -> dict[str, Tensor]:
    """Tensors of packed rows: the inputs of `tree.Layout`, flat indices `predicts` of the positions that predict an answer
    token, and those tokens as `labels`.

    Raises `ValueError` if the questions of a row do not share their prefix, or if a row has none.
    """
    if any(not turns or len({turn.prefix for turn in turns}) != 1 for turns in rows):
        raise ValueError("each row needs one question or more, all with the same tokens up to the end of the picture")
    # The last answer token is only ever predicted, so it needs no place of its own.
    layout = lay_out([[Segment(turns[0].prefix), *(Segment(turn.question + turn.answer[:-1], 0) for turn in turns)] for turns in rows], pad)
    width = layout.input_ids.shape[1]
    predicts: list[int] = []
    labels: list[int] = []
    for row, turns in enumerate(rows):
        for start, turn in zip(layout.starts[row][1:], turns, strict=True):
            first = row * width + start + len(turn.question) - 1
            predicts.extend(range(first, first + len(turn.answer)))
            labels.extend(turn.answer)
    return {**layout.inputs(), "predicts": torch.tensor(predicts), "labels": torch.tensor(labels)}
