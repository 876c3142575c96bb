"""Exported models: with the code they need where they are adapted, stock where they are not, and never another model without a word."""

from __future__ import annotations

import ast
import copy
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForImageTextToText

from helpers import TESTS, exported_model_process, tiny_families
from helpers.adapted_models import MIXED, at_prompt, padded_left, read_logits, written_by_hand
from helpers.tiny_llava import tiny_vlm
from theodolite.models import export
from theodolite.models.export import export_vlm
from theodolite.models.exported.adapted import Adapted
from theodolite.models.families import UnknownFamily, family_of, image_token_id
from theodolite.models.forward import Adaptation, adapt, adaptation_of
from theodolite.models.load import adapted_classes, load_vlm
from theodolite.records.errors import BadInput

OURS = ("conv", "patches")
EVERY = (*tiny_families.NAMES, *OURS)


def model_of(name: str) -> Any:
    return tiny_vlm(frontend=name)[0].eval() if name in OURS else tiny_families.tiny(name)[0]


@cache
def adapted_of(name: str) -> Any:
    """The model as training has it: of its stock class, with the adaptation written into its configuration."""
    model = model_of(name)
    adapt(model, MIXED)
    return model


@cache
def batch_of(name: str) -> dict[str, Tensor]:
    """Two rows of different length, one with two pictures, padded on the right."""
    if name not in OURS:
        return tiny_families.inputs(name, adapted_of(name))
    picture = [image_token_id(adapted_of(name).config)] * 64
    rows = [[*picture, 20, 30, 3, 25, 40, 50, 60, 41, 42], [*picture, 20, 21, *picture, 30, 31]]
    width = max(map(len, rows))
    pixels = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    return {
        "input_ids": torch.tensor([row + [0] * (width - len(row)) for row in rows]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows]),
        "pixel_values": pixels,
    }


def prompts_of(name: str) -> dict[str, Tensor]:
    return at_prompt(batch_of(name), family_of(adapted_of(name).config))


def text_of(name: str) -> dict[str, Tensor]:
    """Text without pictures, with token types where the stock forward takes them."""
    ids = torch.tensor([[33, 40, 45, 50, 55, 41], [46, 47, 48, 49, 33, 34]])
    family = family_of(adapted_of(name).config)
    return {"input_ids": ids, **({family.token_types: torch.zeros_like(ids)} if family.token_types else {})}


@pytest.fixture(scope="session")
def answered(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    """What every adapted model gives in a process that cannot import theodolite."""
    root = tmp_path_factory.mktemp("exported")
    for name in EVERY:
        export_vlm(adapted_of(name), None, root / name / "model")
        asked = {
            "right": batch_of(name),
            "left": padded_left(batch_of(name)),
            "text": text_of(name),
            "prompts": padded_left(prompts_of(name)),
        }
        torch.save({**asked, "stock class": type(model_of(name)).__name__}, root / name / "asked.pt")
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path_factory.mktemp("modules"))}
    blocked = 'import sys; sys.modules["theodolite"] = None'  # importing ours would fail
    code = f"{blocked}; from helpers import exported_model_process as script; script.main({str(root)!r})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=TESTS, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return {name: torch.load(root / name / "answered.pt") for name in EVERY}


# Where theodolite is not installed


@pytest.mark.contract("export")
@pytest.mark.parametrize("name", EVERY)
def test_an_adapted_model_gives_the_logits_of_training_where_theodolite_is_not(name: str, answered: Mapping[str, Any]) -> None:
    assert "TheodoliteForConditionalGeneration" in answered[name]["class"]
    expected, real = read_logits(adapted_of(name), batch_of(name)), batch_of(name)["attention_mask"].bool()
    torch.testing.assert_close(answered[name]["logits"]["right"][real], expected[real], atol=1e-5, rtol=1e-5)
    moved = padded_left(batch_of(name))["attention_mask"].bool()
    torch.testing.assert_close(answered[name]["logits"]["left"][moved], expected[real], atol=1e-5, rtol=1e-5)
    with torch.inference_mode():
        assert not torch.allclose(model_of(name)(**batch_of(name)).logits[real], expected[real], atol=1e-2)


@pytest.mark.contract("export")
@pytest.mark.parametrize("name", EVERY)
def test_it_generates_there_what_whole_passes_of_training_give_token_by_token(name: str, answered: Mapping[str, Any]) -> None:
    expected = written_by_hand(adapted_of(name), prompts_of(name), exported_model_process.NEW_TOKENS)
    assert answered[name]["new"].tolist() == expected.tolist()


