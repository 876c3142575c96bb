"""The families table, the grids of pictures and the reader, against the library's own models and Processors on tiny random weights."""

from __future__ import annotations

import ast
import copy
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image
from torch import Tensor, nn

from helpers.requirements import require
from helpers.tiny_families import (
    NAMES,
    SIZES,
    WRITTEN,
    bare_processor,
    edited,
    features,
    inputs,
    parts,
    picture,
    processor,
    run,
    tiny,
    tokenizer,
)
from theodolite.models.exported import grids
from theodolite.models.exported.grids import picture_grids, token_grid
from theodolite.models.families import FAMILIES, REFUSED, UnknownFamily, family_of, image_token_id
from theodolite.models.pictures import PictureReader
from theodolite.records.errors import BadInput

every_family = pytest.mark.parametrize("name", NAMES)
QWEN = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")


@cache
def model_of(name: str) -> Any:
    return tiny(name)[0]


def reader_of(name: str, **settings: Any) -> PictureReader:
    """A reader whose image processor has other settings."""
    image_processor = copy.copy(parts(name)[0])
    for setting, value in settings.items():
        setattr(image_processor, setting, value)
    return PictureReader(image_processor, parts(name)[1], model_of(name).config)


# The table


@every_family
def test_named_modules_are_called_and_the_language_model_is_given_its_inputs_by_keyword(name: str) -> None:
    model, family = tiny(name)[0], FAMILIES[name]
    made: dict[str, list[Tensor]] = {}
    for path in (family.encoder, *family.connector, family.language_model, family.lm_head):
        module = model.get_submodule(path)
        for part in module if isinstance(module, nn.ModuleList) else [module]:
            part.register_forward_hook(lambda module, args, output, path=path: made.setdefault(path, []).append(output))
    _, _, seen = edited(model, inputs(name, model), lambda kwargs: {})
    assert set(made) == {family.encoder, *family.connector, family.language_model, family.lm_head}
    assert seen["args"] == () and {"inputs_embeds", "attention_mask", "position_ids"} <= set(seen)
    assert (seen["position_ids"] is not None and seen["position_ids"].ndim == 3) == (family.positions == "mrope")
    assert model.get_submodule(family.language_model).rotary_emb is not None
    # What Qwen3-VL adds behind its first layers comes out of the connector too.
    deep = seen.get("deepstack_visual_embeds") or []
    assert len(deep) == (name == "qwen3_vl")
    assert all(any(torch.equal(part, other) for path in family.connector for other in made[path]) for part in deep)


@every_family
def test_all_weights_belong_to_encoder_connector_language_model_or_head(name: str) -> None:
    model, family = model_of(name), FAMILIES[name]
    named = (family.encoder, *family.connector, family.language_model, family.lm_head)
    rest = {path for path, _ in model.named_parameters() if not path.startswith(tuple(f"{part}." for part in named))}
    assert rest == set(family.connector_parameters)


@pytest.mark.contract("own forward")
@every_family
def test_a_hook_that_replaces_nothing_leaves_the_logits_as_they_are_to_the_bit(name: str) -> None:
    given = inputs(name, model_of(name))
    assert torch.equal(edited(model_of(name), given, lambda kwargs: {})[0], run(model_of(name), given).logits)


@every_family
def test_the_table_says_which_tokens_a_picture_attends_to(name: str) -> None:
    """Moved: the last token of a picture, or the first word behind it. Watched: the first token of that picture."""
    model, family = model_of(name), FAMILIES[name]
    given = inputs(name, model, (1,), (8,))
    vision = (given["input_ids"][0] == image_token_id(model.config)).nonzero()[:, 0]
    # The first tile: what comes behind it is a later one's in any case.
    first, last = int(vision[0]), int(vision[len(picture_grids(model.config, given)[0]) - 1])

    def moves(at: int) -> bool:
        def shift(kwargs: dict[str, Any]) -> dict[str, Any]:
            embeddings = kwargs["inputs_embeds"].clone()
            embeddings[0, at] += 1.0
            return {"inputs_embeds": embeddings}

        return not torch.equal(edited(model, given, lambda kwargs: {})[1][0, first], edited(model, given, shift)[1][0, first])

    assert moves(first) and moves(last) == (family.attention != "causal")
    assert moves(int(vision[-1]) + 3) == (family.attention == "prefix") == (not family.shares_prefix)


