"""Input of the measures inside a model: the model, its answers, the interventions and the captured activations."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
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
from theodolite.worlds.world import World

RANKED_SCENES = 200


@dataclass(frozen=True, eq=False)
class SpokenValues:
    """A model's answers to the open question about a factor: positions in the pool, and levels (-1: none of the factor's values)."""

    picture: Int[np.ndarray, " sample"]
    level: Int[np.ndarray, " sample"]


@dataclass(eq=False)
class MeasureContext:
    """A surveyed model with the input of all measures inside it; activations are captured at first use.

    `rows` are the survey's answered rows; `interventions` are by factor, of the scenes that measures inside the model use. `progress`
    is that of the measure that runs now.
    """

    model: Any
    asker: LocalAsker
    plan: Plan
    rows: pl.DataFrame
    interventions: Mapping[str, Interventions]
    groups: Mapping[str, Mapping[str, tuple[str, ...]]]
    questions: tuple[FactorQuestion, ...]
    confidence: float
    seed: int
    progress: Progress = silent

    def rng(self, name: str) -> np.random.Generator:
        """A random generator seeded by the survey's seed and a name."""
        return np.random.default_rng([self.seed, 11, zlib.crc32(name.encode())])

    @cached_property
    def pictures(self) -> Int[np.ndarray, " picture"]:
        """Positions of all pictures of the interventions, ascending."""
        sides = [side for each in self.interventions.values() for side in (each.before, each.after)]
        return np.unique(np.concatenate(sides)) if sides else np.empty(0, dtype=np.int64)

    @cached_property
    def activations(self) -> Activations:
        """Reduced hidden states of `pictures` at all sites; effective ranks only of the first picture of the first 200 scenes."""
        first: dict[int, int] = {}
        for each in self.interventions.values():
            for scene, picture in zip(each.scene.tolist(), each.before.tolist(), strict=True):
                first.setdefault(scene, picture)
        ranked = np.array([first[scene] for scene in sorted(first)[:RANKED_SCENES]], dtype=np.int64)
        return capture(self.asker, self.plan.pictures, self.pictures, self.questions, ranked, self.seed, self.progress)

    @cached_property
    def unembedding(self) -> Float[np.ndarray, "word dim"]:
        """The matrix of output embeddings, float32."""
        weight = self.asker.base.get_output_embeddings().weight.detach()
        full = weight.full_tensor() if isinstance(weight, DTensor) else weight
        return np.asarray(full.float().cpu().numpy())

    @cached_property
    def spoken(self) -> Mapping[str, SpokenValues]:
        """By factor with an open question: the model's answers to it about the labelled pictures."""
        spoken = {}
        for question in self.questions:
            if question.about in self.interventions:
                labelled = self.interventions[question.about].labelled()
                index = {value: level for level, value in enumerate(labelled.values)}
                level = np.array([index.get(choice, -1) for choice in question.choices])
                chosen = self.activations.chosen(question.about)[labelled.picture]
                spoken[question.about] = SpokenValues(labelled.picture, np.where(chosen >= 0, level[chosen], -1))
        return spoken


def questions_of(rows: pl.DataFrame, world: World | None) -> tuple[FactorQuestion, ...]:
    """The open questions of a survey, one a factor: those of its rows, and all of its world where there is one."""
    asked = rows.filter((pl.col("form") == "open") & (pl.col("kind") == "intervention"))
    questions = {
        str(about): FactorQuestion(str(about), str(text), tuple(sorted(choices)))
        for about, text, choices in asked.select("query", "question_before", "choices").unique("query", maintain_order=True).iter_rows()
    }
    for query in world.queries if world is not None else ():
        if query.form == "open":
            questions[query.about] = FactorQuestion(query.about, query.wordings[0], query.choices)
    return tuple(questions.values())
