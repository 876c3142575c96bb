"""The heat map of a survey page: how often the answer to each question moves with each factor, a read or a leak."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from theodolite.records.survey import Cell
from theodolite.report.survey.arms import SurveyArm
from theodolite.report.survey.pairs_address import TRUTH_MOVES, TRUTH_STAYS, pairs_address
from theodolite.report.survey.words import column_of
from theodolite.report.words import show_count, show_frac, show_interval


@dataclass(frozen=True)
class HeatNumber:
    """One cell of the record with the address of its pairs, and its numbers in words."""

    cell: Cell
    address: str

    @property
    def kind(self) -> Literal["read", "leak"]:
        return "read" if self.cell.truth_moves else "leak"

    @property
    def text(self) -> str:
        cell = self.cell
        scenes = f"{show_count(cell.num_pairs)} pairs of {show_count(cell.num_scenes)} scenes"
        return (
            f"{cell.factor} changed, asked about {column_of(cell)}: the answer moves in {show_frac(cell.moved_frac)} "
            f"{show_interval(cell.low, cell.high)} of {scenes} in which the truth {'moves' if cell.truth_moves else 'stays'}; "
            f"right before and after {show_frac(cell.right_frac)} {show_interval(cell.right_low, cell.right_high)}; "
            f"total variation {show_frac(cell.variation)} {show_interval(cell.variation_low, cell.variation_high)}"
        )


@dataclass(frozen=True, eq=False)
class HeatMap:
    """The cells of one model: a row a factor, a column a query with its form, in each place a read, a leak, both or neither."""

    arm: SurveyArm
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[tuple[HeatNumber, ...], ...]], ...]


def heat_map(arm: SurveyArm, factors: Sequence[str]) -> HeatMap | None:
    """The heat map of an arm, its factors in the order given, then those that are not among them; None without cells."""
    places: dict[tuple[str, str], list[HeatNumber]] = {}
    for cell in sorted(arm.record.shadows.cells, key=lambda cell: not cell.truth_moves):
        outcomes = TRUTH_MOVES if cell.truth_moves else TRUTH_STAYS
        address = pairs_address(factor=cell.factor, question=column_of(cell), outcome=outcomes, model=arm.label)
        places.setdefault((cell.factor, column_of(cell)), []).append(HeatNumber(cell, address))
    if not places:
        return None
    columns = tuple(dict.fromkeys(column_of(cell) for cell in arm.record.shadows.cells))
    changed = {factor for factor, _ in places}
    order = [factor for factor in dict.fromkeys([*factors, *arm.factors, *(factor for factor, _ in places)]) if factor in changed]
    return HeatMap(arm, columns, tuple((factor, tuple(tuple(places.get((factor, column), ())) for column in columns)) for factor in order))
