"""Runs a staged recipe: each stage trains from what the one before wrote, and a run that was cut off goes on where it was."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import nn
from transformers import PrinterCallback, TrainingArguments
from transformers.integrations import TensorBoardCallback

from theodolite.models.cached_features import DiskFeatureCache, cached_features
from theodolite.models.families import family_of
from theodolite.models.forward import adapt, base_model
from theodolite.models.freezing import set_trainable
from theodolite.models.load import load_vlm
from theodolite.objectives.language import Language
from theodolite.records.errors import BadInput
from theodolite.records.folder import cache_folder, whole_folder, write_whole
from theodolite.training.checkpoint import last_whole
from theodolite.training.objective_module import ObjectiveModule
from theodolite.training.recipes import Stage, StagedRecipe
from theodolite.training.step_metrics import JsonLinesLog, LossMonitor
from theodolite.training.trainer import LaverTrainer, ObjectiveTrainer

RECIPE = "recipe.json"
# Examples that were left out, with reasons.
DROPPED = "dropped.json"
Tell = Callable[[str, int, int, str], None]


@dataclass(frozen=True)
class StageData:
    """What a stage trains on: a data set, and the collator that makes batches of it."""

    dataset: Any
    collator: Callable[[Any], Any]


@dataclass(frozen=True)
class RecipeData:
    """Where a run begins: the model and its processor, and the data of each stage."""

    start: Callable[[], tuple[nn.Module, Any]]
    feed: Callable[[Stage, nn.Module, Any], StageData]


def run_stages(
    recipe: StagedRecipe, material: RecipeData, out: Path, *, seed: int = 0, overwrite: bool = False, tell: Tell = lambda *told: None
) -> Path:
    """Trains all stages and returns the folder of the finished model, `out/model`, a Hugging Face directory.

    Stages that are done are left alone, and one that was cut off goes on from its last whole checkpoint, to the same weights. Raises
    `BadInput` if `out` holds a run of another recipe or seed.
    """
    processes = PartialState(cpu=not torch.accelerator.is_available())
    with processes.main_process_first():
        _claim(recipe, seed, out, overwrite=overwrite and processes.is_main_process)
    before: Path | None = None
    for stage in recipe.stages:
        folder = out / stage.name
        if not (folder / "model" / "config.json").is_file():
            _train_stage(recipe, stage, material, before, folder, seed, tell)
        before = folder / "model"
    final = out / "model"
    if before is not None and not (final / "config.json").is_file() and processes.is_main_process:
        with whole_folder(final, overwrite=True) as part:
            shutil.copytree(before, part, dirs_exist_ok=True)
    processes.wait_for_everyone()
    return final


def _claim(recipe: StagedRecipe, seed: int, out: Path, *, overwrite: bool) -> None:
    """Says in the folder whose run it is; refuses another's unless it may go, and clears what a killed run left half-written."""
    if overwrite and (out / RECIPE).is_file():
        shutil.rmtree(out)
    text = _as_json(recipe, seed)
    if (out / RECIPE).is_file():
        if (out / RECIPE).read_text() != text:
            raise BadInput(
                f"{out} holds a run of another recipe or seed ({out / RECIPE}); give another folder, or --overwrite to begin anew"
            )
    elif out.is_dir() and any(out.iterdir()):
        raise BadInput(f"{out} holds files that are no training run; give another folder, or --overwrite to replace it")
    if _is_first_process():
        write_whole(out / RECIPE, text)
        for part in out.rglob(".*.part-*"):
            shutil.rmtree(part) if part.is_dir() else part.unlink()


def _as_json(recipe: StagedRecipe, seed: int) -> str:
    return json.dumps({"seed": seed, "model_kind": type(recipe.model).__name__, **asdict(recipe)}, indent=1) + "\n"


