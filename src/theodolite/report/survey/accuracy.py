"""Accuracy of given pairs by what must be right at once, each share against guessing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from theodolite.records.accuracy import ShareRight
from theodolite.report.survey.arms import SurveyArm
from theodolite.report.words import show_count, show_frac, show_interval

ACCURACY = {
    "item": "one picture under one question",
    "pair": "both pictures of a pair whose true answers differ",
    "question": "all pictures of a scene under one question",
    "picture": "all questions of a scene about one picture",
    "group": "everything of a scene",
}


@dataclass(frozen=True, eq=False)
class AccuracyCell:
    """One kind of accuracy of one model, as fractions of 1."""

    arm: SurveyArm
    share: ShareRight

    @property
    def ends(self) -> tuple[float, float] | None:
        """The interval; the share itself where there is none; None where nothing is answered."""
        rate = self.share.rate
        if rate is None:
            return None
        return (rate.frac, rate.frac) if rate.low is None or rate.high is None else (rate.low, rate.high)

    @property
    def text(self) -> str:
        rate, guessing = self.share.rate, f"guessing {show_frac(self.share.chance_frac)}"
        left_out = f", {show_count(self.share.num_unanswered)} unanswered" if self.share.num_unanswered else ""
        if rate is None:
            return f"nothing answered, {guessing}{left_out}"
        return f"{show_frac(rate.frac)} {show_interval(rate.low, rate.high)} of {show_count(rate.num_pairs)}, {guessing}{left_out}"


@dataclass(frozen=True, eq=False)
class AccuracyRow:
    """One kind of accuracy: its name, what must be right at once, and a cell for each model that has it."""

    name: str
    meaning: str
    cells: tuple[AccuracyCell, ...]


def accuracy_rows(arms: Sequence[SurveyArm]) -> tuple[AccuracyRow, ...]:
    """The kinds of accuracy that some model has, in the order of `ACCURACY`; none where no pairs come from a file."""
    rows = []
    for name, meaning in ACCURACY.items():
        shares = [(arm, getattr(arm.record.accuracy, name)) for arm in arms if arm.record.accuracy is not None]
        cells = tuple(AccuracyCell(arm, share) for arm, share in shares if share is not None)
        if cells:
            rows.append(AccuracyRow(name, meaning, cells))
    return tuple(rows)
