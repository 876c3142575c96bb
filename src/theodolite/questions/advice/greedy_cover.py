"""Greedy choice of queries by the pairs of scenes that they distinguish. Needs no torch.

A query that is asked of every scene distinguishes a fixed set of pairs, so what a set of queries covers is the weight of a union:
monotone and submodular. Greedy choice of n queries then covers at least 1 - 1/e of what the best n cover (Nemhauser, Wolsey and
Fisher 1978). Gains only shrink as queries are added, so an old gain bounds the new one and most need not be computed (Minoux 1978).
Regions of one query do *not* add up so: a pair with one scene in each is distinguished only if both regions are asked. Hence queries
are chosen first, each for all scenes, and their questions are split among scenes afterwards (`water_filling`).
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float, Int

from theodolite.questions.coverage import ZERO, QueryTable, factor_first, split_weights


@dataclass(frozen=True, eq=False)
class PairCover:
    """Pairs of scenes equal in all factors but one; summed over a factor's distinguished pairs, `worth` is coverage (0 to 1).

    `factor` is the position of the pair's factor in `factors`. `distinguished` marks the pairs that asked questions distinguish already,
    `distinguishes` those that each candidate query would.
    """

    factors: tuple[str, ...]
    worth: Float[np.ndarray, " pair"]
    factor: Int[np.ndarray, " pair"]
    distinguished: Bool[np.ndarray, " pair"]
    distinguishes: Bool[np.ndarray, "query pair"]

    def covered(self, chosen: Sequence[int] = ()) -> dict[str, float]:
        """`coverage` of each factor, 0 to 1, once these queries are asked of every scene."""
        distinguished = self.opened(chosen).distinguished
        sums = np.bincount(self.factor[distinguished], self.worth[distinguished], minlength=len(self.factors))
        return {name: float(value) for name, value in zip(self.factors, sums, strict=True)}

    def of(self, factors: Sequence[str]) -> PairCover:
        """The pairs of some factors only."""
        pairs = np.isin(self.factor, [self.factors.index(name) for name in factors])
        return PairCover(self.factors, self.worth[pairs], self.factor[pairs], self.distinguished[pairs], self.distinguishes[:, pairs])

    def opened(self, chosen: Sequence[int]) -> PairCover:
        """The cover once these queries are asked of every scene."""
        distinguished = self.distinguished | self.distinguishes[list(chosen)].any(axis=0)
        return PairCover(self.factors, self.worth, self.factor, distinguished, self.distinguishes)


def pair_cover(
    names: tuple[str, ...],
    weights: Float[np.ndarray, "..."],
    asked: Sequence[QueryTable],
    candidates: Sequence[QueryTable],
    factors: Sequence[str],
) -> PairCover:
    """The pairs of each factor over the axes `names` (none for a factor without an axis). A query is asked where its rate is above 0."""
    correlated = frozenset(name for axis, name in enumerate(names) if _is_correlated(weights, axis))
    empty = np.zeros(0), np.zeros(0, dtype=bool), np.zeros((len(candidates), 0), dtype=bool)
    parts = [_factor_pairs(names, correlated, weights, asked, candidates, name) if name in names else empty for name in factors]
    position = np.repeat(np.arange(len(parts)), [len(worth) for worth, _, _ in parts])
    worth, distinguished, distinguishes = (np.concatenate(columns, axis=-1) for columns in zip(*(empty, *parts), strict=True))
    return PairCover(tuple(factors), worth, position, distinguished, distinguishes)


def _factor_pairs(
    names: tuple[str, ...],
    correlated: frozenset[str],
    weights: np.ndarray,
    asked: Sequence[QueryTable],
    candidates: Sequence[QueryTable],
    factor: str,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Worth of one factor's pairs, whether asked questions distinguish them, and whether each candidate does."""
    touching = [item for item in (*asked, *candidates) if factor in item.query.depends_on]

    def matters(axis: int) -> bool:
        return names[axis] in correlated | {factor} or any(item.answer.shape[axis] > 1 or item.rate.shape[axis] > 1 for item in touching)

    dropped = tuple(axis for axis in range(len(names)) if not matters(axis))
    axis, num_values = names.index(factor), weights.shape[names.index(factor)]
    rest, conditional = split_weights(weights.sum(axis=dropped, keepdims=True), axis)
    pairs = list(combinations(range(num_values), 2))
    worth = np.stack([2 * rest * conditional[one] * conditional[other] for one, other in pairs]) / (1 - 1 / num_values)
    real = worth > 0

    def distinguishes(item: QueryTable) -> np.ndarray:
        if item not in touching:
            return np.zeros(int(real.sum()), dtype=bool)
        answer, support = (factor_first(table, axis, num_values) for table in (item.answer, item.rate > 0))
        differs = [(answer[one] != answer[other]) & support[one] & support[other] for one, other in pairs]
        return np.asarray(np.stack([np.broadcast_to(pair, rest.shape) for pair in differs])[real])

    none = np.zeros((0, int(real.sum())), dtype=bool)
    distinguished = np.asarray(np.concatenate([none, *(distinguishes(item)[None] for item in asked)]).any(axis=0))
    return worth[real], distinguished, np.concatenate([none, *(distinguishes(item)[None] for item in candidates)])


def _is_correlated(weights: np.ndarray, axis: int) -> bool:
    """Whether a factor is correlated with others: the table is not the product of its margin and the rest."""
    others = tuple(other for other in range(weights.ndim) if other != axis)
    return not np.allclose(weights, weights.sum(axis=axis, keepdims=True) * weights.sum(axis=others, keepdims=True), rtol=1e-9, atol=0)


def lazy_greedy(
    worth: Float[np.ndarray, " pair"], distinguishes: Bool[np.ndarray, "query pair"], distinguished: Bool[np.ndarray, " pair"], most: int
) -> list[tuple[int, float]]:
    """At most `most` queries, best first, each with its gain: the worth of the pairs that it newly distinguishes, above 1e-12.

    The choice is that of plain greedy, the lowest number first of equal gains (to 1e-12); stale gains stay on a heap as upper bounds.
    """

    def gain_of(row: Bool[np.ndarray, " pair"]) -> float:
        return round(float(worth[row & open_pairs].sum()), 12)

    open_pairs, chosen = ~distinguished, list[tuple[int, float]]()
    heap = [(-gain_of(row), index) for index, row in enumerate(distinguishes)]
    heapq.heapify(heap)
    while heap and len(chosen) < most:
        _, index = heapq.heappop(heap)
        gain = gain_of(distinguishes[index])
        if heap and (-gain, index) > heap[0]:
            heapq.heappush(heap, (-gain, index))
            continue
        if gain <= ZERO:
            break
        chosen.append((index, gain))
        open_pairs &= ~distinguishes[index]
    return chosen
