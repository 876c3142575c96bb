"""View of a model's inside for the page: rows of similarity numbers, each with its causal counterparts."""

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
from theodolite.records.words import FactorWords
from theodolite.report.survey.arms import SurveyArm
from theodolite.report.survey.causal_counterparts import (
    CausalCounterpart,
    depth,
    erase_counterpart,
    find_causal_counterparts,
    patch_counterpart,
)

STEP_MEANING: dict[Step, str] = {
    "not perceived": "a probe cannot decode it at the encoder, nor at any later site",
    "not kept": "a probe can decode it at an early site, but not at some later one",
    "not said": "a probe can decode it at the answer position, but the model's words do not state it",
    "said": "the model's own words state it",
    "no words": "a probe can decode it at the answer position, and no question asks for it",
    "undecided": "an interval includes a threshold that matters",
}
# About 24 grids of 24 x 24: more squares make a browser slow.
MAX_SQUARES = 14_000

T = TypeVar("T")


@dataclass(frozen=True)
class InsideRow(Generic[T]):
    """A measure's record at a site, for one factor where it has one, with its causal counterparts (none without causal numbers)."""

    measure: str
    site: str
    measured: T
    counterparts: tuple[CausalCounterpart, ...]
    factor: str = ""


@dataclass(frozen=True)
class DirectionRow:
    """Directions of one factor at one site under both inner products, and the factors whose subspaces overlap most with its own."""

    euclidean: Directions | None
    causal: Directions | None
    closest: tuple[str, Overlap] | None
    closest_causal: tuple[str, Overlap] | None


@dataclass(frozen=True)
class WordsRow:
    """Words of one factor at one site under both lenses; None where a lens cannot name the factor."""

    logit: FactorWords | None
    latent: FactorWords | None


@dataclass(frozen=True)
class DrawnMap:
    """A position map to draw: its factor, its chance level, and the row and column of each token."""

    factor: str
    chance_frac: float
    position_map: PositionMap
    cells: tuple[tuple[int, int], ...]