def test_exported_models_belong_to_the_family_of_their_stock_model() -> None:
    config = copy.deepcopy(model_of("gemma3").config)
    config.model_type = "theodolite_gemma3"
    assert family_of(config) is FAMILIES["gemma3"]
    given = inputs("gemma3", model_of("gemma3"))
    assert len(picture_grids(config, given)) == len(given["pixel_values"])


def test_families_that_cannot_be_handled_are_refused_with_their_reason() -> None:
    def config(name: str) -> Any:
        return type("Config", (), {"model_type": name})()

    assert not set(FAMILIES) & set(REFUSED) and set(REFUSED) <= set(hf.CONFIG_MAPPING)
    with pytest.raises(
        UnknownFamily, match="'mllama' cannot be handled: the family feeds pictures through cross-attention, so they have no"
    ):
        family_of(config("mllama"))
    for name in ("bert", "theodolite_conv_tower"):
        with pytest.raises(
            UnknownFamily, match=f"'{name}' are not in the families table; it holds gemma3, idefics3, internvl, llava, llava_onev"
        ):
            family_of(config(name))
    with pytest.raises(ValueError, match=r"no picture grids are known for models of type 'bert', only for gemma3"):
        picture_grids(config("bert"), {})


# Grids


@every_family
def test_each_picture_has_as_many_cells_as_the_stock_model_makes_features_of_it(name: str) -> None:
    model = model_of(name)
    given = inputs(name, model, (1, 2, 1), (9, 4, 2))
    cells, made = picture_grids(model.config, given), features(model, given)
    assert sum(map(len, cells)) == sum(map(len, made)) == int((given["input_ids"] == image_token_id(model.config)).sum())
    if name not in ("smolvlm", "idefics3"):  # these list features by row
        assert [len(part) for part in cells] == [len(part) for part in made]
    by_row = [picture_grids(model.config, {**single, "input_ids": None}) for single in one_by_one(name, model)]
    assert [len(part) for row in by_row for part in row] == [len(part) for part in cells]


def one_by_one(name: str, model: Any) -> list[dict[str, Tensor]]:
    """The conversations of 1, 2 and 1 pictures, each read and joined alone."""
    reader = reader_of(name)
    pictures = [picture(at, SIZES[at]) for at in range(4)]
    return [reader.join(reader.read_conversation(part)) for part in (pictures[:1], pictures[1:3], pictures[3:])]


@pytest.mark.contract("pictures")
@every_family
def test_cells_go_row_by_row_and_occur_once(name: str) -> None:
    model = model_of(name)
    pictures = picture_grids(model.config, inputs(name, model))
    if name == "llava_onevision":  # the base view and what follows it, each with places of its own
        pictures = [part for cells in pictures for part in cells.split([16, len(cells) - 16])]
        assert pictures[3].tolist() == pictures[5].tolist() == [[3, 4]]  # a lone line break
        pictures = pictures[:3]
    for cells in pictures:
        assert cells.dtype == torch.long and all(before < after for before, after in pairwise(cells.tolist()))
        assert torch.equal(cells, token_grid(*(cells.amax(dim=0) + 1).tolist()))


# One tile, at the size at which the image processor leaves it, and the cells that it has.
UNSCALED = {
    **dict.fromkeys(("llava", "paligemma"), ((32, 32), (4, 4), {})),
    "llava_onevision": ((64, 64), (8, 8), {}),
    **dict.fromkeys(QWEN, ((32, 48), (4, 6), {})),
    **dict.fromkeys(("smolvlm", "idefics3"), ((32, 32), (2, 2), {"do_resize": False})),
    **dict.fromkeys(("gemma3", "internvl"), ((32, 32), (2, 2), {})),
}


