"""One failing pair for the head of the survey page, with both answers and their probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from theodolite.report.survey.examples import ArmAnswers, Pair
from theodolite.report.survey.findings import Finding


@dataclass(frozen=True, eq=False)
class Choice:
    """One choice: its probabilities before and after, 0 to 1, and on which sides it is the true answer."""

    name: str
    before: float
    after: float
    is_true_before: bool
    is_true_after: bool


@dataclass(frozen=True, eq=False)
class FailingPair:
    """A pair whose answer leaked or missed; `choices` is empty where rows were not stored; `num_failing` of the examples failed."""

    pair: Pair
    reply: ArmAnswers
    choices: tuple[Choice, ...]
    num_failing: int


def failing_pair(pairs: Sequence[Pair], findings: Sequence[Finding]) -> FailingPair | None:
    """The failing example that best shows the first finding that some example shows, then the most severe; None where none failed."""
    failing = [(pair, reply) for pair in pairs for reply in pair.replies if reply.outcome in ("leaked", "missed")]
    if not failing:
        return None
    rows = [_row(reply) for _, reply in failing]

    def order(number: int) -> tuple[int, float]:
        _, reply = failing[number]
        places = [place for place, finding in enumerate(findings) if _shows(reply, rows[number], finding)]
        return (min(places, default=len(findings)), -_severity(reply, rows[number]))

    best = min(range(len(failing)), key=order)
    pair, reply = failing[best]
    return FailingPair(pair, reply, _choices(rows[best]), len(failing))


def _shows(reply: ArmAnswers, row: dict[str, Any] | None, finding: Finding) -> bool:
    if finding.label != reply.arm.label or reply.example.factor not in finding.factors:
        return False
    if finding.query is not None:
        return reply.outcome == "leaked" and (row is None or row["query"] == finding.query)
    return finding.verdict == "blind" and reply.outcome == "missed"


def _row(reply: ArmAnswers) -> dict[str, Any] | None:
    """The answered row of an example."""
    rows, example = reply.arm.stored.rows, reply.example
    if rows is None or not {"kind", "scene", "probabilities_before", "variation"} <= set(rows.columns):
        return None
    wanted = {
        "kind": "intervention",
        "scene": example.scene_id,
        "factor": example.factor,
        "value_after": example.value_after,
        "question_before": example.question,
        "truth_before": example.truth_before,
        "answer_before": example.answer_before,
        "answer_after": example.answer_after,
    }
    same = rows.filter(pl.all_horizontal(pl.col(name) == value for name, value in wanted.items()))
    return same.row(0, named=True) if same.height else None


def _severity(reply: ArmAnswers, row: dict[str, Any] | None) -> float:
    if row is None or row["variation"] is None:
        return 0.0
    return float(row["variation"] if reply.outcome == "leaked" else 1 - row["variation"])


def _choices(row: dict[str, Any] | None) -> tuple[Choice, ...]:
    if row is None or row["probabilities_before"] is None or row["probabilities_after"] is None:
        return ()
    sides = zip(row["choices"], row["probabilities_before"], row["probabilities_after"], strict=True)
    return tuple(Choice(name, before, after, name == row["truth_before"], name == row["truth_after"]) for name, before, after in sides)
