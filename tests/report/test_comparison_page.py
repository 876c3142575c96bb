"""The comparison page: its numbers are the comparison's, its counts lead to the pairs that they count, and the console stays empty."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from helpers.compared_surveys import NUM_SCENES, write_surveys
from helpers.live_browser import OpenedPage, open_page
from helpers.parsed_page import Page
from theodolite.commands.compare import comparison_html
from theodolite.measurement.survey.compare import compare
from theodolite.records.comparison import CellChange, Comparison
from theodolite.report.comparison import pairs
from theodolite.report.vega import DARK_COLOURS

HOSTILE = "</script><script>console.error('owned')</script><b>& other"
# Follows the link of each count of the cell colour -> shape, and gives how many pairs are listed under which address.
FOLLOW = """async () => {
  const followed = [];
  for (const link of document.querySelectorAll('#counts tr[data-factor="colour"][data-query="shape"] a')) {
    const changed = new Promise((resolve) => addEventListener("hashchange", resolve, { once: true }));
    link.click();
    await changed;
    const rows = [...document.querySelectorAll(".pair-table tbody tr")];
    const { group } = link.parentElement.dataset;
    followed.push({ group, address: location.hash, count: rows.length, texts: rows.map((row) => row.innerText) });
  }
  return followed;
}"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_surveys(tmp_path_factory.mktemp("surveys"), title=HOSTILE)


@pytest.fixture(scope="module")
def comparison(folders: tuple[Path, Path]) -> Comparison:
    return compare(*folders)


@pytest.fixture(scope="module")
def html(folders: tuple[Path, Path], comparison: Comparison) -> str:
    out = folders[0].parent / "compare.html"
    out.write_text(comparison_html(*folders, comparison), encoding="utf-8")
    return out.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def opened(html: str, folders: tuple[Path, Path]) -> OpenedPage:
    return open_page(folders[0].parent / "compare.html", FOLLOW, width=800)


def key(cell: CellChange) -> dict[str, str]:
    moves = "true" if cell.truth_moves else "false"
    return {"data-factor": cell.factor, "data-query": cell.query, "data-form": cell.form, "data-truth-moves": moves}


def specs(html: str) -> list[dict[str, Any]]:
    return [json.loads(text) for text in re.findall(r'id="spec-\d+">(.*?)</script>', html)]


def test_the_first_sentences_have_the_overall_differences(html: str, comparison: Comparison) -> None:
    page, overall = Page(html), comparison.overall
    assert overall is not None and overall.read is not None and overall.leak is not None
    shown = {found["data-overall"]: found for found in page.of("p") if "data-overall" in found}
    for name, change in (("right", overall.right), ("read", overall.read), ("leak", overall.leak)):
        estimate = change.difference
        numbers = tuple(float(shown[name][f"data-{part}"]) for part in ("difference", "low", "high"))
        assert numbers == (estimate.value, estimate.low, estimate.high)
        assert "better" in shown[name]["class"].split()
    assert "moves its answer less often" in page.text and f"{overall.leak.difference.value:+.2f}" in page.text


def test_overall_numbers_are_those_of_all_rows(comparison: Comparison) -> None:
    overall, cells = comparison.overall, comparison.cells
    assert overall is not None and overall.read is not None and overall.leak is not None
    num_pairs = sum(cell.num_pairs for cell in cells)
    assert num_pairs == comparison.num_rows == 6 * NUM_SCENES
    assert overall.right.one == pytest.approx(sum(cell.right.one * cell.num_pairs for cell in cells) / num_pairs)
    reads = [cell for cell in cells if cell.truth_moves]
    assert overall.read.other == pytest.approx(sum(cell.moved.other * cell.num_pairs for cell in reads) / (2 * NUM_SCENES))
    assert overall.leak.difference.value == pytest.approx(overall.leak.other - overall.leak.one)


def test_verdicts_that_differ_come_first_and_in_the_comparison_s_order(html: str, comparison: Comparison) -> None:
    page = Page(html)
    rows = [found["data-change"] for found in page.of("tr") if "data-change" in found]
    differ = [each.factor for each in comparison.verdicts]
    assert differ and rows[: len(differ)] == differ and set(rows) == {"shape", "colour", "size", "row", "sheen"}
    chips = [found["data-verdict"] for found in page.of("span") if "data-verdict" in found]
    assert chips[: 2 * len(differ)] == [verdict for each in comparison.verdicts for verdict in (each.one, each.other)]