@pytest.mark.contract("pictures")
@every_family
def test_painting_over_a_cell_moves_the_one_feature_that_the_grid_puts_there(name: str) -> None:
    """With the encoder's attention silenced, so that patches do not mix."""
    model = copy.deepcopy(model_of(name))
    for path, weight in model.get_submodule(FAMILIES[name].encoder).named_parameters():
        if any(part in path for part in ("attn.proj.", "out_proj.", "projection_layer.")):
            weight.data.zero_()
    if name == "llava_onevision":  # without the limit on tokens, which resizes their grid
        model.config.vision_aspect_ratio = "anyres_max_9"
    (height, width), (rows, columns), settings = UNSCALED[name]
    reader = PictureReader(reader_of(name, **settings).image_processor, parts(name)[1], model.config)
    plain = np.random.default_rng(0).integers(100, 156, (height, width, 3), dtype=np.uint8)

    def made(pixels: np.ndarray) -> tuple[Tensor, Tensor]:
        given = reader.read(Image.fromarray(pixels)).inputs
        return torch.cat(picture_grids(model.config, given)), torch.cat(features(model, given))

    (cells, before), (tall, wide) = made(plain), (height // rows, width // columns)
    skipped = 16 if name == "llava_onevision" else 0  # the base view, resized
    for row, column in token_grid(rows, columns).tolist():
        painted = plain.copy()
        painted[row * tall : (row + 1) * tall, column * wide : (column + 1) * wide] = [255, 0, 0]
        moved = (made(painted)[1] != before).any(dim=-1)
        assert cells[skipped:][moved[skipped:]].tolist() == [[row, column]]


@pytest.mark.parametrize("limit", [2, 3, 9])
def test_the_cells_of_any_picture_size_are_counted_as_the_library_counts_them(limit: int) -> None:
    """LLaVA-OneVision: its Processor's formula on sizes of all shapes, and its model's own packing on some."""
    model, counter = copy.deepcopy(model_of("llava_onevision")), bare_processor("llava_onevision")
    model.config.vision_aspect_ratio = counter.vision_aspect_ratio = f"anyres_max_{limit}"
    draw = np.random.default_rng(limit)
    for number in range(300):
        height, width = (int(side) for side in draw.integers(8, 200, 2))
        given = {"pixel_values": torch.zeros(1, 7, 3, 32, 32), "image_sizes": torch.tensor([[height, width]])}
        (cells,) = picture_grids(model.config, given)
        assert len(cells) == counter._get_number_of_features(height, width, 32, 32), (height, width)
        if number < 20:
            assert len(cells) == len(features(model, given)[0])


@pytest.mark.parametrize("name", QWEN)
def test_cells_and_the_position_where_a_picture_starts_give_the_positions_of_the_library(name: str) -> None:
    model = model_of(name)
    given = inputs(name, model)
    cells = iter(picture_grids(model.config, given))
    expected = torch.zeros(3, *given["input_ids"].shape, dtype=torch.long)
    for row, ids in enumerate(given["input_ids"]):
        column, position = 0, 0
        while column < given["attention_mask"][row].sum():
            if ids[column] == image_token_id(model.config):
                places = next(cells)
                part = position + torch.cat([torch.zeros(len(places), 1, dtype=torch.long), places], dim=1)
                position += int(places.max()) + 1
            else:
                part = torch.full((1, 3), position)
                position += 1
            expected[:, row, column : column + len(part)] = part.T
            column += len(part)
    positions = edited(model, given, lambda kwargs: {})[2]["position_ids"]
    assert torch.equal(positions, expected) and len(positions.unique(dim=0)) == 3


def test_tiles_that_are_padding_have_no_cells() -> None:
    for name in ("idefics3", "smolvlm"):
        model = model_of(name)
        given = inputs(name, model, (1, 1), (4, 4))
        tiles = given["pixel_values"][0]
        first = int((given["input_ids"][0] == image_token_id(model.config)).sum()) // 4
        padded = torch.zeros(2, max(first, len(tiles) - first) + 1, 3, 32, 32)
        padded[0, :first], padded[1, : len(tiles) - first] = tiles[:first], tiles[first:]
        rows = {"input_ids": given["input_ids"], "attention_mask": given["attention_mask"], "pixel_values": padded}
        assert len(picture_grids(model.config, rows)) == len(tiles)
        assert torch.allclose(run(model, rows).logits, run(model, given).logits, atol=1e-5)
        blank = {"pixel_values": torch.zeros(1, 2, 3, 32, 32)}
        assert len(picture_grids(model.config, blank)) == (name == "smolvlm")  # which keeps one
    assert sum(map(len, features(model, blank))) == 4


def test_inputs_that_do_not_fit_are_refused() -> None:
    model = model_of("llava")
    given = inputs("llava", model)
    assert picture_grids(model.config, {"input_ids": torch.zeros(1, 3)}) == []
    short = {**given, "input_ids": given["input_ids"][:, 2:]}
    with pytest.raises(ValueError, match=r"hold 4\d image tokens, but the 3 pictures have 48 places; expand each picture to all of its"):
        picture_grids(model.config, short)
    with pytest.raises(ValueError, match="the inputs hold videos"):
        picture_grids(model.config, {**given, "pixel_values_videos": given["pixel_values"]})
    with pytest.raises(ValueError, match="more than one frame a picture"):
        picture_grids(model_of("qwen2_vl").config, {**given, "image_grid_thw": torch.tensor([[2, 4, 4]])})
    with pytest.raises(ValueError, match="image_sizes belong to a vision tower that takes pictures of any size"):
        picture_grids(model.config, {**given, "image_sizes": torch.tensor([[32, 32]])})


def test_the_file_that_goes_with_exported_models_needs_torch_and_transformers_alone() -> None:
    tree = ast.parse(Path(grids.__file__).read_text())
    named = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    named |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {module.partition(".")[0] for module in named} <= {"__future__", "collections", "math", "torch", "transformers", "typing"}


# The reader


@pytest.mark.parametrize("name", ["llava_onevision", *QWEN, "smolvlm", "internvl"])
def test_placeholders_are_those_of_processors_that_need_torchvision(name: str) -> None:
    reader, library = reader_of(name), bare_processor(name)
    options = {"return_row_col_info": True} if name == "smolvlm" else {}
    for pictures in (*([picture(0, size)] for size in SIZES), [picture(1, SIZES[1]), picture(2, SIZES[2])]):
        output = reader.image_processor([pictures] if len(pictures) > 1 else pictures, **options)
        expected = [library.replace_image_token(output, at) for at in range(len(pictures))]
        reads = reader.read_conversation(pictures)
        assert [read.placeholder for read in reads] == expected
        assert [read.tokens for read in reads] == [text.count(library.image_token) for text in expected]


def agrees_with_the_whole_processor(name: str) -> None:
    """Ids, kinds of tokens, and logits, of a batch with one picture and with two."""
    model, reader = model_of(name), reader_of(name)
    pictures = [picture(at, SIZES[at]) for at in range(3)]
    texts = [f"{WRITTEN[name]}what colour is the a", f"{WRITTEN[name] * 2}b"]
    # A Processor has defaults of its own here, which go before the image processor's settings.
    names = [key for key in vars(reader.image_processor) if key.startswith("pan_and_scan") or key == "do_pan_and_scan"]
    settings = {key: getattr(reader.image_processor, key) for key in names}
    stock = dict(
        processor(name, tokenizer(name))(
            images=[pictures[:1], pictures[1:]], text=texts, padding=True, padding_side="right", return_tensors="pt", **settings
        )
    )
    stock.pop("labels", None)  # PaliGemma's, of no use without answers
    reads = [reader.read_conversation(pictures[:1]), reader.read_conversation(pictures[1:])]
    if name == "paligemma":  # what a template for it writes; the Processor adds it to plain prompts
        texts = [f"{text[: 7 * len(own)]}<bos>{text[7 * len(own) :]}\n" for text, own in zip(texts, reads, strict=True)]
    ours = parts(name)[1]([reader.expand(text, own) for text, own in zip(texts, reads, strict=True)], padding=True, return_tensors="pt")
    assert torch.equal(ours["input_ids"], stock["input_ids"]) and torch.equal(ours["attention_mask"], stock["attention_mask"])
    family = FAMILIES[name]
    if family.token_types is not None:
        types = (ours["input_ids"] == image_token_id(model.config)).long() if family.typed_tokens == "picture" else 0 * ours["input_ids"]
        assert torch.equal(types, stock[family.token_types])
        ours[family.token_types] = types
    joined = reader.join([read for own in reads for read in own])
    assert set(ours) | set(joined) == set(stock)
    assert torch.allclose(run(model, {**ours, **joined}).logits, run(model, stock).logits, atol=1e-5)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # PaliGemma's Processor makes an array of a tensor
@pytest.mark.parametrize("name", ["llava", "paligemma", "gemma3", "idefics3"])
def test_ids_and_logits_are_those_of_the_librarys_processor(name: str) -> None:
    agrees_with_the_whole_processor(name)


def test_ids_and_logits_are_those_of_processors_that_need_torchvision() -> None:
    require("torchvision")  # for the video part of these Processors
    for name in ("llava_onevision", *QWEN, "internvl"):
        agrees_with_the_whole_processor(name)


@pytest.mark.contract("pictures")
@every_family
def test_a_rendered_template_holds_the_marker_once_for_each_picture(name: str) -> None:
    words, reader = parts(name)[1], reader_of(name)
    user = {"role": "user", "content": [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "what colour"}]}
    reply = {"role": "assistant", "content": [{"type": "text", "text": "red"}]}
    asked = words.apply_chat_template([user], tokenize=False)
    text = words.apply_chat_template([user, reply], tokenize=False)
    assert text.startswith(asked) and text.count(reader.marker) == 2
    reads = reader.read_conversation([picture(0), picture(1)])
    ids = words(reader.expand(text, reads), add_special_tokens=False)["input_ids"]
    assert ids.count(image_token_id(model_of(name).config)) == sum(read.tokens for read in reads)
    assert ids[-1] == words.eos_token_id and words.unk_token_id not in ids
    with pytest.raises(ValueError, match=r"the text holds 2 markers .* for 1 pictures; write one for each"):
        reader.expand(text, reads[:1])


