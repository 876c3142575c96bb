"""`pressure_bits` from records: how much better answers are predicted when one more factor is known."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats

from theodolite.questions.annotated import Annotated
from theodolite.questions.conditional_entropy import Outcomes, select_context
from theodolite.records.part import Estimate
from theodolite.stats.rates import partition

NUM_FOLDS = 5
ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class Gaps:
    """How many bits more each recorded answer costs without a factor than with it: the mean over rows estimates `pressure_bits`.

    `influence` is what the sum of the gaps loses when the row is left out: it carries the errors of the counts too.
    """

    bits: Float[np.ndarray, "row factor"]
    influence: Float[np.ndarray, "row factor"]


def pressure_gaps(table: Annotated, rng: np.random.Generator, num_folds: int = NUM_FOLDS) -> Gaps:
    """Log loss of each recorded answer without each factor less that with it, in bits.

    Both sides are count tables given the query: over all factors where a cell has records enough, else over the factors found to
    matter. These are found in the other folds (folds by example), so that no row has a say in how it is predicted; counts
    are corrected for their own bias (`Outcomes.surprise`).
    """
    bits, influence = (np.zeros((len(table), len(table.factors))) for _ in range(2))
    fold = rng.permutation(table.num_examples)[table.example] % num_folds
    for query in range(len(table.queries)):
        rows = np.flatnonzero(table.query == query)
        outcomes = Outcomes(table.levels[table.example[rows]], table.answer[rows], table.example[rows])
        for held in range(num_folds):
            inside = fold[rows] == held
            if inside.any():
                found = _fold(outcomes, outcomes.take(~inside))
                bits[rows[inside]], influence[rows[inside]] = found.bits[inside], found.influence[inside]
    return Gaps(bits, influence)


def _fold(outcomes: Outcomes, training: Outcomes) -> Gaps:
    """Gaps of all rows, with the contexts chosen from the training rows."""
    num_factors = outcomes.levels.shape[1]
    everything = tuple(range(num_factors))
    found = select_context(training, everything)
    bits, influence = (np.zeros(outcomes.levels.shape) for _ in range(2))
    for factor in everything:
        rest = tuple(column for column in everything if column != factor)
        found_rest = select_context(training, rest) if factor in found else found
        without = outcomes.backed_off((rest, found_rest))
        given = outcomes.backed_off((everything, tuple(sorted({*found, factor})), found))
        bits[:, factor] = (without.loss - given.loss) / math.log(2)
        influence[:, factor] = (without.influence - given.influence) / math.log(2)
    return Gaps(bits, influence)


def pressure_estimate(gaps: Gaps, factor: int, table: Annotated, confidence: float) -> Estimate:
    """Mean gap in bits, 0 or more, with a t interval clustered by example; ends None for fewer than two examples.

    Where the gap is the same in every example its spread says nothing, and nothing is left of an interval below 0: the ends are then
    as far as answers could go that have not been seen. A chance e of such an answer goes unseen in n examples unless
    (1 - e)^n is below the level; it is worth at most h(e) + e log2(answers - 1) bits (Fano).
    """
    mean = float(gaps.bits[:, factor].mean())
    groups = partition(table.example)
    value, num_examples = max(0.0, mean), groups.num_scenes
    if num_examples < 2:
        return Estimate(value=value, low=None, high=None, num_scenes=num_examples)
    influence = gaps.influence[:, factor]
    residual = np.bincount(groups.member, influence - influence.mean())
    error = math.sqrt(float((residual**2).sum()) * num_examples / (num_examples - 1)) / len(influence)
    reach = float(stats.t.ppf((1 + confidence) / 2, num_examples - 1)) * error
    if error < ROUNDING or mean + reach < ROUNDING:
        reach = unseen_bits(num_examples, len(table.answers), confidence)
    return Estimate(value=value, low=max(0.0, mean - reach), high=max(0.0, mean + reach), num_scenes=num_examples)


def unseen_bits(num_examples: int, num_answers: int, confidence: float) -> float:
    """The most bits that answers can hold which none of `num_examples` gave, at a two-sided confidence."""
    chance = min(0.5, 1 - ((1 - confidence) / 2) ** (1 / num_examples))
    binary = -chance * math.log2(chance) - (1 - chance) * math.log2(1 - chance)
    return float(binary + chance * math.log2(max(num_answers - 1, 1)))
