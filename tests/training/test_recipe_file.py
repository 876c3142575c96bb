"""`recipe.json`: which run a folder holds, also one of an older version, and what `--overwrite` leaves when it is killed."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from theodolite.records.errors import BadInput
from theodolite.records.folder import sole_writer
from theodolite.training.recipe_file import RECIPE, claim, recipe_json
from theodolite.training.recipes import StagedRecipe, tiny_laver


def with_laver(**settings: Any) -> StagedRecipe:
    recipe = tiny_laver()
    stages = tuple(replace(stage, laver=replace(stage.laver, **settings)) if stage.laver else stage for stage in recipe.stages)
    return replace(recipe, stages=stages)


def as_older(text: str) -> str:
    """A recipe as versions wrote it that did not have some fields."""
    settings = json.loads(text)
    for stage in settings["stages"]:
        del stage["beta2"]
        if stage["laver"]:
            del stage["laver"]["head_learning_rate"], stage["laver"]["head_init"], stage["laver"]["ema"]["decay_end"]
    return json.dumps(settings)


def test_a_run_of_an_older_version_goes_on_unless_a_field_that_it_lacks_is_used(tmp_path: Path) -> None:
    (tmp_path / RECIPE).write_text(as_older(recipe_json(tiny_laver(), 0)))
    claim(tiny_laver(), 0, tmp_path, overwrite=False)
    assert (tmp_path / RECIPE).read_text() == recipe_json(tiny_laver(), 0)
    for settings, words in (
        ({"head_learning_rate": 1e-4}, r'stages\.1\.laver\.head_learning_rate is "nothing" in recipe\.json and 0\.0001 now'),
        ({"head_init": "kaiming"}, "head_init"),
        ({"mask_ratio": 0.1}, r"stages\.1\.laver\.mask_ratio is 0\.05 in recipe\.json and 0\.1 now"),
    ):
        with pytest.raises(BadInput, match=f"holds a run of another recipe or seed .*{words}"):
            claim(with_laver(**settings), 0, tmp_path, overwrite=False)
    with pytest.raises(BadInput, match=r"seed is 0 in recipe\.json and 1 now"):
        claim(tiny_laver(), 1, tmp_path, overwrite=False)


def test_a_recipe_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / RECIPE).write_text("{")
    with pytest.raises(BadInput, match=r"recipe\.json cannot be read .*--overwrite to start over"):
        claim(tiny_laver(), 0, tmp_path, overwrite=False)


def test_overwriting_that_is_killed_leaves_no_part_of_the_old_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rest of it, with its recipe or without, would be resumed as if it were whole, or taken for somebody's files."""
    out = tmp_path / "run"
    (out / "align" / "model").mkdir(parents=True)
    (out / "align" / "model" / "config.json").touch()
    (out / RECIPE).write_text(recipe_json(tiny_laver(), 1))
    removed = shutil.rmtree

    def kill(path: Path, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", kill)
    with pytest.raises(KeyboardInterrupt):
        claim(tiny_laver(), 0, out, overwrite=True)
    assert not out.exists() and len(list(tmp_path.iterdir())) == 1
    monkeypatch.setattr(shutil, "rmtree", removed)
    with sole_writer(out):  # as a run does; what is left must not be put back
        claim(tiny_laver(), 0, out, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert [path.name for path in out.iterdir()] == [RECIPE]


def test_a_run_that_was_killed_before_its_recipe_was_written_is_no_other_run(tmp_path: Path) -> None:
    for left in (f".{RECIPE}.part-123", f".{tmp_path.name}.lock"):
        (tmp_path / left).touch()
    claim(tiny_laver(), 0, tmp_path, overwrite=False)
    assert (tmp_path / RECIPE).read_text() == recipe_json(tiny_laver(), 0) and not list(tmp_path.glob("*.part-*"))
