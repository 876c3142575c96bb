"""Orthogonality of two-level factors: cosines of the direction between groups of values with differences within the groups.

Park, Choe, Jiang and Veitch, "The Geometry of Categorical and Hierarchical Concepts in Large Language Models" (arXiv 2406.01506),
section 4: under the causal product, the vector of a parent concept is orthogonal to differences of its children.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
from jaxtyping import Float

from theodolite.measurement.internals.directions import NEGLIGIBLE
from theodolite.records.geometry import Hierarchy
from theodolite.stats.jackknife import DIGITS, jackknife_ends

MAX_WAYS = 2_000
Groups = Sequence[tuple[int, ...]]
Products = Float[np.ndarray, "value value value value"]


def squared_cosine(products: Products, groups: Groups) -> float | None:
    """Mean squared cosine of the direction between two groups with differences of values within either, 0 to 1 up to error.

    Over all pairs of groups, weighted by the squared sizes of both vectors. `products` holds G_ij G_kl for the Gram matrix G of the
    values' positions, estimated without the expectation of noise: that would lengthen the vectors, not their product, and so count as
    orthogonal. None where all of these vectors are 0.
    """
    number = len(products)
    sizes = products.reshape(number**2, number**2)  # [ij, kl]: G_ij G_kl
    mixed = products.transpose(0, 2, 1, 3).reshape(number**2, number**2)  # [ik, jl]: the same
    shared = size = 0.0
    for one, other in combinations(groups, 2):
        between = _mean_of(one, number) - _mean_of(other, number)
        twice = np.outer(between, between).ravel()
        by_size, by_product = (twice @ sizes).reshape(number, number), (twice @ mixed).reshape(number, number)
        for low, high in (*combinations(one, 2), *combinations(other, 2)):
            within = _mean_of((low,), number) - _mean_of((high,), number)
            shared += float(within @ by_product @ within)
            size += float(within @ by_size @ within)
    return shared / size if size > NEGLIGIBLE * float(np.abs(products).max()) else None


def _mean_of(values: tuple[int, ...], number: int) -> Float[np.ndarray, " value"]:
    return np.asarray(np.isin(np.arange(number), values) / len(values))


def other_groupings(groups: Groups) -> list[tuple[tuple[int, ...], ...]]:
    """All other groupings of the same values into groups of the same sizes, at most the first `MAX_WAYS`."""
    members = tuple(sorted(value for group in groups for value in group))
    own = frozenset(frozenset(group) for group in groups)
    groupings: dict[frozenset[frozenset[int]], tuple[tuple[int, ...], ...]] = {}
    for grouping in _groupings(members, tuple(len(group) for group in groups)):
        key = frozenset(frozenset(group) for group in grouping)
        if key != own:
            groupings.setdefault(key, grouping)
        if len(groupings) == MAX_WAYS:
            break
    return list(groupings.values())


def _groupings(members: tuple[int, ...], sizes: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], ...]]:
    if not sizes:
        yield ()
        return
    for first in combinations(members, sizes[0]):
        rest = tuple(value for value in members if value not in first)
        yield from ((first, *others) for others in _groupings(rest, sizes[1:]))


def measure_hierarchy(
    products: Float[np.ndarray, "replicate value value value value"], groups: Groups, confidence: float
) -> Hierarchy | None:
    """Orthogonality across levels from `FactorProducts.products`: row 0 is observed, the others leave a group of scenes out (jackknife).

    The p value tests this grouping against all others: a regular simplex is orthogonal under every grouping and has p = 1. None where
    fewer than two groups have values, no values differ within them, or too few scenes join all values.
    """
    filled = [group for group in groups if group]
    if len(filled) < 2 or max(map(len, filled)) < 2 or not np.isfinite(products[0]).all():
        return None
    value = squared_cosine(products[0], filled)
    others = [square for grouping in other_groupings(filled) if (square := squared_cosine(products[0], grouping)) is not None]
    if value is None or not others:
        return None
    left_out = [np.nan if (square := squared_cosine(each, filled)) is None else square for each in products[1:]]
    low, high = jackknife_ends(value, np.asarray(left_out, dtype=np.float64), (0.0, 1.0), confidence)
    as_good = 1 + sum(round(other, DIGITS) <= round(value, DIGITS) for other in others)
    return Hierarchy(
        group_cos=_root(value),
        low=None if low is None else _root(low),
        high=None if high is None else _root(high),
        chance=round(float(np.mean([_root(other) for other in others])), DIGITS),
        p=round(as_good / (1 + len(others)), DIGITS),
        least_p=round(1 / (1 + len(others)), DIGITS),
    )


def _root(square: float) -> float:
    """The cosine of a squared one; error may put a square outside 0 to 1."""
    return round(float(np.sqrt(np.clip(square, 0, 1))), DIGITS)
