"""Staged runs: what each stage trains and leaves behind, what a killed run goes on from, and what is refused."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from helpers import HELPERS, script_environment, tiny_families
from helpers.fork_server import Forked
from helpers.staged_run import STEPS, short
from helpers.tiny_llava import tiny_vlm
from theodolite.commands.progress import Steps
from theodolite.commands.train import train_recipe
from theodolite.models.fingerprint import weights_hash
from theodolite.models.freezing import set_trainable
from theodolite.models.load import load_vlm
from theodolite.objectives.laver import LaVer
from theodolite.records.errors import BadInput
from theodolite.training.arguments import training_arguments
from theodolite.training.recipe_data import factor_captions, file_recipe_data, shapes_recipe_data, source_named
from theodolite.training.recipes import RECIPES, laver_siglip2, paper_stages, tiny_laver
from theodolite.training.stage_runner import run_stages
from theodolite.worlds.factors import Scene, Scenes
from theodolite.worlds.shapes.world import Shapes

SCRIPT = HELPERS / "staged_run.py"
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def start(folder: Path) -> subprocess.CompletedProcess[str]:
    """A run from nothing: with its own imports, and its own seed of Python's hashes."""
    command = [sys.executable, str(SCRIPT), str(folder)]
    environment = script_environment(ENVIRONMENT)
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=300)


@pytest.fixture(scope="module")
def server() -> Iterator[Forked]:
    forked = Forked(SCRIPT, script_environment(ENVIRONMENT))
    yield forked
    forked.close()


