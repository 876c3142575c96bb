"""One training run: a model, examples and a recipe in; a trained model and the facts of its training out."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import nn
from transformers import PrinterCallback, TrainingArguments

from theodolite.data.collate import Collator
from theodolite.data.epochs import FixedOrder
from theodolite.data.examples import ExampleSet, order_hash, training_order
from theodolite.models.cached_features import MemoryFeatureCache, cached_features
from theodolite.models.construction.frontends import Pixels
from theodolite.models.families import family_of
from theodolite.models.forward import base_model
from theodolite.models.prompts import Prompter
from theodolite.objectives.language import Language
from theodolite.records.survey import TrainingFacts
from theodolite.training.launch import refuse_many_processes
from theodolite.training.objective_module import ObjectiveModule
from theodolite.training.recipe import Recipe
from theodolite.training.step_metrics import LossMonitor
from theodolite.training.trainer import ObjectiveTrainer


@dataclass(frozen=True)
class Outcome:
    """What a run leaves beside the trained model: facts for the record, and (step, mean loss in nats a token) since the last entry."""

    facts: TrainingFacts
    losses: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Origin:
    """Where a run's questions come from: for the record, not for the training."""

    arm: str
    comparison: str
    world: str
    strength: float
    source: str
    policy: str


def train(
    model: nn.Module,
    processor: Any,
    examples: ExampleSet,
    recipe: Recipe,
    *,
    origin: Origin,
    seed: int,
    tell: Callable[[int, float | None], None] = lambda step, loss: None,
) -> Outcome:
    """Trains every parameter that wants a gradient by next-token prediction on the examples' answers, in place.

    `tell(step, loss)` is called after every step. Raises `NonFiniteLoss`, and `BadInput` where a launcher started several processes.
    """
    refuse_many_processes()
    prompter = Prompter(processor, num_picture_tokens=model.config.image_seq_length)
    order = training_order(len(examples), recipe.steps * recipe.batch, seed)
    watch = LossMonitor(tell)
    model.set_attn_implementation(recipe.attention)
    with tempfile.TemporaryDirectory() as scratch, _remembering(model):
        trainer = ObjectiveTrainer(
            model=ObjectiveModule(model, Language()),
            args=training_arguments(recipe, seed, scratch),
            train_dataset=FixedOrder(order),
            data_collator=Collator(examples, prompter, Pixels(processor.image_processor)),
            callbacks=[watch],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    watch.refuse_unfinished()
    model.eval()
    return Outcome(_facts(examples, order, prompter, recipe, origin, seed), watch.thinned())


def _remembering(model: nn.Module) -> AbstractContextManager[None]:
    """Within, a frozen tower sees each picture once, however often it is visited."""
    base = base_model(model)
    encoder = base.get_submodule(family_of(base.config).encoder)
    if any(weight.requires_grad for weight in encoder.parameters()):
        return nullcontext()
    return cached_features(encoder, base.config.vision_feature_layer, MemoryFeatureCache())


def _facts(
    examples: ExampleSet, order: Int[np.ndarray, " draw"], prompter: Prompter, recipe: Recipe, origin: Origin, seed: int
) -> TrainingFacts:
    """What the run saw: counts over all its steps, and hashes of pictures, order and questions."""
    asked = [item for index in order for item in examples.asked[index]]
    return TrainingFacts(
        **asdict(origin),
        recipe=recipe.name,
        seed=seed,
        num_pictures=examples.num_pictures,
        num_steps=recipe.steps,
        num_questions=len(asked),
        num_answer_tokens=sum(len(prompter.turn(item.question, item.answer).answer) for item in asked),
        pictures_sha256=examples.pictures_sha256,
        order_sha256=order_hash(order),
        questions_sha256=examples.questions_sha256,
    )


def training_arguments(recipe: Recipe, seed: int, folder: str) -> TrainingArguments:
    """The Trainer's arguments of a recipe; on a machine without an accelerator the run is told so (see docs/training.md)."""
    return TrainingArguments(
        output_dir=folder,
        max_steps=recipe.steps,
        per_device_train_batch_size=recipe.batch,
        learning_rate=recipe.learning_rate,
        warmup_steps=round(recipe.warmup_frac * recipe.steps),
        lr_scheduler_type="cosine",
        adam_beta2=recipe.beta2,
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.clip_norm,
        bf16=recipe.precision == "bf16",
        use_cpu=not torch.accelerator.is_available(),
        seed=seed,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=torch.accelerator.is_available(),
    )
