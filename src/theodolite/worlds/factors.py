"""Factors, the space they span, and scenes in that space. No torch, no pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int

from theodolite.records.errors import BadInput, UnknownName

__all__ = ["Factor", "FactorSpace", "Scene", "Scenes", "UnknownName", "draw_nuisance"]


@dataclass(frozen=True)
class Factor:
    """A latent variable of the visual world, with named values.

    `groups` names disjoint sets of values (a two-level factor: warm and cold colours). A factor that is not
    `nameable` is drawn in every picture, but no query can ask about it. `predicate` is the phrase for a value in a question.
    """

    name: str
    values: tuple[str, ...]
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    nameable: bool = True
    predicate: str = "{value}"

    def __post_init__(self) -> None:
        if len(self.values) < 2 or len(set(self.values)) != len(self.values):
            raise BadInput(f"factor {self.name!r} has values {self.values}; it needs two or more, all different")
        grouped = [value for group in self.groups.values() for value in group]
        if len(set(grouped)) != len(grouped) or not set(grouped) <= set(self.values):
            raise BadInput(f"factor {self.name!r}: groups {dict(self.groups)} must be disjoint sets of its values")

    def level(self, value: str) -> int:
        """Index of a value, 0 to n - 1. Raises `UnknownName`."""
        if value not in self.values:
            raise UnknownName(f"value of {self.name}", value, self.values)
        return self.values.index(value)


@dataclass(frozen=True)
class FactorSpace:
    """All factors of a world, in a fixed order."""

    factors: tuple[Factor, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(factor.name for factor in self.factors)

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(len(factor.values) for factor in self.factors)

    @property
    def nameable(self) -> tuple[str, ...]:
        return tuple(factor.name for factor in self.factors if factor.nameable)

    @property
    def num_scenes(self) -> int:
        """Number of scenes, not counting nuisance seeds."""
        return int(np.prod(self.sizes, dtype=np.int64))

    def index(self, name: str) -> int:
        """Position of a factor in the space. Raises `UnknownName`."""
        if name not in self.names:
            raise UnknownName("factor", name, self.names)
        return self.names.index(name)

    def __getitem__(self, name: str) -> Factor:
        return self.factors[self.index(name)]


@dataclass(frozen=True)
class Scene:
    """One value for every factor, plus a nuisance seed."""

    values: Mapping[str, str]
    nuisance: int

    def do(self, **changes: str) -> Scene:
        """The same scene, same nuisance seed, with some factors set (an intervention). Raises `UnknownName`."""
        for name in changes:
            if name not in self.values:
                raise UnknownName("factor", name, tuple(self.values))
        return Scene({**self.values, **changes}, self.nuisance)


@dataclass(frozen=True, eq=False)
class Scenes:
    """A batch of scenes: levels (scene, factor) and nuisance seeds (scene,)."""

    space: FactorSpace
    levels: Int[np.ndarray, "scene factor"]
    nuisance: Int[np.ndarray, " scene"]

    @classmethod
    def of(cls, space: FactorSpace, scenes: Sequence[Scene]) -> Scenes:
        """A batch of single scenes, each with a value for every factor. Raises `UnknownName`."""
        levels = [[space[name].level(scene.values[name]) for name in space.names] for scene in scenes]
        nuisance = [scene.nuisance for scene in scenes]
        shape = (len(scenes), len(space.names))
        return cls(space, np.array(levels, dtype=np.int16).reshape(shape), np.array(nuisance, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.levels)

    def scene(self, index: int) -> Scene:
        row = self.levels[index]
        values = {factor.name: factor.values[level] for factor, level in zip(self.space.factors, row, strict=True)}
        return Scene(values, int(self.nuisance[index]))

    def take(self, index: np.ndarray) -> Scenes:
        """Scenes selected by position or by a boolean mask."""
        return Scenes(self.space, self.levels[index], self.nuisance[index])

    def of_factor(self, name: str) -> Int[np.ndarray, " scene"]:
        """Levels of one factor. Raises `UnknownName`."""
        return self.levels[:, self.space.index(name)]

    def do(self, name: str, levels: np.ndarray) -> Scenes:
        """The same scenes with one factor set, nuisance kept (an intervention)."""
        changed = self.levels.copy()
        changed[:, self.space.index(name)] = levels
        return Scenes(self.space, changed, self.nuisance)

    def reseed(self, rng: np.random.Generator) -> Scenes:
        """The same factor values under fresh nuisance seeds."""
        return Scenes(self.space, self.levels, draw_nuisance(len(self), rng))

    @staticmethod
    def concatenate(batches: Sequence[Scenes]) -> Scenes:
        """One batch of several, which share a space."""
        levels = np.concatenate([batch.levels for batch in batches])
        return Scenes(batches[0].space, levels, np.concatenate([batch.nuisance for batch in batches]))


def draw_nuisance(num_scenes: int, rng: np.random.Generator) -> Int[np.ndarray, " scene"]:
    """Nuisance seeds, uniform in 0 to 2^62 - 1."""
    return rng.integers(0, 2**62, size=num_scenes, dtype=np.int64)
