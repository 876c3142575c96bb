"""`resolved_frac`: how many pairs of scenes the questions of a policy distinguish."""

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
    """Chance, 0 to 1, that two scenes are distinguished, with its interval; the ends equal the value where it is exact."""

    value: float
    low: float
    high: float
    exact: bool


def measure_distinguishability(
    weights: Float[np.ndarray, "..."], asked: Sequence[tuple[Int[np.ndarray, "..."], Bool[np.ndarray, "..."]]], seed: int = 0
) -> Distinguishability:
    """Chance that two scenes drawn from `weights` are distinguished by some query supported at both.

    `asked` holds (answer, support) per query, broadcastable to `weights`. Scenes that support the same queries share a pattern. Scenes of
    two patterns are distinguished exactly if their answers to the queries common to both differ: so the sum runs over pairs of patterns,
    never over pairs of scenes. More than 64 patterns (as where each yes/no question is asked only if it holds) are estimated from draws,
    with a 95 % interval.
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
    """The distinct rows, and the position of each row among them."""
    member = np.zeros(len(table), dtype=np.int64)
    for column in table.T:  # refining column by column sorts numbers instead of rows
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
    distinguished = np.zeros(NUM_DRAWS, dtype=bool)
    for query in range(answers.shape[1]):
        both = supports[drawn[0], query] & supports[drawn[1], query]
        distinguished |= both & (answers[drawn[0], query] != answers[drawn[1], query])
    interval = stats.binomtest(int(distinguished.sum()), NUM_DRAWS).proportion_ci(CONFIDENCE, method="wilson")
    return Distinguishability(value=float(distinguished.mean()), low=float(interval.low), high=float(interval.high), exact=False)
