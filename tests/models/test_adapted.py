"""Adapted models by themselves: who sees whom, how generation goes on, which back ends agree, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache, LlamaConfig, MistralConfig

from helpers import tiny_families
from helpers.adapted_models import MIXED, at_prompt, padded_left, read_logits, view_of, written, written_by_hand
from theodolite.models.export import export_vlm
from theodolite.models.exported.adapted import edited
from theodolite.models.exported.attention import LAYERS, language_mask, layer_kinds
from theodolite.models.exported.grids import token_grid
from theodolite.models.exported.layout import NONE, layout_of
from theodolite.models.families import family_of, image_token_id
from theodolite.models.forward import Adaptation, adapt
from theodolite.models.load import adapted_classes

PLAIN_POSITIONS = Adaptation("mixed", "native")
CAUSAL = Adaptation("native", "2d")
NEW = 5


@cache
def trained(name: str, adaptation: Adaptation = MIXED) -> Any:
    model = tiny_families.tiny(name)[0]
    adapt(model, adaptation)
    return model


@pytest.fixture
def loaded(tmp_path: Path) -> Callable[..., Any]:
    """A model that was exported adapted, of our own class, which is that of the code in its folder."""

    def load(name: str, adaptation: Adaptation = MIXED, **options: Any) -> Any:
        export_vlm(trained(name, adaptation), None, tmp_path)
        return adapted_classes(name)[1].from_pretrained(tmp_path, **options)

    return load


@cache
def prompts(name: str, num_pictures: tuple[int, ...] = (1, 2), lengths: tuple[int, ...] = (9, 4)) -> dict[str, Tensor]:
    model = trained(name)
    return at_prompt(tiny_families.inputs(name, model, num_pictures, lengths), family_of(model.config))


@torch.inference_mode()
def hidden(model: Any, given: dict[str, Tensor], moved: tuple[int, int] | None = None) -> Tensor:
    """Last hidden states (row, token, dim), with the embedding of one token moved."""
    kept: list[Tensor] = []

    def move(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        embeddings = kwargs["inputs_embeds"].clone()
        if moved is not None:
            embeddings[moved] += 1.0
        return args, {**kwargs, "inputs_embeds": embeddings}

    language_model = model.get_submodule(family_of(model.config).language_model)
    handles = (
        language_model.register_forward_pre_hook(move, with_kwargs=True),
        language_model.register_forward_hook(lambda module, args, output: kept.append(output.last_hidden_state)),
    )
    model(**given)
    for handle in handles:
        handle.remove()
    return kept[0]


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_later_token_moves_earlier_ones_of_its_own_picture_and_no_other(side: str, loaded: Callable[..., Any]) -> None:
    model, given = loaded("llava"), prompts("llava")
    given = padded_left(given) if side == "left" else given
    first, second = (given["input_ids"][1] == image_token_id(model.config)).nonzero()[:, 0].split(16)
    last = int(second[-1])
    changed = (hidden(model, given) != hidden(model, given, (1, last))).any(dim=-1)
    assert not changed[0].any()
    assert not changed[1, first].any()
    assert changed[1, second].all()
    text = given["attention_mask"][1].bool() & (given["input_ids"][1] != image_token_id(model.config))
    assert changed[1, text].tolist() == [bool(place > last) for place in text.nonzero()[:, 0]]


@pytest.mark.parametrize("adaptation", [PLAIN_POSITIONS, CAUSAL], ids=str)
@pytest.mark.parametrize("name", ["llava", "gemma3", "paligemma", "internvl"])
def test_each_half_of_the_adaptation_can_be_on_alone(name: str, adaptation: Adaptation, loaded: Callable[..., Any]) -> None:
    model, given = loaded(name, adaptation), prompts(name)
    real = given["attention_mask"].bool()
    with torch.inference_mode():
        logits = model(**given).logits[real]
    torch.testing.assert_close(logits, read_logits(trained(name, adaptation), given, adaptation)[real], atol=1e-5, rtol=1e-5)
    expected = written_by_hand(trained(name, adaptation), given, NEW, adaptation).tolist()
    for options in ({}, {"cache_implementation": "static"}, {"use_cache": False}):
        assert written(model, padded_left(given), NEW, **options).tolist() == expected


@pytest.mark.parametrize("name", ["llava", "qwen2_vl", "gemma3", "paligemma"])
def test_caches_of_every_kind_generate_the_same(name: str, loaded: Callable[..., Any]) -> None:
    model, given = loaded(name), padded_left(prompts(name))
    expected = written_by_hand(trained(name), prompts(name), NEW).tolist()
    assert written(model, given, NEW, past_key_values=DynamicCache(config=model.config.text_config)).tolist() == expected
    assert written(model, given, NEW, use_cache=False).tolist() == expected
    assert written(model, given, NEW, cache_implementation="static").tolist() == expected


def in_rows(model: Any, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same batch with each row's tiles in a row of their own, as the library's processor of SmolVLM has them."""
    if family_of(model.config).name != "smolvlm":
        return given
    places = view_of(model.config, given).layout.picture
    counts = [len(row[row != NONE].unique()) for row in places]
    tiled = {name: pad_sequence(given[name][0].split(counts), True) for name in ("pixel_values", "pixel_attention_mask")}
    return {**given, **tiled}


