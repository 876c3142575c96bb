"""Water-filling: the split of a budget of questions among scenes that makes answers least predictable. Needs no torch."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

# Gains (bits) closer than this count as equal, and such lines share in proportion.
SAME_BITS = 1e-9


def total_bits(asked: Float[np.ndarray, "line answer"]) -> float:
    """Bits of all questions together: the sum over lines of the number of questions times the entropy of their answers."""
    lines = asked.sum(axis=1, keepdims=True)
    frac = np.divide(asked, lines, out=np.ones_like(asked), where=asked > 0)
    return float(-(asked * np.log2(frac)).sum())


def fill_water(
    asked: Float[np.ndarray, "line answer"], room: Float[np.ndarray, "line answer"], least: Float[np.ndarray, "line answer"], budget: float
) -> Float[np.ndarray, "line answer"]:
    """Questions to add, `least` to `room` each and `budget` in all (or all the room), that maximise `total_bits(asked + added)`.

    A line holds scenes equal in all factors but one, split by their answer. The bits are concave and separate by line: within a line, all
    answers that can be raised end at one level (water-filling), and a line with Y questions at level t gains log2(Y / t) bits from one
    more. At the optimum all lines have equal gains. Where many have equal gains (all their answers equal), each is filled to the same share
    of its range.
    """
    if budget >= room.sum():
        return room.copy()
    if budget <= least.sum():
        return np.asarray(least * (budget / least.sum()))
    low, high = asked + least, asked + room

    def at(level: np.ndarray) -> np.ndarray:
        return np.asarray(np.clip(level[:, None], low, high))

    def levels(gain: float) -> np.ndarray:
        """The highest level of each line at which one more question still gains this much."""
        under, over = np.zeros(len(low)), high.max(axis=1)
        for _ in range(60):
            level = (under + over) / 2
            enough = at(level).sum(axis=1) >= 2**gain * level
            under, over = np.where(enough, level, under), np.where(enough, over, level)
        return np.asarray(np.where(over >= high.max(axis=1) * (1 - 1e-12), high.max(axis=1), under))

    wanted = budget + asked.sum()
    small, large = 0.0, 64.0
    while large - small > SAME_BITS:
        gain = (small + large) / 2
        small, large = (gain, large) if at(levels(gain)).sum() >= wanted else (small, gain)
    first, last = levels(large), levels(small)
    under, over = 0.0, 1.0
    for _ in range(60):
        share = (under + over) / 2
        under, over = (share, over) if at(first + share * (last - first)).sum() < wanted else (under, share)
    return np.asarray(at(first + over * (last - first)) - asked)


def fair_shares(available: Float[np.ndarray, " query"], budget: float) -> Float[np.ndarray, " query"]:
    """Equal shares of a budget, each at most `available`; what one cannot use goes to the others."""
    remaining, shares = budget, np.zeros(len(available))
    for place, index in enumerate(np.argsort(available, kind="stable")):
        shares[index] = min(float(available[index]), remaining / (len(available) - place))
        remaining -= shares[index]
    return shares
