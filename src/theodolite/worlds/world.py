"""Interface of a world: factors, a prior, a renderer, and queries."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int, UInt8

from theodolite.records.errors import UnknownName
from theodolite.worlds.factors import FactorSpace, Scenes
from theodolite.worlds.prior import Prior
from theodolite.worlds.query import Policy, Query

PairKind = Literal["exact", "matched"]


@dataclass(frozen=True, eq=False)
class Pairs:
    """Counterfactual pairs as positions in a pool of scenes: `before` and `after` differ in one factor.

    `scene_id` is the unit of independence. A row whose factor is "" differs in nuisance only: the noise floor.
    `kind` is *exact* (the same scene re-rendered) or *matched* (two real pictures that agree in all other factors).
    """

    kind: PairKind
    pool: Scenes
    scene_id: Int[np.ndarray, " pair"]
    factor: tuple[str, ...]
    before: Int[np.ndarray, " pair"]
    after: Int[np.ndarray, " pair"]

    def __len__(self) -> int:
        return len(self.scene_id)


@dataclass(frozen=True, eq=False)
class OfficialSplit:
    """Questions published with a world's pictures: scenes, and for each question its scene's position, text, true answer and query name."""

    scenes: Scenes
    scene: Int[np.ndarray, " question"]
    text: tuple[str, ...]
    answer: tuple[str, ...]
    query: tuple[str, ...]


class World(ABC):
    """Factors + prior over scenes + renderer + queries. A world with another prior is another object (see `correlate`)."""

    name: str
    prior: Prior
    official_splits: tuple[str, ...] = ()

    @property
    def space(self) -> FactorSpace:
        return self.prior.space

    @property
    def independent(self) -> Prior:
        """p0: the independent uniform prior over the same factors."""
        return Prior(self.space)

    @abstractmethod
    def correlate(self, cause: str, effect: str, strength: float) -> World:
        """The same world under a prior with one more correlation (see `Prior.correlate`)."""

    @property
    @abstractmethod
    def default_correlation(self) -> tuple[str, str]:
        """(cause, effect) of the correlation where only a strength is given."""

    @abstractmethod
    def sample(self, num_scenes: int, rng: np.random.Generator) -> Scenes:
        """Scenes from the prior, for training."""

    def sample_asked(self, num_scenes: int, policy: Policy, rng: np.random.Generator) -> Scenes:
        """Scenes from the prior of which every query of the policy can be asked: any scene, unless a world overrides this."""
        return self.sample(num_scenes, rng)

    def wordings(self, query: Query, scenes: Scenes) -> Sequence[tuple[str, ...]]:
        """The wordings in which training asks a query of each scene."""
        return [query.wordings] * len(scenes)

    @abstractmethod
    def render(self, scenes: Scenes, size: int | None = None) -> UInt8[np.ndarray, "scene size size 3"]:
        """RGB pictures at the model's input size; deterministic given scene and nuisance seed."""

    @abstractmethod
    def pairs(self, num_scenes: int, rng: np.random.Generator) -> Pairs:
        """Pairs for every factor: base scenes from the independent prior, target value uniform over the others."""

    def counterparts(self, changed: Scenes, factor: Sequence[str]) -> tuple[Scenes, Bool[np.ndarray, " scene"]]:
        """For training, a scene with a picture for each scene in which one factor was set, by name, and whether there is one.

        A world that renders any scene has them all; others override this. Where there is none, the scene stays as it was given.
        """
        return changed, np.ones(len(changed), dtype=bool)

    @property
    @abstractmethod
    def queries(self) -> tuple[Query, ...]:
        """Every query that can be asked."""

    @property
    def texts(self) -> tuple[str, ...]:
        """Every question and answer text, which a tokenizer's vocabulary must cover."""
        return tuple(text for query in self.queries for text in (*query.wordings, *query.choices))

    @property
    def open_policy(self) -> str:
        """The policy that asks every open query of every scene, as text."""
        return ",".join(query.name for query in self.queries if query.form == "open")

    @abstractmethod
    def query(self, name: str) -> Query:
        """A query by name: "shape", "shape=round", "shape!=round", "shape=round&colour=red". Raises `UnknownName`."""

    def policy(self, text: str) -> Policy:
        """A policy from text such as "shape:agree,row:odd" (see `Policy.parse`)."""
        return Policy.parse(text, self.query)

    def official_split(self, split: str) -> OfficialSplit:
        """The questions published with the pictures, of one of `official_splits`. Raises `UnknownName`."""
        raise UnknownName(f"official split of {self.name}", split, self.official_splits or ("none",))


def picture_hash(pictures: UInt8[np.ndarray, "scene height width 3"]) -> str:
    """SHA-256 (hex) of the shape and the pixels in order; equal for arms that see the same pictures in the same order."""
    digest = hashlib.sha256(repr(pictures.shape).encode())
    digest.update(np.ascontiguousarray(pictures).data)
    return digest.hexdigest()
