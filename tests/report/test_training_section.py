"""The section on training: rates of every step are the records', and the log's losses and warnings are shown."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from helpers import survey_records as made
from helpers.live_browser import open_page
from helpers.parsed_page import Page
from theodolite.records.training_log import WARNINGS, TrainingLog
from theodolite.records.writing import run_record
from theodolite.report.stored import StoredSurvey
from theodolite.report.survey.arms import label_arms
from theodolite.report.survey.page import build_page, write_report
from theodolite.report.survey.training import MOST_POINTS, log_chart, training_view

FIRST, LATER, LAST = made.three_records()


def surveyed(*steps: int | None) -> list[StoredSurvey]:
    """Surveys of the three records, made at these steps of training."""
    run = run_record("training callback", datetime(2026, 1, 2, tzinfo=UTC), {})
    return [StoredSurvey(record, run.model_copy(update={"step": step})) for record, step in zip((FIRST, LATER, LAST), steps, strict=False)]


def test_every_rate_is_the_record_s_and_a_factor_s_leak_is_one_query() -> None:
    page = Page(build_page(surveyed(200, 100)))
    rows = [row for row in page.of("tr") if "data-step" in row]
    shown = {(row["data-step"], row["data-factor"], row["data-query"], row["data-kind"]): float(row["data-moved"]) for row in rows}
    assert [row["data-step"] for row in rows] == sorted((row["data-step"] for row in rows), key=int)
    for step, record in (("200", FIRST), ("100", LATER)):
        cells = {(cell.factor, cell.query, cell.truth_moves): cell for cell in record.shadows.cells if cell.form == "open"}
        own = {key[1:]: moved for key, moved in shown.items() if key[0] == step}
        assert own and all(cells[factor, query, kind == "read"].moved_frac == moved for (factor, query, kind), moved in own.items())
        assert {factor for factor, _, kind in own if kind == "read"} == {
            factor for factor, query, moves in cells if moves and factor == query
        }
    by_factor: dict[str, set[str]] = {}
    for row in rows:
        if row["data-kind"] == "leak":
            by_factor.setdefault(row["data-factor"], set()).add(row["data-query"])
    assert by_factor and all(len(queries) == 1 for queries in by_factor.values())
    assert any("steps 100 to 200 of training" in text for text in page.shown)


@pytest.mark.parametrize("steps", [(None, None), (100, None), (100, 100)])
def test_without_two_steps_there_is_no_section(steps: tuple[int | None, ...]) -> None:
    assert training_view(label_arms(surveyed(*steps)), None) is None
    assert 'id="training"' not in build_page(surveyed(*steps))


def test_the_log_s_numbers_and_warnings_are_shown_in_a_browser(tmp_path: Path) -> None:
    entries = [{"step": step, "loss": 5 / step, "loss/gram": 0.1, "student_cosine": 0.5, "grad_norm": 1.0} for step in range(1, 601)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    (tmp_path / WARNINGS).write_text(json.dumps(["targets <b>say</b> nothing"]))
    folders = [made.write(tmp_path / title, record) for title, record in (("one", FIRST), ("two", LATER))]
    write_report(folders, tmp_path / "page.html", tmp_path / "log.jsonl")
    html, console, *_ = open_page(tmp_path / "page.html")
    page = Page(html)
    assert console == []
    last = {row["data-name"]: float(row["data-value"]) for row in page.of("tr") if "data-name" in row and "data-value" in row}
    assert last == {"loss": 5 / 600, "loss/gram": 0.1, "student_cosine": 0.5}
    assert any("targets <b>say</b> nothing" in text for text in page.shown)


def test_long_logs_are_thinned_and_keep_their_last_point() -> None:
    points = tuple((step, 1 / step) for step in range(1, 5001))
    rows = log_chart(TrainingLog({"loss": points}))["datasets"]["log"]
    assert len(rows) <= MOST_POINTS + 1 and rows[0]["step"] == 1 and rows[-1]["step"] == 5000
