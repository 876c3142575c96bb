"""Auxiliary losses in a stage of a recipe: alone, summed, beside LaVer, under LoRA; each falls, and the run is found in its log."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.tiny_llava import examples, tiny_vlm
from theodolite.commands.train import variant
from theodolite.models.freezing import set_trainable
from theodolite.objectives.align import AlignConfig
from theodolite.objectives.laver import LaVer, LaverConfig
from theodolite.objectives.pixels import PixelsConfig
from theodolite.objectives.predict import PredictConfig
from theodolite.objectives.schedules import EMASchedule
from theodolite.objectives.views import ViewsConfig
from theodolite.objectives.visual import AuxiliaryConfig, VisualObjective
from theodolite.records.errors import UnknownName
from theodolite.training.laver_trainer import TeacherTrainer
from theodolite.training.recipes import RECIPES, Stage, StagedRecipe, TinyModel, tiny_laver
from theodolite.training.stage_data import stage_data
from theodolite.training.stage_objective import stage_objective
from theodolite.training.stage_runner import prepare_model, train_stage

SETTINGS: dict[str, Any] = {
    "pixels": PixelsConfig(head_hidden=64), "align": AlignConfig(head_hidden=64), "predict": PredictConfig(head_hidden=64),
    "views": ViewsConfig(head_hidden=64, ema=EMASchedule(every=1)),
}  # fmt: skip
LAVER = LaverConfig(branch="joint", head_hidden=32, mask_ratio=0.3, mask_ramp="constant")


def log_of(folder: Path, laver: LaverConfig | None = None, lora_rank: int = 0, steps: int = 100, **losses: Any) -> list[dict[str, float]]:
    """The logged steps of a short run of a small model on four pictures."""
    stage = Stage(
        "train", ("connector", "language_model"), "questions", steps=steps, batch=4, learning_rate=3e-3, warmup_steps=4, laver=laver,
        auxiliary=AuxiliaryConfig(mask_ratio=0.3, mask_ramp="constant", **losses), lora_rank=lora_rank, save_every=0,
    )  # fmt: skip
    recipe = StagedRecipe("short", TinyModel(), (stage,), precision="fp32", attention="eager", micro_batch=4)
    model, processor = tiny_vlm()
    prepared = prepare_model(model, recipe, stage)
    data = stage_data(examples(num_pictures=4), stage, model, processor, seed=0)
    trainer, monitor = train_stage(prepared, processor, recipe, stage, data, seed=0, folder=folder)
    entries: list[dict[str, float]] = [entry for entry in trainer.state.log_history if "loss/language" in entry]
    # What records of runs compare is the answers' loss, whatever stands beside it.
    last = [entry["loss/language"] for entry in entries[-10:]]
    assert monitor.thinned()[-1] == (steps, pytest.approx(sum(last) / 10)) and entries[-1]["loss"] > entries[-1]["loss/language"]
    return entries


@pytest.mark.parametrize("loss", SETTINGS)
def test_a_short_run_lowers_each_loss(tmp_path: Path, loss: str) -> None:
    entries = log_of(tmp_path, **{loss: SETTINGS[loss]})
    for term in {key for key in entries[0] if key.startswith(f"loss/{loss}")} | {"loss/language"}:
        assert entries[-1][term] < 0.95 * entries[0][term], term


@pytest.mark.parametrize("laver", [None, LAVER])
def test_their_sum_runs_under_lora_too(tmp_path: Path, laver: LaverConfig | None) -> None:
    entries = log_of(tmp_path, laver, lora_rank=2, steps=20, **SETTINGS)
    terms = {key for key in entries[0] if key.startswith("loss/")}
    assert {"loss/pixels_masked", "loss/pixels_unmasked", "loss/align", "loss/predict", "loss/views"} <= terms
    assert ({"loss/masked_latent", "loss/gram"} <= terms) is (laver is not None)
    for term in ("language", "align"):
        assert entries[-1][f"loss/{term}"] < entries[0][f"loss/{term}"], term


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_takes_auxiliary_losses_by_name(name: str) -> None:
    recipe = variant(name, ["auxiliary=align+predict", "laver=off"])
    (stage,) = (stage for stage in recipe.stages if stage.auxiliary is not None)
    assert stage.laver is None and stage.auxiliary == AuxiliaryConfig(align=AlignConfig(), predict=PredictConfig())
    plain = variant(name, [])
    assert [replace(each, auxiliary=None) for each in recipe.stages] == [replace(each, laver=None) for each in plain.stages]
    with pytest.raises(UnknownName, match="predikt"):
        variant(name, ["auxiliary=predikt"])


def test_the_recipes_adaptation_is_that_of_every_objective() -> None:
    model, _ = tiny_vlm()
    set_trainable(model, ("connector", "language_model"))
    recipe = replace(tiny_laver(), adaptation=replace(tiny_laver().adaptation, positions="native"))
    for laver, auxiliary in ((LAVER, None), (None, AuxiliaryConfig(**SETTINGS)), (None, None), (LAVER, AuxiliaryConfig(**SETTINGS))):
        with torch.random.fork_rng():
            objective: Any = stage_objective(model, recipe, replace(recipe.stages[1], laver=laver, auxiliary=auxiliary))
        used = objective.settings.adaptation if isinstance(objective, LaVer | VisualObjective) else objective.adaptation
        assert used.positions == "native"
        assert isinstance(objective, LaVer) is (laver is not None)


def test_a_run_with_a_teacher_of_its_own_resumes_to_the_bit(tmp_path: Path) -> None:
    """Steps 5 and 6 after a checkpoint at 4 are those of the run that was not interrupted: the teacher is in the checkpoint."""
    logs = []
    for resumed in (None, tmp_path / "0" / "checkpoint-4"):
        model, processor = tiny_vlm()
        stage = Stage(
            "train", ("connector", "language_model"), "questions", steps=6, batch=4, learning_rate=3e-3, warmup_steps=0,
            auxiliary=AuxiliaryConfig(views=SETTINGS["views"]), save_every=4,
        )  # fmt: skip
        recipe = StagedRecipe("short", TinyModel(), (stage,), precision="fp32", attention="eager", micro_batch=4)
        prepared = prepare_model(model, recipe, stage)
        data = stage_data(examples(num_pictures=4), stage, model, processor, seed=0)
        trainer, _ = train_stage(prepared, processor, recipe, stage, data, seed=0, folder=tmp_path / str(len(logs)), resumed=resumed)
        assert isinstance(trainer, TeacherTrainer)
        logs.append([entry["loss/views"] for entry in trainer.state.log_history if "loss/views" in entry])
    assert (tmp_path / "0" / "checkpoint-4" / "teacher.safetensors").is_file()
    assert logs[1][-2:] == logs[0][-2:] and logs[0][-1] != logs[0][-2]
