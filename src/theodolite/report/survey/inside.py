"""What the page shows of a model's inside: rows of similarity numbers, each with its causal partners."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, TypeVar

from theodolite.records.allocation import LayerAllocation
from theodolite.records.causal import Causal, Disturbance
from theodolite.records.fisher import Energy
from theodolite.records.gap import SiteGap
from theodolite.records.geometry import Directions, Overlap, Shape
from theodolite.records.identifiability import Blocks
from theodolite.records.inside import Inside
from theodolite.records.ladder import FactorLadder, PositionMap, Rung, Step
from theodolite.records.likeness import SiteLikeness
from theodolite.report.survey.arms import SurveyArm
from theodolite.report.survey.causal_counterparts import (
    CausalCounterpart,
    depth,
    erase_counterpart,
    find_causal_counterparts,
    patch_counterpart,
)

STEP_MEANING: dict[Step, str] = {
    "not perceived": "a probe cannot tell it at the encoder, nor anywhere after it",
    "not kept": "a probe can tell it at first, and no longer at some later site",
    "not said": "a probe can tell it where the answer begins, but the model's words do not",
    "said": "the model's own words tell it",
    "no words": "a probe can tell it where the answer begins, and no question asks for it",
    "undecided": "an interval straddles a line that matters",
}
# As many squares as two dozen grids of 24 x 24: more makes a browser slow.
MAX_SQUARES = 14_000

T = TypeVar("T")


@dataclass(frozen=True)
class InsideRow(Generic[T]):
    """What was found at a site, of a factor where it is about one, with its causal partners (none without causal numbers)."""

    measure: str
    site: str
    found: T
    partners: tuple[CausalCounterpart, ...]
    factor: str = ""


@dataclass(frozen=True)
class DirectionRow:
    """Directions of one factor at one site under both inner products, and the factor whose subspace it shares most."""

    euclidean: Directions | None
    causal: Directions | None
    closest: tuple[str, Overlap] | None
    closest_causal: tuple[str, Overlap] | None


@dataclass(frozen=True)
class DrawnMap:
    """A position map that is drawn: its factor, its chance level, and the row and column of each token."""

    factor: str
    chance_frac: float
    found: PositionMap
    cells: tuple[tuple[int, int], ...]


@dataclass(frozen=True, eq=False)
class InsideView:
    """All rows of one arm."""

    arm: SurveyArm
    inside: Inside

    @property
    def causal(self) -> Causal | None:
        return self.inside.causal

    def order(self, found: Sequence[str]) -> list[str]:
        """Factors in the arm's order; those that it does not name come last."""
        known = [factor for factor in self.arm.factors if factor in found]
        return [*known, *(factor for factor in dict.fromkeys(found) if factor not in known)]

    def row(self, measure: str, site: str, found: T, factor: str = "", query: str | None = None) -> InsideRow[T]:
        return InsideRow(measure, site, found, find_causal_counterparts(self.causal, measure, site, factor, query), factor)

    @cached_property
    def losses(self) -> list[InsideRow[FactorLadder]]:
        """A row a factor; its partner is erasure nearest to the last site that still held the factor."""
        ladder = self.inside.ladder
        if ladder is None:
            return []
        found = [(factor, ladder.factors[factor]) for factor in self.order(tuple(ladder.factors))]
        return [self.row("ladder", told.loss.kept_at or told.rungs[-1].site, told, factor) for factor, told in found]

    @cached_property
    def rungs(self) -> list[InsideRow[Rung]]:
        return [self.row("ladder", rung.site, rung, loss.factor) for loss in self.losses for rung in loss.found.rungs]

    @cached_property
    def mapped(self) -> list[str]:
        """Factors whose position maps are worth drawing: lost on the way, or asked about."""
        asked = {factor for factor, found in self.arm.record.shadows.evidence.items() if found.asked}
        lost = ("not perceived", "not kept", "not said")
        return [row.factor for row in self.losses if row.factor in asked or row.found.loss.step in lost]

    @cached_property
    def maps(self) -> list[DrawnMap]:
        """Maps of `mapped` factors on known grids, whole factors at a time up to `MAX_SQUARES` squares."""
        drawn: list[DrawnMap] = []
        squares = 0
        for row in self.losses:
            if row.factor not in self.mapped:
                continue
            found = [DrawnMap(row.factor, row.found.chance_frac, one, one.cells) for one in row.found.positions if one.cells is not None]
            squares += sum(len(one.cells) for one in found)
            if squares > MAX_SQUARES:
                break
            drawn += found
        return drawn

    @property
    def undrawn(self) -> list[str]:
        """Factors that should have a map and have none on the page."""
        drawn = {one.factor for one in self.maps}
        return [row.factor for row in self.losses if row.found.positions and row.factor in self.mapped and row.factor not in drawn]

    @cached_property
    def likeness(self) -> list[InsideRow[SiteLikeness]]:
        measured = self.inside.likeness
        return [] if measured is None else [self.row("likeness", site, found) for site, found in _by_depth(measured.sites)]

    @cached_property
    def allocation(self) -> list[InsideRow[LayerAllocation]]:
        measured = self.inside.allocation
        return [] if measured is None else [self.row("allocation", site, found) for site, found in _by_depth(measured.layers)]

    @cached_property
    def gap(self) -> list[InsideRow[SiteGap]]:
        measured = self.inside.gap
        return [] if measured is None else [self.row("gap", site, found) for site, found in _by_depth(measured.sites)]

    @cached_property
    def geometry(self) -> list[InsideRow[DirectionRow]]:
        """By factor and site."""
        measured = self.inside.geometry
        if measured is None:
            return []
        sites = _by_depth(measured.sites)
        factors = self.order([factor for _, found in sites for factor in found.euclidean.factors])
        return [
            self.row("geometry", site, bearing, factor)
            for factor in factors
            for site, found in sites
            if (bearing := _bearing(factor, found.euclidean, found.causal)) is not None
        ]

    @cached_property
    def fisher(self) -> list[InsideRow[Energy]]:
        """By factor and query: the partner is how far the answers to that query move when the factor is patched in."""
        measured = self.inside.fisher
        if measured is None:
            return []
        order = self.order([found.factor for found in measured.energies])
        found = sorted(measured.energies, key=lambda energy: order.index(energy.factor))
        return [self.row("fisher", "connector", energy, energy.factor, energy.query) for energy in found]

    @cached_property
    def blocks(self) -> list[InsideRow[Blocks]]:
        """Identifiability by factor and site."""
        measured = self.inside.identifiability
        if measured is None:
            return []
        sites = _by_depth(measured.sites)
        factors = self.order([factor for _, found in sites for factor in found.factors])
        return [
            self.row("identifiability", site, found.factors[factor], factor)
            for factor in factors
            for site, found in sites
            if factor in found.factors
        ]

    @property
    def disturbances(self) -> list[tuple[str, Disturbance | None, Disturbance | None]]:
        """(site, shuffled, mean) over all open questions."""
        if self.causal is None:
            return []
        shuffled = {one.site: one.overall for one in self.causal.shuffle}
        mean = {one.site: one.overall for one in self.causal.mean}
        return [(site, shuffled.get(site), mean.get(site)) for site in sorted({*shuffled, *mean}, key=depth)]

    def patched(self) -> list[tuple[str, CausalCounterpart]]:
        """(factor, partner) of every patch."""
        return [] if self.causal is None else [(one.factor, patch_counterpart(one, one.factor)) for one in self.causal.patch]

    def erased(self) -> list[tuple[str, CausalCounterpart]]:
        """(factor, partner) of every erasure."""
        return [] if self.causal is None else [(one.factor, erase_counterpart(one, one.factor)) for one in self.causal.erase]


def view_inside(arm: SurveyArm) -> InsideView | None:
    """What was found inside an arm's model; null where nothing was asked for."""
    return None if arm.record.inside is None else InsideView(arm, arm.record.inside)


def _by_depth(sites: dict[str, T]) -> list[tuple[str, T]]:
    return sorted(sites.items(), key=lambda item: depth(item[0]))


def _bearing(factor: str, euclidean: Shape, causal: Shape | None) -> DirectionRow | None:
    plain = euclidean.factors.get(factor)
    read = None if causal is None else causal.factors.get(factor)
    if plain is None and read is None:
        return None
    return DirectionRow(plain, read, _closest(factor, euclidean), None if causal is None else _closest(factor, causal))


def _closest(factor: str, shape: Shape) -> tuple[str, Overlap] | None:
    """The factor whose subspace overlaps most with this one's."""
    found = [one for one in shape.overlaps if factor in (one.first, one.second)]
    most = max(found, key=lambda one: one.overlap.estimate.value, default=None)
    return None if most is None else (most.second if most.first == factor else most.first, most)
