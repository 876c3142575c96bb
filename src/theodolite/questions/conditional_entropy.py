"""Conditional entropy of outcomes given factors, from count tables over subsets of the factors.

`select_context` selects the factors on which an outcome depends, by left-out examples. `Surprise` is the conditional entropy given some
factors, row by row and corrected for the bias of counts; cells with few examples back off to fewer factors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import digamma, exp1

Context = tuple[int, ...]
PRIOR_WEIGHT = 1.0  # pseudo-count, in rows, of the overall shares of the outcomes in each cell
MIN_EXAMPLES = 8  # cells with fewer examples back off: below that, the digamma estimate misses too many unseen outcomes
MIN_GAIN = 3.0  # nats over all rows


def cells(levels: Int[np.ndarray, "row factor"], context: Context) -> Int[np.ndarray, " row"]:
    """Index of each row's combination of values of the context's factors, from 0 without gaps."""
    return np.asarray(np.unique(_numbers(levels, context), return_inverse=True)[1])


def _numbers(levels: np.ndarray, context: Context) -> np.ndarray:
    """As `cells`, with gaps: below four times the number of rows, so that `bincount` stays linear in the rows."""
    numbers = np.zeros(len(levels), dtype=np.int64)
    for column in context:
        numbers = numbers * (int(levels[:, column].max(initial=0)) + 1) + levels[:, column]
        if numbers.max(initial=0) > 4 * len(levels):
            numbers = np.unique(numbers, return_inverse=True)[1]
    return numbers


class CellCounts(NamedTuple):
    """Sizes of each row's cell: rows in all, rows of the row's own example, and effective number of examples."""

    total: Float[np.ndarray, " row"]
    own: Float[np.ndarray, " row"]
    effective: Float[np.ndarray, " row"]  # Kish's effective number: the number of examples if all have equally many rows


class Surprise(NamedTuple):
    """Log loss of each row's outcome given a context, in nats; its mean is the conditional entropy."""

    loss: Float[np.ndarray, " row"]
    influence: Float[np.ndarray, " row"]  # change of the summed loss when the row is left out: for standard errors, not for means
    size: Float[np.ndarray, " row"]  # effective examples in the row's cell


