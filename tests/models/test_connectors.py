"""Connectors: what each may see of a picture, how it starts, and that a model with any of them travels and is surveyed."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, get_args

import numpy as np
import polars as pl
import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText, LlavaForConditionalGeneration
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

from helpers import TESTS
from helpers.adapted_models import MIXED, padded_left, read_logits
from helpers.tiny_llava import TINY, WORLD
from theodolite.measurement.pairs.plan import plan_world
from theodolite.measurement.survey.session import survey_model
from theodolite.models.construction.build import build_vlm, connector_named
from theodolite.models.construction.frontends import Pixels
from theodolite.models.export import export_vlm
from theodolite.models.exported import connectors
from theodolite.models.exported.connectors import CONNECTORS, Connector, Local, exchange_connector, make_connector, start_scale
from theodolite.models.families import family_of
from theodolite.models.forward import Adaptation, adapt
from theodolite.models.load import load_vlm
from theodolite.records.errors import BadInput, UnknownName

NAMES = tuple(CONNECTORS)
OURS = tuple(name for name in NAMES if name != "mlp")
MIXED_1D = Adaptation("mixed", "native")
# A name, what is adapted and the front end, of each model that is exported.
EXPORTS: Mapping[str, tuple[str, Adaptation, str]] = {
    **{name: (name, Adaptation(), "conv") for name in OURS},
    "local on patches": ("local", Adaptation(), "patches"),
    "local, mixed": ("local", MIXED, "conv"),
    "resampler, mixed": ("resampler", MIXED_1D, "conv"),
}


def vlm(name: str, seed: int = 0, frontend: str = "conv") -> tuple[Any, Any]:
    return build_vlm(WORLD.texts, seed, TINY, frontend, name)  # type: ignore[arg-type]


@cache
def kept(name: str) -> tuple[Any, Any]:
    """A model and its processor that no test changes."""
    model, processor = vlm(name)
    return model.eval(), processor


def connector(name: str) -> nn.Module:
    projector: nn.Module = vlm(name)[0].model.multi_modal_projector
    return projector.requires_grad_(False)


@cache
def pixels() -> Tensor:
    return Pixels(kept("mlp")[1].image_processor)(WORLD.render(WORLD.sample(8, np.random.default_rng(0))))


@cache
def tower_tokens() -> Tensor:
    with torch.no_grad():
        return kept("mlp")[0].model.vision_tower(pixels()).last_hidden_state


def batch(model: Any) -> dict[str, Tensor]:
    """Two rows of different length, one with two pictures, padded on the right."""
    picture = [model.config.image_token_id] * 64
    rows = [[*picture, 20, 30, 3, 25, 40, 33, 34, 21, 22], [*picture, 20, 21, *picture, 30, 31]]
    width = max(map(len, rows))
    return {
        "input_ids": torch.tensor([row + [0] * (width - len(row)) for row in rows]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows]),
        "pixel_values": pixels()[:3],
    }


@torch.no_grad()
def logits(model: Any) -> Tensor:
    output: Tensor = model(**batch(model)).logits
    return output


# The maps


def test_the_names_of_the_type_are_those_of_the_table() -> None:
    assert get_args(Connector) == NAMES


@pytest.mark.parametrize("frontend", ["conv", "patches"])
@pytest.mark.parametrize("name", NAMES)
def test_a_picture_has_as_many_tokens_behind_every_connector(name: str, frontend: str) -> None:
    model, _ = vlm(name, frontend=frontend)
    features = model.get_image_features(pixels(), return_dict=True).pooler_output
    assert [tuple(each.shape) for each in features] == [(64, TINY.width)] * 8
    assert type(model) is LlavaForConditionalGeneration and type(model.model.multi_modal_projector) is CONNECTORS[name]


@pytest.mark.parametrize("name", NAMES)
def test_pictures_of_one_batch_do_not_see_each_other(name: str) -> None:
    made, tokens = connector(name), tower_tokens()
    torch.testing.assert_close(made(tokens)[3:4], made(tokens[3:4]), atol=1e-6, rtol=1e-4)


def test_linear_is_linear_but_for_its_bias() -> None:
    made = connector("linear")
    made.linear.bias.normal_()
    one, other, nothing = (made(tokens) for tokens in (tower_tokens()[:4], tower_tokens()[4:], torch.zeros(4, 64, 96)))
    mixed = made(2 * tower_tokens()[:4] - 3 * tower_tokens()[4:])
    assert bool((nothing.std(dim=(0, 1)) == 0).all())
    torch.testing.assert_close(mixed - nothing, 2 * (one - nothing) - 3 * (other - nothing), atol=1e-4, rtol=1e-4)
    curved = connector("mlp")
    assert not torch.allclose(curved(2 * tower_tokens()), 2 * curved(tower_tokens()), rtol=0.05, atol=1e-3)


def test_the_order_of_a_pictures_tokens_matters_to_the_resampler_by_its_positions_alone() -> None:
    made, order = connector("resampler"), torch.randperm(64, generator=torch.Generator().manual_seed(0))
    tokens = tower_tokens()
    moved = (made(tokens[:, order]) - made(tokens)).square().mean().sqrt() / made(tokens).square().mean().sqrt()
    assert moved > 0.1
    swapped = connector("resampler")
    swapped.rows.copy_(made.rows.flip(0))  # as if the picture had been turned upside down
    upside_down = tokens.unflatten(1, (8, 8)).flip(1).flatten(1, 2)
    torch.testing.assert_close(swapped(upside_down), made(tokens), atol=1e-5, rtol=1e-4)
    made.rows.zero_()
    made.columns.zero_()
    torch.testing.assert_close(made(tokens[:, order]), made(tokens), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("place", [(0, 0), (3, 4), (7, 2)])
def test_local_hears_of_a_token_two_places_around_it_and_no_further(place: tuple[int, int]) -> None:
    made, tokens = connector("local"), tower_tokens()[:1]
    changed = tokens.clone()
    changed[0, 8 * place[0] + place[1]] += torch.randn(96, generator=torch.Generator().manual_seed(1))
    moved = (made(changed) - made(tokens)).abs().amax(dim=-1).view(8, 8)
    rows, columns = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    near = torch.maximum((rows - place[0]).abs(), (columns - place[1]).abs()) <= 2
    assert bool((moved[~near] == 0).all()) and bool((moved[near] > 0).all())


@pytest.mark.parametrize("name", ["linear", "mlp"])
def test_linear_and_mlp_hear_of_one_place_and_the_resampler_of_all(name: str) -> None:
    changed = tower_tokens()[:1].clone()
    changed[0, 9] += 1
    moved = (connector(name)(changed) - connector(name)(tower_tokens()[:1])).abs().amax(dim=-1)[0]
    assert moved.nonzero().flatten().tolist() == [9]
    moved = (connector("resampler")(changed) - connector("resampler")(tower_tokens()[:1])).abs().amax(dim=-1)[0]
    assert bool((moved > 0).all())


def test_local_pools_to_the_number_of_tokens_that_is_wanted() -> None:
    config = vlm("mlp")[0].config
    config.image_seq_length = 16
    made = Local(config).requires_grad_(False)
    for block in (*made.before, *made.after):
        block.leave.weight.zero_()
    tokens = tower_tokens()
    pooled = tokens.view(8, 4, 2, 4, 2, 96).mean(dim=(2, 4)).flatten(1, 2)
    torch.testing.assert_close(made(tokens), made.readout(pooled), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", ["local", "resampler"])
def test_tokens_that_make_no_square_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="a picture has 60 tokens"):
        connector(name)(tower_tokens()[:, :60])


# How they start


@pytest.mark.parametrize(("vision", "text", "std"), [(96, 128, 0.02), (192, 64, 0.088), (64, 32, 0.5)])
def test_the_scale_at_the_start_is_that_of_the_stock_projector(vision: int, text: int, std: float) -> None:
    torch.manual_seed(0)
    first, second = std * torch.randn(vision, 4096), std * torch.randn(4096, text)
    tokens = torch.randn(2000, vision)
    scale = (nn.functional.gelu(tokens @ first) @ second).square().mean().sqrt() * (text / 4096) ** 0.5
    assert scale.item() == pytest.approx(start_scale(vision, text, std), rel=0.05)


@pytest.mark.parametrize("frontend", ["conv", "patches"])
@pytest.mark.parametrize("name", OURS)
def test_vision_tokens_start_as_large_as_behind_the_stock_projector_and_tell_of_the_picture(name: str, frontend: str) -> None:
    def features(name: str) -> Tensor:
        with torch.no_grad():
            return torch.stack(vlm(name, frontend=frontend)[0].get_image_features(pixels(), return_dict=True).pooler_output)

    outputs, stock = features(name), features("mlp")
    assert 1 / 3 < (outputs.square().mean() / stock.square().mean()).sqrt() < 3
    assert (outputs - outputs.mean(dim=0)).square().mean() > 0.25 * outputs.square().mean()


def test_the_stock_connector_leaves_the_model_as_transformers_makes_it() -> None:
    model, _ = vlm("mlp")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        fresh = LlavaForConditionalGeneration(model.config)
    for path in ("model.multi_modal_projector", "model.language_model"):
        drawn = fresh.get_submodule(path).state_dict()
        assert all(torch.equal(value, drawn[key]) for key, value in model.get_submodule(path).state_dict().items())
    assert type(model.model.multi_modal_projector) is LlavaMultiModalProjector
    assert "connector" not in model.config.to_dict() and model.config.projector_hidden_act == "gelu"


@pytest.mark.parametrize("name", OURS)
def test_a_seed_gives_one_connector_and_the_decoder_of_every_other(name: str) -> None:
    one, again, other, stock = vlm(name)[0], vlm(name)[0], vlm(name, seed=1)[0], vlm("mlp")[0]
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in one.state_dict().items())
    same = {key: torch.equal(value, stock.state_dict()[key]) for key, value in one.state_dict().items() if "projector" not in key}
    assert same and all(same.values())
    drawn = [key for key, value in one.state_dict().items() if "projector" in key and value.ndim > 1]
    assert drawn and not any(torch.equal(one.state_dict()[key], other.state_dict()[key]) for key in drawn)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_every_parameter(name: str) -> None:
    model, _ = vlm(name)
    given = batch(model)
    model(**given, labels=given["input_ids"].masked_fill(given["attention_mask"] == 0, -100)).loss.backward()
    gradients = {path: parameter.grad for path, parameter in model.model.multi_modal_projector.named_parameters()}
    # A bias of keys adds the same to all logits of a query: no softmax feels it.
    felt = {path: grad for path, grad in gradients.items() if not path.endswith("attention.key.bias")}
    assert felt and all(grad is not None and bool((grad != 0).any()) for grad in felt.values())


def test_a_connector_that_there_is_not_is_refused() -> None:
    with pytest.raises(UnknownName, match="no connector is called 'qformer'; there is linear, mlp, resampler, local"):
        connector_named("qformer")
    with pytest.raises(ValueError, match="the configuration's connector is 'qformer'"):
        make_connector(vlm("mlp")[0].config, "qformer")


# How they travel


@cache
def exported_model(label: str) -> Any:
    name, adaptation, frontend = EXPORTS[label]
    model, _ = vlm(name, frontend=frontend)
    if not adaptation.is_stock:
        adapt(model, adaptation)
    return model.eval()


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each exported model in a folder, and `asked.pt` beside it."""
    root = tmp_path_factory.mktemp("exported")
    for label in EXPORTS:
        model = exported_model(label)
        export_vlm(model, kept("mlp")[1], root / label / "model")
        text = {"input_ids": torch.tensor([[20, 21, 22, 23]])}
        picture = torch.tensor([[model.config.image_token_id] * 64 + [20, 21]])
        prompts = {"input_ids": picture, "attention_mask": torch.ones_like(picture), "pixel_values": pixels()[:1]}
        asked = {"right": batch(model), "left": padded_left(batch(model)), "text": text, "prompts": prompts}
        torch.save({**asked, "stock class": "LlavaForConditionalGeneration"}, root / label / "asked.pt")
    return root


