"""What is known when an answer is predicted: count tables over subsets of the factors, the subset chosen out of sample.

Two pieces. `select_context` says on which factors an outcome depends; `Surprise` says, without the bias of counts, how many bits an
outcome still holds once some factors are known, backing off to fewer factors where records are few.
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
PRIOR_WEIGHT = 1.0  # how many records the overall shares of the outcomes count for, in a table's cell
MIN_EXAMPLES = 8  # cells with fewer examples back off: below that, digamma counts underestimate what is unseen
MIN_GAIN = 3.0


def cells(levels: Int[np.ndarray, "row factor"], context: Context) -> Int[np.ndarray, " row"]:
    """Which combination of values of the context's factors each row has, numbered from 0 without gaps."""
    return np.asarray(np.unique(_numbers(levels, context), return_inverse=True)[1])


def _numbers(levels: np.ndarray, context: Context) -> np.ndarray:
    """The same with gaps: below four times the rows, so that counting by number costs no more than the rows do."""
    found = np.zeros(len(levels), dtype=np.int64)
    for column in context:
        found = found * (int(levels[:, column].max(initial=0)) + 1) + levels[:, column]
        if found.max(initial=0) > 4 * len(levels):
            found = np.unique(found, return_inverse=True)[1]
    return found


class CellCounts(NamedTuple):
    """Rows of a cell as each of its rows sees them: how many, how many of its own example, and how many examples they are worth."""

    total: Float[np.ndarray, " row"]
    own: Float[np.ndarray, " row"]
    effective: Float[np.ndarray, " row"]  # Kish's effective number: the number of examples if each has as many rows


class Surprise(NamedTuple):
    """How many nats each row's outcome holds, given a context."""

    loss: Float[np.ndarray, " row"]
    influence: Float[np.ndarray, " row"]  # what the sum of the losses loses when the row is left out: for errors, not for means
    size: Float[np.ndarray, " row"]  # effective examples in the row's cell


