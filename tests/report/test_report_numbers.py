"""The numbers that people read off the report's tables are those of the records, rounded as they are shown."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path
from typing import Any

from helpers import survey_records as made
from helpers.live_browser import open_page
from helpers.parsed_page import Page
from theodolite.records.survey import Rate, SurveyRecord, read_survey
from theodolite.report.stored import StoredSurvey
from theodolite.report.survey.page import build_page

RECORDS = made.three_records()
HTML = build_page([StoredSurvey(survey) for survey in RECORDS])


def tables(html: str, kind: str) -> list[list[list[str]]]:
    """The text of every body cell of the tables of a kind: table, row, column."""
    bodies = re.findall(rf'<table class="{kind}">.*?<tbody>(.*?)</tbody>', html, re.DOTALL)
    rows = [re.findall(r"<tr[^>]*>(.*?)</tr>", body, re.DOTALL) for body in bodies]
    return [[[unescape(text) for text in re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL)] for row in found] for found in rows]


def interval(low: float | None, high: float | None) -> str:
    return "[no interval]" if low is None or high is None else f"[{low:.2f}, {high:.2f}]"


def moved(rate: Rate) -> tuple[str, str]:
    return f"{rate.frac:.2f}", interval(rate.low, rate.high)


def exact(value: float) -> str:
    return f"{value:.3f}" if 0 < value < 0.1 else f"{value:.2f}" if value else "0"


def cells_of(survey: SurveyRecord) -> list[list[str]]:
    return [
        [
            *(cell.factor, cell.query, cell.form, "read" if cell.truth_moves else "leak"),
            *(f"{cell.moved_frac:.2f}", interval(cell.low, cell.high)),
            *(f"{cell.right_frac:.2f}", interval(cell.right_low, cell.right_high)),
            *(f"{cell.variation:.2f}", interval(cell.variation_low, cell.variation_high)),
            *(f"{cell.num_pairs}", f"{cell.num_scenes}"),
        ]
        for cell in survey.shadows.cells
    ]


def test_cells() -> None:
    assert tables(HTML, "cells") == [cells_of(survey) for survey in RECORDS]


def test_noise() -> None:
    words = {"nuisance": "another nuisance seed", "paraphrase": "another wording"}
    assert tables(HTML, "noise") == [
        [
            [one.query, one.form, words[one.source], *moved(one.rate), f"{one.variation:.2f}", f"{one.rate.num_scenes}"]
            for one in survey.shadows.noise_cells
        ]
        for survey in RECORDS
    ]


def test_competence() -> None:
    assert tables(HTML, "competence") == [
        [
            [one.query, one.form, one.scenes, *moved(one.rate), f"{one.chance_frac:.2f}", one.state, f"{one.rate.num_scenes}"]
            for one in survey.shadows.competence
        ]
        for survey in RECORDS
    ]


def test_coverage() -> None:
    for survey, rows in zip(RECORDS, tables(HTML, "coverage"), strict=True):
        facts: Any = survey.coverage.model_dump() if survey.coverage else {}
        measures = [facts[name] for name in ("coverage", "coverage_limit", "reach", "pressure_bits")]
        assert {row[0]: row[1:] for row in rows} == {
            factor: [*(exact(values[factor]) for values in measures), facts["cause"].get(factor, "")] for factor in made.FACTORS
        }


def test_scores() -> None:
    scored = [survey.scores for survey in RECORDS if survey.scores]
    assert scored
    for scores, rows in zip(scored, tables(HTML, "scores"), strict=True):
        for score, row in zip(scores, rows, strict=True):
            assert row[:3] == [score.split, score.form, f"{score.accuracy_frac:.2f}"]
            assert row[-2:] == [f"{score.text_only_frac:.2f}", f"{score.num_questions:,}"]


def test_the_page_of_a_tour_shows_what_its_surveys_found(short_tour: Path) -> None:
    surveys = {survey.title: survey for survey in (read_survey(short_tour / arm) for arm in ("agree", "all", "odd"))}
    dom, console, *_ = open_page(short_tour / "report.html")
    assert console == []
    rows = [row for row in Page(dom).of("tr") if "data-moved-frac" in row and "data-truth-moves" in row]
    for title, survey in surveys.items():
        found = [row["data-moved-frac"] for row in rows if row["data-title"] == title]
        assert found == [repr(cell.moved_frac) for cell in survey.shadows.cells]
    assert len(rows) == sum(len(survey.shadows.cells) for survey in surveys.values())
    assert sorted(tables(dom, "cells")) == sorted(cells_of(survey) for survey in surveys.values())
