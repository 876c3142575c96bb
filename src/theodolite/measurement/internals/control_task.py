"""The control task of a probe: labels that are a random function of the values of the other factors.

After Hewitt and Liang 2019 (arXiv 1909.03368): there one random label for each word type, here one for each combination of the other
factors' values. A combination occurs in several scenes, on both sides of a split by scene, so a probe that can memorise combinations
decodes its label on held-out pictures too. Labels shuffled among scenes cannot do that: no probe is above chance at them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Int

NUM_CONTROLS = 3
# A control task needs combinations that occur on both sides of the split: the share of held-out rows whose combination training has.
REPEATED_FRAC = 0.75
# A function of one other factor is linear in any representation that encodes that factor, so it says nothing of the probe's capacity.
LEAST_FACTORS = 2
MOST_FACTORS = 10  # that are tried in all sets


@dataclass(frozen=True, eq=False)
class ControlTask:
    """The combination of other factors' values in each row, and for each draw one label a combination."""

    factors: tuple[str, ...]
    combination: Int[np.ndarray, " row"]
    table: Int[np.ndarray, "draw combination"]

    @property
    def num_combinations(self) -> int:
        """Number of combinations that occur."""
        return int(self.table.shape[1])

    @property
    def labels(self) -> Int[np.ndarray, "draw row"]:
        """The label of each row by draw."""
        return self.table[:, self.combination]

    def repeated(self, training: Bool[np.ndarray, " row"]) -> Bool[np.ndarray, " test"]:
        """Whether the combination of each held-out row occurs in a training row: elsewhere no probe can know its label."""
        return np.isin(self.combination[~training], self.combination[training])

    def take(self, keep: Bool[np.ndarray, " row"]) -> ControlTask:
        """The control task of the rows of a mask."""
        return replace(self, combination=self.combination[keep])


def draw_control(
    others: Mapping[str, Int[np.ndarray, " row"]],
    levels: Int[np.ndarray, " row"],
    training: Bool[np.ndarray, " row"],
    num_levels: int,
    rng: np.random.Generator,
    num_draws: int = NUM_CONTROLS,
) -> ControlTask | None:
    """The control task with as many combinations as repeat across the split; labels in the shares of the levels of training rows.

    `others` are the other factors' levels by row, -1 where unknown; a factor that is unknown in any row is not used. None where fewer than
    two factors can be combined, or where there are fewer than two combinations a level: then selectivity is not measured.
    """
    known = {name: values for name, values in others.items() if (values >= 0).all() and len(np.unique(values)) > 1}
    chosen, combination = _choose(known, training)
    number = int(combination.max(initial=0)) + 1
    if len(chosen) < LEAST_FACTORS or number < 2 * num_levels:
        return None
    shares = np.bincount(levels[training], minlength=num_levels).cumsum() / training.sum()
    quotas = np.searchsorted(shares, (np.arange(number) + 0.5) / number)
    return ControlTask(chosen, combination, np.stack([rng.permutation(quotas) for _ in range(num_draws)]))


def _choose(
    known: Mapping[str, Int[np.ndarray, " row"]], training: Bool[np.ndarray, " row"]
) -> tuple[tuple[str, ...], Int[np.ndarray, " row"]]:
    """The factors with the most combinations among those of which enough held-out rows repeat a combination of training.

    Adding a factor never makes more rows repeat, so a set that has too few is not extended. Of many factors, those of the most levels.
    """
    names = sorted(known, key=lambda name: -len(np.unique(known[name])))[:MOST_FACTORS]
    best: tuple[tuple[str, ...], Int[np.ndarray, " row"]] = (), np.zeros(len(training), dtype=np.int64)
    open_sets = [(0, best)]
    while open_sets:
        start, (chosen, combination) = open_sets.pop()
        for number, name in enumerate(names[start:], start):
            joined = np.unique(combination * (known[name].max() + 1) + known[name], return_inverse=True)[1].reshape(-1).astype(np.int64)
            if np.isin(joined[~training], joined[training]).mean() >= REPEATED_FRAC:
                extended = (*chosen, name), joined
                open_sets.append((number + 1, extended))
                best = extended if joined.max() > best[1].max() else best
    return best
