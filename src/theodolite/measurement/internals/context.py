"""Input of the measures inside a model: the model, its answers, the interventions and the captured activations."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int, UInt8
from torch.distributed.tensor import DTensor

from theodolite.asking.local import LocalAsker
from theodolite.measurement.internals.activations import Activations, FactorQuestion, capture
from theodolite.measurement.pairs.interventions import Interventions
from theodolite.measurement.pairs.plan import Plan
from theodolite.records.progress import Progress, silent
from theodolite.worlds.world import World

RANKED_SCENES = 200


@dataclass(frozen=True, eq=False)
class SpokenAnswers:
    """A model's answers to the open question about a factor: positions in the pool, and whether each answer is the true one."""

    picture: Int[np.ndarray, " sample"]
    right: Bool[np.ndarray, " sample"]


@dataclass(eq=False)
class MeasureContext:
    """A surveyed model with the input of all measures inside it; activations are captured at first use.

    `rows` are the survey's answered rows; `interventions` are by factor, of the scenes that measures inside the model use; `questions` by
    picture. `progress` is that of the measure that runs now. `sentences` is a text file for the measure of words, `shown_pictures` are
    pictures by file name that measures add to the example pictures.
    """

    model: Any
    asker: LocalAsker
    plan: Plan
    rows: pl.DataFrame
    interventions: Mapping[str, Interventions]
    groups: Mapping[str, Mapping[str, tuple[str, ...]]]
    questions: Mapping[int, tuple[FactorQuestion, ...]]
    confidence: float
    seed: int
    progress: Progress = silent
    sentences: Path | None = None
    shown_pictures: dict[str, UInt8[np.ndarray, "height width 3"]] = field(default_factory=dict)

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
        questions = {int(picture): self.questions[int(picture)] for picture in self.pictures}
        return capture(self.asker, self.plan.pictures, questions, ranked, self.seed, self.progress)

    @cached_property
    def unembedding(self) -> Float[np.ndarray, "word dim"]:
        """The matrix of output embeddings, float32."""
        weight = self.asker.base.get_output_embeddings().weight.detach()
        full = weight.full_tensor() if isinstance(weight, DTensor) else weight
        return np.asarray(full.float().cpu().numpy())

    @cached_property
    def spoken(self) -> Mapping[str, SpokenAnswers]:
        """By factor with an open question: the model's answers to it about the labelled pictures."""
        spoken = {}
        for factor, interventions in self.interventions.items():
            if factor in self.activations.queries:
                labelled, chosen = interventions.labelled(), self.activations.chosen(factor)
                asked = chosen[labelled.picture] >= 0
                samples = zip(labelled.picture[asked].tolist(), labelled.level[asked].tolist(), strict=True)
                right = [self._is_true(factor, picture, int(chosen[picture]), labelled.values[level]) for picture, level in samples]
                spoken[factor] = SpokenAnswers(labelled.picture[asked], np.array(right, dtype=bool))
        return spoken

    def _is_true(self, about: str, picture: int, chosen: int, value: str) -> bool:
        """Whether a choice of a picture's own question about a factor is the true one."""
        question = next(question for question in self.questions[picture] if question.about == about)
        return question.choices[chosen] == (value if question.truth is None else question.truth)


def questions_of(rows: pl.DataFrame, world: World | None) -> dict[int, tuple[FactorQuestion, ...]]:
    """The questions to ask of each picture of the interventions in a survey's rows, at most one for each query, by picture.

    A world's open queries hold of every one of its pictures: each is asked in one wording. Without a world a picture is asked its own open
    questions, in the words and with the choices of the first row that asks it; where it has none, the question of its first row, whose
    answer position is not read.
    """
    asked = rows.filter(pl.col("kind") == "intervention")
    first = asked.filter(pl.col("form") == "open")["query"].unique(maintain_order=True).to_list()
    worlds = {query.about: query for query in (world.queries if world is not None else ()) if query.form == "open"}
    of_world = {
        about: FactorQuestion(about, worlds[about].wordings[0], worlds[about].choices)
        for about in dict.fromkeys([*(each for each in first if each in worlds), *worlds])
    }
    own: dict[int, dict[str, FactorQuestion]] = {}
    any_form: dict[int, FactorQuestion] = {}
    for side in ("before", "after"):
        columns = (f"picture_{side}", "query", "form", f"question_{side}", "choices", f"truth_{side}")
        for picture, query, form, text, choices, truth in asked.select(columns).iter_rows():
            any_form.setdefault(picture, FactorQuestion(None, text, tuple(choices)))
            if form == "open" and query not in of_world:
                own.setdefault(picture, {}).setdefault(query, FactorQuestion(query, text, tuple(choices), truth))
    return {picture: tuple((of_world | own.get(picture, {})).values()) or (question,) for picture, question in sorted(any_form.items())}