@pytest.mark.parametrize("name", ["llava", "qwen2_vl", "smolvlm", "llava_onevision"])
def test_beams_keep_their_pictures(name: str, loaded: Callable[..., Any]) -> None:
    """Either row, in a batch and alone, with and without a cache."""
    model = loaded(name)
    beams = {"num_beams": 3, "num_return_sequences": 2}
    both = in_rows(model, padded_left(prompts(name, (2, 1), (5, 9))))
    together = written(model, both, NEW, **beams).tolist()
    assert together[:2] == written(model, padded_left(prompts(name, (2,), (5,))), NEW, **beams).tolist()
    assert together == written(model, both, NEW, use_cache=False, **beams).tolist()
    turned = {key: value.flip(0) if value.shape[0] == 2 else value for key, value in both.items()}
    if name == "smolvlm":
        assert written(model, turned, NEW, **beams).tolist() == together[2:] + together[:2]


def test_beams_over_pictures_of_several_rows_in_one_are_refused(loaded: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="give each row of input_ids its own row of pixel_values"):
        written(loaded("smolvlm"), padded_left(prompts("smolvlm", (2, 1), (5, 9))), NEW, num_beams=2)


def test_models_whose_layers_all_have_a_window_keep_it() -> None:
    """Mistral does not list its layers."""
    config = MistralConfig(sliding_window=3)
    config._attn_implementation = "sdpa"
    assert layer_kinds(config) == ("sliding_attention",) and layer_kinds(LlamaConfig()) == ("full_attention",)
    place = layout_of(torch.tensor([[7, 9, 9, 9, 9, 7, 7]]), 9, [token_grid(2, 2)])
    seen = language_mask(place, False, config, torch.float32)[0, 0] == 0
    band = torch.ones(7, 7, dtype=torch.bool)
    assert torch.equal(seen, band.tril() & band.triu(-2))


@pytest.mark.parametrize("kind", LAYERS)
def test_a_gemma_3_whose_layers_are_all_of_one_kind_is_adapted(kind: str, tmp_path: Path) -> None:
    """Its rotary module asks for the kind although there is only one."""
    config, kind_of_model, _ = tiny_families.BUILDERS["gemma3"](2)
    config.text_config.layer_types = [kind] * 2
    torch.manual_seed(0)
    model = kind_of_model(config).eval()
    for weight in model.parameters():
        tiny_families.spread(weight.data)
    adapt(model, MIXED)
    export_vlm(model, None, tmp_path)
    given = prompts("gemma3")
    real = given["attention_mask"].bool()
    with torch.inference_mode():
        logits = adapted_classes("gemma3")[1].from_pretrained(tmp_path)(**given).logits
    torch.testing.assert_close(logits[real], read_logits(model, given)[real], atol=1e-5, rtol=1e-5)
    assert (read_logits(model, given, PLAIN_POSITIONS) - logits)[real].abs().max() > 1e-3


def test_guessing_ahead_changes_nothing(loaded: Callable[..., Any]) -> None:
    given = prompts("llava", (2,), (5,))
    assert written(loaded("llava"), given, 12, prompt_lookup_num_tokens=3).tolist() == written_by_hand(trained("llava"), given, 12).tolist()


