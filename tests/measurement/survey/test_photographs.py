"""Surveys of photographs at their own aspect ratio: tokens and answers are those of the library's own processor and forward.

The gate surveys a few pairs. The whole check, of crops of scikit-image's photographs, is

    pip install --no-deps --target photographs scikit-image
    export THEODOLITE_PHOTOGRAPHS=photographs/skimage/data THEODOLITE_PHOTOGRAPH_PAIRS=500
    pytest tests/measurement/survey/test_photographs.py -k own
"""

from __future__ import annotations

import copy
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from helpers.family_askers import alone
from helpers.tiny_families import WRITTEN, bare_processor, tiny
from helpers.tiny_families import processor as library_processor
from theodolite.asking.answer import Question, answer_from_scores
from theodolite.asking.local import LocalAsker
from theodolite.measurement.pairs.plan import plan_gallery
from theodolite.measurement.survey.result import SurveyResult, load_survey
from theodolite.measurement.survey.session import survey_model
from theodolite.models.families import image_token_id
from theodolite.models.processor import ProcessorParts
from theodolite.records.errors import BadInput
from theodolite.worlds.limits import PixelLimits
from theodolite.worlds.manifest.read import read_manifest

NUM_PAIRS = int(os.environ.get("THEODOLITE_PHOTOGRAPH_PAIRS", "8"))
# Of scikit-image's data, which are RGB and large enough to be cropped.
SOURCES = ("astronaut.png", "chelsea.png", "coffee.png", "hubble_deep_field.jpg", "motorcycle_left.png", "retina.jpg", "rocket.jpg")
CROP = (400, 220)
LARGEST = (4000, 3000)
LIMIT = 1024  # pixels: less than any of these photographs has
SMALL = ((400, 900), (900, 400), (640, 427), (800, 600))
WITH_CUTS = ("llava_onevision", "idefics3", "smolvlm")


def drawn_sizes(num_pictures: int) -> list[tuple[int, int]]:
    """(width, height) of photographs, none square: 400 x 900, 4000 x 3000, and random ones between, mostly of about a megapixel."""
    rng, sizes = np.random.default_rng(1), [(400, 900), LARGEST]
    while len(sizes) < num_pictures:
        pixels = 360_000 * (12_000_000 / 360_000) ** (rng.random() ** 3)
        aspect = rng.uniform(4 / 3, 9 / 4)
        long, short = min(4000, round((pixels * aspect) ** 0.5)), round((pixels / aspect) ** 0.5)
        sizes.append((long, short) if rng.random() < 0.5 else (short, long))
    return sizes


def sources() -> list[Image.Image]:
    """Photographs to crop: those of scikit-image in the folder THEODOLITE_PHOTOGRAPHS, else the two of scikit-learn."""
    if folder := os.environ.get("THEODOLITE_PHOTOGRAPHS"):
        return [Image.open(Path(folder) / name).convert("RGB") for name in SOURCES]
    return [Image.fromarray(image) for image in load_sample_images().images]


def photographs(folder: Path, num_pairs: int, sizes: Sequence[tuple[int, int]]) -> Path:
    """A manifest of matched pairs: crops of photographs, as JPEG files of these sizes in turn."""
    images, rng, rows = sources(), np.random.default_rng(0), []
    folder.mkdir(exist_ok=True)
    for pair in range(num_pairs):
        names = []
        for side in range(2):
            source = images[(2 * pair + side) % len(images)]
            left, top = (int(rng.integers(0, whole - part + 1)) for whole, part in zip(source.size, CROP, strict=True))
            size = sizes[(2 * pair + side) % len(sizes)]
            cut = source.crop((left, top, left + CROP[0], top + CROP[1])).resize(size, Image.Resampling.BILINEAR)
            names.append(f"{pair:04d}-{side}.jpg")
            cut.save(folder / names[-1], quality=85)
        rows.append(
            {"scene": pair, "factor": "colour", "from": "red", "to": "blue", "picture": names[0], "edited": names[1],
             "question": "what colour", "choices": ["red", "blue"], "answer_before": "red", "answer_after": "blue",
             "query": "colour", "kind": "matched"}
        )  # fmt: skip
    path = folder / "manifest.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@cache
def model_of(name: str) -> tuple[Any, ProcessorParts]:
    model, image_processor, tokenizer = tiny(name)
    if name.startswith("qwen"):
        image_processor.size = type(image_processor.size)(shortest_edge=24 * 24, longest_edge=96 * 96)
    return model, ProcessorParts(image_processor, tokenizer, model.config)


