"""What spreadsheets and browsers are given: no cell that runs as a formula, no text that runs as a script."""

from __future__ import annotations

import csv
import io
import re

import pytest

from helpers import REPOSITORY, survey_records
from theodolite.commands.csv_tables import cells_csv
from theodolite.records.csv_cells import safe_cell
from theodolite.report.stored import StoredSurvey
from theodolite.report.survey.page import build_page

FORMULAS = ("=1+1", "+cmd|' /C calc'!A0", "-1+1+cmd|' /C calc'!A0", "@SUM(A1)", "\t=1", "\r=1", "-A1", '=HYPERLINK("http://x")')
NUMBERS = ("-0.12", "+3", "-0.12 [-0.2, 0.1]", "-5 %", "–", "", "red", "a=b", "1-2")
SCRIPT = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"


@pytest.mark.parametrize("text", FORMULAS)
def test_a_text_that_would_run_as_a_formula_is_quoted(text: str) -> None:
    assert safe_cell(text) == f"'{text}"


def test_numbers_and_other_texts_stay() -> None:
    assert [safe_cell(text) for text in NUMBERS] == list(NUMBERS)
    assert safe_cell(-1.5) == -1.5 and safe_cell(None) is None and safe_cell(False) is False


def test_the_pages_script_quotes_by_the_same_rule() -> None:
    script = (REPOSITORY / "src/theodolite/report/templates/tables.js").read_text("utf-8")
    (pattern,) = re.findall(r"const safe = /(.*)/\.test\(text\)", script)
    rule = re.compile(pattern.replace("$)", r"\Z)"))
    assert [bool(rule.search(text)) for text in (*FORMULAS, *NUMBERS)] == [True] * len(FORMULAS) + [False] * len(NUMBERS)


def test_no_exported_cell_begins_a_formula() -> None:
    record = survey_records.three_records()[0]
    cells = tuple(cell.model_copy(update={"factor": "=1+1", "query": "@x"}) for cell in record.shadows.cells)
    hostile = record.model_copy(update={"title": "+x", "shadows": record.shadows.model_copy(update={"cells": cells})})
    for row in csv.DictReader(io.StringIO(cells_csv(hostile))):
        assert (row["factor"], row["query"]) == ("'=1+1", "'@x")


def test_a_record_of_scripts_gives_a_page_without_them() -> None:
    record = survey_records.three_records()[0]
    cells = tuple(cell.model_copy(update={"factor": SCRIPT, "query": SCRIPT}) for cell in record.shadows.cells[:3])
    hostile = record.model_copy(
        update={"title": SCRIPT, "shadows": record.shadows.model_copy(update={"cells": cells, "verdicts": {SCRIPT: "shadow"}})}
    )
    html = build_page([StoredSurvey(hostile)])
    assert "<script>alert(1)" not in html and "<img src=x" not in html
    assert "javascript:" not in html.lower()
