"""One training run: a model, examples and a recipe in; a trained model and the facts of its training out."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PrinterCallback, TrainingArguments

from theodolite.data.collate import Collator
from theodolite.data.examples import ExampleSet, order_hash, training_order
from theodolite.models.frontends import Pixels
from theodolite.models.prompts import Prompter
from theodolite.objectives.language import Language
from theodolite.records.survey import TrainingFacts
from theodolite.training.learner import Learner
from theodolite.training.recipe import Recipe
from theodolite.training.trainer import ObjectiveTrainer, Order, Watch


@dataclass(frozen=True)
class Outcome:
    """What a run leaves beside the trained model: facts for the record, and (step, mean loss in nats a token) since the last entry."""

    facts: TrainingFacts
    losses: tuple[tuple[int, float], ...]


def train(
    model: nn.Module,
    processor: Any,
    examples: ExampleSet,
    recipe: Recipe,
    *,
    arm: str,
    policy: str,
    comparison: str,
    seed: int,
    tell: Callable[[int, float | None], None] = lambda step, loss: None,
) -> Outcome:
    """Trains every parameter that wants a gradient by next-token prediction on the examples' answers, in place.

    `tell(step, loss)` is called after every step. Raises `NonFiniteLoss`.
    """
    prompter = Prompter(processor, num_picture_tokens=model.config.image_seq_length)
    order = training_order(len(examples), recipe.steps * recipe.batch, seed)
    watch = Watch(tell)
    model.set_attn_implementation(recipe.attention)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = ObjectiveTrainer(
            model=Learner(model, Language()),
            args=training_arguments(recipe, seed, scratch),
            train_dataset=Order(order),
            data_collator=Collator(examples, prompter, Pixels(processor.image_processor)),
            callbacks=[watch],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    model.eval()
    asked = [examples.asked[index] for index in order]
    answers = {item.answer: len(prompter.turn(item.question, item.answer).answer) for items in asked for item in items}
    facts = TrainingFacts(
        arm=arm,
        comparison=comparison,
        recipe=recipe.name,
        seed=seed,
        policy=policy,
        num_pictures=len(examples),
        num_steps=recipe.steps,
        num_questions=sum(len(items) for items in asked),
        num_answer_tokens=sum(answers[item.answer] for items in asked for item in items),
        pictures_sha256=examples.pictures_sha256,
        order_sha256=order_hash(order),
        questions_sha256=examples.questions_sha256,
    )
    return Outcome(facts, tuple(watch.losses))


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
        logging_steps=10,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=torch.accelerator.is_available(),
    )
