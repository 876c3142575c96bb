"""Runs the stages of a recipe: each starts from the previous stage's model, and an interrupted run resumes from its last checkpoint."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from signal import Signals
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from torch import nn
from transformers import PrinterCallback, TrainerCallback

from theodolite.data.epochs import StreamedEpochs
from theodolite.models.cached_features import FeatureCache, cached_features
from theodolite.models.families import family_of
from theodolite.models.forward import adapt, base_model
from theodolite.models.freezing import set_trainable
from theodolite.models.load import load_vlm
from theodolite.objectives.visual import VisualObjective
from theodolite.records.errors import BadInput, Interrupted
from theodolite.records.folder import sole_writer, whole_folder, write_whole
from theodolite.records.machine_faults import is_out_of_memory, machine_fault, no_tracebacks_of_full_disks
from theodolite.records.progress import Progress, silent
from theodolite.records.training_log import WARNINGS
from theodolite.training.arguments import training_arguments
from theodolite.training.checkpoint import last_whole, newest_whole, step_of
from theodolite.training.interrupts import StopAtSignal, StopSignals
from theodolite.training.laver_trainer import LaverTrainer, TeacherTrainer
from theodolite.training.loss_monitor import LossMonitor
from theodolite.training.objective_module import ObjectiveModule
from theodolite.training.recipe_file import claim
from theodolite.training.recipes import Stage, StagedRecipe
from theodolite.training.stage_data import RecipeData, StageData
from theodolite.training.stage_objective import stage_objective
from theodolite.training.step_metrics import JsonLinesLog
from theodolite.training.trainer import ObjectiveTrainer

# Dropped examples, with reasons.
DROPPED = "dropped.json"
# Maps a stage's name to its progress.
StageProgress = Callable[[str], Progress]


def run_stages(
    recipe: StagedRecipe,
    data: RecipeData,
    out: Path,
    *,
    seed: int = 0,
    overwrite: bool = False,
    progress: StageProgress = lambda stage: silent,
) -> Path:
    """Trains all stages and returns the folder of the finished model, `out/model`, a Hugging Face directory.

    Finished stages are skipped, and an interrupted one resumes from its last complete checkpoint, with the same final weights. On Ctrl-C
    and SIGTERM the step under way ends, a checkpoint is written, and `Interrupted` is raised. Raises `BadInput` if `out` holds a run of
    another recipe or seed, if another run is going on there, or if the machine fails: its disk, memory, device or a loader's process.
    """
    signals = StopSignals()
    try:
        with signals.watching(), no_tracebacks_of_full_disks():
            return _run_stages(recipe, data, out, seed, overwrite, progress, signals)
    except Interrupted as stopped:
        raise Interrupted(
            stopped.signum, f"stopped by {Signals(stopped.signum).name}; the same command {where_next(recipe, out)}"
        ) from stopped
    except Exception as error:
        sentence = None if isinstance(error, BadInput) else machine_fault(error)
        if sentence is None:
            raise
        smaller = "; a recipe with a smaller micro_batch needs less and learns the same" if is_out_of_memory(error) else ""
        raise BadInput(f"{sentence}{smaller}; the same command {where_next(recipe, out)}") from error


def next_step(recipe: StagedRecipe, out: Path) -> tuple[Stage, int] | None:
    """The stage with which a run in `out` goes on, and the last step of it that a checkpoint holds; None if all are finished."""
    for stage in recipe.stages:
        if not (out / stage.name / "model" / "config.json").is_file():
            newest = newest_whole(out / stage.name / "checkpoints")
            return stage, 0 if newest is None else step_of(newest)
    return None


def where_next(recipe: StagedRecipe, out: Path) -> str:
    """What the same command does next in `out`, in words: "goes on in ..." with the place."""
    following = next_step(recipe, out)
    if following is None:
        is_there = (out / "model" / "config.json").is_file()
        return f"has nothing left to do in {out}" if is_there else f"goes on in {out} behind its last stage, and writes {out / 'model'}"
    stage, step = following
    place = f"after step {step} of {stage.steps}" if step else "at its start"
    return f"goes on in {out} with stage {stage.name}, {place}"


def _run_stages(
    recipe: StagedRecipe, data: RecipeData, out: Path, seed: int, overwrite: bool, progress: StageProgress, signals: StopSignals
) -> Path:
    processes = PartialState(cpu=not torch.accelerator.is_available())
    with _sole_run(processes, out):
        return _run_claimed(recipe, data, out, seed, overwrite, progress, signals, processes)


@contextmanager
def _sole_run(processes: PartialState, out: Path) -> Iterator[None]:
    """`sole_writer` on the first process; where that is refused, all raise."""
    with ExitStack() as stack:
        refusal: list[str | None] = [None]
        if processes.is_main_process:
            try:
                stack.enter_context(sole_writer(out))
            except BadInput as error:
                refusal = [str(error)]
        broadcast_object_list(refusal)
        if refusal[0] is not None:
            raise BadInput(refusal[0])
        yield


def _run_claimed(
    recipe: StagedRecipe,
    data: RecipeData,
    out: Path,
    seed: int,
    overwrite: bool,
    progress: StageProgress,
    signals: StopSignals,
    processes: PartialState,
) -> Path:
    with processes.main_process_first():
        claim(recipe, seed, out, overwrite=overwrite and processes.is_main_process)
    before: Path | None = None
    for stage in recipe.stages:
        folder = out / stage.name
        if not (folder / "model" / "config.json").is_file():
            _run_stage(recipe, stage, data, before, folder, seed, progress(stage.name), signals)
        elif processes.is_main_process:  # a run that was killed behind the model's renaming
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        before = folder / "model"
    final = out / "model"
    if before is not None and not (final / "config.json").is_file() and processes.is_main_process:
        with whole_folder(final, overwrite=True) as target:
            shutil.copytree(before, target, dirs_exist_ok=True)
    processes.wait_for_everyone()
    return final


def train_stage(
    model: nn.Module,
    processor: Any,
    recipe: StagedRecipe,
    stage: Stage,
    data: StageData,
    *,
    seed: int,
    folder: str | Path,
    progress: Progress = silent,
    callbacks: Sequence[TrainerCallback] = (),
    resumed: Path | None = None,
    signals: StopSignals | None = None,
) -> tuple[ObjectiveTrainer, LossMonitor]:
    """Trains one stage of a recipe in place, on a `model` from `prepare_model`; checkpoints go into `folder`.

    The returned trainer's `dropped` counts dropped examples. Raises `NonFiniteLoss`, and `Interrupted` after a checkpoint if `signals`
    has noted one.
    """
    monitor = LossMonitor(progress, Path(folder))
    options: dict[str, Any] = {
        "args": training_arguments(recipe, stage, folder, seed, isinstance(data.dataset, StreamedEpochs)),
        "train_dataset": data.dataset,
        "data_collator": data.collator,
        "processing_class": processor,
        "callbacks": [monitor, *callbacks],
        "max_damaged_frac": data.max_damaged_frac,
    }
    torch.manual_seed(seed)  # for head and mask embedding
    trainer: ObjectiveTrainer
    if stage.laver is not None:
        trainer = LaverTrainer(model, replace(stage.laver, adaptation=recipe.adaptation), stage.auxiliary, **options)
    else:
        objective = stage_objective(model, recipe, stage)
        teaches = isinstance(objective, VisualObjective) and objective.ema is not None
        trainer = (TeacherTrainer if teaches else ObjectiveTrainer)(ObjectiveModule(model, objective), **options)
    trainer.remove_callback(PrinterCallback)
    if signals is not None:
        trainer.add_callback(StopAtSignal(signals))  # last, so that it sees signals which came within the others
    try:
        with _cached(model, data.features), signals.held() if signals is not None else nullcontext():
            trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    finally:
        if trainer.dropped.listed and trainer.args.should_save:
            write_whole(Path(folder).parent / DROPPED, json.dumps(trainer.dropped.listed, indent=1) + "\n")
    if signals is not None and (stage.save_every or trainer.state.global_step < stage.steps):
        signals.leave()  # a checkpoint is there: without `save_every` only if the signal stopped the training
    monitor.refuse_unfinished()
    return trainer, monitor


def prepare_model(model: nn.Module, recipe: StagedRecipe, stage: Stage) -> nn.Module:
    """The model with the recipe's attention back end and adaptation; only the stage's parts are trainable. Under LoRA a peft wrapper."""
    if recipe.attention != recipe.encoder_attention:
        model.set_attn_implementation({"text_config": recipe.attention, "vision_config": recipe.encoder_attention})
    elif base_model(model).config._attn_implementation != recipe.attention:
        model.set_attn_implementation(recipe.attention)
    adapt(model, recipe.adaptation)
    prepared: nn.Module = set_trainable(model, stage.trains, stage.lora_rank)
    return prepared


def _cached(model: nn.Module, features: FeatureCache | None) -> AbstractContextManager[None]:
    """A context in which the frozen encoder's features come from the cache, if there is one."""
    if features is None:
        return nullcontext()
    base = base_model(model)
    return cached_features(base.get_submodule(family_of(base.config).encoder), base.config.vision_feature_layer, features)


