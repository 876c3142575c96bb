"""The verdict board of a survey page: factors by models, each with its verdict and the intervals of its read and its leak."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from theodolite.records.part import Rate
from theodolite.records.survey import Evidence, Verdict
from theodolite.report.survey.arms import SurveyArm
from theodolite.report.survey.findings import RANK, leak_address, read_address, verdict_anchor
from theodolite.report.survey.words import show_scenes_more
from theodolite.report.words import show_frac, show_interval

# Shapes of their own, so that colour alone distinguishes no verdict.
ICON: dict[Verdict, str] = {
    "identified": "✓",
    "entangled": "◐",
    "blind": "○",
    "shadow": "◆",
    "inert": "·",
    "undecided": "?",
    "cannot_be_asked": "∅",
    "not_measured": "–",
}


@dataclass(frozen=True)
class IntervalBar:
    """A rate with its interval on a scale from 0 to 1, the threshold that it is compared with, and a leak's noise; `pairs` is the
    address of the pairs that leaked, or that the read missed."""

    kind: Literal["read", "leak"]
    rate: Rate
    threshold: float
    noise: float | None
    text: str
    pairs: str

    @property
    def ends(self) -> tuple[float, float]:
        """The interval; the rate itself where there is none."""
        low, high = self.rate.low, self.rate.high
        return (self.rate.frac, self.rate.frac) if low is None or high is None else (low, high)


@dataclass(frozen=True, eq=False)
class BoardCell:
    """The verdict on one factor of one model; `note` says why it is not decided or not measured, and is empty otherwise."""

    arm: SurveyArm
    verdict: Verdict
    bars: tuple[IntervalBar, ...]
    note: str
    anchor: str


@dataclass(frozen=True, eq=False)
class BoardRow:
    """One factor: a cell for each model, None where it was not surveyed."""

    factor: str
    cells: tuple[BoardCell | None, ...]

    @property
    def worst(self) -> tuple[int, float]:
        """The rank of the worst verdict, then the largest leak, negative: worst first in ascending order."""
        cells = [cell for cell in self.cells if cell is not None]
        leaks = [bar.rate.frac for cell in cells for bar in cell.bars if bar.kind == "leak"]
        return min(RANK[cell.verdict] for cell in cells), -max(leaks, default=0.0)


def verdict_board(arms: Sequence[SurveyArm]) -> tuple[tuple[BoardRow, ...], tuple[BoardRow, ...]]:
    """The rows worst first, and apart from them those that are inert in every model."""
    factors = dict.fromkeys(factor for arm in arms for factor in arm.record.shadows.evidence)
    rows = sorted(
        (BoardRow(factor, tuple(_cell(arm, factor, len(arms) > 1) for arm in arms)) for factor in factors), key=lambda row: row.worst
    )
    shown = tuple(row for row in rows if row.worst[0] < RANK["inert"])
    return shown, tuple(row for row in rows if row.worst[0] == RANK["inert"])


def _cell(arm: SurveyArm, factor: str, several: bool) -> BoardCell | None:
    evidence = arm.evidence(factor)
    if evidence is None:
        return None
    bars = tuple(_bars(arm, factor, evidence, several))
    return BoardCell(arm, evidence.verdict, bars, _note(arm, evidence), verdict_anchor(arm, factor))


def _bars(arm: SurveyArm, factor: str, evidence: Evidence, several: bool) -> list[IntervalBar]:
    limits, bars = arm.record.shadows.thresholds, []
    if evidence.asked and evidence.read is not None:
        missed = read_address(arm, factor, evidence, ["missed"], several)
        bars.append(IntervalBar("read", evidence.read, limits.read_frac, None, _text(evidence.read), missed))
    leak = evidence.leak
    if leak is not None:
        noise = None if leak.noise is None else leak.noise.frac
        beside = "no noise measured" if noise is None else f"noise {show_frac(noise)}"
        threshold = limits.leak_above_noise_frac + (noise or 0.0)
        text = f"{_text(leak.rate)} into {leak.query}, {beside}"
        bars.append(IntervalBar("leak", leak.rate, threshold, noise, text, leak_address(arm, leak, several)))
    return bars


def _text(rate: Rate) -> str:
    return f"{show_frac(rate.frac)} {show_interval(rate.low, rate.high)}"


def _note(arm: SurveyArm, evidence: Evidence) -> str:
    if evidence.verdict == "undecided":
        missing = f" Not measured: {'; '.join(evidence.missing)}." if evidence.missing else ""
        return f"{_open_interval(arm, evidence)}{missing} {show_scenes_more(evidence)}"
    return f"{'; '.join(evidence.missing)}." if evidence.verdict == "not_measured" and evidence.missing else ""


def _open_interval(arm: SurveyArm, evidence: Evidence) -> str:
    """Which interval includes its threshold."""
    limits = arm.record.shadows.thresholds
    above = evidence.leak and (evidence.leak.adjusted or evidence.leak.above_noise)
    compared = (
        ("read", evidence.read if evidence.asked else None, limits.read_frac),
        ("leak above noise", above, limits.leak_above_noise_frac),
    )
    names = [
        name
        for name, number, threshold in compared
        if number is not None and number.low is not None and number.high is not None and number.low <= threshold <= number.high
    ]
    return f"The interval of the {' and of the '.join(names)} includes its threshold." if names else "An interval includes a threshold."
