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


def group_cosine(gram: Float[np.ndarray, "value value"], groups: Groups) -> float | None:
    """Mean absolute cosine of the direction between two groups with differences of values within either, 0 to 1.

    `gram` holds the products of the values' positions. Over all pairs of groups. None where all of these vectors are 0.
    """
    cosines = []
    for one, other in combinations(groups, 2):
        between = _mean_of(one, len(gram)) - _mean_of(other, len(gram))
        for low, high in (*combinations(one, 2), *combinations(other, 2)):
            within = _mean_of((low,), len(gram)) - _mean_of((high,), len(gram))
            sizes = float(between @ gram @ between), float(within @ gram @ within)
            if min(sizes) > NEGLIGIBLE * float(gram.diagonal().max()):
                cosines.append(abs(float(between @ gram @ within)) / (sizes[0] * sizes[1]) ** 0.5)
    return float(np.mean(cosines)) if cosines else None


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


def measure_hierarchy(placed: Float[np.ndarray, "replicate value dim"], groups: Groups, confidence: float) -> Hierarchy | None:
    """Orthogonality across levels: row 0 of `placed` is observed, the others leave a group of scenes out (jackknife).

    The p value tests this grouping against all others: a regular simplex is orthogonal under every grouping and has p = 1. None where
    fewer than two groups have values or no values differ within them.
    """
    filled = [group for group in groups if group]
    if len(filled) < 2 or max(map(len, filled)) < 2:
        return None
    exact = placed.astype(np.float64)
    grams = exact @ exact.transpose(0, 2, 1)
    value = group_cosine(grams[0], filled)
    others = [cosine for grouping in other_groupings(filled) if (cosine := group_cosine(grams[0], grouping)) is not None]
    if value is None or not others:
        return None
    left_out = [np.nan if (cosine := group_cosine(gram, filled)) is None else cosine for gram in grams[1:]]
    low, high = jackknife_ends(value, np.asarray(left_out, dtype=np.float64), (0.0, 1.0), confidence)
    as_good = 1 + sum(round(other, DIGITS) <= round(value, DIGITS) for other in others)
    return Hierarchy(
        group_cos=round(value, DIGITS),
        low=None if low is None else round(low, DIGITS),
        high=None if high is None else round(high, DIGITS),
        chance=round(float(np.mean(others)), DIGITS),
        p=round(as_good / (1 + len(others)), DIGITS),
        least_p=round(1 / (1 + len(others)), DIGITS),
    )
