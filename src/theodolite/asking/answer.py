"""Questions, answers as probabilities over whole choices, and the protocol of askers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from theodolite.asking.pictures import Pictures
from theodolite.records.asking import ChoiceScore
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

    `probabilities` is None where the reply matches no choice or several, or where next to nothing of the probability is of the choices:
    unanswered, never counted as wrong. An answer parsed from text at temperature 0 has probability 1, and `outside` None: the mass is
    unknown. `total_logprob` is each choice's log-probability in nats, summed over its `num_tokens` tokens, the end token among them; None
    where they are unknown.
    """

    probabilities: Float[np.ndarray, " choice"] | None
    outside: float | None
    total_logprob: Float[np.ndarray, " choice"] | None = None
    num_tokens: Int[np.ndarray, " choice"] | None = None

    @property
    def chosen(self) -> int | None:
        """Index of the most probable choice; None where unanswered, or where several choices are equally the most probable."""
        if self.probabilities is None:
            return None
        best = np.flatnonzero(self.probabilities == self.probabilities.max())
        return int(best[0]) if len(best) == 1 else None  # the first of equals would favour whatever is listed first


UNANSWERED = Answer(None, None)


@runtime_checkable
class Asker(Protocol):
    """A model, local or remote, that answers questions about pictures."""

    def ask(self, pictures: Pictures, questions: Sequence[Question], progress: Progress) -> list[Answer]:
        """Answers in the order of `questions`; `progress` counts answered questions."""
        ...


def answer_from_scores(
    totals: Float[np.ndarray, " choice"], num_tokens: Int[np.ndarray, " choice"] | None = None, score: ChoiceScore = "total"
) -> Answer:
    """An answer from each choice's log-probability in nats, summed over its `num_tokens` tokens, the end token among them.

    `score` decides: the probabilities are the softmax of the totals, or of the totals divided by the numbers of tokens, which does not
    favour short choices. The mass outside is that of the totals in both. Raises `BadInput` on non-finite scores.
    """
    if not np.isfinite(totals).all():
        raise BadInput("the model's scores are non-finite; use another precision, for example --dtype float32")
    scores = totals
    if score == "per_token":
        if num_tokens is None:
            raise ValueError("a score per token needs the number of tokens of each choice")
        scores = totals / num_tokens
    mass = np.exp(np.minimum(totals, 0.0))
    relative = np.exp(scores - scores.max())
    return Answer(relative / relative.sum(), float(np.clip(1.0 - mass.sum(), 0.0, 1.0)), totals, num_tokens)
