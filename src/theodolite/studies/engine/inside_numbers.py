"""One number a factor of each measure inside a model, for the line of its run."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from theodolite.records.fisher import Fisher
from theodolite.records.geometry import Geometry
from theodolite.records.inside import Inside
from theodolite.records.part import Estimate


def inside_numbers(inside: Inside | None) -> dict[str, dict[str, float]]:
    """Numbers by measure and factor; measures that were not asked for, and factors without the number, are left out.

    At the last layer, under the Euclidean inner product: *consistency* of a factor's differences, mean *overlap* with the other factors,
    *regularity* of its simplex. Of the answer Fisher information at the connector: mean excess *energy* of its direction over queries, and
    the loss's *gradient* along it over random directions.
    """
    if inside is None:
        return {}
    numbers: dict[str, dict[str, float]] = {}
    if inside.geometry is not None:
        numbers |= _directions(inside.geometry)
    if inside.fisher is not None:
        numbers |= _fisher(inside.fisher)
    return {name: by_factor for name, by_factor in numbers.items() if by_factor}


def _directions(geometry: Geometry) -> dict[str, dict[str, float]]:
    shape = list(geometry.sites.values())[-1].euclidean
    overlaps: dict[str, list[float]] = {}
    for pair in shape.overlaps:
        for name in (pair.first, pair.second):
            overlaps.setdefault(name, []).append(pair.overlap.estimate.value)
    consistency = {name: each.consistency.estimate for name, each in shape.factors.items() if each.consistency is not None}
    regularity = {name: each.simplex.regularity for name, each in shape.factors.items() if each.simplex is not None}
    return {
        "consistency": _values(consistency),
        "overlap": {name: float(np.mean(values)) for name, values in overlaps.items()},
        "regularity": _values(regularity),
    }


def _fisher(fisher: Fisher) -> dict[str, dict[str, float]]:
    energies: dict[str, list[float]] = {}
    for each in fisher.energies:
        if each.energy_excess is not None:
            energies.setdefault(each.factor, []).append(each.energy_excess.value)
    return {
        "energy": {name: float(np.mean(values)) for name, values in energies.items()},
        "gradient": _values({each.factor: each.excess_random for each in fisher.gradients}),
    }


def _values(estimates: Mapping[str, Estimate | None]) -> dict[str, float]:
    return {name: estimate.value for name, estimate in estimates.items() if estimate is not None}
