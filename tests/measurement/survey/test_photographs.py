"""Surveys of photographs at their own aspect ratio: tokens and answers are those of the library's own processor and forward."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
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

# (width, height) of photographs, from 400 x 900 to 4000 x 3000.
SIZES = (*((400, 900), (900, 400), (640, 427), (800, 300), (640, 480), (500, 500), (700, 500)) * 3, (1080, 1920), (600, 400), (4000, 3000))
SMALL = ((400, 900), (900, 400), (640, 427), (800, 600))
WITH_CUTS = ("llava_onevision", "idefics3", "smolvlm")


def photographs(folder: Path, num_pairs: int, sizes: Sequence[tuple[int, int]]) -> Path:
    """A manifest of matched pairs: crops of two photographs, as JPEG files of these sizes in turn."""
    sources = [Image.fromarray(image) for image in load_sample_images().images]
    rng, rows = np.random.default_rng(0), []
    folder.mkdir(exist_ok=True)
    for pair in range(num_pairs):
        names = []
        for side, source in enumerate(sources):
            left, top = rng.integers(0, 200, 2)
            size = sizes[(2 * pair + side) % len(sizes)]
            cut = source.crop((left, top, left + 400, top + 220)).resize(size, Image.Resampling.BILINEAR)
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


def pictures_of(result: SurveyResult, folder: Path) -> list[np.ndarray]:
    assert result.picture_table is not None
    return [np.asarray(Image.open(folder / name).convert("RGB")) for name in result.picture_table["name"]]


def refuse_other_answers(result: SurveyResult, name: str, folder: Path) -> None:
    """Asserts that tokens are the library's and answers those of one plain forward a question."""
    (model, processor), pictures, table = model_of(name), pictures_of(result, folder), result.picture_table
    assert table is not None and table["picture"].to_list() == list(range(len(pictures)))
    assert [(row["height"], row["width"]) for row in table.iter_rows(named=True)] == [picture.shape[:2] for picture in pictures]
    by_hand = [tokens_by_hand(name, model, processor, Image.fromarray(picture)) for picture in pictures]
    assert table["tokens"].to_list() == by_hand
    for side in ("before", "after"):
        for row in result.rows.iter_rows(named=True):
            ask = Question(row[f"picture_{side}"], row[f"question_{side}"], tuple(row["choices"]))
            expected = answer_from_scores(alone(model, processor, pictures, ask))
            np.testing.assert_allclose(row[f"probabilities_{side}"], expected.probabilities, atol=1e-4)
            np.testing.assert_allclose(row[f"total_logprob_{side}"], expected.total_logprob, atol=1e-3)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photographs(tmp_path_factory.mktemp("photographs"), 12, SIZES)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photographs(tmp_path_factory.mktemp("small"), 4, SMALL)


@pytest.mark.parametrize("name", ["qwen2_5_vl", "internvl", "llava"])
def test_tokens_and_answers_of_photographs_are_those_of_the_library(name: str, manifest: Path, tmp_path: Path) -> None:
    result = survey_model(model_of(name), manifest, noise="given")
    refuse_other_answers(result, name, manifest.parent)
    record, table = result.record.pictures, result.picture_table
    assert record is not None and table is not None and record.tokens is not None and record.given is not None and record.tiles is not None
    assert (record.num_pictures, record.given.smallest, record.given.largest) == (24, 600 * 400, 4000 * 3000)
    assert record.tokens.largest == table["tokens"].max() and record.tiles.largest == (5 if name == "internvl" else 1)
    assert (record.tokens.smallest < record.tokens.largest) == (name != "llava")
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