@pytest.mark.parametrize(
    ("name", "settings", "tiles", "fewer"),
    [
        ("idefics3", {"do_image_splitting": False}, 5, 1),
        ("smolvlm", {"do_image_splitting": False}, 5, 1),
        ("gemma3", {"do_pan_and_scan": False}, 3, 1),
        ("internvl", {"max_patches": 1}, 3, 1),
    ],
)
def test_pictures_are_cut_as_the_image_processor_is_set(name: str, settings: dict[str, Any], tiles: int, fewer: int) -> None:
    config = model_of(name).config
    size = (40, 80) if name in ("gemma3", "internvl") else (40, 40)
    assert len(picture_grids(config, reader_of(name).read(picture(0, size)).inputs)) == tiles
    read = reader_of(name, **settings).read(picture(0, size))
    assert len(picture_grids(config, read.inputs)) == fewer and read.tokens == 4


@pytest.mark.contract("pictures")
@every_family
def test_joined_pictures_give_the_features_of_each_alone(name: str) -> None:
    model, reader = model_of(name), reader_of(name)
    reads = [reader.read(picture(at, size)) for at, size in enumerate(SIZES)]
    alone = [torch.cat(features(model, read.inputs)) for read in reads]
    assert [len(part) for part in alone] == [read.tokens for read in reads]
    assert torch.allclose(torch.cat(features(model, reader.join(reads))), torch.cat(alone), atol=1e-5)
    assert reader.join([]) == {}
    assert set(reader.join(reads)) <= set(FAMILIES[name].pixel_inputs)


