"""Training with flex attention, as far as a CPU goes: PyTorch has no fused backward pass of it there, but its dense one for tests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention import flex_attention
from transformers import PrinterCallback

from helpers.tiny_families import tiny
from helpers.tiny_training import LAVER, arguments, examples, laver_trainer, losses
from theodolite.commands.train import variant
from theodolite.data.packing import PackingCollator
from theodolite.models.forward import Adaptation, adapt
from theodolite.models.pictures import PictureReader
from theodolite.objectives.language import Language
from theodolite.records.errors import BadInput
from theodolite.training import trainer as trainers
from theodolite.training.objective_module import ObjectiveModule
from theodolite.training.recipes import RECIPES
from theodolite.training.stage_runner import prepare_model

pytestmark = [
    pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),
]


def trainer_of(arm: str, attention: str, folder: Path) -> Any:
    """The trainer of an arm on a tiny LLaVA, two steps long."""
    model, image_processor, tokenizer = tiny("llava")
    model.set_attn_implementation({"text_config": attention})
    if arm != "mixed":
        branch: Any = arm
        return laver_trainer(folder, model=model, laver=replace(LAVER, branch=branch), max_steps=2)
    collator = PackingCollator(tokenizer, PictureReader(image_processor, tokenizer, model.config), max_length=512)
    adapt(model, Adaptation("mixed", "2d"))
    module = ObjectiveModule(model, Language(Adaptation("mixed", "2d")))
    trainer = trainers.ObjectiveTrainer(module, args=arguments(folder, max_steps=2), train_dataset=examples(), data_collator=collator)
    trainer.remove_callback(PrinterCallback)
    return trainer


@pytest.mark.parametrize("arm", ["mixed", "joint", "separate"])
def test_flex_attention_trains_as_sdpa(arm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses of two steps, the second of which follows from the first one's gradients."""
    runs = {}
    monkeypatch.setattr(trainers, "refuse_flex_on_cpu", lambda *given: None)
    # Without this check torch computes the backward pass densely.
    monkeypatch.setattr(flex_attention, "_validate_device", lambda *given: None)
    with torch.compiler.set_stance("force_eager"):
        for attention in ("sdpa", "flex_attention"):
            trainer = trainer_of(arm, attention, tmp_path / attention)
            trainer.train()
            runs[attention] = losses(trainer)
    assert runs["flex_attention"] == pytest.approx(runs["sdpa"], rel=1e-5)


def test_recipes_take_flex_attention_for_the_language_model_alone() -> None:
    recipe = variant("laver-siglip2", ["attention=flex_attention"])
    model = prepare_model(tiny("llava")[0], recipe, recipe.stages[1])
    found = (model.config.text_config._attn_implementation, model.config.vision_config._attn_implementation)
    assert found == ("flex_attention", "sdpa") and RECIPES["laver-siglip2"]().attention == "sdpa"


def test_training_with_flex_attention_on_a_cpu_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no backward pass on a CPU"):
        trainer_of("joint", "flex_attention", tmp_path).train()
