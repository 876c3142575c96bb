"""One failing pair for the head of the survey page, with both answers and their probabilities."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from theodolite.records.survey import Example
from theodolite.report.survey.arms import SurveyArm
from theodolite.report.survey.examples import ArmAnswers, Pair, example_pairs
from theodolite.report.survey.findings import Finding
from theodolite.report.survey.outcomes import outcome_of_row
from theodolite.report.survey.pair_columns import has_rows
from theodolite.report.words import show_count


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
    """A pair whose answer leaked or missed; `choices` is empty where rows were not stored; `picked` says from how many it was chosen."""

    pair: Pair
    reply: ArmAnswers
    choices: tuple[Choice, ...]
    scene_name: str | None
    picked: str

    @property
    def scene(self) -> str:
        """The scene as its pairs name it."""
        return self.scene_name or str(self.reply.example.scene_id)


def failing_pair(arms: Sequence[SurveyArm], findings: Sequence[Finding]) -> FailingPair | None:
    """The failing example that best shows the first finding that some example shows, then the most severe; None where none failed.

    Where a row whose pictures are stored shows the leading finding more severely, that row.
    """
    failing = [(pair, reply) for pair in example_pairs(arms) for reply in pair.replies if reply.outcome in ("leaked", "missed")]
    rows = [_row(reply) for _, reply in failing]

    def order(number: int) -> tuple[int, float]:
        _, reply = failing[number]
        places = [place for place, finding in enumerate(findings) if _shows(reply, rows[number], finding)]
        return (min(places, default=len(findings)), -_severity(reply, rows[number]))

    best = min(range(len(failing)), key=order, default=None)
    leading = next((finding for finding in findings if finding.is_failure), None)
    if leading is not None:
        shows_leading = best is not None and _shows(failing[best][1], rows[best], leading)
        least = _severity(failing[best][1], rows[best]) if best is not None and shows_leading else -1.0
        if (worse := _worse_row(arms, leading, least)) is not None:
            return worse
    if best is None:
        return None
    pair, reply = failing[best]
    return FailingPair(
        pair, reply, _choices(rows[best]), _scene_name(rows[best]), f"picked as such among {_count(len(failing), 'failing example')}"
    )


def _worse_row(arms: Sequence[SurveyArm], finding: Finding, least: float) -> FailingPair | None:
    """The most severe row that shows a finding, of those with both pictures, if it is more severe than `least`, 0 to 1."""
    arm = next(arm for arm in arms if arm.label == finding.label)
    if not has_rows(arm) or not arm.stored.thumbnails or arm.stored.rows is None:
        return None
    outcome = "missed" if finding.query is None else "leaked"
    shown = arm.stored.rows.filter(
        pl.col("kind") == "intervention",
        pl.col("factor").is_in(finding.factors),
        pl.all_horizontal(pl.col(name).is_not_null() for name in ("variation", "value_before", "value_after")),
        outcome_of_row() == outcome,
        pl.lit(True) if finding.query is None else pl.col("query") == finding.query,
        *(pl.col(f"picture_{side}").is_in(list(arm.stored.thumbnails)) for side in ("before", "after")),
    )
    severity = pl.col("variation") if outcome == "leaked" else 1 - pl.col("variation")
    worst = next(shown.sort(severity, descending=True, maintain_order=True).iter_rows(named=True), None)
    if worst is None or (worst["variation"] if outcome == "leaked" else 1 - worst["variation"]) <= least:
        return None
    same: dict[str, Any] = {name: worst[name] for name in Example.model_fields if name in worst and not name.startswith("picture")}
    example = Example(
        **same, scene_id=worst["scene"], question=worst["question_before"], picture_before="thumbnail", picture_after="thumbnail"
    )
    before, after = (
        f"data:image/webp;base64,{b64encode(arm.stored.thumbnails[worst[f'picture_{side}']]).decode()}" for side in ("before", "after")
    )
    reply = ArmAnswers(arm, example)
    picked = f"the most severe of {_count(shown.height, 'such pair')} with stored pictures"
    return FailingPair(Pair(example, before, after, (reply,)), reply, _choices(worst), _scene_name(worst), picked)


def _count(number: int, noun: str) -> str:
    return f"{show_count(number)} {noun}{'s' if number != 1 else ''}"


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


def _scene_name(row: dict[str, Any] | None) -> str | None:
    return None if row is None else row.get("scene_name")


def _choices(row: dict[str, Any] | None) -> tuple[Choice, ...]:
    if row is None or row["probabilities_before"] is None or row["probabilities_after"] is None:
        return ()
    sides = zip(row["choices"], row["probabilities_before"], row["probabilities_after"], strict=True)
    return tuple(Choice(name, before, after, name == row["truth_before"], name == row["truth_after"]) for name, before, after in sides)
