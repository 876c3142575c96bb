"""Headline rates: for each question about a correlated factor, the read of that factor and the leak of the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from theodolite.records.survey import Cell, NoiseSource
from theodolite.report.survey.arms import SurveyArm


@dataclass(frozen=True, eq=False)
class Headline:
    """One query of one arm. `num_others` is 1 where a correlation names the other factor; else `leak` is the largest of so many."""

    arm: SurveyArm
    query: str
    form: str
    other: str | None
    num_others: int
    read: Cell | None
    leak: Cell | None

    @property
    def noise_frac(self) -> float | None:
        """Noise of this query and form: of pictures, or of the wording where that alone was measured."""
        cells = {cell.source: cell for cell in self.arm.record.shadows.noise_cells if (cell.query, cell.form) == (self.query, self.form)}
        return next((cells[source].rate.frac for source in get_args(NoiseSource) if source in cells), None)

    @property
    def proxy_bits(self) -> float | None:
        if self.arm.coverage is None or self.other is None:
            return None
        return self.arm.coverage.largest_proxy_bits(self.other, self.query)

    @property
    def factors(self) -> tuple[str, ...]:
        """The factors of this line: those asked about, and the other."""
        names = (*_asked_about(self.query, self.form), self.other)
        return tuple(dict.fromkeys(name for name in names if name is not None))

    @property
    def about(self) -> str:
        return f"{self.query} ({self.form})"


def correlated_pairs(arm: SurveyArm) -> tuple[tuple[str, str], ...]:
    """(cause, effect) of each correlation of the arm's world."""
    world = arm.record.world
    return () if world is None else tuple((str(tie["cause"]), str(tie["effect"])) for tie in world.correlations)


def headlines(arms: Sequence[SurveyArm]) -> tuple[Headline, ...]:
    """The headline lines of all arms, in their order; an arm without queries about correlated factors shows its largest leaks."""
    return tuple(line for arm in arms for line in _lines(arm))


def _asked_about(query: str, form: str) -> tuple[str, ...]:
    return tuple(query.split("&")) if form == "conjunction" else (query,)


def _lines(arm: SurveyArm) -> list[Headline]:
    asked = dict.fromkeys((cell.query, cell.form) for cell in arm.record.shadows.cells)
    ties = [tie for cause, effect in correlated_pairs(arm) for tie in ((cause, effect), (effect, cause))]
    tied = [
        Headline(arm, query, form, other, 1, _cell(arm, query, query, form, True), _cell(arm, other, query, form, False))
        for about, other in ties
        for query, form in asked
        if query == about
    ]
    return tied or [_largest(arm, query, form) for query, form in asked]


def _cell(arm: SurveyArm, factor: str, query: str, form: str, truth_moves: bool) -> Cell | None:
    wanted = (factor, query, form, truth_moves)
    cells = arm.record.shadows.cells
    return next((cell for cell in cells if (cell.factor, cell.query, cell.form, cell.truth_moves) == wanted), None)


def _largest(arm: SurveyArm, query: str, form: str) -> Headline:
    own = _asked_about(query, form)
    leaks = [
        cell
        for cell in arm.record.shadows.cells
        if (cell.query, cell.form, cell.truth_moves) == (query, form, False) and cell.factor not in own
    ]
    leak = max(leaks, key=lambda cell: cell.moved_frac, default=None)
    reads = [cell for factor in own if (cell := _cell(arm, factor, query, form, True))]
    # Of a conjunction, the smallest read: it limits the verdict.
    read = min(reads, key=lambda cell: cell.moved_frac, default=None)
    return Headline(arm, query, form, leak.factor if leak else None, len(leaks), read, leak)