def test_a_prompt_that_ends_with_a_picture_goes_on_behind_its_larger_side(loaded: Callable[..., Any]) -> None:
    given = prompts("llava", (1,), (0,))
    assert given["input_ids"][0, -1] == image_token_id(trained("llava").config)
    assert written(loaded("llava"), given, NEW).tolist() == written_by_hand(trained("llava"), given, NEW).tolist()


@pytest.mark.parametrize("name", ["llava", "gemma3"])
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:_compile flag on create_block_mask:DeprecationWarning")
def test_all_attention_back_ends_that_are_named_agree(name: str, loaded: Callable[..., Any]) -> None:
    given = prompts(name)
    real = given["attention_mask"].bool()
    expected = read_logits(trained(name), given)[real]
    # Compiling flex attention takes minutes on a CPU; uncompiled it does the same sums.
    with torch.inference_mode(), torch.compiler.set_stance("force_eager"):
        for back_end in ("eager", "sdpa", "flex_attention"):
            model = loaded(name, attn_implementation={"text_config": back_end, "vision_config": "sdpa"})
            assert model.config.text_config._attn_implementation == back_end
            torch.testing.assert_close(model(**given).logits[real], expected, atol=1e-5, rtol=1e-5)
            assert written(model, padded_left(given), 2).tolist() == written_by_hand(trained(name), given, 2).tolist()


@pytest.mark.parametrize("name", tiny_families.NAMES)
def test_masks_that_are_prepared_already_go_through(name: str, loaded: Callable[..., Any]) -> None:
    """A dict, or (row, 1, query, key), is taken as it is: here one under which every token sees itself alone."""
    model, given = loaded(name), prompts(name)
    width = given["input_ids"].shape[1]
    alone = torch.full((2, 1, width, width), torch.finfo(torch.float32).min)
    alone[:, :, torch.arange(width), torch.arange(width)] = 0.0
    kinds = set(getattr(model.config.text_config, "layer_types", None) or ["full_attention"])
    mask = dict.fromkeys(kinds, alone) if name == "gemma3" else alone
    positions = torch.arange(width).expand(2, -1)
    last = {**given, "attention_mask": mask, "position_ids": positions}
    changed = (hidden(model, last) != hidden(model, last, (1, 3))).any(dim=-1)
    # PaliGemma's own forward joins the mask with its prefix.
    assert changed.nonzero().tolist() == [[1, 3]]


def test_passes_in_other_threads_are_left_alone() -> None:
    module, seen = torch.nn.Identity(), []
    module.register_forward_hook(lambda module, args, kwargs, output: seen.append(float(output)), with_kwargs=True)
    with edited(module, lambda kwargs: {"input": kwargs["input"] + 1}):
        module(input=torch.zeros(()))
        other = Thread(target=module, kwargs={"input": torch.zeros(())})
        other.start()
        other.join()
    module(input=torch.zeros(()))
    assert seen == [1.0, 0.0, 0.0]


def test_token_types_that_are_left_out_do_not_matter(loaded: Callable[..., Any]) -> None:
    model, given = loaded("gemma3", CAUSAL), prompts("gemma3")
    bare = {name: value for name, value in given.items() if name != "token_type_ids"}
    with torch.inference_mode():
        assert torch.equal(model(**bare).logits, model(**given).logits)
    with pytest.raises(ValueError, match="token_type_ids are missing: 0 at the prompt"):
        loaded("paligemma", CAUSAL)(**{name: value for name, value in prompts("paligemma").items() if name != "token_type_ids"})


def row(name: str = "llava") -> dict[str, Tensor]:
    return prompts(name, (1,), (9,))


