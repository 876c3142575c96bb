"""What a measure is given: the model, its answers, the interventions, and what was captured inside."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float, Int
from torch.distributed.tensor import DTensor

from theodolite.asking.local import LocalAsker
from theodolite.measurement.internals.activations import Activations, FactorQuestion, capture
from theodolite.measurement.pairs.interventions import Interventions
from theodolite.measurement.pairs.plan import Plan
from theodolite.records.progress import Progress, silent
from theodolite.worlds.query import Query
from theodolite.worlds.world import World

RANKED_SCENES = 200


@dataclass(frozen=True, eq=False)
class SpokenValues:
    """What a model says a factor's value is: positions in the pool, and levels (-1 for a word that is none of its values)."""

    picture: Int[np.ndarray, " sample"]
    level: Int[np.ndarray, " sample"]


@dataclass(eq=False)
class MeasureContext:
    """A surveyed model with everything that measures of its inside need; activations are captured when first asked for.

    `rows` are the survey's answered rows; `changes` the interventions by factor, of the scenes that measures of the inside use. `progress`
    is that of the measure that runs at the moment.
    """

    model: Any
    asker: LocalAsker
    plan: Plan
    rows: pl.DataFrame
    changes: Mapping[str, Interventions]
    groups: Mapping[str, Mapping[str, tuple[str, ...]]]
    questions: tuple[FactorQuestion, ...]
    confidence: float
    seed: int
    progress: Progress = silent

    def rng(self, name: str) -> np.random.Generator:
        """A generator seeded by the survey's seed and a name."""
        return np.random.default_rng([self.seed, 11, zlib.crc32(name.encode())])

    @cached_property
    def pictures(self) -> Int[np.ndarray, " picture"]:
        """Positions of all pictures that an intervention has, in order."""
        sides = [side for changes in self.changes.values() for side in (changes.before, changes.after)]
        return np.unique(np.concatenate(sides)) if sides else np.empty(0, dtype=np.int64)

    @cached_property
    def activations(self) -> Activations:
        """The reductions at all sites of all these pictures; ranks for the first picture of the first 200 scenes."""
        first: dict[int, int] = {}
        for changes in self.changes.values():
            for scene, picture in zip(changes.scene.tolist(), changes.before.tolist(), strict=True):
                first.setdefault(scene, picture)
        ranked = np.array([first[scene] for scene in sorted(first)[:RANKED_SCENES]], dtype=np.int64)
        return capture(self.asker, self.plan.pictures, self.pictures, self.questions, ranked, self.seed, self.progress)

    @cached_property
    def unembedding(self) -> Float[np.ndarray, "word dim"]:
        """The rows of the output vocabulary's matrix."""
        weight = self.asker.base.get_output_embeddings().weight.detach()
        whole = weight.full_tensor() if isinstance(weight, DTensor) else weight
        found: Float[np.ndarray, "word dim"] = whole.float().cpu().numpy()
        return found

    @cached_property
    def spoken(self) -> Mapping[str, SpokenValues]:
        """By factor: what the model says to its open question about the labelled pictures, where there is one."""
        found = {}
        for question in self.questions:
            if question.about in self.changes:
                labelled = self.changes[question.about].labelled()
                index = {value: level for level, value in enumerate(labelled.values)}
                level = np.array([index.get(choice, -1) for choice in question.choices])
                said = self.activations.said(question.about)[labelled.picture]
                found[question.about] = SpokenValues(labelled.picture, np.where(said >= 0, level[said], -1))
        return found


def questions_of(rows: pl.DataFrame, world: World | None) -> tuple[FactorQuestion, ...]:
    """The open questions of a survey: those that are asked in its rows, and of a world all that can be, one a factor."""
    asked = rows.filter((pl.col("form") == "open") & (pl.col("kind") == "intervention"))
    found = {
        str(about): FactorQuestion(str(about), str(text), tuple(sorted(choices)))
        for about, text, choices in asked.select("query", "question_before", "choices").unique("query", maintain_order=True).iter_rows()
    }
    for query in _open_queries(world):
        found[query.about] = FactorQuestion(query.about, query.wordings[0], query.choices)
    return tuple(found.values())


def _open_queries(world: World | None) -> Sequence[Query]:
    return () if world is None else [query for query in world.queries if query.form == "open"]
