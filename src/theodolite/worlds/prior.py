"""The distribution over scenes: independent and uniform, but for named correlations."""

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
        """The map: which values of the effect each value of the cause sets, True where they go together.

        Equal sizes: value i sets value i. A larger effect is cut into runs of neighbours, one run a cause value, and
        the value is uniform in its run (3 shapes and 8 colours: runs of 3, 3 and 2). A smaller effect is shared: cause value i sets
        value floor(i * n_effect / n_cause).
        """
        num_cause, num_effect = len(space[self.cause].values), len(space[self.effect].values)
        cause, effect = np.arange(num_cause)[:, None], np.arange(num_effect)[None, :]
        if num_effect >= num_cause:
            return np.asarray(effect * num_cause // num_effect == cause)
        return np.asarray(cause * num_effect // num_cause == effect)

    def conditional(self, space: FactorSpace) -> Float[np.ndarray, "cause effect"]:
        """p(effect | cause), rows sum to 1."""
        follows = self.follows(space)
        chosen = follows / follows.sum(axis=1, keepdims=True)
        return np.asarray(self.strength * chosen + (1 - self.strength) / follows.shape[1])

    def describe(self, space: FactorSpace) -> dict[str, list[str]]:
        """The map in words: each cause value and the effect values that it sets."""
        effects = space[self.effect].values
        rows = zip(space[self.cause].values, self.follows(space), strict=True)
        return {value: [effects[j] for j in np.flatnonzero(row)] for value, row in rows}


@dataclass(frozen=True)
class Prior:
    """p(s): factors independent and uniform, except where `correlate` ties one to another."""

    space: FactorSpace
    correlations: tuple[Correlation, ...] = ()

    def correlate(self, cause: str, effect: str, strength: float) -> Prior:
        """A prior in which, with probability `strength` (0 to 1), `effect` is set by `cause`.

        Raises `UnknownName` on a factor that is not there, `BadInput` on a strength outside 0 to 1, on a factor
        that is set twice, and on a circle.
        """
        if not 0 <= strength <= 1:
            raise BadInput(f"strength is {strength}; it is a probability: give a number from 0 to 1")
        self.space.index(cause), self.space.index(effect)
        if effect in self._causes_of(cause) | {cause}:
            raise BadInput(f"{cause} -> {effect} closes a circle; correlations must run one way")
        if any(known.effect == effect for known in self.correlations):
            raise BadInput(f"{effect} is already set by another factor; correlate it once")
        return replace(self, correlations=(*self.correlations, Correlation(cause, effect, float(strength))))

    def _causes_of(self, name: str) -> set[str]:
        direct = {known.cause for known in self.correlations if known.effect == name}
        return direct.union(*(self._causes_of(cause) for cause in direct))

    @property
    def correlated(self) -> frozenset[str]:
        """Names of all factors that some correlation touches."""
        return frozenset(name for known in self.correlations for name in (known.cause, known.effect))

    def table(self, names: tuple[str, ...]) -> Float[np.ndarray, "..."]:
        """p over some factors, one axis each in the order given; sums to 1. They must hold all correlated ones or none."""
        table = np.ones(tuple(len(self.space[name].values) for name in names))
        effects = {known.effect for known in self.correlations}
        table /= np.prod([len(self.space[name].values) for name in names if name not in effects])
        for known in self.correlations:
            if known.effect in names:
                table = table * spread(known.conditional(self.space), (known.cause, known.effect), names)
        return table

    def agreement(self, names: tuple[str, ...]) -> Bool[np.ndarray, "..."]:
        """True where a scene follows every correlation, broadcastable over the axes `names`."""
        agree = np.ones((1,) * len(names), dtype=bool)
        for known in self.correlations:
            agree = agree & spread(known.follows(self.space), (known.cause, known.effect), names)
        return agree

    def agrees(self, scenes: Scenes) -> Bool[np.ndarray, " scene"]:
        """Whether each scene follows every correlation."""
        agree = np.ones(len(scenes), dtype=bool)
        for known in self.correlations:
            agree &= known.follows(self.space)[scenes.of_factor(known.cause), scenes.of_factor(known.effect)]
        return agree

    def sample(self, num_scenes: int, rng: np.random.Generator) -> Scenes:
        """Scenes drawn from p(s), with fresh nuisance seeds."""
        sizes = self.space.sizes
        levels = np.stack([rng.integers(0, size, num_scenes, dtype=np.int16) for size in sizes], axis=1)
        for known in self._in_causal_order():
            cause, effect = self.space.index(known.cause), self.space.index(known.effect)
            cumulative = known.conditional(self.space).cumsum(axis=1)[levels[:, cause]]
            drawn = (rng.random(num_scenes)[:, None] >= cumulative).sum(axis=1)
            levels[:, effect] = np.minimum(drawn, sizes[effect] - 1)
        return Scenes(self.space, levels, draw_nuisance(num_scenes, rng))

    def _in_causal_order(self) -> list[Correlation]:
        return sorted(self.correlations, key=lambda known: len(self._causes_of(known.cause)))


def spread(table: np.ndarray, axes: tuple[str, ...], names: tuple[str, ...]) -> np.ndarray:
    """A table over `axes` laid out over `names`: axes in their order, length 1 where the table does not depend."""
    order = sorted(range(len(axes)), key=lambda axis: names.index(axes[axis]))
    shape = [table.shape[axes.index(name)] if name in axes else 1 for name in names]
    return np.asarray(table.transpose(order).reshape(shape))