def test_pictures_of_one_conversation_stay_together_in_llava_onevision() -> None:
    reader = reader_of("llava_onevision")
    alone, (first, second) = reader.read(picture(0)), reader.read_conversation([picture(1), picture(2)])
    assert alone.tokens > 17 and first.tokens == second.tokens == 17
    assert reader.join([alone, first, second, alone])["batch_num_images"].tolist() == [1, 2, 1]
    for parted in ([first, alone, second], [first]):
        with pytest.raises(ValueError, match=r"a conversation of 2 pictures is joined with .*; keep a conversation's pictures together"):
            reader.join(parted)


def test_pictures_in_grey_or_with_transparency_are_read_as_rgb() -> None:
    reader = reader_of("llava", do_convert_rgb=False)
    grey = picture(0).convert("L")
    assert torch.equal(reader.read(grey).inputs["pixel_values"], reader.read(grey.convert("RGB")).inputs["pixel_values"])
    assert reader.read(picture(0).convert("RGBA")).inputs["pixel_values"].shape == (1, 3, 32, 32)


def test_a_tokenizer_of_another_model_and_a_pixtral_tower_are_refused() -> None:
    config = copy.deepcopy(model_of("llava").config)
    config.image_token_id = 9999
    with pytest.raises(BadInput, match="the configuration's image_token_id is 9999, which the tokenizer does not have"):
        PictureReader(*parts("llava"), config)
    pixtral = hf.LlavaConfig(vision_config=hf.PixtralVisionConfig(), text_config=hf.LlamaConfig())
    with pytest.raises(BadInput, match="a LLaVA on a Pixtral tower"):
        PictureReader(*parts("llava"), pixtral)
