"""The prior over scenes: factors independent and uniform, except for named correlations."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from theodolite.records.errors import BadInput
from theodolite.worlds.factors import FactorSpace, Scenes, draw_nuisance


@dataclass(frozen=True)
class Correlation:
    """With probability `strength`, factor `effect` is set by factor `cause`; else it is uniform."""

    cause: str
    effect: str
    strength: float

    def follows(self, space: FactorSpace) -> Bool[np.ndarray, "cause effect"]:
        """True where a value of the cause sets a value of the effect.

        Equal sizes: value i sets value i. A larger effect is cut into runs of neighbouring values, one run per cause value, and
        is uniform within its run (3 shapes and 8 colours: runs of 3, 3 and 2). A smaller effect is shared: cause value i sets
        value floor(i * n_effect / n_cause).
        """
        num_cause, num_effect = len(space[self.cause].values), len(space[self.effect].values)
        cause, effect = np.arange(num_cause)[:, None], np.arange(num_effect)[None, :]
        if num_effect >= num_cause:
            return np.asarray(effect * num_cause // num_effect == cause)
        return np.asarray(cause * num_effect // num_cause == effect)

    def conditional(self, space: FactorSpace) -> Float[np.ndarray, "cause effect"]:
        """p(effect | cause); each row sums to 1."""
        follows = self.follows(space)
        determined = follows / follows.sum(axis=1, keepdims=True)
        return np.asarray(self.strength * determined + (1 - self.strength) / follows.shape[1])

    def describe(self, space: FactorSpace) -> dict[str, list[str]]:
        """The effect values that each cause value sets, by name."""
        effects = space[self.effect].values
        rows = zip(space[self.cause].values, self.follows(space), strict=True)
        return {value: [effects[j] for j in np.flatnonzero(row)] for value, row in rows}


@dataclass(frozen=True)
class Prior:
    """p(s): factors independent and uniform, except where `correlate` makes one depend on another."""

    space: FactorSpace
    correlations: tuple[Correlation, ...] = ()

    def correlate(self, cause: str, effect: str, strength: float) -> Prior:
        """A prior in which, with probability `strength` (0 to 1), `effect` is set by `cause`.

        Raises `UnknownName` on an unknown factor, `BadInput` on a strength outside 0 to 1, on an effect
        that is already set by another factor, and on a cycle.
        """
        if not 0 <= strength <= 1:
            raise BadInput(f"strength is {strength}; it is a probability: give a number from 0 to 1")
        self.space.index(cause), self.space.index(effect)
        if effect in self._causes_of(cause) | {cause}:
            raise BadInput(f"{cause} -> {effect} closes a cycle; correlations must run one way")
        if any(each.effect == effect for each in self.correlations):
            raise BadInput(f"{effect} is already set by another factor; correlate it once")
        return replace(self, correlations=(*self.correlations, Correlation(cause, effect, float(strength))))

    def _causes_of(self, name: str) -> set[str]:
        direct = {each.cause for each in self.correlations if each.effect == name}
        return direct.union(*(self._causes_of(cause) for cause in direct))

    @property
    def correlated(self) -> frozenset[str]:
        """Names of the factors that are cause or effect of a correlation."""
        return frozenset(name for each in self.correlations for name in (each.cause, each.effect))

    def table(self, names: tuple[str, ...]) -> Float[np.ndarray, "..."]:
        """Joint p of the named factors, one axis each in the given order; sums to 1. `names` must hold all correlated factors or none."""
        table = np.ones(tuple(len(self.space[name].values) for name in names))
        effects = {each.effect for each in self.correlations}
        table /= np.prod([len(self.space[name].values) for name in names if name not in effects])
        for correlation in self.correlations:
            if correlation.effect in names:
                table = table * spread(correlation.conditional(self.space), (correlation.cause, correlation.effect), names)
        return table

    def agreement(self, names: tuple[str, ...]) -> Bool[np.ndarray, "..."]:
        """True where a scene follows every correlation, broadcastable over the axes `names`."""
        agree = np.ones((1,) * len(names), dtype=bool)
        for correlation in self.correlations:
            agree = agree & spread(correlation.follows(self.space), (correlation.cause, correlation.effect), names)
        return agree

    def agrees(self, scenes: Scenes) -> Bool[np.ndarray, " scene"]:
        """Whether each scene follows every correlation."""
        agree = np.ones(len(scenes), dtype=bool)
        for correlation in self.correlations:
            cause, effect = (scenes.of_factor(name) for name in (correlation.cause, correlation.effect))
            agree &= correlation.follows(self.space)[cause, effect]
        return agree

    def sample(self, num_scenes: int, rng: np.random.Generator) -> Scenes:
        """Scenes drawn from p(s), with fresh nuisance seeds."""
        sizes = self.space.sizes
        levels = np.stack([rng.integers(0, size, num_scenes, dtype=np.int16) for size in sizes], axis=1)
        for correlation in self._in_causal_order():
            cause, effect = self.space.index(correlation.cause), self.space.index(correlation.effect)
            cumulative = correlation.conditional(self.space).cumsum(axis=1)[levels[:, cause]]
            drawn = (rng.random(num_scenes)[:, None] >= cumulative).sum(axis=1)
            levels[:, effect] = np.minimum(drawn, sizes[effect] - 1)
        return Scenes(self.space, levels, draw_nuisance(num_scenes, rng))

    def _in_causal_order(self) -> list[Correlation]:
        return sorted(self.correlations, key=lambda each: len(self._causes_of(each.cause)))


def spread(table: np.ndarray, axes: tuple[str, ...], names: tuple[str, ...]) -> np.ndarray:
    """A table over `axes`, broadcastable over `names`: axes in the order of `names`, length 1 where a name is not among `axes`."""
    order = sorted(range(len(axes)), key=lambda axis: names.index(axes[axis]))
    shape = [table.shape[axes.index(name)] if name in axes else 1 for name in names]
    return np.asarray(table.transpose(order).reshape(shape))
