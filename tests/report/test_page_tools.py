"""Tools of the pages in a real browser: tables that sort and are taken away, charts that are saved, words that are explained."""

from __future__ import annotations

import csv
import io
import re
from base64 import b64decode
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from helpers import survey_records as made
from helpers.live_browser import open_page
from helpers.parsed_page import Page
from theodolite.report.glossary import GLOSSARY
from theodolite.report.stored import StoredSurvey
from theodolite.report.survey.page import build_page

RECORD = made.three_records()[2]
# Sorts the table of cells, takes it away in both formats, saves the first chart in both, and opens a word of the glossary.
ACT = """async () => {
  const seen = { files: [], orders: [], sorts: [] };
  let saved;
  URL.createObjectURL = (file) => (seen.files.push(file), saved?.(), "#");
  Object.defineProperty(navigator, "clipboard", { value: { writeText: async (text) => (seen.copied = text) } });
  const table = document.querySelector("table.cells");
  const heads = table.tHead.rows[0].cells;
  const order = () => seen.orders.push([...table.tBodies[0].rows].map((row) => row.dataset.movedFrac));
  const sorts = () => seen.sorts.push([...heads].map((head) => head.getAttribute("aria-sort")));
  for (const _ of "12") {
    heads[4].querySelector("button").click();
    order();
    sorts();
  }
  for (const button of table.parentElement.querySelectorAll(".take button")) button.click();
  for (const button of document.querySelectorAll("#read-leak .take button")) {
    const written = new Promise((resolve) => (saved = resolve));
    button.click();
    await written;
  }
  const term = document.querySelector("#numbers .term");
  term.focus();
  term.click();
  seen.open = [...document.querySelectorAll(".definition:popover-open")].map((box) => box.textContent);
  seen.focused = document.activeElement === term;
  seen.kinds = seen.files.map((file) => file.type);
  const asUrl = (file) => new Promise((resolve) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.readAsDataURL(file);
  });
  seen.files = await Promise.all(seen.files.map(asUrl));
  return seen;
}"""


def act(folder: Path, theme: str) -> tuple[dict[str, Any], list[str], str]:
    path = folder / f"{theme}.html"
    path.write_text(build_page([StoredSurvey(RECORD)]), encoding="utf-8")
    opened = open_page(path, ACT, address=f"#theme={theme}")
    return opened.result, opened.console, opened.dom


@pytest.fixture(scope="module")
def acted(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], list[str], str]:
    return act(tmp_path_factory.mktemp("tools"), "light")


def saved(seen: dict[str, Any], kind: str) -> bytes:
    (url,) = [url for url, each in zip(seen["files"], seen["kinds"], strict=True) if each == kind]
    return b64decode(url.partition(",")[2])


def test_a_column_sorts_up_and_down_and_says_so(acted: tuple[dict[str, Any], list[str], str]) -> None:
    seen, console, _ = acted
    assert console == []
    fracs = sorted(round(cell.moved_frac, 2) for cell in RECORD.shadows.cells)
    up, down = ([round(float(frac), 2) for frac in order] for order in seen["orders"])
    assert up == fracs and down == fracs[::-1] and len(set(fracs)) > 5
    assert [sorts[4] for sorts in seen["sorts"]] == ["ascending", "descending"]
    assert all(set(sorts[:4] + sorts[5:]) == {None} for sorts in seen["sorts"])


def test_a_table_is_taken_away_as_it_is_shown(acted: tuple[dict[str, Any], list[str], str]) -> None:
    seen, _, _ = acted
    cells = sorted(RECORD.shadows.cells, key=lambda cell: -round(cell.moved_frac, 2))
    rows = list(csv.reader(io.StringIO(saved(seen, "text/csv").decode())))
    assert rows[0][:5] == ["changed", "asked about", "form", "kind", "answer moves"]
    assert [row[4] for row in rows[1:]] == [f"{cell.moved_frac:.2f}" for cell in cells]
    assert rows[1][5] == f"[{cells[0].low:.2f}, {cells[0].high:.2f}]"
    head, rule, *lines = seen["copied"].strip().split("\n")
    assert head.startswith("| changed | asked about |") and set(rule) <= set("| -") and rule.count("---") == len(rows[0])
    assert [[text.strip() for text in line.strip("|").split("|")] for line in lines] == rows[1:]


def test_tables_with_merged_cells_and_the_rest_of_the_page_have_no_tools(acted: tuple[dict[str, Any], list[str], str]) -> None:
    _, _, dom = acted
    page = Page(dom)
    labels = [found["aria-label"] for found in page.of("button") if "aria-label" in found]
    num_tables = len({label.partition(": ")[2] for label in labels if label.startswith("Save as CSV")})
    assert num_tables >= 4 and not any("Verdict, read and leak" in label for label in labels)
    for kind in ("SVG", "PNG"):
        assert sum(label.startswith(f"Save as {kind}: ") for label in labels) == len(page.charts) == 2


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_saved_chart_is_whole_and_stands_on_its_theme(theme: str, acted: tuple[dict[str, Any], list[str], str], tmp_path: Path) -> None:
    seen = acted[0] if theme == "light" else act(tmp_path, theme)[0]
    paper, ink = ("#ffffff", "#1b1f24") if theme == "light" else ("#14171b", "#e6e8eb")
    svg = saved(seen, "image/svg+xml").decode()
    assert svg.startswith("<svg") and "Read against leak" in svg and "entangled" in svg
    assert f'fill="{paper}"' in svg and f'fill="{ink}"' in svg
    with Image.open(BytesIO(saved(seen, "image/png"))) as picture:
        width = int(re.findall(r'width="(\d+)"', svg)[0])
        assert picture.format == "PNG" and picture.size[0] == 2 * width > 400
        corner = picture.convert("RGB").getpixel((1, 1))
    assert corner == tuple(int(paper[at : at + 2], 16) for at in (1, 3, 5))


def test_words_of_the_glossary_open_and_are_all_defined(acted: tuple[dict[str, Any], list[str], str]) -> None:
    seen, _, dom = acted
    assert seen["focused"] and len(seen["open"]) == 1 and GLOSSARY["interval"] in seen["open"][0]
    page = Page(dom)
    ids = {found["id"] for _, found in page.elements if "id" in found}
    asked = [found["popovertarget"] for found in page.of("button") if "popovertarget" in found]
    assert len(set(asked)) > 8 and set(asked) <= ids
    assert all(meaning in page.text for meaning in GLOSSARY.values())