@dataclass(frozen=True, eq=False)
class InsideView:
    """All rows of one arm."""

    arm: SurveyArm
    inside: Inside

    @property
    def causal(self) -> Causal | None:
        return self.inside.causal

    def order(self, factors: Sequence[str]) -> list[str]:
        """Factors in the arm's order, then those that the arm lacks."""
        return list(dict.fromkeys([*(factor for factor in self.arm.factors if factor in factors), *factors]))

    def row(self, measure: str, site: str, measured: T, factor: str = "", query: str | None = None) -> InsideRow[T]:
        return InsideRow(measure, site, measured, find_causal_counterparts(self.causal, measure, site, factor, query), factor)

    @cached_property
    def losses(self) -> list[InsideRow[FactorLadder]]:
        """A row a factor; its counterpart is the erasure nearest to the last site at which the factor is present."""
        ladder = self.inside.ladder
        if ladder is None:
            return []
        ladders = [(factor, ladder.factors[factor]) for factor in self.order(tuple(ladder.factors))]
        return [self.row("ladder", one.loss.kept_at or one.rungs[-1].site, one, factor) for factor, one in ladders]

    @cached_property
    def rungs(self) -> list[InsideRow[Rung]]:
        return [self.row("ladder", rung.site, rung, loss.factor) for loss in self.losses for rung in loss.measured.rungs]

    @cached_property
    def mapped(self) -> list[str]:
        """Factors whose position maps are drawn: lost at some step, or asked about."""
        asked = {factor for factor, evidence in self.arm.record.shadows.evidence.items() if evidence.asked}
        lost = ("not perceived", "not kept", "not said")
        return [row.factor for row in self.losses if row.factor in asked or row.measured.loss.step in lost]

    @cached_property
    def maps(self) -> list[DrawnMap]:
        """Maps of `mapped` factors on known grids, whole factors at a time up to `MAX_SQUARES` squares."""
        drawn: list[DrawnMap] = []
        squares = 0
        for row in self.losses:
            if row.factor not in self.mapped:
                continue
            chance = row.measured.chance_frac
            maps = [DrawnMap(row.factor, chance, one, one.cells) for one in row.measured.positions if one.cells is not None]
            squares += sum(len(one.cells) for one in maps)
            if squares > MAX_SQUARES:
                break
            drawn += maps
        return drawn

    @property
    def undrawn(self) -> list[str]:
        """Factors of `mapped` with position maps, none of which is drawn."""
        drawn = {one.factor for one in self.maps}
        return [row.factor for row in self.losses if row.measured.positions and row.factor in self.mapped and row.factor not in drawn]

    @cached_property
    def likeness(self) -> list[InsideRow[SiteLikeness]]:
        measured = self.inside.likeness
        return [] if measured is None else [self.row("likeness", site, one) for site, one in _by_depth(measured.sites)]

    @cached_property
    def allocation(self) -> list[InsideRow[LayerAllocation]]:
        measured = self.inside.allocation
        return [] if measured is None else [self.row("allocation", site, one) for site, one in _by_depth(measured.layers)]

    @cached_property
    def gap(self) -> list[InsideRow[SiteGap]]:
        measured = self.inside.gap
        return [] if measured is None else [self.row("gap", site, one) for site, one in _by_depth(measured.sites)]

    @cached_property
    def geometry(self) -> list[InsideRow[DirectionRow]]:
        """Directions by factor and site."""
        measured = self.inside.geometry
        if measured is None:
            return []
        sites = _by_depth(measured.sites)
        factors = self.order([factor for _, geometry in sites for factor in geometry.euclidean.factors])
        return [
            self.row("geometry", site, directions, factor)
            for factor in factors
            for site, geometry in sites
            if (directions := _directions(factor, geometry.euclidean, geometry.causal)) is not None
        ]

    @cached_property
    def fisher(self) -> list[InsideRow[Energy]]:
        """Energies by factor and query; the counterpart is how often answers to that query move when the factor is patched in."""
        measured = self.inside.fisher
        if measured is None:
            return []
        order = self.order([energy.factor for energy in measured.energies])
        energies = sorted(measured.energies, key=lambda energy: order.index(energy.factor))
        return [self.row("fisher", "connector", energy, energy.factor, energy.query) for energy in energies]

    @cached_property
    def blocks(self) -> list[InsideRow[Blocks]]:
        """Identifiability by factor and site."""
        measured = self.inside.identifiability
        if measured is None:
            return []
        sites = _by_depth(measured.sites)
        factors = self.order([factor for _, identifiability in sites for factor in identifiability.factors])
        return [
            self.row("identifiability", site, identifiability.factors[factor], factor)
            for factor in factors
            for site, identifiability in sites
            if factor in identifiability.factors
        ]

    @cached_property
    def words(self) -> list[InsideRow[WordsRow]]:
        """Words by factor and site."""
        words = self.inside.words
        if words is None:
            return []
        lenses = [{} if lens is None else lens.sites for lens in (words.logit, words.latent)]
        sites = sorted({site for lens in lenses for site in lens}, key=depth)
        factors = self.order([factor for lens in lenses for one in lens.values() for factor in one.factors])
        rows = []
        for factor in factors:
            for site in sites:
                logit, latent = (lens[site].factors.get(factor) if site in lens else None for lens in lenses)
                rows.append(self.row("words", site, WordsRow(logit, latent), factor))
        return rows

    @property
    def disturbances(self) -> list[tuple[str, Disturbance | None, Disturbance | None]]:
        """(site, effect of shuffling, effect of averaging) over all open questions, by site."""
        if self.causal is None:
            return []
        shuffled = {one.site: one.overall for one in self.causal.shuffle}
        mean = {one.site: one.overall for one in self.causal.mean}
        return [(site, shuffled.get(site), mean.get(site)) for site in sorted({*shuffled, *mean}, key=depth)]

    def patched(self) -> list[tuple[str, CausalCounterpart]]:
        """(factor, counterpart) of every patch."""
        return [] if self.causal is None else [(one.factor, patch_counterpart(one, one.factor)) for one in self.causal.patch]

    def erased(self) -> list[tuple[str, CausalCounterpart]]:
        """(factor, counterpart) of every erasure."""
        return [] if self.causal is None else [(one.factor, erase_counterpart(one, one.factor)) for one in self.causal.erase]


def view_inside(arm: SurveyArm) -> InsideView | None:
    """The view of an arm's inside; None where no such measure was asked for."""
    return None if arm.record.inside is None else InsideView(arm, arm.record.inside)


def _by_depth(sites: dict[str, T]) -> list[tuple[str, T]]:
    return sorted(sites.items(), key=lambda item: depth(item[0]))


def _directions(factor: str, euclidean: Shape, causal: Shape | None) -> DirectionRow | None:
    plain = euclidean.factors.get(factor)
    weighted = None if causal is None else causal.factors.get(factor)
    if plain is None and weighted is None:
        return None
    return DirectionRow(plain, weighted, _closest(factor, euclidean), None if causal is None else _closest(factor, causal))


def _closest(factor: str, shape: Shape) -> tuple[str, Overlap] | None:
    """The factor whose subspace overlaps most with this one's, and the overlap."""
    overlaps = [one for one in shape.overlaps if factor in (one.first, one.second)]
    most = max(overlaps, key=lambda one: one.overlap.estimate.value, default=None)
    return None if most is None else (most.second if most.first == factor else most.first, most)
