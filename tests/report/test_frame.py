"""The frame of every page: its bar, both themes with enough contrast, no sideways scrolling, and files to save that equal the record."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
from base64 import b64decode
from pathlib import Path

import polars as pl
import pytest

from helpers import survey_records as made
from helpers.live_browser import open_page
from helpers.parsed_page import Page
from theodolite.records.survey import BadRecord, RunRecord, SurveyRecord
from theodolite.report.environment import TEMPLATES
from theodolite.report.stored import StoredSurvey, read_stored
from theodolite.report.survey.arms import label_arms
from theodolite.report.survey.exports import MAX_PACKED_BYTES, cells_csv, page_exports, records_json, rows_csv
from theodolite.report.survey.page import build_page
from theodolite.report.vega import DARK_COLOURS

CSS = "".join((TEMPLATES / name).read_text(encoding="utf-8") for name in ("page.css", "pairs.css", "study.css"))
COLOURS = {name: (light, dark) for name, light, dark in re.findall(r"--([\w-]+): light-dark\((#\w+), (#\w+)\)", CSS)}
ROWS = pl.DataFrame(
    {
        "scene": [0, 1],
        "choices": [["a", 'b, "c"'], ["a", "b"]],
        "probabilities_before": [[0.1, 0.9], None],
        "total_logprob_before": [[-1.0, -2.0], None],
        "moved": [True, None],
    }
)
RUN = RunRecord.model_validate(
    {
        "command": "survey", "started": "2026-01-02T03:04:05Z", "seconds": 1.0, "seconds_by_part": {}, "host": {}, "packages": {},
        "git_revision": None, "attention": None, "device": None,
    }
)  # fmt: skip
# The text of every file that the export menu saves.
EXPORT = """async () => {
  const files = [];
  for (const button of document.querySelectorAll("[data-export]")) {
    const written = new Promise((resolve) => (URL.createObjectURL = (file) => (resolve(file.text()), "#")));
    button.click();
    files.push(await written);
  }
  return files;
}"""


@pytest.fixture(scope="module")
def record() -> SurveyRecord:
    return made.three_records()[0]


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_contrasts_with_what_it_stands_on(theme: int) -> None:
    papers = [COLOURS[name][theme] for name in ("paper", "tint")]
    for name in ("ink", "soft", "quiet", "read", "leak", "causal", "alarm"):
        assert min(contrast(COLOURS[name][theme], paper) for paper in papers) >= 4.5, name
    for name in ("read", "leak", "both", "grey"):
        assert contrast(COLOURS[f"{name}-tint"][theme], COLOURS[f"{name}-ink"][theme]) >= 4.5, name
    for name in ("read-heat", "leak-heat"):
        assert contrast(COLOURS[name][theme], COLOURS["ink"][theme]) >= 4.5, name
    for name in ("read-mark", "leak-mark", "focus"):
        assert contrast(COLOURS[name][theme], COLOURS["paper"][theme]) >= 3, name


def test_no_rule_names_a_colour_that_one_theme_lacks() -> None:
    rules = re.sub(r"light-dark\([^)]*\)", "", CSS)
    assert re.findall(r"#[0-9a-fA-F]{3,8}\b", rules) == []
    used = set(re.findall(r"var\(--([\w-]+)", rules))
    assert used - set(COLOURS) <= {"cell", "columns", "rows", "mark", "part", "heat"}


def test_every_colour_of_the_charts_has_a_dark_counterpart(record: SurveyRecord) -> None:
    specs = re.findall(r'id="spec-\d+">(.*?)</script>', build_page([StoredSurvey(record)]))
    colours = {colour.lower() for spec in specs for colour in re.findall(r'"(#[0-9a-fA-F]{6})"', spec)}
    assert len(colours) > 5 and colours <= set(DARK_COLOURS)


@pytest.mark.parametrize(("theme", "ink"), [("dark", "#e6e8eb"), ("light", "#1b1f24")])
def test_charts_are_drawn_in_the_colours_of_the_theme(record: SurveyRecord, tmp_path: Path, theme: str, ink: str) -> None:
    path = tmp_path / "report.html"
    path.write_text(build_page([StoredSurvey(record)]), encoding="utf-8")
    dom, console, *_ = open_page(path, address=f"#theme={theme}")
    assert console == [] and Page(dom).of("html")[0]["data-theme"] == theme
    fills = set(re.findall(r'fill="(#[0-9a-f]{6})"', dom))
    assert ink in fills and not {"#e6e8eb", "#1b1f24"} - {ink} & fills


def test_the_bar_names_model_pairs_date_and_scenes(record: SurveyRecord) -> None:
    page = Page(build_page([StoredSurvey(record, RUN)]))
    assert "shape only on shapes 200 scenes 2026-01-02" in page.text
    assert "<title>shape only on shapes: theodolite</title>" in build_page([StoredSurvey(record, RUN)])
    targets = {found["id"] for _, found in page.elements if "id" in found}
    links = [link["href"].removeprefix("#").partition("?")[0] for link in page.of("a") if link.get("href", "").startswith("#")]
    assert {"content", "numbers", "provenance"} <= set(links) <= targets
    many = Page(build_page([StoredSurvey(record.model_copy(update={"title": f"run {number}", "world": None})) for number in range(4)]))
    assert "4 models on pairs from a file 200 scenes" in many.text


def test_a_phone_of_360_pixels_does_not_scroll_sideways(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(build_page([StoredSurvey(each, RUN) for each in made.three_records()]), encoding="utf-8")
    opened = open_page(tmp_path / "report.html", width=360)
    assert (opened.console, opened.overflow) == ([], 0)


def test_nothing_scrolls_sideways_and_saved_files_equal_the_record(record: SurveyRecord, tmp_path: Path) -> None:
    stored = [StoredSurvey(record, RUN, {}, ROWS)]
    path = tmp_path / "report.html"
    path.write_text(build_page(stored), encoding="utf-8")
    opened = open_page(path, EXPORT, width=1600)
    assert (opened.console, opened.overflow) == ([], 0)
    arms = label_arms(stored)
    assert sorted(opened.result) == sorted((rows_csv(arms), cells_csv(arms), records_json(arms)))


def test_exports_hold_every_number(record: SurveyRecord) -> None:
    arms = label_arms([StoredSurvey(record, None, {}, ROWS), StoredSurvey(made.three_records()[1])])
    cells = list(csv.DictReader(io.StringIO(cells_csv(arms))))
    wanted = [(arm.label, cell) for arm in arms for cell in arm.record.shadows.cells]
    assert [(line["model"], line["factor"], float(line["moved_frac"]), float(line["low"])) for line in cells] == [
        (label, cell.factor, cell.moved_frac, cell.low) for label, cell in wanted
    ]
    first, second = csv.DictReader(io.StringIO(rows_csv(arms)))
    assert json.loads(first["choices"]) == ["a", 'b, "c"'] and json.loads(first["probabilities_before"]) == [0.1, 0.9]
    assert (second["probabilities_before"], second["moved"], second["model"]) == ("", "", "shape only")
    assert "total_logprob_before" not in first
    assert json.loads(records_json(arms))[1] == made.three_records()[1].model_dump(mode="json")
    assert records_json(arms[:1]) == record.to_json()


def test_rows_that_are_missing_or_too_many_are_said_to_be(record: SurveyRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, cells, _ = page_exports(label_arms([StoredSurvey(record)]), "x")
    assert rows.packed is None and rows.note == "no rows.parquet beside the record"
    assert cells.packed and gzip.decompress(b64decode(cells.packed)).startswith(b"model,factor,query")
    assert MAX_PACKED_BYTES < 5_000_000
    monkeypatch.setattr("theodolite.report.survey.exports.MAX_PACKED_BYTES", 10)
    rows, *_ = page_exports(label_arms([StoredSurvey(record, None, {}, ROWS)]), "x")
    assert rows.packed is None and rows.note.startswith("2 rows are too many for a page")
    monkeypatch.undo()
    monkeypatch.setattr("theodolite.report.survey.exports.MAX_PACKED_ROWS", 1)
    monkeypatch.setattr("theodolite.report.survey.exports.rows_csv", lambda arms: pytest.fail("a million rows are not written in vain"))
    rows, *_ = page_exports(label_arms([StoredSurvey(record, None, {}, ROWS)]), "x")
    assert rows.packed is None and rows.note.startswith("2 rows are too many for a page")


def test_rows_are_read_beside_the_record(record: SurveyRecord, tmp_path: Path) -> None:
    folder = made.write(tmp_path / "one", record)
    assert read_stored(folder).rows is None
    ROWS.write_parquet(folder / "rows.parquet")
    rows = read_stored(folder).rows
    assert rows is not None and rows.equals(ROWS)
    (folder / "rows.parquet").write_text("no rows")
    with pytest.raises(BadRecord, match="cannot be read as the rows of a survey"):
        read_stored(folder)