@pytest.fixture(scope="module")
def elsewhere(exports: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each gives in a process that cannot import theodolite."""
    code = (
        f'import sys; sys.modules["theodolite"] = None; from helpers import exported_model_process as script; script.main({str(exports)!r})'
    )
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path_factory.mktemp("modules"))}
    options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "check": False}
    done = subprocess.run([sys.executable, "-c", code], cwd=TESTS, env=environment, **options)
    assert done.returncode == 0, done.stderr[-3000:]
    return {label: torch.load(exports / label / "answered.pt") for label in EXPORTS}


@pytest.mark.parametrize("label", EXPORTS)
def test_a_model_gives_the_same_where_theodolite_is_not_installed(label: str, elsewhere: Mapping[str, Any]) -> None:
    model, adaptation = exported_model(label), EXPORTS[label][1]
    real = batch(model)["attention_mask"].bool()
    right = elsewhere[label]["logits"]["right"][real]
    if adaptation.is_stock:
        assert torch.equal(right, logits(model)[real])
    torch.testing.assert_close(right, read_logits(model, batch(model), adaptation)[real], atol=1e-5, rtol=1e-5)
    assert elsewhere[label]["saved again"] and elsewhere[label]["new"].shape == (1, 8)


@pytest.mark.parametrize("label", EXPORTS)
def test_there_it_loads_with_its_code_or_not_at_all(label: str, elsewhere: Mapping[str, Any]) -> None:
    errors = elsewhere[label]["said"]
    assert errors["auto"].startswith("ValueError") and "trust_remote_code=True" in errors["auto"]
    assert "text_config" in errors["stock"] and "load it with trust_remote_code=True" in errors["stock"]


@pytest.mark.parametrize("label", EXPORTS)
def test_here_it_loads_without_leave_to_the_bit(label: str, exports: Path) -> None:
    model, folder = exported_model(label), exports / label / "model"
    assert json.loads((folder / "config.json").read_text())["connector"] == EXPORTS[label][0]
    by_auto, (by_us, _) = AutoModelForImageTextToText.from_pretrained(folder), load_vlm(folder)
    expected = read_logits(model, batch(model), EXPORTS[label][1])
    for loaded in (by_auto, by_us):
        assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in model.state_dict().items())
        assert family_of(loaded.config).name == "llava" and type(loaded.model.multi_modal_projector) is CONNECTORS[EXPORTS[label][0]]
        assert torch.equal(read_logits(loaded, batch(model), EXPORTS[label][1]), expected)
        assert torch.equal(logits(loaded.eval()), expected)
    with pytest.raises(StrictDataclassError, match="load it with trust_remote_code=True"):
        LlavaForConditionalGeneration.from_pretrained(folder)


@pytest.mark.parametrize("name", OURS)
def test_a_model_that_was_saved_past_the_export_is_not_loaded(name: str, tmp_path: Path) -> None:
    model, processor = kept(name)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    for load in (LlavaForConditionalGeneration.from_pretrained, AutoModelForImageTextToText.from_pretrained):
        with pytest.raises(KeyError, match=f"the connector is '{name}' of theodolite"):
            load(tmp_path)
    with pytest.raises(BadInput, match=f"the connector is '{name}' of theodolite, which export_vlm writes"):
        load_vlm(tmp_path)


def test_a_loaded_model_is_exported_as_the_first_was(exports: Path, tmp_path: Path) -> None:
    export_vlm(load_vlm(exports / "local" / "model")[0], None, tmp_path)
    first = exports / "local" / "model"
    for name in ("modeling_theodolite.py", "connectors.py", "adapted.py", "model.safetensors"):
        assert (tmp_path / name).read_bytes() == (first / name).read_bytes()
    one, other = (json.loads((folder / "config.json").read_text()) for folder in (first, tmp_path))
    assert {name for name in one if one[name] != other[name]} <= {"dtype", "adapted_text_config", "vision_config"}  # loading tells a dtype


def test_the_stock_connector_is_exported_without_a_word_of_connectors(tmp_path: Path) -> None:
    export_vlm(vlm("mlp", frontend="patches")[0], None, tmp_path / "stock")
    model = vlm("mlp", frontend="patches")[0]
    adapt(model, MIXED)
    export_vlm(model, None, tmp_path / "adapted")
    assert not list((tmp_path / "stock").glob("*.py"))
    written = [path for folder in ("stock", "adapted") for path in (tmp_path / folder).iterdir() if path.suffix in (".py", ".json")]
    texts = [path.read_text() for path in written]
    assert len(texts) > 7 and not any("onnector" in text for text in texts)


def test_two_dimensional_positions_of_a_resamplers_tokens_are_refused(tmp_path: Path) -> None:
    model, _ = vlm("resampler")
    adapt(model, MIXED)
    with pytest.raises(BadInput, match="a resampler's have none; adapt the model with positions 'native', or take another connector"):
        export_vlm(model, None, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("whole", [False, True], ids=["own weights", "given weights"])
def test_adapters_are_merged_into_a_model_with_another_connector(whole: bool, tmp_path: Path) -> None:
    wrapped = get_peft_model(vlm("local")[0], LoraConfig(r=2, target_modules=r".*language_model.*(q_proj|down_proj)"))
    for path, weight in wrapped.named_parameters():
        if "lora_B" in path:
            weight.data.normal_(std=0.1, generator=torch.Generator().manual_seed(1))
    expected = logits(wrapped.eval())
    export_vlm(wrapped, None, tmp_path, state_dict=dict(wrapped.state_dict()) if whole else None)
    reloaded = logits(AutoModelForImageTextToText.from_pretrained(tmp_path))
    torch.testing.assert_close(reloaded, expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(reloaded, logits(kept("local")[0]), atol=1e-2)


def test_a_connector_takes_the_place_of_a_trained_one_too() -> None:
    model, _ = vlm("local")
    exchange_connector(model, "linear")
    assert model.config.connector == "linear" and type(model.model.multi_modal_projector) is CONNECTORS["linear"]


def test_the_file_that_goes_with_a_model_imports_torch_and_transformers_alone() -> None:
    for node in ast.walk(ast.parse(Path(str(connectors.__file__)).read_text())):
        if isinstance(node, ast.ImportFrom | ast.Import):
            imported = node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
            assert str(imported).partition(".")[0] in {"torch", "transformers", *sys.stdlib_module_names}


# How they are measured


@pytest.mark.parametrize("name", NAMES)
def test_a_survey_looks_behind_every_connector(name: str) -> None:
    model, processor = kept(name)
    plan = plan_world(WORLD, WORLD.policy("shape"), 6, 0, 64)
    kind = pl.col("kind")
    pairs = plan.rows.filter((kind != "training") & ((kind != "intervention") | (pl.col("factor") == "shape")))
    plan = replace(plan, rows=pl.concat([pairs, plan.rows.filter(kind == "training").head(6)]))
    inside = survey_model((model, processor), plan, title=name, measures=("likeness", "ladder", "gap")).record.inside
    assert inside is not None and inside.likeness is not None and inside.ladder is not None and inside.gap is not None
    assert set(inside.likeness.sites) == {"encoder", "connector", "layer.1", "layer.2"}
    assert "connector" in inside.gap.sites and "encoder" not in inside.gap.sites
    assert [rung.site for rung in inside.ladder.factors["shape"].rungs[:4]] == ["encoder", "connector", "layer.1", "layer.2"]
