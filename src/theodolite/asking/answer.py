"""Questions, answers as probabilities over whole choices, and the protocol of askers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8

from theodolite.records.errors import BadInput
from theodolite.records.progress import Progress


@dataclass(frozen=True)
class Question:
    """One question about one picture (an index into the pool), with its answer choices."""

    picture: int
    question: str
    choices: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Answer:
    """Probability of each choice, renormalised to sum 1, and the model's probability mass outside all choices, 0 to 1.

    `probabilities` is None where the reply matches no choice or several: unanswered, never counted as wrong. An answer parsed from text
    at temperature 0 has probability 1, and `outside` None: the mass is unknown.
    """

    probabilities: Float[np.ndarray, " choice"] | None
    outside: float | None

    @property
    def chosen(self) -> int | None:
        """Index of the most probable choice, the first of equals; None where unanswered."""
        return None if self.probabilities is None else int(self.probabilities.argmax())


UNANSWERED = Answer(None, None)


@runtime_checkable
class Asker(Protocol):
    """A model, local or remote, that answers questions about pictures."""

    def ask(self, pictures: UInt8[np.ndarray, "picture height width 3"], questions: Sequence[Question], progress: Progress) -> list[Answer]:
        """Answers in the order of `questions`; `progress` counts answered questions."""
        ...


def answer_from_scores(scores: Float[np.ndarray, " choice"]) -> Answer:
    """An answer from each choice's log-probability in nats, summed over all its tokens and the end token.

    Raises `BadInput` on non-finite scores.
    """
    if not np.isfinite(scores).all():
        raise BadInput("the model's scores are non-finite; use another precision, for example --dtype float32")
    mass = np.exp(np.minimum(scores, 0.0))
    relative = np.exp(scores - scores.max())
    return Answer(relative / relative.sum(), float(np.clip(1.0 - mass.sum(), 0.0, 1.0)))