@pytest.fixture(scope="module")
def whole(server: Forked, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("staged") / "whole"
    done = server.run(folder.parent / "whole.txt", str(folder))
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def test_each_stage_leaves_a_model_and_its_log_and_no_checkpoint(whole: Path) -> None:
    assert sorted(path.name for path in whole.iterdir()) == ["align", "instruct", "laver", "model", "recipe.json"]
    for stage in ("align", "laver", "instruct"):
        assert sorted(path.name for path in (whole / stage).iterdir()) == ["log.jsonl", "model", "tensorboard"]
        log = [json.loads(line) for line in (whole / stage / "log.jsonl").read_text().splitlines()]
        assert [entry["step"] for entry in log] == list(range(1, STEPS + 1))
        assert all(("loss/gram" in entry) == (stage == "laver") for entry in log)
    assert all(torch.equal(value, weights(whole)[name]) for name, value in weights(whole / "instruct").items())


def test_neither_teacher_nor_head_is_in_the_model(whole: Path) -> None:
    model, _ = load_vlm(whole / "model")
    assert set(weights(whole / "laver")) <= set(model.state_dict()) | {"lm_head.weight"}
    assert not list(whole.rglob("*teacher*"))


def test_tensorboard_holds_what_the_json_lines_hold(whole: Path) -> None:
    events = EventAccumulator(str(whole / "laver" / "tensorboard"))
    events.Reload()
    log = [json.loads(line) for line in (whole / "laver" / "log.jsonl").read_text().splitlines()]
    names = ("loss/language", "loss/masked_latent", "loss/gram", "student_cosine", "teacher_cosine", "mask_frac", "time/teacher_s")
    for name in names:
        shown = {event.step: event.value for event in events.Scalars(f"train/{name}")}
        assert shown == pytest.approx({entry["step"]: entry[name] for entry in log if name in entry}), name


@pytest.mark.parametrize("deadly", [("align", "1"), ("laver", "3"), ("laver", str(STEPS)), ("instruct", "5")])
def test_a_killed_run_goes_on_to_the_same_weights(whole: Path, server: Forked, tmp_path: Path, deadly: tuple[str, str]) -> None:
    folder = tmp_path / "killed"
    killed = server.run(tmp_path / "killed.txt", str(folder), *deadly)
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
    done = start(folder)
    assert done.returncode == 0, done.stderr[-3000:]
    mine, straight = weights(folder), weights(whole)
    assert mine.keys() == straight.keys()
    assert all(torch.equal(value, straight[name]) for name, value in mine.items())
    log = (folder / deadly[0] / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in log] == list(range(1, STEPS + 1))


def test_a_finished_run_is_left_alone(whole: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file() and path.name != "recipe.json"}
    run_stages(short(), shapes_recipe_data(short(), 0, num_pictures=32), whole)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_another_recipe_in_the_folder_is_refused(whole: Path) -> None:
    with pytest.raises(BadInput, match="of another recipe or seed"):
        run_stages(short(), shapes_recipe_data(short(), 1, num_pictures=32), whole, seed=1)


def test_a_folder_with_other_files_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(BadInput, match="no training run"):
        run_stages(short(), shapes_recipe_data(short(), 0, num_pictures=32), tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "mine"


@pytest.mark.contract("stages")
@pytest.mark.parametrize("name", tiny_families.NAMES)
def test_the_alignment_trains_the_connector_alone_and_the_others_leave_the_encoder_frozen(name: str) -> None:
    model, _, _ = tiny_families.tiny(name)
    connector = {path for path, value in set_trainable(model, ("connector",)).named_parameters() if value.requires_grad}
    both = {path for path, value in set_trainable(model, ("connector", "language_model")).named_parameters() if value.requires_grad}
    assert connector and connector < both
    assert not any("layers" in path and "language_model" in path for path in connector)
    assert any("language_model" in path or "text_model" in path for path in both)
    frozen = {path for path, _ in model.named_parameters()} - both
    assert frozen and all("vis" in path for path in frozen)


def test_adapters_are_all_that_is_trained_of_a_language_model_under_lora() -> None:
    model, _, _ = tiny_families.tiny("llava")
    before = weights_hash(model)
    wrapped = set_trainable(model, ("connector", "language_model"), lora_rank=2)
    trained = {path for path, value in wrapped.named_parameters() if value.requires_grad}
    assert all("lora_" in path or "multi_modal_projector" in path for path in trained)
    assert sum("lora_" in path for path in trained) == 2 * 2 * 7  # two matrices for each of seven linear layers in two blocks
    assert before != weights_hash(wrapped)


def test_the_papers_numbers_reach_the_optimizer_and_the_objective(tmp_path: Path) -> None:
    """Where they take effect; that the temperatures do is seen in the steps recomputed by hand (test_assembled_step)."""
    recipe = replace(laver_siglip2(), gradient_checkpointing=False)
    for stage, published in zip(recipe.stages, [(4360, 2e-3, 500), (6250, 2e-5, 100), (6250, 2e-5, 100)], strict=True):
        arguments = training_arguments(recipe, stage, tmp_path, 0)
        assert (arguments.max_steps, arguments.learning_rate, arguments.warmup_steps) == published
        assert arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps == 128
        assert (arguments.lr_scheduler_type, arguments.bf16, stage.max_length) == ("cosine", True, 2048)
    align, laver, instruct = recipe.stages
    model, _, _ = tiny_families.tiny("llava")
    trained = {
        stage.name: {path for path, value in set_trainable(model, stage.trains).named_parameters() if value.requires_grad}
        for stage in recipe.stages
    }
    assert trained[align.name] < trained[laver.name] == trained[instruct.name] and trained[align.name]
    assert align.laver is instruct.laver is None and laver.laver is not None
    with torch.device("meta"):
        objective = LaVer(model.config, laver.laver)
    assert [type(layer).__name__ for layer in objective.head.layers] == ["Linear", "GELU", "Linear", "GELU", "Linear"]
    assert [layer.out_features for layer in objective.head.layers[:3:2]] == [8192, 8192]
    ema = laver.laver.ema
    assert [step for step in range(1, 6251) if ema.due(step, 6250)] == list(range(100, 6201, 100)) and ema.decay_at(100, 6250) == 0.95
    assert [objective.mask_ratio(step, 6250) for step in (0, 3125, 6250)] == pytest.approx([0, 0.025, 0.05])
    assert objective.centre.momentum == 0.9
    assert (recipe.adaptation.attention, recipe.adaptation.positions) == ("mixed", "2d")


def test_a_batch_is_divided_among_processes_and_micro_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, stage = laver_siglip2(), paper_stages()[1]
    found = training_arguments(replace(recipe, gradient_checkpointing=False), stage, tmp_path, 0)
    assert (found.per_device_train_batch_size, found.gradient_accumulation_steps) == (4, 32)
    monkeypatch.setenv("WORLD_SIZE", "8")
    with pytest.raises(BadInput, match="128 cannot be divided among 8 processes in parts of 5"):
        training_arguments(replace(recipe, micro_batch=5), stage, tmp_path, 0)


def test_worker_processes_read_the_data_where_there_is_an_accelerator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tiny_laver()
    assert training_arguments(recipe, recipe.stages[0], tmp_path, 0).dataloader_num_workers == 0
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(psutil.Process, "cpu_affinity", lambda self: list(range(16)))
    found = {}
    for processes in ("1", "4", "16"):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
        found[processes] = training_arguments(replace(recipe, precision="fp32"), recipe.stages[0], tmp_path, 0).dataloader_num_workers
    assert found == {"1": 8, "4": 3, "16": 1}
    assert training_arguments(replace(recipe, precision="fp32"), recipe.stages[0], tmp_path, 0, streams=True).dataloader_num_workers == 0


def test_captions_name_every_factor_that_can_be_named() -> None:
    world = Shapes()
    scene: dict[str, Any] = {factor.name: factor.values[0] for factor in world.space.factors}
    ((caption,),) = factor_captions(world, Scenes.of(world.space, [Scene(scene, 0)]))
    assert caption.answer.split() == [value for name, value in scene.items() if name != "sheen"]


def test_missing_and_unknown_data_are_named() -> None:
    recipe = RECIPES["laver-siglip2"]()
    with pytest.raises(BadInput, match="needs data named visual, instructions"):
        file_recipe_data(recipe, {"captions": "a.json:b"}, 0)
    with pytest.raises(BadInput, match="no stage of laver-siglip2 trains on data named 'other'"):
        file_recipe_data(recipe, {"captions": "a", "visual": "b", "instructions": "c", "other": "d"}, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("tiny", []), "no recipe is called 'tiny'; there is tiny-laver"),
        (("tiny-laver", ["a=b"]), "renders its own pictures"),
        (("laver-clip", ["captions"]), "is not NAME=SOURCE"),
        (("laver-clip", ["captions=a", "captions=b"]), "gives captions twice, as 'a' and 'b'"),
        (("laver-clip", [f"{name}=a.json" for name in ("captions", "visual", "instructions")]), "'a.json' names no folder of pictures"),
    ],
)
def test_bad_words_on_the_command_line_are_refused_before_anything_is_made(arguments: Any, message: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(BadInput, match=message):
        train_recipe(arguments[0], out, arguments[1], seed=0, overwrite=False, steps=Steps(Console()))
    assert not out.exists()


def test_a_source_is_a_file_and_a_folder_with_colons_or_the_message_says_the_form(tmp_path: Path) -> None:
    record = {"id": "1", "image": "1.png", "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}
    odd = tmp_path / "a:b"
    for folder in (tmp_path / "p:q", tmp_path / "x.json:y", odd / "x.jsonl:z"):
        folder.mkdir(parents=True)
    for file in (tmp_path / "x.json", odd / "x.json"):
        file.write_text(json.dumps([record]))
    for file, folder in (
        (tmp_path / "x.json", tmp_path / "p:q"),
        (tmp_path / "x.json", tmp_path / "x.json:y"),
        (odd / "x.json", odd / "x.jsonl:z"),
    ):
        (one,) = source_named(f"{file}:{folder}", 0)
        assert one.pictures == (folder / "1.png",)
    for text, message in {
        f"{tmp_path}/x.json": r"names no folder of pictures; expected FILE\.json:PICTURES",
        f"{tmp_path}/x.json:": "names no folder of pictures",
        f"{tmp_path}/x.jsonl.gz:{tmp_path}": r"x\.jsonl\.gz is packed \(\.gz\); unpack it, and give FILE\.jsonl:PICTURES",
        f"{tmp_path}/x.json:{tmp_path}/nowhere": "there is no folder .*nowhere",
        f"{tmp_path}/gone.json:{tmp_path}": "gone.json cannot be read",
        f"{tmp_path}/gone": r"no data set can be loaded from .*; expected FILE\.json:PICTURES",
    }.items():
        with pytest.raises(BadInput, match=message):
            source_named(text, 0)


def test_the_allowed_share_of_damaged_examples_reaches_the_trainer_or_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[float] = []

    def stop(recipe: Any, sources: Any, seed: int, max_damaged_frac: float) -> None:
        made.append(max_damaged_frac)
        raise BadInput("far enough")

    monkeypatch.setattr("theodolite.commands.train.file_recipe_data", stop)
    for given in (None, 0.2):
        with pytest.raises(BadInput, match="far enough"):
            train_recipe("laver-clip", tmp_path, ["a=b"], seed=0, overwrite=False, steps=Steps(Console()), max_damaged_frac=given)
    assert made == [0.01, 0.2]
    with pytest.raises(BadInput, match="leave --max-damaged-frac out"):
        train_recipe("tiny-laver", tmp_path, [], seed=0, overwrite=False, steps=Steps(Console()), max_damaged_frac=0.2)
    record = {"id": "1", "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}
    (tmp_path / "x.json").write_text(json.dumps([record]))
    recipe = RECIPES["laver-clip"]()
    sources = {stage.data: f"{tmp_path}/x.json:{tmp_path}" for stage in recipe.stages}
    model, processor = tiny_vlm()
    assert file_recipe_data(recipe, sources, 0, 0.2).for_stage(recipe.stages[0], model, processor).max_damaged_frac == 0.2


def test_two_processes_train_the_same_stages_to_the_same_model(whole: Path, tmp_path: Path) -> None:
    """Under torchrun: one process claims the folder and writes, both train, and the losses are those of one process."""
    environment = script_environment(ENVIRONMENT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*command, str(SCRIPT), str(tmp_path / "run")], capture_output=True, text=True, check=False, env=environment, timeout=400
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for stage in ("align", "laver", "instruct"):
        logs = [
            [json.loads(line) for line in (folder / stage / "log.jsonl").read_text().splitlines()] for folder in (whole, tmp_path / "run")
        ]
        assert [entry["step"] for entry in logs[1]] == list(range(1, STEPS + 1))
        # bf16 sums in another order.
        assert [entry["loss"] for entry in logs[1]] == pytest.approx([entry["loss"] for entry in logs[0]], rel=0.02)
