"""The same commands write the same bytes: a part of benchmarks/determinism.py, and what it takes for a difference."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from helpers import REPOSITORY
from helpers.colour_pairs import module_of
from theodolite.models.construction.build import build_vlm
from theodolite.models.export import export_vlm
from theodolite.worlds.shapes.world import Shapes

determinism = module_of(REPOSITORY / "benchmarks" / "determinism.py")


def test_world_survey_page_and_export_are_the_same_bytes_again(tmp_path: Path) -> None:
    export_vlm(*build_vlm(Shapes().texts, 0), tmp_path / "model")
    survey = ("survey", str(tmp_path / "model"), "--pairs", "world/manifest.jsonl", "--noise", "given", "--out", "survey")
    commands = {
        "world": ("world", "shapes", "--out", "world", "--pictures", "4", "--scenes", "2", "--size", "32", "--seed", "3"),
        "survey": survey,
        "report": ("report", "survey", "--out", "page.html"),
        "manifest": ("manifest", "export", "world/manifest.jsonl", "--as", "vlmevalkit", "--out", "manifest"),
    }
    one, again = (determinism.run_all(tmp_path / name, 1, commands) for name in ("one", "again"))
    assert {name: bool(files) for name, files in one.items()} == dict.fromkeys(commands, True)
    assert {"survey/survey.json", "survey/rows.parquet"} <= one["survey"].keys() and "survey/run.json" not in one["survey"]
    assert {name: determinism.different(one[name], again[name]) for name in commands} == {name: [] for name in commands}


def test_a_byte_and_a_missing_file_are_differences(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name / "below").mkdir(parents=True)
        (tmp_path / name / "below" / "rows").write_bytes(b"same")
        (tmp_path / name / "run.json").write_text(name)
    one, other = (determinism.hashes(tmp_path / name) for name in ("one", "other"))
    assert one == other and list(one) == ["below/rows"]
    (tmp_path / "other" / "below" / "rows").write_bytes(b"else")
    (tmp_path / "one" / "more").write_bytes(b"")
    assert determinism.different(*(determinism.hashes(tmp_path / name) for name in ("one", "other"))) == ["below/rows", "more"]


@pytest.mark.parametrize(
    ("other", "gap"),
    [({"a": [1.0, 2.0], "x_sha256": "1"}, 0.0), ({"a": [1.0, 2.25], "x_sha256": "2"}, 0.25), ({"a": [1.0], "x_sha256": "1"}, None)],
)
def test_the_difference_of_records_is_that_of_their_numbers(tmp_path: Path, other: object, gap: float | None) -> None:
    (tmp_path / "one").write_text(json.dumps({"a": [1.0, 2.0], "x_sha256": "1"}))
    (tmp_path / "other").write_text(json.dumps(other))
    assert determinism.largest_difference(tmp_path / "one", tmp_path / "other") == gap
