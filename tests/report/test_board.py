"""The verdict board: every verdict and interval is the record's, worst first, and undecided says why."""

from __future__ import annotations

from typing import Any

import pytest

from helpers import survey_records as made
from helpers.parsed_page import Page
from theodolite.records.part import Estimate
from theodolite.records.survey import SurveyRecord
from theodolite.report.stored import StoredSurvey
from theodolite.report.survey.arms import label_arms
from theodolite.report.survey.board import ICON, BoardCell, verdict_board
from theodolite.report.survey.page import build_page

RECORDS = made.three_records()


def cell_of(record: SurveyRecord, factor: str, **evidence: Any) -> BoardCell:
    changed = {**record.shadows.evidence, factor: record.shadows.evidence[factor].model_copy(update=evidence)}
    shadows = record.shadows.model_copy(update={"evidence": changed})
    rows, inert = verdict_board(label_arms([StoredSurvey(record.model_copy(update={"shadows": shadows}))]))
    (cell,) = next(row for row in (*rows, *inert) if row.factor == factor).cells
    assert cell is not None
    return cell


def test_worst_first_and_what_is_inert_everywhere_apart() -> None:
    rows, inert = verdict_board(label_arms([StoredSurvey(record) for record in RECORDS]))
    assert [row.factor for row in rows] == ["colour", "shape", "row", "size"]
    assert [row.factor for row in inert] == ["sheen"]
    assert len(set(ICON.values())) == len(ICON)


def test_every_verdict_and_interval_on_the_page_is_the_record_s() -> None:
    page = Page(build_page([StoredSurvey(record) for record in RECORDS]))
    cells = [found for found in page.of("td") if "data-board-factor" in found]
    verdicts = {(found["data-model"], found["data-board-factor"]): found["data-board-verdict"] for found in cells}
    assert len(verdicts) == len(cells)
    assert verdicts == {(record.title, factor): word for record in RECORDS for factor, word in record.shadows.verdicts.items()}
    bars = [found for found in page.of("div") if "data-bar" in found]
    shown = sorted((found["data-bar"], *(float(found[f"data-{name}"]) for name in ("frac", "low", "high", "threshold"))) for found in bars)
    wanted = []
    for record in RECORDS:
        for evidence in record.shadows.evidence.values():
            if evidence.read is not None:
                wanted.append(("read", evidence.read.frac, evidence.read.low, evidence.read.high, 0.5))
            if evidence.leak is not None and evidence.leak.noise is not None:
                rate = evidence.leak.rate
                wanted.append(("leak", rate.frac, rate.low, rate.high, 0.1 + evidence.leak.noise.frac))
    assert len(wanted) > 15 and shown == sorted(wanted)


def test_each_verdict_leads_to_its_line_of_numbers() -> None:
    page = Page(build_page([StoredSurvey(record) for record in RECORDS]))
    lines = {found["id"]: found["data-verdict"] for found in page.of("tr") if "-verdict-" in found.get("id", "")}
    links = [found for found in page.of("a") if "chip" in found.get("class", "").split()]
    assert len(links) == len(lines) == sum(len(record.shadows.verdicts) for record in RECORDS)
    assert all(lines[link["href"].removeprefix("#")] in link["class"].split() for link in links)


@pytest.mark.parametrize(
    ("low", "scenes_more", "note"),
    [
        (
            0.05,
            1234,
            "The interval of the leak above noise includes its threshold. About 1,234 more scenes would decide it at these rates.",
        ),
        (0.2, None, "An interval includes a threshold. No number of scenes up to 100,000 would decide it at these rates."),
    ],
)
def test_undecided_says_why_and_how_many_scenes_are_missing(low: float, scenes_more: int | None, note: str) -> None:
    leak = RECORDS[0].shadows.evidence["size"].leak
    assert leak is not None
    leak = leak.model_copy(update={"adjusted": Estimate(value=0.2, low=low, high=0.3, num_scenes=200)})
    assert cell_of(RECORDS[0], "size", verdict="undecided", leak=leak, scenes_more=scenes_more).note == note
    assert cell_of(RECORDS[0], "size").note == ""


def test_without_an_interval_or_noise_the_bar_says_so() -> None:
    leak = RECORDS[0].shadows.evidence["size"].leak
    assert leak is not None
    bare = leak.model_copy(update={"noise": None, "rate": leak.rate.model_copy(update={"low": None, "high": None})})
    (bar,) = cell_of(RECORDS[0], "size", verdict="not_measured", leak=bare, missing=("noise of shape (open)",)).bars
    assert bar.ends == (bar.rate.frac, bar.rate.frac)
    assert bar.text.endswith("[no interval] into shape, no noise measured")
    assert cell_of(RECORDS[0], "size", verdict="not_measured", missing=("noise of shape (open)",)).note == "noise of shape (open)."
