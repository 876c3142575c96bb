"""The dry run of the paper's recipes: real sizes, memory that adds up over GPUs, FLOPs as torch counts them, and twins that train."""

from __future__ import annotations

import json
import math
from functools import cache

import pytest
import torch
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from theodolite.cli import app
from theodolite.commands.dry_run import memory_table
from theodolite.models.families import family_of
from theodolite.objectives.laver import LaVer, LaverConfig
from theodolite.records.errors import BadInput, UnknownName
from theodolite.training.dry_run import DryRun, dry_run, layer_flops
from theodolite.training.paper_models import PAPER_MODELS, build_on_meta, build_twin
from theodolite.training.recipes import RECIPES, StagedRecipe, WholeModel

# Of the checkpoints on the hub; of the joined models, those of Qwen2.5-7B (7,615,616,512), of the tower, and of a two-layer connector.
SIGLIP, CLIP = 428_225_600, 303_507_456
PUBLISHED = {
    "laver-siglip2": 7_615_616_512 + SIGLIP + (1152 + 1) * 3584 + (3584 + 1) * 3584,
    "laver-clip": 7_615_616_512 + CLIP + (1024 + 1) * 3584 + (3584 + 1) * 3584,
    "laver-qwen2.5-vl": 8_292_166_656,
    "laver-llava-onevision": 8_030_348_832,
}


@cache
def made(name: str) -> DryRun:
    return dry_run(name, 8)


def test_every_recipe_whose_model_is_not_installed_has_one() -> None:
    recipes: dict[str, StagedRecipe] = {name: make() for name, make in RECIPES.items() if name.startswith("laver-")}
    assert set(PAPER_MODELS) == set(recipes)
    assert {name for name, recipe in recipes.items() if isinstance(recipe.model, WholeModel)} == {
        "laver-qwen2.5-vl",
        "laver-llava-onevision",
    }


@pytest.mark.parametrize("name", PAPER_MODELS)
def test_the_real_model_has_its_published_size_and_is_sharded(name: str) -> None:
    stages = {cost.stage: cost for cost in made(name).costs}
    instruct, laver = stages["instruct"], stages["laver"]
    if name == "laver-siglip2":  # transformers' tower has a pooling head, which the number of the vision model alone counts
        assert abs(instruct.all_parameters - PUBLISHED[name]) < 1e6
    else:
        assert instruct.all_parameters == PUBLISHED[name]
    # Head (width 3,584, hidden 8,192) and mask embedding.
    head = 3584 * 8192 + 8192 + 8192 * 8192 + 8192 + 8192 * 3584 + 3584 + 3584
    assert laver.all_parameters - instruct.all_parameters == laver.trained_parameters - instruct.trained_parameters == head
    for cost in stages.values():
        assert cost.units > 50  # each layer of tower and language model is one
        gib = 4 * cost.all_parameters / 8 / 2**30
        assert gib <= cost.parameters_gib < 1.001 * gib  # uneven shards are rounded up on the first GPU
        assert cost.optimizer_gib == pytest.approx(2 * cost.gradients_gib)
        assert cost.teacher_gib == pytest.approx(cost.gradients_gib if cost is laver else 0)
        assert cost.step_tflop > 6 * 128 * 2048 * 7e9 / 1e12 * (0.5 if cost.stage == "align" else 1)
    assert laver.step_tflop > instruct.step_tflop


@pytest.mark.parametrize("name", PAPER_MODELS)
def test_the_twin_has_the_same_classes_and_takes_two_steps(name: str) -> None:
    paper = PAPER_MODELS[name]
    kinds = [{type(module) for module in model.modules()} for model in (build_on_meta(paper), build_twin(paper)[0])]
    assert kinds[0] == kinds[1]
    for losses in made(name).twin_losses.values():
        assert len(losses) == 2
        assert all(math.isfinite(loss) and loss > 0 for loss in losses)
        assert losses[0] != losses[1]


def test_flops_of_layers_are_those_that_torch_counts() -> None:
    model = build_twin(PAPER_MODELS["laver-clip"])[0].eval()
    model.set_attn_implementation("eager")  # torch's counter does not know the CPU's fused kernel
    family = family_of(model.config)
    language_model, encoder = model.get_submodule(family.language_model), model.get_submodule(family.encoder)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        language_model(inputs_embeds=torch.zeros(1, 40, 32))
    assert counter.get_total_flops() == layer_flops(language_model, model.config.text_config, 40)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        encoder(torch.zeros(1, 3, 32, 32))
    class_token = 2 * 16 * 3 * 8**2  # goes through no patch embedding, which is counted for it
    assert counter.get_total_flops() == layer_flops(encoder, model.config.vision_config, 17) - class_token


def test_a_batch_that_does_not_divide_and_other_recipes_are_refused() -> None:
    with pytest.raises(BadInput, match="cannot be divided among 7 GPUs"):
        dry_run("laver-clip", 7)
    with pytest.raises(UnknownName, match="tiny-laver"):
        dry_run("tiny-laver")


def test_the_command_prints_a_table_or_json() -> None:
    console = Console(width=200, record=True)
    console.print(memory_table(made("laver-clip")))
    assert "laver-clip on 8 GPUs" in console.export_text()
    plain = CliRunner().invoke(app, ["dry-run", "laver-clip", "--gpus", "4", "--json"])
    assert plain.exit_code == 0, plain.output
    (run,) = json.loads(plain.stdout)
    assert [cost["stage"] for cost in run["costs"]] == ["align", "laver", "instruct"]
    assert run["costs"][1]["teacher_gib"] == pytest.approx(2 * made("laver-clip").costs[1].teacher_gib, rel=1e-3)


def test_the_meta_device_takes_a_teachers_head() -> None:
    """Nothing of a real size is allocated: the objective's head of 8,192 hidden values exists without memory."""
    model = build_on_meta(PAPER_MODELS["laver-clip"])
    with torch.device("meta"):
        objective = LaVer(model.config, LaverConfig())
    assert all(parameter.is_meta for module in (model, objective) for parameter in module.parameters())
