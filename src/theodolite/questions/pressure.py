"""`pressure_bits` of annotated examples: the gain in bits of predicting answers with one more factor."""

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
    """Cross-entropy of each recorded answer without a factor less that with it, in bits: the mean over rows estimates `pressure_bits`.

    `influence` is the change of the summed gaps when the row is left out, sampling errors of the counts included.
    """

    bits: Float[np.ndarray, "row factor"]
    influence: Float[np.ndarray, "row factor"]


def pressure_gaps(table: Annotated, rng: np.random.Generator, num_folds: int = NUM_FOLDS) -> Gaps:
    """`Gaps` of all rows and factors.

    Both predictors are count tables given the query: over all factors where a cell has enough examples, else over the selected factors.
    These are selected on the other folds (folds by example), so that no row influences its own predictor; counts are corrected for
    their bias (`Outcomes.surprise`).
    """
    bits, influence = (np.zeros((len(table), len(table.factors))) for _ in range(2))
    fold = rng.permutation(table.num_examples)[table.example] % num_folds
    for query in range(len(table.queries)):
        rows = np.flatnonzero(table.query == query)
        outcomes = Outcomes(table.levels[table.example[rows]], table.answer[rows], table.example[rows])
        for number in range(num_folds):
            inside = fold[rows] == number
            if inside.any():
                gaps = _fold_gaps(outcomes, outcomes.take(~inside))
                bits[rows[inside]], influence[rows[inside]] = gaps.bits[inside], gaps.influence[inside]
    return Gaps(bits, influence)


def _fold_gaps(outcomes: Outcomes, training: Outcomes) -> Gaps:
    """Gaps of all rows, with the contexts selected on the training rows."""
    num_factors = outcomes.levels.shape[1]
    everything = tuple(range(num_factors))
    selected = select_context(training, everything)
    bits, influence = (np.zeros(outcomes.levels.shape) for _ in range(2))
    for factor in everything:
        rest = tuple(column for column in everything if column != factor)
        selected_rest = select_context(training, rest) if factor in selected else selected
        without = outcomes.backed_off((rest, selected_rest))
        with_factor = outcomes.backed_off((everything, tuple(sorted({*selected, factor})), selected))
        bits[:, factor] = (without.loss - with_factor.loss) / math.log(2)
        influence[:, factor] = (without.influence - with_factor.influence) / math.log(2)
    return Gaps(bits, influence)


def pressure_estimate(gaps: Gaps, factor: int, table: Annotated, confidence: float) -> Estimate:
    """Mean gap in bits, 0 or more, with a t interval clustered by example; ends are None for fewer than two examples.

    Where all examples have the same gap, or the interval lies below 0, the ends are taken from unseen answers instead: an answer of
    probability e stays unseen in n examples unless (1 - e)^n is below the level, and is worth at most h(e) + e log2(answers - 1) bits
    (Fano).
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
    """Upper bound in bits of answers that none of `num_examples` gave, at a two-sided confidence."""
    chance = min(0.5, 1 - ((1 - confidence) / 2) ** (1 / num_examples))
    binary = -chance * math.log2(chance) - (1 - chance) * math.log2(1 - chance)
    return float(binary + chance * math.log2(max(num_answers - 1, 1)))
