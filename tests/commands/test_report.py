"""The report with original pictures: copied or drawn again beside the page, linked from it, or refused with what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from helpers import survey_records as made
from helpers.live_browser import live_browser, window
from helpers.pair_rows import answered_rows
from theodolite.commands.report import write_page
from theodolite.records.errors import BadInput
from theodolite.records.folder import FolderTaken
from theodolite.records.rows import ROWS
from theodolite.records.survey import RunRecord, read_survey
from theodolite.worlds.registry import world_named
from theodolite.worlds.world import picture_hash

FIRST, *_ = made.three_records()


@pytest.fixture
def survey(tmp_path: Path) -> Path:
    """A survey of given pairs, whose pictures lie beside it, one of them as TIFF."""
    folder = made.write(tmp_path / "survey", FIRST.model_copy(update={"world": None, "examples": ()}))
    rows = answered_rows(3).with_columns(pl.col("path_after").str.replace("own/1-2.png", "own/1-2.tiff", literal=True))
    rows.write_parquet(folder / "rows.parquet")
    (tmp_path / "given" / "own").mkdir(parents=True)
    for number, name in enumerate(sorted({*rows["path_before"], *rows["path_after"]})):
        Image.new("RGB", (90, 60), (number, 50, 200)).save(tmp_path / "given" / name)
    record_folder(folder, tmp_path / "given")
    return folder


def record_folder(folder: Path, pictures: Path | None) -> None:
    run = RunRecord.model_validate_json((folder / "run.json").read_text())
    (folder / "run.json").write_text(
        run.model_copy(update={"pictures_folder": None if pictures is None else str(pictures)}).model_dump_json()
    )


def test_files_are_copied_and_the_page_shows_them(survey: Path, tmp_path: Path) -> None:
    page, beside = tmp_path / "out" / "report.html", tmp_path / "out" / "pictures of pairs"
    write_page([survey], page, beside)
    assert len(list(beside.iterdir())) == 12
    assert (beside / "000000.png").read_bytes() == (tmp_path / "given" / "own" / "0-base.png").read_bytes()
    with Image.open(beside / "000006.png") as converted:
        assert converted.size == (90, 60)
    with live_browser() as browser, window(browser) as (tab, console):
        tab.goto(page.resolve().as_uri() + "#pairs?sort=row")
        tab.wait_for_function("document.documentElement.dataset.pairs === 'ready'")
        tab.wait_for_function("[...document.querySelectorAll('#pair-list img')].slice(0, 4).every((each) => each.naturalWidth === 90)")
        assert tab.evaluate("document.querySelectorAll('#pair-list .absent').length") == 0
        assert console == []
    assert "15 of 15 pairs have their pictures beside the page." in page.read_text()


def test_what_is_missing_is_named_and_nothing_is_written(survey: Path, tmp_path: Path) -> None:
    page, beside = tmp_path / "report.html", tmp_path / "beside"
    (tmp_path / "given").rename(tmp_path / "moved")
    with pytest.raises(BadInput, match="which is not there; give their folder as --pictures"):
        write_page([survey], page, beside)
    assert not page.exists() and not beside.exists()
    write_page([survey], page, beside, tmp_path / "moved")
    with pytest.raises(FolderTaken, match="--overwrite"):
        write_page([survey], page, beside, tmp_path / "moved")
    (tmp_path / "moved" / "own" / "2-base.png").unlink()
    with pytest.raises(BadInput, match=r"own/2-base\.png does not exist: no such picture"):
        write_page([survey], page, beside, tmp_path / "moved", overwrite=True)
    assert len(list(beside.iterdir())) == 12
    record_folder(survey, None)
    with pytest.raises(BadInput, match="not recorded where its pictures are"):
        write_page([survey], page, tmp_path / "other")
    with pytest.raises(BadInput, match="give --pairs-dir too"):
        write_page([survey], page, None, tmp_path / "moved")


def test_a_path_cannot_leave_the_folder_of_the_pictures(survey: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(made.png("secret"))
    rows = pl.read_parquet(survey / "rows.parquet").with_columns(path_before=pl.lit("../secret.png"))
    rows.write_parquet(survey / "rows.parquet")
    with pytest.raises(BadInput, match="leaves the folder"):
        write_page([survey], tmp_path / "report.html", tmp_path / "beside")


def drawn_survey(folder: Path, **changed: Any) -> Path:
    """A survey of two scenes of shapes, with every picture of its pairs in its rows."""
    world, size = world_named("shapes"), 32
    pairs = world.pairs(2, np.random.default_rng([5, 0]))
    pictures = world.render(pairs.pool, size)
    template = answered_rows(1, named=False).row(0, named=True)
    rows = [
        {**template, "picture_before": int(before), "picture_after": int(after)}
        for before, after in zip(pairs.before, pairs.after, strict=True)
    ]
    update = {"num_scenes": 2, "seed": 5, "pictures_sha256": picture_hash(pictures), **changed}
    made.write(folder, FIRST.model_copy(update=update))
    for example in FIRST.examples:
        Image.fromarray(pictures[0]).save(folder / example.picture_before)
    pl.DataFrame(rows, schema={name: column.dtype for name, column in ROWS.items()}).write_parquet(folder / "rows.parquet")
    return folder


def test_drawn_pictures_are_drawn_again_to_the_pixel(tmp_path: Path) -> None:
    folder = drawn_survey(tmp_path / "drawn")
    write_page([folder], tmp_path / "report.html", tmp_path / "beside")
    paths = sorted((tmp_path / "beside").iterdir())
    again = np.stack([np.asarray(Image.open(path)) for path in paths])
    assert picture_hash(again) == read_survey(folder).pictures_sha256


def test_pictures_that_come_out_otherwise_are_refused(tmp_path: Path) -> None:
    folder = drawn_survey(tmp_path / "drawn", seed=6)
    with pytest.raises(BadInput, match="come out otherwise here than they were surveyed"):
        write_page([folder], tmp_path / "report.html", tmp_path / "beside")


def test_several_pools_have_folders_of_their_own(survey: Path, tmp_path: Path) -> None:
    write_page([survey, drawn_survey(tmp_path / "drawn")], tmp_path / "report.html", tmp_path / "beside")
    assert sorted(path.name for path in (tmp_path / "beside").iterdir()) == ["0", "1"]
    assert (tmp_path / "beside" / "0" / "000000.png").is_file() and (tmp_path / "beside" / "1" / "000000.png").is_file()
