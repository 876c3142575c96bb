"""Which queries to open: the pairs of scenes that each tells apart, and the greedy choice among them. Needs no torch.

A query that is asked of every scene tells a fixed set of pairs apart, so what a set of queries covers is the weight of a union:
monotone and submodular. Greedy choice of n queries then covers at least 1 - 1/e of what the best n cover (Nemhauser, Wolsey and
Fisher 1978). Gains only shrink as queries are added, so an old gain bounds the new one and most need not be computed (Minoux 1978).
Regions of one query do *not* add up so: a pair with one scene in each is told apart only where both are asked. Hence queries are
chosen first, each for all scenes, and how often which scene is asked comes after (`measurement.filling`).
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float, Int

from theodolite.questions.coverage import ZERO, QueryTable


@dataclass(frozen=True, eq=False)
class PairCover:
    """Pairs of scenes alike in all but one factor; summed over a factor's pairs, `worth` is coverage (0 to 1).

    `factor` is the position of the pair's factor in `factors`, `known` says what is told apart already, `told` what each query tells.
    """

    factors: tuple[str, ...]
    worth: Float[np.ndarray, " pair"]
    factor: Int[np.ndarray, " pair"]
    known: Bool[np.ndarray, " pair"]
    told: Bool[np.ndarray, "query pair"]

    def covered(self, chosen: Sequence[int] = ()) -> dict[str, float]:
        """`coverage` of each factor with these queries opened, 0 to 1."""
        told = self.opened(chosen).known
        sums = np.bincount(self.factor[told], self.worth[told], minlength=len(self.factors))
        return {name: float(value) for name, value in zip(self.factors, sums, strict=True)}

    def of(self, factors: Sequence[str]) -> PairCover:
        """The pairs of some factors only."""
        keep = np.isin(self.factor, [self.factors.index(name) for name in factors])
        return PairCover(self.factors, self.worth[keep], self.factor[keep], self.known[keep], self.told[:, keep])

    def opened(self, chosen: Sequence[int]) -> PairCover:
        """The same once these queries are asked of every scene."""
        known = self.known | self.told[list(chosen)].any(axis=0)
        return PairCover(self.factors, self.worth, self.factor, known, self.told)


def pair_cover(
    names: tuple[str, ...],
    weights: Float[np.ndarray, "..."],
    asked: Sequence[QueryTable],
    candidates: Sequence[QueryTable],
    factors: Sequence[str],
) -> PairCover:
    """The pairs of each factor over axes `names`; a table tells nothing of a factor that is no axis. Rates say where a query is asked."""
    tied = frozenset(name for axis, name in enumerate(names) if _varies(weights, axis))
    empty = np.zeros(0), np.zeros(0, dtype=bool), np.zeros((len(candidates), 0), dtype=bool)
    parts = [_factor_pairs(names, tied, weights, asked, candidates, name) if name in names else empty for name in factors]
    position = np.repeat(np.arange(len(parts)), [len(worth) for worth, _, _ in parts])
    worth, known, told = (np.concatenate(columns, axis=-1) for columns in zip(*(empty, *parts), strict=True))
    return PairCover(tuple(factors), worth, position, known, told)


def _factor_pairs(
    names: tuple[str, ...],
    tied: frozenset[str],
    weights: np.ndarray,
    asked: Sequence[QueryTable],
    candidates: Sequence[QueryTable],
    factor: str,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Worth of the pairs of one factor, whether they are known, and which candidate tells them apart."""
    touching = [item for item in (*asked, *candidates) if factor in item.query.depends_on]

    def matters(axis: int) -> bool:
        return names[axis] in tied | {factor} or any(item.answer.shape[axis] > 1 or item.rate.shape[axis] > 1 for item in touching)

    gone = tuple(axis for axis in range(len(names)) if not matters(axis))
    table = weights.sum(axis=gone, keepdims=True)
    axis, num_values = names.index(factor), weights.shape[names.index(factor)]
    lines = np.moveaxis(table, axis, 0)
    rest = lines.sum(axis=0)
    conditional = np.divide(lines, rest, out=np.zeros(lines.shape), where=rest > 0)
    pairs = list(combinations(range(num_values), 2))
    worth = np.stack([2 * rest * conditional[one] * conditional[other] for one, other in pairs]) / (1 - 1 / num_values)
    real = worth > 0

    def told(item: QueryTable) -> np.ndarray:
        if item not in touching:
            return np.zeros(int(real.sum()), dtype=bool)
        answer, support = (_along(part, axis, num_values) for part in (item.answer, item.rate > 0))
        apart = [(answer[one] != answer[other]) & support[one] & support[other] for one, other in pairs]
        return np.asarray(np.stack([np.broadcast_to(found, rest.shape) for found in apart])[real])

    none = np.zeros((0, int(real.sum())), dtype=bool)
    known = np.asarray(np.concatenate([none, *(told(item)[None] for item in asked)]).any(axis=0))
    return worth[real], known, np.concatenate([none, *(told(item)[None] for item in candidates)])


def _varies(weights: np.ndarray, axis: int) -> bool:
    """Whether a factor is tied to others: the table is not the product of its margin and the rest."""
    others = tuple(other for other in range(weights.ndim) if other != axis)
    return not np.allclose(weights, weights.sum(axis=axis, keepdims=True) * weights.sum(axis=others, keepdims=True), rtol=1e-9, atol=0)


def _along(table: np.ndarray, axis: int, num_values: int) -> np.ndarray:
    moved = np.moveaxis(table, axis, 0)
    return np.asarray(np.broadcast_to(moved, (num_values, *moved.shape[1:])))


def lazy_greedy(
    worth: Float[np.ndarray, " pair"], told: Bool[np.ndarray, "query pair"], known: Bool[np.ndarray, " pair"], most: int
) -> list[tuple[int, float]]:
    """At most `most` queries, best first, with what each adds to the weight that is told apart; stops where nothing adds more than 1e-12.

    The choice is that of plain greedy, the lowest number first where gains are equal (to 1e-12); stale gains are kept on a heap as bounds.
    """

    def gain_of(row: Bool[np.ndarray, " pair"]) -> float:
        return round(float(worth[row & open_pairs].sum()), 12)

    open_pairs, chosen = ~known, list[tuple[int, float]]()
    heap = [(-gain_of(row), index) for index, row in enumerate(told)]
    heapq.heapify(heap)
    while heap and len(chosen) < most:
        _, index = heapq.heappop(heap)
        gain = gain_of(told[index])
        if heap and (-gain, index) > heap[0]:
            heapq.heappush(heap, (-gain, index))
            continue
        if gain <= ZERO:
            break
        chosen.append((index, gain))
        open_pairs &= ~told[index]
    return chosen