@dataclass(frozen=True, eq=False)
class Outcomes:
    """Rows with an outcome each (an answer, or whether a question is asked), the factor levels and the example of each row."""

    levels: Int[np.ndarray, "row factor"]
    outcome: Int[np.ndarray, " row"]
    example: Int[np.ndarray, " row"]
    _surprises: dict[Context, Surprise] = field(default_factory=dict, repr=False)
    _losses: dict[Context, float] = field(default_factory=dict, repr=False)

    def take(self, kept: Bool[np.ndarray, " row"]) -> Outcomes:
        return Outcomes(self.levels[kept], self.outcome[kept], self.example[kept])

    @cached_property
    def one_row_each(self) -> bool:
        """Whether no example has several rows, so that rows may be counted in place of examples."""
        return bool(np.bincount(self.example).max(initial=0) <= 1)

    @cached_property
    def shares(self) -> Float[np.ndarray, " row"]:
        """Overall share of each row's outcome among the other examples, one row of each outcome added."""
        overall, num_outcomes = self._tally(self.outcome), int(self.outcome.max(initial=0)) + 1
        return np.asarray((overall.total - overall.own + 1) / (len(self.outcome) - overall.own + num_outcomes))

    def _tally(self, cell: np.ndarray) -> CellCounts:
        total = np.bincount(cell).astype(float)
        if self.one_row_each:
            return CellCounts(total[cell], np.ones(len(cell)), total[cell])
        num_examples = int(self.example.max(initial=0)) + 1
        part, shared = np.unique(cell * num_examples + self.example, return_inverse=True)
        own = np.bincount(shared).astype(float)
        squares = np.bincount(part // num_examples, own**2, len(total))
        return CellCounts(total[cell], own[shared], total[cell] ** 2 / squares[cell])

    def _tallies(self, context: Context) -> tuple[CellCounts, CellCounts]:
        """Of the rows in the same cell, and of those of them with the same outcome."""
        cell = _numbers(self.levels, context)
        both = cell * (int(self.outcome.max(initial=0)) + 1) + self.outcome
        if both.max(initial=0) > 4 * len(both):
            both = np.unique(both, return_inverse=True)[1]
        return self._tally(cell), self._tally(both)

    def left_out_loss(self, context: Context) -> float:
        """Summed log loss, in nats, of a smoothed count table over `context`, each example predicted from all others."""
        if context not in self._losses:
            here, hit = self._tallies(context)
            chance = (hit.total - hit.own + PRIOR_WEIGHT * self.shares) / (here.total - here.own + PRIOR_WEIGHT)
            self._losses[context] = float(-np.log(chance).sum())
        return self._losses[context]

    def surprise(self, context: Context) -> Surprise:
        """Log loss of each row in nats under a count table over `context`, its mean free of the counts' bias.

        The mean of psi(N) - psi(n), N rows in the cell and n of them with the row's outcome, is Zhang's entropy (Neural Computation 24,
        2012): psi(n) lies halfway between log n (the row's own count is in the table) and log(n - 1) (it is left out), so that
        overfitting and cross-fitting cancel. Its bias falls exponentially in N p; what is left, for outcomes expected
        about once in a cell, is added to outcomes seen once, after Good and Turing, from how many are seen once and twice
        (Chao, Wang and Jost, Methods in Ecology and Evolution 4, 2013, pooled over cells). Where an example has several rows in a cell, its
        effective number of examples enters psi.
        """
        if context not in self._surprises:
            here, hit = self._tallies(context)
            loss = np.log(here.total / hit.total) + _shrink(here.effective) - _shrink(hit.effective)
            times = np.where(here.effective >= MIN_EXAMPLES, np.rint(hit.effective), 0)  # how often the outcome was seen in the cell
            once, twice = (float((1 / hit.total[times == number]).sum()) for number in (1, 2))
            unseen = _unseen(once, twice)
            influence = loss + (np.rint(hit.effective) == 1)  # n psi(n) - (n - 1) psi(n - 1) is psi(n) + 1, but psi(1) at n = 1
            for number, change in ((1, (-1, 0)), (2, (1, -1)), (3, (0, 1))):
                influence[times == number] += unseen - _unseen(max(once + change[0], 0.0), max(twice + change[1], 0.0))
            if once > 0:
                loss = loss + (times == 1) * unseen / once
            self._surprises[context] = Surprise(loss, influence, here.effective)
        return self._surprises[context]

    def backed_off(self, chain: Sequence[Context]) -> Surprise:
        """Each row under the first context of the chain whose cell has `MIN_EXAMPLES`, else under the last."""
        found = self.surprise(chain[-1])
        for context in reversed(chain[:-1]):
            finer = self.surprise(context)
            dense = finer.size >= MIN_EXAMPLES
            found = Surprise(*(np.where(dense, new, old) for new, old in zip(finer, found, strict=True)))
        return found


def _unseen(once: float, twice: float) -> float:
    """Nats that psi misses in all, from the numbers of outcomes seen once and twice: once * E1(x) exp(x), x = 2 twice / once."""
    expected = 2 * (twice + 1) / (once + 1)  # Poisson: seen once x exp(-x), twice x^2 exp(-x) / 2; psi misses E1(x) x
    return once * float(exp1(expected) * np.exp(expected))


def _shrink(size: Float[np.ndarray, " row"]) -> Float[np.ndarray, " row"]:
    """psi(size) - log(size): what a count's logarithm overstates."""
    return np.asarray(digamma(size) - np.log(size))


def select_context(outcomes: Outcomes, candidates: Sequence[int]) -> Context:
    """The factors of `candidates` on which the outcome is found to depend: those whose count table predicts left-out examples best.

    Greedy, one factor or two at a time (two, since either of "same shape as colour" alone says nothing), as long as a step gains
    `MIN_GAIN` nats over all rows and as much as choosing among the steps could gain by chance.
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
            step = single  # the other of the two must earn its place by itself
        if tried[step] >= enough:
            break
        chosen, best = tuple(sorted((*chosen, *step))), tried[step]
    return chosen