@pytest.mark.contract("export")
@pytest.mark.parametrize("name", EVERY)
def test_text_without_pictures_runs_there_as_in_the_stock_model_to_the_bit(name: str, answered: Mapping[str, Any]) -> None:
    """Where the stock model would attend to it as a prompt, in both directions, mixed attention takes it for an answer, which is causal."""
    given, family = text_of(name), family_of(adapted_of(name).config)
    if family.attention == "prefix":
        given["token_type_ids"] = torch.ones_like(given["input_ids"])
    with torch.inference_mode():
        assert torch.equal(answered[name]["logits"]["text"], model_of(name)(**given).logits)


@pytest.mark.parametrize("name", EVERY)
def test_without_its_code_it_does_not_load_and_says_why(name: str, answered: Mapping[str, Any]) -> None:
    errors = answered[name]["said"]
    assert errors["auto"].startswith("ValueError") and "trust_remote_code=True" in errors["auto"]
    assert "text_config" in errors["stock"] and "load it with trust_remote_code=True" in errors["stock"]
    assert errors["flash"].startswith("ValueError: attention 'flash_attention_2'") and errors["flash"].endswith(
        "eager, sdpa, flex_attention"
    )


@pytest.mark.contract("export")
@pytest.mark.parametrize("name", EVERY)
def test_it_can_be_saved_there_and_loaded_again(name: str, answered: Mapping[str, Any]) -> None:
    assert answered[name]["saved again"]