def tokens_by_hand(name: str, model: Any, processor: ProcessorParts, picture: Image.Image) -> int:
    """Image tokens that the library's own Processor writes for a picture."""
    if name in ("llava", "idefics3"):
        whole = library_processor(name, processor.tokenizer)
        whole.image_processor = processor.image_processor
        ids = whole(images=[picture], text=[WRITTEN[name]])["input_ids"][0]
        return list(ids).count(image_token_id(model.config))
    library, options = bare_processor(name), {"return_row_col_info": True} if name == "smolvlm" else {}
    library.image_processor = processor.image_processor
    return library.replace_image_token(processor.image_processor([picture], **options), 0).count(library.image_token)


def picture_of(folder: Path, name: str) -> np.ndarray:
    return np.asarray(Image.open(folder / name).convert("RGB"))


def refuse_other_answers(result: SurveyResult, name: str, folder: Path) -> None:
    """Asserts that tokens of all pictures are the library's, and answers to all questions those of one plain forward a question."""
    (model, processor), table = model_of(name), result.picture_table
    assert table is not None and table["picture"].to_list() == list(range(len(table)))
    asked: dict[int, list[tuple[str, dict[str, Any]]]] = {}
    for row in result.rows.iter_rows(named=True):
        for side in ("before", "after"):
            asked.setdefault(row[f"picture_{side}"], []).append((side, row))
    assert sorted(asked) == table["picture"].to_list()
    for use in table.iter_rows(named=True):
        picture = picture_of(folder, use["name"])
        assert (use["height"], use["width"]) == picture.shape[:2]
        assert use["tokens"] == tokens_by_hand(name, model, processor, Image.fromarray(picture)), use
        for side, row in asked[use["picture"]]:
            ask = Question(use["picture"], row[f"question_{side}"], tuple(row["choices"]))
            expected = answer_from_scores(alone(model, processor, {use["picture"]: picture}, ask))
            np.testing.assert_allclose(row[f"probabilities_{side}"], expected.probabilities, atol=1e-4)
            np.testing.assert_allclose(row[f"total_logprob_{side}"], expected.total_logprob, atol=1e-4)


