"""Compiled decoder layers: the losses of an uncompiled run in every arm, few graphs, and checkpoints and exports as without."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from transformers import AutoModelForImageTextToText, PrinterCallback

from helpers.tiny_families import tiny
from helpers.tiny_training import LAVER, arguments, examples, laver_trainer, losses
from theodolite.data.packing import PackingCollator
from theodolite.models.export import export_vlm
from theodolite.models.forward import Adaptation, adapt
from theodolite.models.pictures import PictureReader
from theodolite.models.taps import layers_of, touching
from theodolite.objectives.language import Language
from theodolite.records.errors import BadInput
from theodolite.training import compilation
from theodolite.training.laver_trainer import LaverTrainer
from theodolite.training.objective_module import ObjectiveModule
from theodolite.training.trainer import ObjectiveTrainer

ARMS = ("mixed", "joint", "separate")
# torch's compiler reads this attribute of every tensor, with its own warning.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")


@pytest.fixture(autouse=True)
def without_graphs() -> None:
    """No compiled graph of another test."""
    torch._dynamo.reset()


def trained(arm: str, folder: Path, **options: Any) -> Any:
    """The trainer of an arm after a few steps."""
    given: dict[str, Any] = {"train_dataset": examples(8)}
    if arm != "mixed":
        branch: Any = arm
        trainer: Any = laver_trainer(folder, laver=replace(LAVER, branch=branch), given=given, **options)
    else:
        model, image_processor, tokenizer = tiny("llava")
        given["data_collator"] = PackingCollator(tokenizer, PictureReader(image_processor, tokenizer, model.config), max_length=512)
        adapt(model, Adaptation("mixed", "2d"))
        module = ObjectiveModule(model, Language(Adaptation("mixed", "2d")))
        trainer = ObjectiveTrainer(module, args=arguments(folder, **options), **given)
        trainer.remove_callback(PrinterCallback)
    trainer.train()
    return trainer


def counter(monkeypatch: pytest.MonkeyPatch, backend: str = "eager") -> CompileCounterWithBackend:
    """Counts the graphs that are made of decoder layers, whatever back end the arguments name."""
    graphs = CompileCounterWithBackend(backend)
    stock = compilation.compile_decoder_layers
    monkeypatch.setattr(compilation, "compile_decoder_layers", lambda model, options: stock(model, {**options, "backend": graphs}))
    return graphs


@pytest.mark.parametrize("arm", ARMS)
def test_compiled_layers_give_the_losses_of_eager_ones(arm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One graph for both layers in each of the student's and the teacher's mode, and one more each for other widths."""
    expected = losses(trained(arm, tmp_path / "eager"))
    graphs = counter(monkeypatch)
    found = losses(trained(arm, tmp_path / "compiled", torch_compile=True))
    assert found == pytest.approx(expected, rel=1e-5)
    assert 1 <= graphs.frame_count <= (2 if arm == "mixed" else 4)


def test_checkpointed_layers_compile_with_their_backward_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"activation_checkpointing": True, "max_steps": 2}
    expected = losses(trained("joint", tmp_path / "eager", **options))
    graphs = counter(monkeypatch, "aot_eager")
    assert losses(trained("joint", tmp_path / "compiled", torch_compile=True, **options)) == pytest.approx(expected, rel=1e-5)
    assert graphs.frame_count


def test_a_compiled_run_saves_what_an_uncompiled_one_saves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counter(monkeypatch)
    trainer = trained("joint", tmp_path / "run", torch_compile=True, max_steps=2, save_strategy="steps", save_steps=1)
    assert not any("_orig_mod" in name for name in trainer.objective_module.state_dict())
    vlm = trainer.objective_module.vlm
    export_vlm(vlm, None, tmp_path / "model")
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path / "model", trust_remote_code=True)
    saved, own = loaded.state_dict(), vlm.state_dict()
    assert saved.keys() == own.keys() and all(torch.equal(value, own[name]) for name, value in saved.items())
    again = laver_trainer(tmp_path / "run", laver=replace(LAVER, branch="joint"), given={"train_dataset": examples(8)}, max_steps=2)
    again.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-1"))
    assert losses(again)[-1] == pytest.approx(losses(trainer)[-1], rel=1e-5)


def test_taps_see_compiled_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled code runs no hook that is new to it, so a survey inside a compiled run would read nothing."""
    counter(monkeypatch)
    trainer = trained("joint", tmp_path, torch_compile=True, max_steps=1)
    model, touched = trainer.objective_module.vlm, []
    compiled = [layer._compiled_call_impl for layer in layers_of(model)]
    with torch.no_grad(), touching(model, {"layer.2": lambda hidden: touched.append(hidden.shape)}):
        model(input_ids=torch.arange(6, 12)[None])
    assert len(touched) == 1 and all(compiled) and compiled == [layer._compiled_call_impl for layer in layers_of(model)]


def test_bf16_where_its_products_are_emulated_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilation, "has_bf16_products", lambda: False)
    with pytest.raises(BadInput, match="cannot be compiled"):
        laver_trainer(tmp_path, torch_compile=True, bf16=True)
    assert isinstance(laver_trainer(tmp_path, bf16=True), LaverTrainer)
