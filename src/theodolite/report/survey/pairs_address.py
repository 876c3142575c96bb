"""Addresses of the list of pairs in a survey page: which pairs it shows, as the part of the page's address after #."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args
from urllib.parse import quote

Outcome = Literal["moved-right", "moved-wrong", "missed", "leaked", "steady-right", "steady-wrong", "noise", "unanswered"]
Sort = Literal["worst", "change", "scene", "row"]
PairKind = Literal["intervention", "nuisance", "perturbation", "paraphrase"]

OUTCOME_WORD: Mapping[Outcome, str] = {
    "moved-right": "moved and right",
    "moved-wrong": "moved but wrong",
    "missed": "missed",
    "leaked": "leaked",
    "steady-right": "steady right",
    "steady-wrong": "steady wrong",
    "noise": "moved by noise",
    "unanswered": "unanswered",
}
OUTCOME_MEANING: Mapping[Outcome, str] = {
    "moved-right": "the truth changes, the answer moves, and both answers are right",
    "moved-wrong": "the truth changes and the answer moves, but not both answers are right",
    "missed": "the truth changes and the answer does not move",
    "leaked": "the truth does not change and the answer moves",
    "steady-right": "neither the truth nor the answer moves, and the answer is right",
    "steady-wrong": "neither the truth nor the answer moves, and the answer is wrong",
    "noise": "no factor changes and the answer moves",
    "unanswered": "an answer is none of the choices",
}
TRUTH_MOVES: tuple[Outcome, ...] = ("moved-right", "moved-wrong", "missed")
"""Outcomes of answered pairs whose truth changes: the pairs that a read is measured on."""
TRUTH_STAYS: tuple[Outcome, ...] = ("leaked", "steady-right", "steady-wrong")
"""Outcomes of answered pairs whose truth does not change: the pairs that a leak is measured on."""
ANSWER_MOVES: tuple[Outcome, ...] = ("moved-right", "moved-wrong")
"""Outcomes that a read counts."""


def pairs_address(
    *,
    factor: str | None = None,
    question: str | None = None,
    outcome: Outcome | Sequence[Outcome] | None = None,
    model: str | None = None,
    text: str | None = None,
    sort: Sort | None = None,
    kind: PairKind | None = None,
    disagree: bool = False,
) -> str:
    """The address "#pairs?factor=...&question=..." of the pairs that meet all of these conditions; "#pairs" without any.

    `question` is a query, such as "shape", or one form of it, such as "shape (open)" (`words.column_of`). Several outcomes are
    alternatives. `model` is a label of the page (`SurveyArm.label`): outcomes are then those of this model, else of any. `kind` is
    that of the rows; None means intervention. `disagree` shows only pairs whose models do not all give the same answers.
    """
    outcomes = [outcome] if isinstance(outcome, str) else list(outcome or ())
    if unknown := [word for word in outcomes if word not in get_args(Outcome)]:
        raise ValueError(f"{unknown[0]!r} is no outcome of a pair; outcomes are {', '.join(get_args(Outcome))}")
    conditions = {
        "factor": factor,
        "question": question,
        "outcome": ",".join(outcomes) or None,
        "model": model,
        "text": text,
        "sort": sort,
        "kind": kind,
        "disagree": "1" if disagree else None,
    }
    parts = [f"{name}={quote(value, safe=',')}" for name, value in conditions.items() if value is not None]
    return "#pairs" + ("?" + "&".join(parts) if parts else "")