@pytest.mark.parametrize("name", ["llava", "qwen2_vl"])
def test_going_on_from_a_cache_needs_positions(name: str, loaded: Callable[..., Any]) -> None:
    model, given = loaded(name), row(name)
    width = given["input_ids"].shape[1]
    with torch.inference_mode():
        whole = model(**given).logits[:, -1]
        start = {key: value[:, :-1] if value.shape == (1, width) else value for key, value in given.items()}
        first = model(**start, use_cache=True)
        step = {"input_ids": given["input_ids"][:, -1:], "past_key_values": first.past_key_values}
        with pytest.raises(ValueError, match="position_ids are missing: a picture takes fewer positions than tokens"):
            model(**step)
        positions = model._prepare_position_ids_for_generation(given["input_ids"], dict(given))[-3:, :, -1:]
        torch.testing.assert_close(model(**step, position_ids=positions).logits[:, -1], whole, atol=1e-5, rtol=1e-5)
        with pytest.raises(ValueError, match="new pictures after cached tokens are not supported"):
            model(**given, past_key_values=first.past_key_values)
        with pytest.raises(ValueError, match="generate cannot continue a cache without position_ids"):
            model.generate(given["input_ids"], past_key_values=first.past_key_values, max_new_tokens=2)


def test_without_positions_by_axis_a_cache_goes_on_as_in_the_library(loaded: Callable[..., Any]) -> None:
    model, given = loaded("llava", PLAIN_POSITIONS), row()
    options = {"return_dict_in_generate": True, "suppress_tokens": [image_token_id(model.config)], "do_sample": False}
    model.generation_config.eos_token_id = None
    short = model.generate(**given, max_new_tokens=3, **options)
    longer = model.generate(input_ids=short.sequences, past_key_values=short.past_key_values, max_new_tokens=2, **options)
    assert longer.sequences[:, given["input_ids"].shape[1] :].tolist() == written(model, given, 5).tolist()
    with pytest.raises(ValueError, match="new pictures after cached tokens are not supported"):
        more = torch.cat([longer.sequences, given["input_ids"]], dim=1)
        model.generate(input_ids=more, pixel_values=given["pixel_values"], past_key_values=longer.past_key_values, max_new_tokens=2)


REFUSED: dict[str, tuple[Callable[[dict[str, Tensor]], dict[str, Any]], str]] = {
    "no pixels": (lambda given: {"input_ids": given["input_ids"]}, "pixel_values are missing"),
    "embeddings": (lambda given: {"inputs_embeds": torch.zeros(1, 4, 32)}, "input_ids are missing"),
    "too few pictures": (
        lambda given: {**given, "pixel_values": given["pixel_values"].repeat(2, 1, 1, 1)},
        "16 image tokens, but the 2 pictures",
    ),
    "counted positions": (
        lambda given: {**given, "position_ids": torch.arange(given["input_ids"].shape[1])[None]},
        "positions by axis here",
    ),
    "mask alone": (lambda given: {**given, "attention_mask": torch.zeros(1, 1, *2 * given["input_ids"].shape[1:])}, "needs position_ids"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_differ_without_a_word_is_refused(case: str, loaded: Callable[..., Any]) -> None:
    change, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        loaded("llava")(**change(row()))


def test_packed_rows_and_pictures_in_chunks_are_refused(loaded: Callable[..., Any]) -> None:
    given = {name: value for name, value in row().items() if name != "attention_mask"}
    width = given["input_ids"].shape[1]
    with pytest.raises(ValueError, match="position_ids restart within a row"):
        loaded("llava", PLAIN_POSITIONS)(**given, position_ids=torch.arange(width)[None] % 20)
    with pytest.raises(ValueError, match="prefill_chunk_size would split pictures"):
        loaded("llava").generate(**given, prefill_chunk_size=4, max_new_tokens=2)


def test_back_ends_that_drop_masks_are_refused_when_they_are_chosen(loaded: Callable[..., Any]) -> None:
    model = loaded("llava")
    for choice in ("flash_attention_2", {"text_config": "flash_attention_3"}):
        with pytest.raises(ValueError, match="one of eager, sdpa, flex_attention"):
            loaded("llava", attn_implementation=choice)
        with pytest.raises(ValueError, match="one of eager, sdpa, flex_attention"):
            model.set_attn_implementation(choice)
    model.config.text_config._attn_implementation = "flash_attention_2"
    with pytest.raises(ValueError, match="one of eager, sdpa, flex_attention"):
        model(**row())


def test_an_adaptation_that_is_not_known_is_refused(tmp_path: Path) -> None:
    export_vlm(trained("llava"), None, tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    settings["adaptation"]["attention"] = "sideways"
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="attention must be one of native, mixed"):
        adapted_classes("llava")[1].from_pretrained(tmp_path)
