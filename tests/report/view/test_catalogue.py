"""The list of surveys below a folder: what it shows, its search and order, damaged records, and links out of the folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers import survey_records as made
from helpers.view_server import write_runs
from theodolite.records.errors import BadInput
from theodolite.records.survey import BadRecord
from theodolite.report.view.catalogue import Catalogue, DamagedRun, Run, ordered, searched


def names(entries: list[Run]) -> list[str]:
    return [entry.name for entry in entries]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "runs").mkdir()
    return write_runs(tmp_path / "runs")


def test_a_run_shows_what_its_record_says(folder: Path) -> None:
    run = Catalogue(folder).find("a/first")
    assert (run.title, run.model, run.pairs) == ("shape only", "llava, 5,400,000 parameters", "shapes")
    assert (run.started, run.num_scenes, run.has_rows) == ("2026-01-02T03:04:05Z", 200, True)
    assert run.verdicts == (("shadow", 1), ("blind", 1), ("inert", 3))


def test_damaged_records_and_links_out_of_the_folder_are_named_and_not_read(folder: Path) -> None:
    entries = Catalogue(folder).entries()
    assert names([entry for entry in entries if isinstance(entry, Run)]) == ["a/first", "a/second", "hostile", "unreadable-rows"]
    damaged = {entry.name: entry.reason for entry in entries if isinstance(entry, DamagedRun)}
    assert damaged["broken"].startswith("broken/survey.json is no survey record of version 2")
    assert damaged["outside"].startswith("rows.parquet is a link that leads out of the folder")
    assert set(damaged) == {"broken", "outside"}
    with pytest.raises(BadRecord, match="is no survey record"):
        Catalogue(folder).find("broken")


@pytest.mark.parametrize("name", ["../secret", "link", "a/../a/first", "/etc", "a", "", ".", "hostile/"])
def test_a_name_is_looked_up_and_never_made_a_path(folder: Path, name: str) -> None:
    with pytest.raises(BadRecord, match="no survey is called"):
        Catalogue(folder).find(name)


def test_what_is_written_later_is_seen_and_what_is_being_written_is_not(folder: Path) -> None:
    catalogue = Catalogue(folder)
    before = catalogue.find("a/first")
    assert catalogue.find("a/first") is before
    record = made.three_records()[0].model_copy(update={"title": "another title"})
    (folder / "a" / "first" / "survey.json").write_text(record.to_json(), encoding="utf-8")
    made.write(folder / ".new.part-1", record)
    made.write(folder / "new", record)
    after = catalogue.find("a/first")
    assert after.title == "another title" and after.stamp != before.stamp
    assert {"new"} == {entry.name for entry in catalogue.entries() if "new" in entry.name}


def test_a_search_wants_all_words_and_an_order_is_of_one_column(folder: Path) -> None:
    runs = [entry for entry in Catalogue(folder).entries() if isinstance(entry, Run)]
    assert names(searched(runs, "SHADOW a/")) == ["a/first"]
    assert names(searched(runs, "shape identified")) == ["a/second", "unreadable-rows"]
    assert searched(runs, "shape nothing") == []
    assert names(ordered(runs, "title", descending=False))[1:] == ["a/second", "unreadable-rows", "a/first"]
    assert names(ordered(runs, "date", descending=True))[-1] == "hostile"
    with pytest.raises(BadInput, match=r"cannot be sorted by 'folder'; they can by name, title, model, pairs, date, scenes"):
        ordered(runs, "folder", descending=False)


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is no folder; give one that holds surveys"):
        Catalogue(tmp_path / "nothing")
    assert Catalogue(tmp_path).entries() == []
