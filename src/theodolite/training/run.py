"""A training run of a tour or a grid: trains a model on examples by a recipe and returns facts on its training."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Int
from torch import nn

from theodolite.data.collate import Collator
from theodolite.data.examples import ExampleSet, order_hash
from theodolite.models.cached_features import MemoryFeatureCache
from theodolite.records.progress import Progress, silent
from theodolite.records.survey import TrainingFacts
from theodolite.training.launch import refuse_many_processes
from theodolite.training.recipe import Recipe
from theodolite.training.stage_data import StageData, stage_data
from theodolite.training.stage_runner import prepare_model, train_stage


@dataclass(frozen=True)
class TrainingOutcome:
    """Facts of a run for the record, and its losses: (last step, mean nats a token) of each block of steps."""

    facts: TrainingFacts
    losses: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Origin:
    """Provenance of a run's questions, for the record only."""

    arm: str
    comparison: str
    world: str
    strength: float
    source: str
    policy: str


def train_on_examples(
    model: nn.Module, processor: Any, examples: ExampleSet, recipe: Recipe, *, origin: Origin, seed: int, progress: Progress = silent
) -> TrainingOutcome:
    """Trains a model on the examples' answers by the recipe's objective, in place: a recipe of one stage.

    Raises `NonFiniteLoss`, and `BadInput` if a launcher started several processes.
    """
    refuse_many_processes()
    staged, stage = recipe.staged, recipe.stage
    prepare_model(model, staged, stage)
    cache = MemoryFeatureCache() if recipe.tower == "frozen" else None
    data = stage_data(examples, stage, model, processor, seed, cache)
    with tempfile.TemporaryDirectory() as scratch:
        _, monitor = train_stage(model, processor, staged, stage, data, seed=seed, folder=f"{scratch}/checkpoints", progress=progress)
    model.eval()
    return TrainingOutcome(_facts(examples, data, recipe, origin, seed), monitor.thinned())


def _facts(examples: ExampleSet, data: StageData, recipe: Recipe, origin: Origin, seed: int) -> TrainingFacts:
    """Counts over all steps of a run, and hashes of its pictures, order and questions."""
    order: Int[np.ndarray, " draw"] = data.dataset.order
    collator: Collator = data.collator  # type: ignore[assignment]
    questions = [item for index in order for item in examples.questions[index]]
    return TrainingFacts(
        **asdict(origin),
        recipe=recipe.name,
        seed=seed,
        num_pictures=examples.num_pictures,
        num_steps=recipe.steps,
        num_questions=len(questions),
        num_answer_tokens=sum(len(collator.tokenizer.tokenize(item.question, item.answer).answer) for item in questions),
        pictures_sha256=examples.pictures_sha256,
        order_sha256=order_hash(order),
        questions_sha256=examples.questions_sha256,
    )