def _run_stage(
    recipe: StagedRecipe,
    stage: Stage,
    data: RecipeData,
    before: Path | None,
    folder: Path,
    seed: int,
    progress: Progress,
    signals: StopSignals,
) -> None:
    """One stage from its start, or from its last complete checkpoint, to its exported model."""
    with PartialState().main_process_first():
        resumed = last_whole(folder / "checkpoints")
    if resumed is not None:
        progress(step_of(resumed), stage.steps, f"goes on after step {step_of(resumed)}")
    model, processor = data.start() if before is None else load_vlm(before, attention=recipe.encoder_attention)
    model = prepare_model(model, recipe, stage)
    examples = data.for_stage(stage, model, processor)
    # Held up to the written model: a signal behind the last step must not cost the stage.
    with signals.held():
        trainer, _ = train_stage(
            model,
            processor,
            recipe,
            stage,
            examples,
            seed=seed,
            folder=folder / "checkpoints",
            progress=progress,
            callbacks=[JsonLinesLog(folder / "log.jsonl"), *_tensorboard(folder, resumed)],
            resumed=resumed,
            signals=signals,
        )
        warned = trainer.watch.found.values() if isinstance(trainer, LaverTrainer) else ()
        for line in (*trainer.dropped.lines(), *warned):
            progress(stage.steps, stage.steps, line)
        if warned and trainer.args.should_save:
            write_whole(folder / WARNINGS, json.dumps([*warned], indent=1) + "\n")
        _write_model(trainer, folder)
    signals.leave()


def _write_model(trainer: ObjectiveTrainer, folder: Path) -> None:
    """Writes the stage's model atomically, from one process; all processes wait."""
    state = trainer.vlm_state()  # collective: every process must call it
    if trainer.args.should_save:
        with whole_folder(folder / "model", overwrite=True) as target:
            trainer.write_vlm(target, state)
    trainer.accelerator.wait_for_everyone()
    if trainer.args.should_save:
        shutil.rmtree(folder / "checkpoints")


def _tensorboard(folder: Path, resumed: Path | None) -> list[TrainerCallback]:
    """TensorBoard's callback on the first process; entries after the resumed checkpoint are dropped."""
    from theodolite.training.tensorboard_log import TensorBoardLog  # starts threads when it is imported

    return [TensorBoardLog(folder / "tensorboard", step_of(resumed) + 1 if resumed else None)] if _is_first_process() else []


def _is_first_process() -> bool:
    return int(os.environ.get("RANK", "0")) == 0
