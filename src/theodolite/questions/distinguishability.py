"""`resolved_frac`: how finely the questions, taken together, can tell scenes apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats

MAX_SUPPORT_PATTERNS = 64
NUM_DRAWS = 200_000
CONFIDENCE = 0.95


class Distinguishability(NamedTuple):
    """A chance, 0 to 1, with its ends; both equal it where it is exact."""

    value: float
    low: float
    high: float
    exact: bool


def measure_distinguishability(
    weights: Float[np.ndarray, "..."],
    asked: Sequence[tuple[Int[np.ndarray, "..."], Bool[np.ndarray, "..."]]],
    seed: int = 0,
) -> Distinguishability:
    """Chance that two scenes drawn from `weights` are told apart by some query supported at both.

    `asked` holds (answer, support) per query, broadcastable to `weights`. Scenes that support the same queries share a
    pattern. For two patterns only the queries common to both can tell, and they tell exactly when their answers, taken
    together, differ: so the sum runs over pairs of patterns, never over pairs of scenes. Policies with more than 64
    patterns (each yes/no question asked only where it holds, say) are estimated from draws, with a 95 % interval.
    """
    scene = weights.ravel()
    answers = np.stack([np.broadcast_to(answer, weights.shape).ravel() for answer, _ in asked], axis=1).astype(np.int16)
    supports = np.stack([np.broadcast_to(support, weights.shape).ravel() for _, support in asked], axis=1)
    alive = scene > 0
    scene, answers, supports = scene[alive], answers[alive], supports[alive]
    patterns, member = _classes(supports)
    if len(patterns) > MAX_SUPPORT_PATTERNS:
        return _estimate(scene, answers, supports, np.random.default_rng(seed))
    same = 0.0
    for first in range(len(patterns)):
        for second in range(first, len(patterns)):
            common = patterns[first] & patterns[second]
            chance = _same(scene, answers[:, common], member == first, member == second)
            same += chance if first == second else 2 * chance
    value = round(min(max(1 - same, 0.0), 1.0), 12)
    return Distinguishability(value=value, low=value, high=value, exact=True)


def _classes(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct rows, and which of them each row is."""
    member = np.zeros(len(table), dtype=np.int64)
    for column in table.T:  # refining column by column sorts numbers, not rows
        _, member = np.unique(member * (int(column.max()) + 1) + column, return_inverse=True)
    _, first = np.unique(member, return_index=True)
    return table[first], member


def _same(scene: np.ndarray, answers: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
    """Chance that a scene of the first set and one of the second give the same answers."""
    _, signature = _classes(answers) if answers.shape[1] else (None, np.zeros(len(scene), dtype=int))
    count = int(signature.max()) + 1
    one = np.bincount(signature[first], scene[first], count)
    other = np.bincount(signature[second], scene[second], count)
    return float((one * other).sum())


def _estimate(scene: np.ndarray, answers: np.ndarray, supports: np.ndarray, rng: np.random.Generator) -> Distinguishability:
    drawn = rng.choice(len(scene), size=(2, NUM_DRAWS), p=scene / scene.sum())
    told = np.zeros(NUM_DRAWS, dtype=bool)
    for query in range(answers.shape[1]):
        both = supports[drawn[0], query] & supports[drawn[1], query]
        told |= both & (answers[drawn[0], query] != answers[drawn[1], query])
    interval = stats.binomtest(int(told.sum()), NUM_DRAWS).proportion_ci(CONFIDENCE, method="wilson")
    return Distinguishability(value=float(told.mean()), low=float(interval.low), high=float(interval.high), exact=False)
