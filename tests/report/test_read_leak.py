"""Read against leak: the scatter, the heat map and the accuracies show the record's numbers, and each cell leads to its pairs."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import parse_qs

import pytest

from helpers import survey_records as made
from helpers.parsed_page import Page
from theodolite.records.accuracy import Accuracy, ShareRight
from theodolite.records.part import Estimate, Rate
from theodolite.records.survey import SurveyRecord
from theodolite.report.stored import StoredSurvey
from theodolite.report.survey.arms import label_arms
from theodolite.report.survey.heat_map import heat_map
from theodolite.report.survey.page import build_page
from theodolite.report.survey.read_leak import MARKS, read_leak_chart, without_point
from theodolite.report.vega import DARK_COLOURS

RECORDS = made.three_records()
HTML = build_page([StoredSurvey(record) for record in RECORDS])
PAGE = Page(HTML)
ACCURACY = Accuracy(
    item=ShareRight(rate=made.rate(0.71, 90), chance_frac=0.25, num_unanswered=3),
    pair=ShareRight(rate=made.rate(0.4, 90), chance_frac=0.0625, num_unanswered=0),
    question=None,
    picture=ShareRight(rate=Rate(frac=0.5, low=None, high=None, num_pairs=4, num_scenes=1), chance_frac=0.1, num_unanswered=0),
    group=ShareRight(rate=None, chance_frac=0.01, num_unanswered=5),
)


def chart(*records: SurveyRecord) -> dict[str, Any]:
    spec = read_leak_chart(label_arms([StoredSurvey(record) for record in records]))
    assert spec is not None
    return spec


def changed(record: SurveyRecord, factor: str, **evidence: Any) -> SurveyRecord:
    all_evidence = {**record.shadows.evidence, factor: record.shadows.evidence[factor].model_copy(update=evidence)}
    return record.model_copy(update={"shadows": record.shadows.model_copy(update={"evidence": all_evidence})})


def test_every_point_has_the_read_and_the_leak_that_decided_the_verdict() -> None:
    leak = RECORDS[0].shadows.evidence["size"].leak
    assert leak is not None
    wider = leak.model_copy(update={"adjusted": Estimate(value=0.2, low=0.01, high=0.39, num_scenes=200)})
    records = (changed(RECORDS[0], "size", leak=wider), *RECORDS[1:])
    points = {(row["model"], row["factor"]): row for row in chart(*records)["datasets"]["points"]}
    placed = 0
    for record in records:
        for factor, evidence in record.shadows.evidence.items():
            if evidence.leak is None or evidence.leak.adjusted is None:
                assert (record.title, factor) not in points
                continue
            row, leak = points[record.title, factor], evidence.leak.adjusted
            placed += 1
            assert (row["y"], row["y_low"], row["y_high"]) == (leak.value, leak.low, leak.high)
            assert row["verdict"] == evidence.verdict
            if evidence.read is None:
                assert row["x"] < 0 and row["x_low"] is None and row["read"] == "never asked about"
            else:
                assert (row["x"], row["x_low"], row["x_high"]) == (evidence.read.frac, evidence.read.low, evidence.read.high)
    assert placed == len(points) > 10


def test_the_chart_in_the_page_is_the_one_that_holds_the_record_s_numbers() -> None:
    specs = [json.loads(text) for text in re.findall(r'id="spec-\d+">(.*?)</script>', HTML)]
    assert chart(*RECORDS) in specs


def test_points_lie_in_the_quadrants_of_their_verdicts() -> None:
    datasets = chart(RECORDS[0])["datasets"]
    decided = [row for row in datasets["points"] if row["factor"] == "colour" and row["verdict"] == "shadow"]
    assert decided
    for row in decided:
        around = [
            each["name"]
            for each in datasets["quadrants"]
            if each["left"] <= row["x"] <= each["right"] and each["bottom"] <= row["y"] <= each["top"]
        ]
        assert around == ["shadow"]


def test_without_noise_or_read_a_factor_has_no_point_and_is_named() -> None:
    leak = RECORDS[1].shadows.evidence["colour"].leak
    assert leak is not None
    bare = leak.model_copy(update={"noise": None, "source": None, "above_noise": None, "adjusted": None})
    record = changed(changed(RECORDS[1], "colour", leak=bare, verdict="not_measured"), "shape", read=None, verdict="not_measured")
    arms = label_arms([StoredSurvey(record)])
    names = {row["factor"] for row in chart(record)["datasets"]["points"]}
    assert {"colour", "shape"} & names == set()
    assert without_point(arms) == ("shape and colour: shape and colour",)
    assert "not measured: shape and colour: shape and colour." in Page(build_page([StoredSurvey(record)])).text


def test_names_of_points_do_not_cover_each_other() -> None:
    record = RECORDS[1]
    for factor in ("shape", "colour", "size", "row", "sheen"):
        record = changed(record, factor, verdict="undecided")
    labels = chart(record)["datasets"]["labels"]
    assert sorted(row["factor"] for row in labels) == ["colour", "row", "shape", "sheen", "size"]
    for one in labels:
        near = [other for other in labels if other is not one and abs(one["x"] - other["x"]) < 0.25]
        assert all(abs(one["y"] - other["y"]) > 0.03 for other in near)


def test_every_mark_has_colours_of_both_themes_and_no_two_verdicts_look_alike() -> None:
    assert len(set(MARKS.values())) == len(MARKS)
    assert {colour.lower() for fill, edge, _ in MARKS.values() for colour in (fill, edge)} <= set(DARK_COLOURS)


def test_the_heat_map_shows_every_cell_and_leads_to_its_pairs() -> None:
    shown = {
        (cell["data-model"], cell["data-heat-factor"], cell["data-column"], cell["data-heat"]): float(cell["data-frac"])
        for cell in PAGE.of("span")
        if "data-heat" in cell
    }
    wanted = {
        (record.title, cell.factor, f"{cell.query} ({cell.form})", "read" if cell.truth_moves else "leak"): cell.moved_frac
        for record in RECORDS
        for cell in record.shadows.cells
    }
    assert shown == wanted
    heats = [heat for arm in label_arms([StoredSurvey(record) for record in RECORDS]) if (heat := heat_map(arm, ())) is not None]
    links = [number.address for heat in heats for _, places in heat.rows for numbers in places for number in numbers]
    asked = [parse_qs(link.removeprefix("#pairs?"), strict_parsing=True) for link in links]
    assert sorted((each["model"][0], each["factor"][0], each["question"][0]) for each in asked) == sorted(key[:3] for key in wanted)
    reads = {(each["factor"][0], each["question"][0]) for each in asked if "missed" in each["outcome"][0]}
    assert reads == {key[1:3] for key in wanted if key[3] == "read"}


def test_without_pairs_in_the_page_cells_are_no_links() -> None:
    page = Page(build_page([StoredSurvey(RECORDS[2])]))
    assert [cell for cell in page.of("span") if "data-heat" in cell]
    assert not [link for link in page.of("a") if link.get("href", "").startswith("#pairs")]


@pytest.mark.parametrize("number", [1, 2])
def test_accuracies_stand_beside_guessing_as_in_the_record(number: int) -> None:
    records = [record.model_copy(update={"accuracy": ACCURACY}) for record in RECORDS[:number]]
    page = Page(build_page([StoredSurvey(record) for record in records]))
    shown = [found for found in page.of("div") if "data-accuracy" in found]
    assert [found["data-accuracy"] for found in shown] == [name for name in ("item", "pair", "picture", "group") for _ in records]
    for found in shown:
        share = getattr(ACCURACY, found["data-accuracy"])
        assert float(found["data-chance"]) == share.chance_frac
        numbers = ("", "", "") if share.rate is None else tuple(map(_digits, (share.rate.frac, share.rate.low, share.rate.high)))
        assert (found["data-frac"], found["data-low"], found["data-high"]) == numbers
    assert "0.71 [0.62, 0.80] of 90, guessing 0.25, 3 unanswered" in page.text
    assert "nothing answered, guessing 0.01, 5 unanswered" in page.text and "0.50 [no interval] of 4" in page.text


def _digits(value: float | None) -> str:
    return "" if value is None else repr(value)


def test_a_survey_without_given_pairs_has_no_accuracies() -> None:
    assert not [found for found in PAGE.of("div") if "data-accuracy" in found] and "right at once" not in PAGE.text
