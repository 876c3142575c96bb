"""The result of a survey: what is saved is what is loaded, and the pairs that failed come worst first."""

from __future__ import annotations

from functools import cache
from io import StringIO
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from rich.console import Console

from helpers.survey_records import UNTRAINED
from helpers.tiny_llava import WORLD, tiny_vlm
from theodolite.measurement.survey.options import SurveyOptions
from theodolite.measurement.survey.result import SurveyResult, load_survey
from theodolite.measurement.survey.session import survey_model
from theodolite.models.export import export_vlm
from theodolite.records.errors import BadInput, UnknownName
from theodolite.records.folder import FolderTaken
from theodolite.records.rows import NAMED
from theodolite.records.survey import BadRecord
from theodolite.worlds.manifest.read import write_manifest


@cache
def surveyed() -> SurveyResult:
    return survey_model(tiny_vlm(), WORLD, SurveyOptions(num_scenes=6, thresholds=UNTRAINED), policy="shape,row", title="tiny")


def test_a_saved_survey_is_the_one_that_is_loaded(tmp_path: Path) -> None:
    result = surveyed()
    result.save(tmp_path / "out")
    loaded = load_survey(str(tmp_path / "out"))
    assert loaded.record == result.record and loaded.rows.equals(result.rows) and loaded.run == result.run
    assert loaded.pictures.keys() == result.pictures.keys() and len(loaded.pictures) > 0
    assert all(np.array_equal(picture, result.pictures[name]) for name, picture in loaded.pictures.items())
    loaded.save(tmp_path / "again")
    for name in ("survey.json", "rows.parquet", "run.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()
    with pytest.raises(FolderTaken):
        result.save(tmp_path / "out")
    (tmp_path / "out" / "rows.parquet").write_bytes(b"PAR1")
    with pytest.raises(BadRecord, match=r"rows\.parquet cannot be read"):
        load_survey(tmp_path / "out")


def named_pairs(folder: Path, scenes: tuple[str, ...], ids: tuple[str, ...]) -> Path:
    """A manifest of one pair a scene: the picture red, then blue."""
    (folder / "photos").mkdir(parents=True)
    for number, name in enumerate(("red", "blue", "red2", "blue2")):
        Image.new("RGB", (48, 48), (255 - number, 0, 0) if "red" in name else (0, 0, 255 - number)).save(folder / "photos" / f"{name}.png")
    changed = {"factor": "colour", "from": "red", "to": "blue", "answer_before": "red", "answer_after": "blue"}
    asked = {"question": "What colour is the shape?", "choices": ["red", "blue"], **changed}
    rows = [
        {"scene": scene, "id": name, "picture": f"./photos/red{end}.png", "edited": f"photos/blue{end}.png", **asked}
        for scene, name, end in zip(scenes, ids, ("", "2"), strict=True)
    ]
    write_manifest(folder / "manifest.jsonl", rows)
    return folder / "manifest.jsonl"


def test_the_names_of_a_manifest_are_those_of_rows_and_examples(tmp_path: Path) -> None:
    pairs = named_pairs(tmp_path / "named", ("astronaut", "café ☕"), ("a1", "a2"))
    result = survey_model(tiny_vlm(), pairs)
    result.save(tmp_path / "out")
    rows = pl.read_parquet(tmp_path / "out" / "rows.parquet")
    assert rows.filter(kind="intervention").select("scene", *NAMED).rows() == [
        (0, "astronaut", "a1", "photos/red.png", "photos/blue.png"),
        (1, "café ☕", "a2", "photos/red2.png", "photos/blue2.png"),
    ]
    perturbed = rows.filter(kind="perturbation")
    assert set(perturbed["scene_name"]) == {"astronaut", "café ☕"} and perturbed["path_after"].equals(perturbed["path_before"])
    assert [(example.scene_name, example.row) for example in result.record.examples] == [("astronaut", "a1"), ("café ☕", "a2")]
    other = survey_model(tiny_vlm(), named_pairs(tmp_path / "renamed", ("x", "y"), ("1", "2")))
    assert other.record.rows_sha256 == result.record.rows_sha256  # a hash of what was asked and answered, not of names


def test_rows_written_before_there_were_names_are_loaded(tmp_path: Path) -> None:
    surveyed().save(tmp_path / "old")
    surveyed().rows.drop(NAMED).write_parquet(tmp_path / "old" / "rows.parquet")
    assert load_survey(tmp_path / "old").rows.equals(surveyed().rows.drop(NAMED))
    assert surveyed().rows.select(*NAMED).null_count().row(0) == (len(surveyed().rows),) * len(NAMED)


def test_options_settings_and_the_models_folder_say_the_same(tmp_path: Path) -> None:
    model, processor = tiny_vlm()
    export_vlm(model, processor, tmp_path / "tiny")
    one = survey_model(tmp_path / "tiny", WORLD, num_scenes=6, policy="shape,row", thresholds=UNTRAINED)
    assert one.record == surveyed().record and one.run.seconds_by_part.keys() >= {"loading", "questions"}
    two = survey_model((model, processor), "shapes", num_scenes=3)
    assert two.record.policy == WORLD.open_policy and two.record.num_scenes == 3 and two.record.title == "model"
    with pytest.raises(TypeError, match="num_scene"):
        survey_model((model, processor), WORLD, num_scene=3)
    with pytest.raises(UnknownName, match="no measure is called 'ladders'"):
        survey_model("no-such-folder", WORLD, measures=("ladders",))
    with pytest.raises(BadInput):
        survey_model((model, processor), tmp_path / "no-such-manifest.jsonl")


def test_failures_are_leaks_and_misses_worst_first() -> None:
    result = surveyed()
    failures = result.failures()
    pairs = result.rows.filter((pl.col("kind") == "intervention") & pl.col("moved").is_not_null())
    moves = pairs["truth_before"] != pairs["truth_after"]
    assert len(failures) == int((pairs["moved"] != moves).sum()) > 0
    assert set(failures["failure"]) <= {"leaked", "missed"}
    assert failures["severity"].is_sorted(descending=True) and failures["severity"].is_between(0, 1).all()
    for row in failures.iter_rows(named=True):
        moved = row["answer_before"] != row["answer_after"]
        assert moved == (row["failure"] == "leaked") == (row["truth_before"] == row["truth_after"])
        assert row["severity"] == pytest.approx(row["variation"] if moved else 1 - row["variation"])
    some = result.failures(factor="shape", query="row")
    assert set(some["factor"]) <= {"shape"} and set(some["query"]) <= {"row"} and set(some["failure"]) <= {"leaked"}
    assert len(result.failures(factor="no such factor")) == 0


def test_rows_as_frames_and_verdicts_as_a_table() -> None:
    result = surveyed()
    assert result.to_polars() is result.rows
    assert list(result.to_pandas().columns) == result.rows.columns and len(result.to_pandas()) == len(result.rows)
    console = Console(width=200, record=True, file=StringIO())
    console.print(result.table())
    assert "do(shape)" in console.export_text()
