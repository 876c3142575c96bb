"""From examples to tensors: several questions about one picture in one sequence, each blind to the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from theodolite.data.examples import ExampleSet
from theodolite.models.frontends import Pixels
from theodolite.models.prompts import Prompter, Turn


class Collator:
    """Batches of examples as one sequence a picture: the picture's tokens once, then each question with its answer.

    A question sees the picture and itself. Its positions go on from the picture's end, as if it stood there alone, so that
    training many questions a picture equals training each on its own copy of the picture (a test holds the logits together).
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
    """Tensors of packed rows: `input_ids` and `position_ids` (row, token), the additive `attention_mask` (row, 1, token, token),
    flat indices `predicts` of the positions that predict an answer token, and those tokens as `labels`.

    Raises `ValueError` if the questions of a row do not share their prefix, or if a row has none.
    """
    if any(not turns or len({turn.prefix for turn in turns}) != 1 for turns in rows):
        raise ValueError("each row needs one question or more, all with the same tokens up to the end of the picture")
    # The last answer token is only ever predicted, so it needs no place of its own.
    lengths = [len(turns[0].prefix) + sum(len(turn.question) + len(turn.answer) - 1 for turn in turns) for turns in rows]
    width = max(lengths)
    input_ids = torch.full((len(rows), width), pad)
    position_ids = torch.zeros((len(rows), width), dtype=torch.long)
    segment = torch.full((len(rows), width), -1)
    predicts: list[int] = []
    labels: list[int] = []
    for row, turns in enumerate(rows):
        at = _lay(turns[0].prefix, row, 0, 0, 0, input_ids, position_ids, segment)
        start = at
        for number, turn in enumerate(turns, start=1):
            first = at + len(turn.question) - 1
            predicts.extend(row * width + first + step for step in range(len(turn.answer)))
            labels.extend(turn.answer)
            tokens = turn.question + turn.answer[:-1]
            at = _lay(tokens, row, at, start, number, input_ids, position_ids, segment)
    return {
        "input_ids": input_ids,
        "position_ids": position_ids,
        "attention_mask": _additive(_visible(segment)),
        "predicts": torch.tensor(predicts),
        "labels": torch.tensor(labels),
    }


def _lay(
    tokens: Sequence[int],
    row: int,
    at: int,
    position: int,
    number: int,
    ids: Tensor,
    positions: Tensor,
    segment: Tensor,
) -> int:
    """Writes tokens of one segment at `at`, with positions from `position` on; returns where the next may start."""
    end = at + len(tokens)
    ids[row, at:end] = torch.tensor(tokens)
    positions[row, at:end] = torch.arange(position, position + len(tokens))
    segment[row, at:end] = number
    return end


def _visible(segment: Tensor) -> Bool[Tensor, "row query key"]:
    """Who sees whom: causal, inside the own segment and back into the shared one (0); padding (-1) sees only itself."""
    query, key = segment[:, :, None], segment[:, None, :]
    causal = torch.ones(segment.shape[1], segment.shape[1], dtype=torch.bool).tril()
    itself = torch.eye(segment.shape[1], dtype=torch.bool)
    return (causal & (query >= 0) & (key >= 0) & ((key == query) | (key == 0))) | itself


def _additive(visible: Bool[Tensor, "row query key"]) -> Float[Tensor, "row 1 query key"]:
    """0 where a token is seen and the lowest float elsewhere: the one form that eager and sdpa read alike."""
    mask = torch.zeros(visible.shape, dtype=torch.float32)
    return mask.masked_fill(~visible, torch.finfo(torch.float32).min)[:, None]


def move(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """The batch with its tensors on a device."""
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}
