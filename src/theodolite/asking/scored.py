"""Scores of a batch on the model's device, and answers from them: read while the device works on the next batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from theodolite.asking.answer import Answer, answer_from_scores
from theodolite.asking.rows import Batch
from theodolite.records.asking import ChoiceScore

Name = TypeVar("Name")


@dataclass(frozen=True, eq=False)
class Scored:
    """Scores of every whole choice of a batch, and the last hidden state at each question's answer position.

    `totals` are log-probabilities in nats, summed over all tokens with the end token; `choices` are the scores that decide: the totals, or
    the totals per token.
    """

    choices: Float[Tensor, " choice"]
    totals: Float[Tensor, " choice"]
    answer: Float[Tensor, "question dim"]


class TotalsToHost:
    """The totals of a batch on their way to the host: the copy is queued behind the batch, and `read` waits for nothing behind it."""

    def __init__(self, batch: Batch, scored: Scored) -> None:
        self.batch, self._event = batch, None
        totals = scored.totals.double() if scored.totals.device.type != "mps" else scored.totals
        if totals.device.type == "cuda":
            self._totals = totals.to("cpu", non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record(torch.cuda.current_stream(totals.device))
        else:
            self._totals = totals

    def read(self, score: ChoiceScore) -> dict[int, Answer]:
        """Answers of the batch by number of the question. Raises `BadInput` on non-finite scores."""
        if self._event is not None:
            self._event.synchronize()
        cuts = np.cumsum(self.batch.num_choices)[:-1]
        totals, num_tokens = self._totals.double().cpu().numpy(), self.batch.num_tokens.numpy()
        parts = zip(self.batch.questions, np.split(totals, cuts), np.split(num_tokens, cuts), strict=True)
        return {number: answer_from_scores(own, tokens, score) for number, own, tokens in parts}


def answers_of(passes: Iterator[tuple[Name, Batch, Scored]], score: ChoiceScore) -> Iterator[tuple[Name, dict[int, Answer]]]:
    """Named batches' answers by number of the question. Those of a batch are read once the next batch is queued on the device."""
    waiting: tuple[Name, TotalsToHost] | None = None
    for name, batch, scored in passes:
        following = (name, TotalsToHost(batch, scored))
        if waiting is not None:
            yield waiting[0], waiting[1].read(score)
        waiting = following
    if waiting is not None:
        yield waiting[0], waiting[1].read(score)
