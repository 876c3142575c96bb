"""The causal counterparts of a similarity number: effects on answers of changing vision tokens at the nearest site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from theodolite.records.causal import PARTNERS, Causal, Erasure, Patch, SiteDisturbance
from theodolite.records.part import Estimate, Rate

# Kinds of causal numbers by measure. Identifiability is a readout, as the ladder is.
COUNTERPARTS: Mapping[str, tuple[str, ...]] = {**PARTNERS, "identifiability": PARTNERS["ladder"]}
NO_CAUSAL = "no causal number was measured: survey with --measures causal"
COUNTERPART_HEADS: Mapping[str, str] = {
    "shuffle": "answers moved: tokens shuffled",
    "mean": "answers moved: tokens replaced by their mean",
    "patch": "answers moved: factor patched in",
    "erase": "right answers lost: factor erased",
}
# Depth of the answer position and the spoken answer: after every layer.
LAST = 10**6

S = TypeVar("S", Patch, Erasure, SiteDisturbance)


@dataclass(frozen=True)
class CausalCounterpart:
    """A causal number: the kind of change, the site where it was made, the value, and a note where the value is missing or special."""

    kind: str
    site: str | None = None
    value: Rate | Estimate | None = None
    note: str = ""


def depth(site: str) -> int:
    """Rank of a site in the order of the model: encoder -1, connector 0, layer.k k, any later site `LAST`."""
    fixed = {"encoder": -1, "connector": 0}
    name, _, number = site.partition(".")
    return int(number) if name == "layer" and number.isdigit() else fixed.get(site, LAST)


def nearest(site: str, measured: Sequence[S]) -> S | None:
    """The record measured nearest to a site, the earlier of two equally near; None where nothing was measured."""
    return min(measured, key=lambda part: (abs(depth(part.site) - depth(site)), depth(part.site)), default=None)


def find_causal_counterparts(
    causal: Causal | None, measure: str, site: str, factor: str = "", query: str | None = None
) -> tuple[CausalCounterpart, ...]:
    """The causal counterparts of a measure's number at a site, for one factor and one query where given; empty without causal numbers."""
    if causal is None:
        return ()
    return tuple(_find(causal, kind, site, factor, query) for kind in COUNTERPARTS[measure])


def _find(causal: Causal, kind: str, site: str, factor: str, query: str | None) -> CausalCounterpart:
    if kind == "patch":
        return patch_counterpart(nearest(site, [part for part in causal.patch if part.factor == factor]), factor, query)
    if kind == "erase":
        return erase_counterpart(nearest(site, [part for part in causal.erase if part.factor == factor]), factor)
    changed = nearest(site, {"shuffle": causal.shuffle, "mean": causal.mean}[kind])
    return CausalCounterpart(kind, note="not measured") if changed is None else CausalCounterpart(kind, changed.site, changed.overall.moved)


def patch_counterpart(patch: Patch | None, factor: str, query: str | None = None) -> CausalCounterpart:
    """How often answers move when a factor's difference is patched in: answers to `query` if given, else to the question about the factor.

    Without such a question: answers to the question whose answers move most, since such an effect is a shadow.
    """
    if patch is None:
        return CausalCounterpart("patch", note=f"{factor} was not patched")
    if query is not None:
        moved = patch.by_query.get(query)
        return CausalCounterpart("patch", patch.site, moved, "" if moved else "this question was not asked there")
    if patch.subspace.own is not None:
        return CausalCounterpart("patch", patch.site, patch.subspace.own.moved)
    most = max(patch.by_query, key=lambda name: patch.by_query[name].frac, default=None)
    if most is None:
        return CausalCounterpart("patch", patch.site, note="no question was asked")
    return CausalCounterpart(
        "patch", patch.site, patch.by_query[most], f"of the answers about {most}, more than of others: none is about {factor}"
    )


def erase_counterpart(erasure: Erasure | None, factor: str) -> CausalCounterpart:
    """Accuracy lost when a factor is erased; where no question is about it, how often answers to the most affected question move."""
    if erasure is None:
        return CausalCounterpart("erase", note=f"{factor} was not erased")
    if erasure.lost is not None:
        return CausalCounterpart("erase", erasure.site, erasure.lost)
    most = max(erasure.moved, key=lambda query: erasure.moved[query].frac, default=None)
    if most is None:
        return CausalCounterpart("erase", erasure.site, note="no question was asked")
    return CausalCounterpart(
        "erase", erasure.site, erasure.moved[most], f"of the answers about {most} moved, more than of others: no question is about {factor}"
    )
