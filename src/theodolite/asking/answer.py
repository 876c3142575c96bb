"""What asking a model gives: probabilities over whole choices. The contract that every asker keeps."""

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
    """One question about one picture (a position in the pool), with the choices that count as answers."""

    picture: int
    question: str
    choices: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Answer:
    """Probability of each choice among the choices, summing to 1, and the mass that the model puts outside all of them, 0 to 1.

    `probabilities` is None where what was said is none of the choices, or no one of them: unanswered, which is never wrong. An answer
    read from text at temperature 0 has probability 1, and `outside` is None, since nobody knows it.
    """

    probabilities: Float[np.ndarray, " choice"] | None
    outside: float | None

    @property
    def chosen(self) -> int | None:
        """Position of the most probable choice, the first of equals; None where unanswered."""
        return None if self.probabilities is None else int(self.probabilities.argmax())


UNANSWERED = Answer(None, None)


@runtime_checkable
class Asker(Protocol):
    """Anything that answers questions about pictures."""

    def ask(self, pictures: UInt8[np.ndarray, "picture height width 3"], asks: Sequence[Question], progress: Progress) -> list[Answer]:
        """Answers in the order of `asks`; `progress` counts those that are answered."""
        ...


def answer_from_scores(scores: Float[np.ndarray, " choice"]) -> Answer:
    """An answer from each choice's total log-probability in nats (all its tokens, the end token included).

    Choices are scored whole, so a long one is at no advantage; the rest of the model's mass is reported, not hidden.
    Raises `BadInput` on scores that are not finite.
    """
    if not np.isfinite(scores).all():
        raise BadInput("the model's scores are no finite numbers; ask it in another precision, for example --dtype float32")
    mass = np.exp(np.minimum(scores, 0.0))
    relative = np.exp(scores - scores.max())
    return Answer(relative / relative.sum(), float(np.clip(1.0 - mass.sum(), 0.0, 1.0)))