def refuse_other_tokens_within(limit: int, name: str, manifest: Path, default: pl.DataFrame) -> None:
    """Asserts that a limit of pixels moves the tokens of a tenth of the pairs to those of the library with that limit by hand."""
    few = manifest.with_name("few.jsonl")
    few.write_text("".join(manifest.read_text().splitlines(keepends=True)[: max(1, NUM_PAIRS // 10)]))
    limited = survey_model(model_of(name), few, noise="given", max_pixels=limit).picture_table
    assert limited is not None
    model, processor = model_of(name)
    by_hand = copy.deepcopy(processor.image_processor)
    if name == "qwen2_5_vl":
        by_hand.size = type(by_hand.size)(shortest_edge=by_hand.size.shortest_edge, longest_edge=limit)
    if name == "internvl":
        by_hand.max_patches = limit // (by_hand.size["height"] * by_hand.size["width"])
        assert by_hand.max_patches == 1
    pictures = [Image.fromarray(picture_of(manifest.parent, each)) for each in limited["name"]]
    tokens = [tokens_by_hand(name, model, ProcessorParts(by_hand, processor.tokenizer, model.config), each) for each in pictures]
    assert limited["tokens"].to_list() == tokens
    moved = limited.join(default, on="name", suffix="_default", validate="1:1")
    assert len(moved) == len(limited)
    assert bool((moved["tokens"] < moved["tokens_default"]).all()) == (name != "llava")  # which has one number of tokens


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photographs(tmp_path_factory.mktemp("photographs"), NUM_PAIRS, drawn_sizes(2 * NUM_PAIRS))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photographs(tmp_path_factory.mktemp("small"), 4, SMALL)


@pytest.mark.parametrize("name", ["qwen2_5_vl", "internvl", "llava"])
def test_tokens_and_answers_of_photographs_are_those_of_the_librarys_own_processor(name: str, manifest: Path, tmp_path: Path) -> None:
    result = survey_model(model_of(name), manifest, noise="given")
    refuse_other_answers(result, name, manifest.parent)
    record, table = result.record.pictures, result.picture_table
    assert record is not None and table is not None and record.tokens is not None and record.given is not None and record.tiles is not None
    assert (record.num_pictures, record.given.largest) == (2 * NUM_PAIRS, LARGEST[0] * LARGEST[1])
    assert not (table["width"] == table["height"]).any()
    assert record.tokens.largest == table["tokens"].max() and record.tiles.largest == (5 if name == "internvl" else 1)
    assert (record.tokens.smallest < record.tokens.largest) == (name != "llava")
    refuse_other_tokens_within(LIMIT, name, manifest, table)
    result.save(tmp_path / "out")
    assert load_survey(tmp_path / "out").picture_table.equals(table)


@pytest.mark.parametrize("name", WITH_CUTS)
def test_pictures_in_tiles_are_asked_as_the_library_cuts_them(name: str, small: Path) -> None:
    result = survey_model(model_of(name), small, noise="given")
    refuse_other_answers(result, name, small.parent)
    assert result.picture_table is not None and result.picture_table["tokens"].n_unique() > 1


@pytest.mark.parametrize(
    ("name", "limit"), [("qwen2_5_vl", 1024), ("internvl", 1024), ("idefics3", 1024), ("llava_onevision", 256), ("llava", 1024)]
)
def test_limits_of_pixels_move_what_the_model_is_given(name: str, limit: int, small: Path) -> None:
    default = survey_model(model_of(name), small, noise="given").record.pictures
    limited = survey_model(model_of(name), small, noise="given", max_pixels=limit).record.pictures
    assert default is not None and default.tokens is not None and default.pixels is not None
    assert limited is not None and limited.tokens is not None and limited.pixels is not None and limited.max_pixels == limit
    assert (limited.tokens.largest < default.tokens.largest) == (name != "llava")
    if name == "qwen2_5_vl":
        assert limited.pixels.largest <= limit
    if name.startswith("llava"):  # whose processor has no such limit: it holds before it
        assert limited.given is not None and limited.given.largest <= limit


def test_squares_of_one_size_are_made_where_asked_for(small: Path) -> None:
    result = survey_model(model_of("qwen2_5_vl"), small, noise="given", picture_size=40)
    record, table = result.record.pictures, result.picture_table
    assert record is not None and table is not None and record.picture_size == 40
    assert table.select("given_width", "given_height", "tokens").unique().rows() == [(40, 40, 25)]


def test_every_file_is_decoded_once_whatever_the_number_of_threads(small: Path) -> None:
    model, processor = model_of("qwen2_5_vl")
    gallery = read_manifest(small).gallery
    opened: Counter[str] = Counter()
    assert gallery.files is not None
    files = gallery.files

    def counting(name: str, smallest: tuple[int, int] | None) -> Any:
        opened[name] += 1
        return files.open(name, smallest)

    gallery = replace(gallery, files=replace(files, open=counting))
    answers = []
    for workers in (1, 3):
        plan = plan_gallery(gallery, 0, "perturb", PixelLimits())
        assert len(plan.pictures) == 12  # a changed picture of each of four scenes, of the same files
        asks = [Question(number, "what colour", ("red", "blue")) for number in range(12)]
        answers.append(LocalAsker(model, processor, workers=workers).ask(plan.pictures, asks))
        assert set(opened.values()) == {1} and len(opened) == 8
        opened.clear()
    assert all(np.array_equal(one.total_logprob, other.total_logprob) for one, other in zip(*answers, strict=True))


def test_measures_of_the_inside_need_one_grid_of_tokens_and_then_work_on_photographs(small: Path) -> None:
    with pytest.raises(BadInput, match=r"different grids of vision tokens .* --picture-size"):
        survey_model(model_of("qwen2_5_vl"), small, measures=("likeness",))
    for name, settings in (("llava", {}), ("qwen2_5_vl", {"picture_size": 40})):
        inside = survey_model(model_of(name), small, measures=("likeness",), **settings).record.inside
        assert inside is not None and inside.num_pictures == 8


def test_limits_that_mean_nothing_are_refused_by_name(small: Path) -> None:
    with pytest.raises(BadInput, match="mean nothing beside --picture-size"):
        survey_model(model_of("llava"), small, max_pixels=100, picture_size=40)
    with pytest.raises(BadInput, match="--min-pixels 200 is more than --max-pixels 100"):
        survey_model(model_of("llava"), small, max_pixels=100, min_pixels=200)
    with pytest.raises(BadInput, match="drawn at any size: give --picture-size"):
        survey_model(model_of("llava"), "shapes", max_pixels=100)


def test_a_record_has_the_image_processors_class_and_a_hash_of_its_settings(small: Path) -> None:
    first, same, other = (
        survey_model(model_of("qwen2_5_vl"), small, noise="given", **settings).record.model for settings in ({}, {}, {"max_pixels": 2048})
    )
    assert first.image_processor == "Qwen2VLImageProcessorPil"
    assert first.image_processor_sha256 == same.image_processor_sha256 != other.image_processor_sha256