def test_every_difference_in_the_table_is_the_comparison_s(html: str, comparison: Comparison) -> None:
    rows = [found for found in Page(html).of("tr") if "data-moved" in found]
    assert len(rows) == len(comparison.cells)
    for cell in comparison.cells:
        (row,) = [row for row in rows if key(cell).items() <= row.items()]
        estimate = cell.moved.difference
        assert tuple(float(row[f"data-{part}"]) for part in ("moved", "low", "high")) == (estimate.value, estimate.low, estimate.high)
        assert float(row["data-right"]) == cell.right.difference.value


def test_the_charts_hold_the_comparison_s_and_the_record_s_numbers(html: str, comparison: Comparison, folders: tuple[Path, Path]) -> None:
    read, leak, forest = specs(html)
    drawn = {(row["label"].strip(), row["kind"][:4], row["value"], row["low"], row["high"]) for row in forest["datasets"]["rows"]}
    assert drawn == {
        (
            f"{cell.factor} → {cell.query} (open)",
            "read" if cell.truth_moves else "leak",
            cell.moved.difference.value,
            cell.moved.difference.low,
            cell.moved.difference.high,
        )
        for cell in comparison.cells
    }
    records = [json.loads((folder / "survey.json").read_text())["shadows"]["evidence"] for folder in folders]
    slopes = {(row["factor"], row["value"]) for row in read["datasets"]["rows"]}
    assert slopes == {("shape", each["shape"]["read"]["frac"]) for each in records}
    leaks = {row["factor"] for row in leak["datasets"]["rows"]}
    # Shape itself leaks nowhere in the first survey, so it has no slope.
    assert leaks == {"colour", "size", "row", "sheen"}
    colours = {colour.lower() for spec in (read, leak, forest) for colour in re.findall(r'"(#[0-9a-fA-F]{6})"', json.dumps(spec))}
    assert colours <= set(DARK_COLOURS)


def test_the_counts_are_those_of_the_rows(html: str, comparison: Comparison) -> None:
    for cell in comparison.cells:
        counts = cell.counts
        assert counts.both + counts.only_one + counts.only_other + counts.neither == cell.num_pairs
        assert counts.both + counts.only_one == round(cell.right.one * cell.num_pairs)
        assert counts.both + counts.only_other == round(cell.right.other * cell.num_pairs)
    shown = [int(found["data-count"]) for found in Page(html).of("td") if "data-count" in found]
    by_cell = [list(cell.counts.model_dump().values()) for cell in sorted(comparison.cells, key=lambda cell: cell.gain)]
    assert shown == [sum(column) for column in zip(*by_cell, strict=True)] + [number for counts in by_cell for number in counts]


def test_each_count_leads_to_as_many_pairs(opened: OpenedPage, comparison: Comparison) -> None:
    assert opened.console == []
    (cell,) = [cell for cell in comparison.cells if (cell.factor, cell.query) == ("colour", "shape")]
    wanted = {name: number for name, number in cell.counts.model_dump().items() if number}
    assert len(wanted) > 2 and {each["group"]: each["count"] for each in opened.result} == wanted
    for each in opened.result:
        conditions = {"right": [each["group"]], "factor": ["colour"], "question": ["shape (open)"], "truth": ["stays"]}
        assert parse_qs(each["address"].partition("?")[2]) == conditions
        assert all("what shape?" in text and "scene <" in text and "colour: red → blue" in text for text in each["texts"])
    alone = next(each for each in opened.result if each["group"] == "only_other")
    assert all("round → square\tround → round" in text for text in alone["texts"])
    assert opened.overflow == 0


def test_hostile_titles_are_text(opened: OpenedPage, html: str) -> None:
    assert opened.console == [] and "console.error('owned')</script>" in Page(opened.dom).text
    assert "owned" not in "".join(re.findall(r"<script>(.*?)</script>", html, re.DOTALL))


def test_pairs_beyond_the_limit_are_left_out_and_those_of_one_model_alone_are_kept(
    folders: tuple[Path, Path], comparison: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairs, "MOST_PAIRS", 5)
    out = folders[0].parent / "short.html"
    out.write_text(comparison_html(*folders, comparison), encoding="utf-8")
    assert "Of 240 pairs the first 5 are listed" in out.read_text(encoding="utf-8")


def test_a_survey_against_itself_shows_no_difference(folders: tuple[Path, Path]) -> None:
    out = folders[0].parent / "same.html"
    out.write_text(comparison_html(folders[0], folders[0], compare(folders[0], folders[0])), encoding="utf-8")
    page = Page(out.read_text(encoding="utf-8"))
    assert "No verdict differs." in page.text and "these pairs show no difference, +0.00" in page.text
    assert not any({"better", "worse"} & set(found["class"].split()) for found in page.of("p") if "data-overall" in found)