def test_what_goes_with_a_model_imports_torch_transformers_and_itself_alone() -> None:
    shipped = {Path(str(module.__file__)).stem for module in export.SHIPPED}
    for module in export.SHIPPED:
        for node in ast.walk(ast.parse(Path(str(module.__file__)).read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:
                assert node.level == 1 and node.module in shipped
            elif isinstance(node, ast.ImportFrom | ast.Import):
                imported = node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
                assert str(imported).partition(".")[0] in {"torch", "transformers", *sys.stdlib_module_names}


def test_a_folder_that_lacks_a_weight_is_refused_by_name(tmp_path: Path) -> None:
    """transformers loads it, with random numbers in place of what is missing."""
    export_vlm(*tiny_vlm(), tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    left_out = next(name for name in sorted(weights) if name.endswith("q_proj.weight"))
    save_file({name: value for name, value in weights.items() if name != left_out}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(BadInput, match=r"lacks 1 of its weights \(.*q_proj\.weight \.\.\.\), which would be random"):
        load_vlm(tmp_path)


# Stock where nothing is adapted


@pytest.mark.contract("export")
@pytest.mark.parametrize("name", (*tiny_families.NAMES, "patches"))
def test_a_model_that_is_not_adapted_is_a_stock_checkpoint(name: str, tmp_path: Path) -> None:
    model = model_of(name)
    adapt(model, Adaptation("native", "2d"))  # exchanges the rotary module
    adapt(model, Adaptation())
    export_vlm(model, None, tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    assert not list(tmp_path.glob("*.py")) and not {"auto_map", "adaptation"} & set(settings)
    loaded, fresh = AutoModelForImageTextToText.from_pretrained(tmp_path), model_of(name)
    assert type(loaded) is type(fresh) and settings["architectures"] == [type(fresh).__name__]
    assert set(loaded.state_dict()) == set(fresh.state_dict())
    with torch.inference_mode():
        assert torch.equal(loaded(**batch_of(name)).logits, fresh(**batch_of(name)).logits)


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_m_rope_alone_is_what_the_stock_class_does(name: str, tmp_path: Path) -> None:
    model = model_of(name)
    adapt(model, Adaptation("native", "2d"))
    export_vlm(model, None, tmp_path)
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path)
    with torch.inference_mode():
        logits = loaded(**batch_of(name)).logits
    real = batch_of(name)["attention_mask"].bool()
    expected = read_logits(model, batch_of(name), Adaptation("native", "2d"))
    torch.testing.assert_close(logits[real], expected[real], atol=1e-5, rtol=1e-5)


def test_an_adapted_model_can_be_exported_as_stock_again(tmp_path: Path) -> None:
    export_vlm(adapted_of("llava"), None, tmp_path / "adapted")
    model = load_adapted(tmp_path / "adapted")
    adapt(model, Adaptation())
    export_vlm(model, None, tmp_path / "stock")
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path / "stock")
    with torch.inference_mode():
        assert torch.equal(loaded(**batch_of("llava")).logits, model_of("llava")(**batch_of("llava")).logits)


def test_an_adapted_model_that_was_saved_as_a_stock_one_is_not_loaded(tmp_path: Path) -> None:
    model, processor = tiny_vlm()
    adapt(model, MIXED)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    with pytest.raises(BadInput, match="saved as if it were a stock llava; export it again"):
        load_vlm(tmp_path)


# Here, where theodolite is installed


def load_adapted(folder: Path) -> Any:
    """An exported model by our own classes, without a processor."""
    name = json.loads((folder / "config.json").read_text())["model_type"].removeprefix("theodolite_")
    return adapted_classes(name)[1].from_pretrained(folder)


@pytest.mark.parametrize("frontend", OURS)
def test_our_own_loader_needs_no_leave_and_gives_the_same_model(frontend: str, tmp_path: Path) -> None:
    model, processor = tiny_vlm(frontend=frontend)
    adapt(model.eval(), MIXED)
    export_vlm(model, processor, tmp_path)
    loaded, loaded_processor = load_vlm(tmp_path)
    assert isinstance(loaded, Adapted) and adaptation_of(loaded.config) == MIXED
    assert loaded_processor.chat_template == processor.chat_template
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())
    with torch.inference_mode():
        assert torch.equal(loaded(**batch_of(frontend)).logits, read_logits(model, batch_of(frontend)))


@pytest.mark.parametrize("name", tiny_families.NAMES)
@pytest.mark.parametrize("adaptation", [MIXED, Adaptation("mixed", "native"), Adaptation("native", "2d"), Adaptation()], ids=str)
def test_a_pass_of_training_through_a_loaded_model_is_its_own_whatever_the_model_would_do(
    name: str, adaptation: Adaptation, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / f"read-{name}"
    if not folder.exists():
        export_vlm(adapted_of(name), None, folder)
    loaded = load_adapted(folder)
    expected = read_logits(adapted_of(name), batch_of(name), adaptation)
    assert torch.equal(read_logits(loaded, batch_of(name), adaptation), expected)


def test_a_family_that_cannot_be_handled_is_refused_before_its_weights_are_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "mllama"}')
    with pytest.raises(UnknownFamily, match="'mllama' cannot be handled: the family feeds pictures through cross-attention"):
        load_vlm(tmp_path)


# Adapters and whole weights of sharded models


def with_adapters(name: str, seed: int = 5) -> Any:
    """An adapted model with adapters on its language model that really do something."""
    model = copy.deepcopy(adapted_of(name))
    wrapped = get_peft_model(model, LoraConfig(r=2, target_modules=r".*language_model.*(q_proj|down_proj)"))
    generator = torch.Generator().manual_seed(seed)
    for path, weight in wrapped.named_parameters():
        if "lora_B" in path:
            weight.data.normal_(std=0.1, generator=generator)
    return wrapped.eval()


@pytest.mark.parametrize("whole", [False, True], ids=["own weights", "given weights"])
def test_adapters_are_merged_and_the_trained_model_stays_as_it_was(whole: bool, tmp_path: Path) -> None:
    model = with_adapters("llava")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    expected = read_logits(model, batch_of("llava"))
    export_vlm(model, None, tmp_path, state_dict=before if whole else None)
    assert set(model.state_dict()) == set(before)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with torch.inference_mode():
        loaded = load_adapted(tmp_path)(**batch_of("llava")).logits
    real = batch_of("llava")["attention_mask"].bool()
    torch.testing.assert_close(loaded[real], expected[real], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(expected[real], read_logits(adapted_of("llava"), batch_of("llava"))[real], atol=1e-2)


def test_weights_that_are_given_are_those_that_are_written(tmp_path: Path) -> None:
    model = adapted_of("gemma3")
    given = {name: value + 1 for name, value in model.state_dict().items()}
    export_vlm(model, None, tmp_path, state_dict=given)
    assert len(given) == len(model.state_dict())
    assert all(torch.equal(value, given[name]) for name, value in load_adapted(tmp_path).state_dict().items())


def test_a_quantised_model_is_refused(tmp_path: Path) -> None:
    model = model_of("llava")
    model.hf_quantizer = object()
    with pytest.raises(BadInput, match="the model is quantised"):
        export_vlm(model, None, tmp_path)