def _train_stage(
    recipe: StagedRecipe, stage: Stage, material: RecipeData, before: Path | None, folder: Path, seed: int, tell: Tell
) -> None:
    """One stage from its start, or from its last whole checkpoint, to its exported model."""
    processes = PartialState()
    with processes.main_process_first():
        resumed = last_whole(folder / "checkpoints")
    model, processor = material.start() if before is None else load_vlm(before, attention=recipe.attention)
    adapt(model, recipe.adaptation)
    model = set_trainable(model, stage.trains, stage.lora_rank)
    feed = material.feed(stage, model, processor)
    watch = LossMonitor(lambda step, loss: tell(stage.name, step, stage.steps, "" if loss is None else f"loss {loss:.3f}"))
    callbacks = [watch, JsonLinesLog(folder / "log.jsonl"), *_tensorboard(folder, resumed)]
    options: dict[str, Any] = {
        "args": stage_arguments(recipe, stage, folder / "checkpoints", seed),
        "train_dataset": feed.dataset,
        "data_collator": feed.collator,
        "processing_class": processor,
        "callbacks": callbacks,
    }
    torch.manual_seed(seed)  # head and mask embedding
    if stage.laver is not None:
        trainer: ObjectiveTrainer = LaverTrainer(model, replace(stage.laver, adaptation=recipe.adaptation), **options)
    else:
        trainer = ObjectiveTrainer(ObjectiveModule(model, Language(recipe.adaptation)), **options)
    trainer.remove_callback(PrinterCallback)
    try:
        with _remembering(recipe, model):
            trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    finally:
        if trainer.dropped.listed and trainer.args.should_save:
            write_whole(folder / DROPPED, json.dumps(trainer.dropped.listed, indent=1) + "\n")
    watch.refuse_unfinished()
    for line in trainer.dropped.lines():
        tell(stage.name, stage.steps, stage.steps, line)
    _write_model(trainer, folder)


def _remembering(recipe: StagedRecipe, model: nn.Module) -> AbstractContextManager[None]:
    """Within, the frozen encoder's features come from disk, if the recipe says so."""
    if not recipe.remembers_features:
        return nullcontext()
    base = base_model(model)
    encoder = base.get_submodule(family_of(base.config).encoder)
    return cached_features(encoder, base.config.vision_feature_layer, DiskFeatureCache(cache_folder() / "features.sqlite"))


def _write_model(trainer: ObjectiveTrainer, folder: Path) -> None:
    """The stage's model, whole or not at all, written once and waited for by every process."""
    state = trainer.vlm_state()  # every process has a part to give
    if trainer.args.should_save:
        with whole_folder(folder / "model", overwrite=True) as part:
            trainer.write_vlm(part, state)
    trainer.accelerator.wait_for_everyone()
    if trainer.args.should_save:
        shutil.rmtree(folder / "checkpoints")


def _tensorboard(folder: Path, resumed: Path | None) -> list[TensorBoardCallback]:
    """TensorBoard's callback on the first process; entries past the checkpoint that a run resumes from are dropped."""
    from torch.utils.tensorboard import SummaryWriter

    if not _is_first_process():
        return []
    step = int(resumed.name.rpartition("-")[2]) + 1 if resumed else None
    return [TensorBoardCallback(SummaryWriter(str(folder / "tensorboard"), purge_step=step))]


def _is_first_process() -> bool:
    return int(os.environ.get("RANK", "0")) == 0


def stage_arguments(recipe: StagedRecipe, stage: Stage, folder: Path, seed: int) -> TrainingArguments:
    """The Trainer's arguments of a stage: its batch divided among processes and micro-batches. Raises `BadInput` if it does not divide."""
    accelerated = torch.accelerator.is_available()
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    micro = min(recipe.micro_batch, stage.batch // processes)
    if micro == 0 or stage.batch % (micro * processes):
        raise BadInput(f"a batch of {stage.batch} cannot be divided among {processes} processes in parts of {micro}; change micro_batch")
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=stage.steps,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=stage.batch // (micro * processes),
        learning_rate=stage.learning_rate,
        warmup_steps=stage.warmup_steps,
        lr_scheduler_type="cosine",
        weight_decay=stage.weight_decay,
        max_grad_norm=stage.clip_norm,
        bf16=recipe.precision == "bf16",
        activation_checkpointing=recipe.gradient_checkpointing,
        use_cpu=not accelerated,
        seed=seed,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_steps=stage.save_every,
        # Two: while the newest is being written, the one before it is the last whole one.
        save_total_limit=2,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=accelerated,
    )