@dataclass(frozen=True, eq=False)
class Outcomes:
    """Rows with an outcome (an answer, or whether a question is asked), factor levels and an example each."""

    levels: Int[np.ndarray, "row factor"]
    outcome: Int[np.ndarray, " row"]
    example: Int[np.ndarray, " row"]
    _surprises: dict[Context, Surprise] = field(default_factory=dict, repr=False)
    _losses: dict[Context, float] = field(default_factory=dict, repr=False)

    def take(self, rows: Bool[np.ndarray, " row"]) -> Outcomes:
        return Outcomes(self.levels[rows], self.outcome[rows], self.example[rows])

    @cached_property
    def one_row_each(self) -> bool:
        """Whether every example has at most one row, so that rows count as examples."""
        return bool(np.bincount(self.example).max(initial=0) <= 1)

    @cached_property
    def shares(self) -> Float[np.ndarray, " row"]:
        """Share of each row's outcome among the rows of other examples, with one row of each outcome added (Laplace)."""
        overall, num_outcomes = self._tally(self.outcome), int(self.outcome.max(initial=0)) + 1
        return np.asarray((overall.total - overall.own + 1) / (len(self.outcome) - overall.own + num_outcomes))

    def _tally(self, cell: np.ndarray) -> CellCounts:
        total = np.bincount(cell).astype(float)
        if self.one_row_each:
            return CellCounts(total[cell], np.ones(len(cell)), total[cell])
        num_examples = int(self.example.max(initial=0)) + 1
        cell_example, member = np.unique(cell * num_examples + self.example, return_inverse=True)
        own = np.bincount(member).astype(float)
        squares = np.bincount(cell_example // num_examples, own**2, len(total))
        return CellCounts(total[cell], own[member], total[cell] ** 2 / squares[cell])

    def _tallies(self, context: Context) -> tuple[CellCounts, CellCounts]:
        """Counts of the rows in the same cell, and of those among them with the same outcome."""
        cell = _numbers(self.levels, context)
        both = cell * (int(self.outcome.max(initial=0)) + 1) + self.outcome
        if both.max(initial=0) > 4 * len(both):
            both = np.unique(both, return_inverse=True)[1]
        return self._tally(cell), self._tally(both)

    def left_out_loss(self, context: Context) -> float:
        """Summed log loss, in nats, of a smoothed count table over `context`, each example predicted from all others."""
        if context not in self._losses:
            rows, same = self._tallies(context)
            chance = (same.total - same.own + PRIOR_WEIGHT * self.shares) / (rows.total - rows.own + PRIOR_WEIGHT)
            self._losses[context] = float(-np.log(chance).sum())
        return self._losses[context]

    def surprise(self, context: Context) -> Surprise:
        """Log loss of each row in nats under a count table over `context`; its mean is corrected for the bias of counts.

        The mean of psi(N) - psi(n), N rows in the cell and n of them with the row's outcome, is Zhang's entropy (Neural Computation 24,
        2012): psi(n) lies halfway between log n (own row counted) and log(n - 1) (own row left out), so that overfitting and
        cross-fitting cancel. Its bias falls exponentially in N p. The rest, from outcomes expected about once in a cell, is added to
        outcomes seen once, after Good and Turing, from the numbers of outcomes seen once and twice (Chao, Wang and Jost, Methods in Ecology
        and Evolution 4, 2013, pooled over cells). Where an example has several rows in a cell, psi takes the effective number of examples.
        """
        if context not in self._surprises:
            rows, same = self._tallies(context)
            loss = np.log(rows.total / same.total) + _digamma_excess(rows.effective) - _digamma_excess(same.effective)
            times = np.where(rows.effective >= MIN_EXAMPLES, np.rint(same.effective), 0)  # how often the outcome was seen in the cell
            once, twice = (float((1 / same.total[times == number]).sum()) for number in (1, 2))
            unseen = _unseen_nats(once, twice)
            influence = loss + (np.rint(same.effective) == 1)  # n psi(n) - (n - 1) psi(n - 1) is psi(n) + 1, but psi(1) at n = 1
            for number, change in ((1, (-1, 0)), (2, (1, -1)), (3, (0, 1))):
                influence[times == number] += unseen - _unseen_nats(max(once + change[0], 0.0), max(twice + change[1], 0.0))
            if once > 0:
                loss = loss + (times == 1) * unseen / once
            self._surprises[context] = Surprise(loss, influence, rows.effective)
        return self._surprises[context]

    def backed_off(self, chain: Sequence[Context]) -> Surprise:
        """Each row's surprise under the first context of the chain whose cell has `MIN_EXAMPLES`, else under the last."""
        chosen = self.surprise(chain[-1])
        for context in reversed(chain[:-1]):
            finer = self.surprise(context)
            dense = finer.size >= MIN_EXAMPLES
            chosen = Surprise(*(np.where(dense, new, old) for new, old in zip(finer, chosen, strict=True)))
        return chosen


def _unseen_nats(once: float, twice: float) -> float:
    """Summed bias of psi in nats, from the numbers of outcomes seen once and twice: once * E1(x) exp(x), x = 2 twice / once."""
    expected = 2 * (twice + 1) / (once + 1)  # Poisson: seen once x exp(-x), twice x^2 exp(-x) / 2; psi misses E1(x) x
    return once * float(exp1(expected) * np.exp(expected))


def _digamma_excess(size: Float[np.ndarray, " row"]) -> Float[np.ndarray, " row"]:
    """psi(size) - log(size), below 0: the bias correction of a count's logarithm."""
    return np.asarray(digamma(size) - np.log(size))


def select_context(outcomes: Outcomes, candidates: Sequence[int]) -> Context:
    """The factors of `candidates` on which the outcome depends: those whose count table predicts left-out examples best.

    Greedy, one factor or two at a time (two, since one of a pair such as "same shape as colour" alone predicts nothing), while a step
    gains `MIN_GAIN` nats over all rows, plus the log of the number of steps tried (what a choice among them could gain by chance).
    """
    chosen: Context = ()
    best = outcomes.left_out_loss(chosen)
    while len(chosen) < len(candidates):
        left = [column for column in candidates if column not in chosen]
        tried = {step: outcomes.left_out_loss(tuple(sorted((*chosen, *step)))) for step in [*combinations(left, 1), *combinations(left, 2)]}
        enough = best - MIN_GAIN - math.log(len(tried))
        step = min(tried, key=lambda step: tried[step])
        single = min((one for one in tried if len(one) == 1), key=lambda one: tried[one])
        if tried[single] < enough and single[0] in step:
            step = single  # the other factor of the two must gain enough by itself
        if tried[step] >= enough:
            break
        chosen, best = tuple(sorted((*chosen, *step))), tried[step]
    return chosen
