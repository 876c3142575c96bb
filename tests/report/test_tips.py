"""Tips in a real browser: of charts, of words over tokens and of the glossary. None covers what it explains, and all are in the window."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from helpers import inside_records
from helpers import survey_records as made
from helpers.live_browser import show, window
from theodolite.report.stored import StoredSurvey
from theodolite.report.survey.page import build_page

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

Box = Sequence[float]  # left, top, right, bottom
# Scrolls the marks of a chart into sight one after another, spread over it, and gives the middle of each.
MIDDLE = """([chart, part, parts]) => {
  const marks = [...document.querySelectorAll("[data-spec]")[chart].querySelectorAll(":is(.mark-symbol, .mark-rect) > path")];
  const mark = marks[Math.floor(part * marks.length / parts)];
  mark.scrollIntoView({ block: ["center", "start", "end"][part % 3], inline: "nearest" });
  const { left, top, right, bottom } = mark.getBoundingClientRect();
  return [(left + right) / 2, (top + bottom) / 2];
}"""
BOXES = """([x, y]) => {
  const box = (element) => { const at = element.getBoundingClientRect(); return [at.left, at.top, at.right, at.bottom]; };
  const tip = document.querySelector(".chart-tip");
  return tip.hidden ? null : { tip: box(tip), mark: box(document.elementFromPoint(x, y)), text: tip.textContent };
}"""
TERM = """([number, block]) => {
  const box = (element) => { const at = element.getBoundingClientRect(); return [at.left, at.top, at.right, at.bottom]; };
  const term = document.querySelectorAll(".term")[number];
  term.scrollIntoView({ block });
  term.click();
  const open = document.querySelector(".definition:popover-open");
  const boxes = [box(open), box(term)];
  open.hidePopover();
  return boxes;
}"""
TOKEN = """(number) => {
  const box = (element) => { const at = element.getBoundingClientRect(); return [at.left, at.top, at.right, at.bottom]; };
  const tokens = document.querySelectorAll("[data-words] [data-token]");
  const token = tokens[Math.floor(number * (tokens.length - 1) / 5)];
  token.scrollIntoView({ block: number % 2 ? "end" : "center" });
  token.dispatchEvent(new MouseEvent("mouseover", { bubbles: true }));
  return [box(token.closest("[data-words]").querySelector(".word-tip")), box(token)];
}"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a model with all measures of its inside beside one without."""
    first, _, last = made.three_records()
    path = tmp_path_factory.mktemp("tips") / "report.html"
    inside = last.model_copy(update={"inside": inside_records.inside()})
    path.write_text(build_page([StoredSurvey(first), StoredSurvey(inside)]), encoding="utf-8")
    return path


def unfolded(page: Page, report: Path) -> None:
    show(page, report)
    page.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")


def assert_beside(tip: Box, explained: Box, page: Page) -> None:
    """The boxes have no pixel in common, and the tip is within the window."""
    across = min(tip[2], explained[2]) - max(tip[0], explained[0])
    down = min(tip[3], explained[3]) - max(tip[1], explained[1])
    assert across <= 0 or down <= 0, (tip, explained)
    size = page.viewport_size
    assert size is not None and tip[2] > tip[0] and tip[3] > tip[1]
    assert tip[0] >= 0 and tip[1] >= 0 and tip[2] <= size["width"] and tip[3] <= size["height"], tip


@pytest.mark.parametrize("width", [360, 1400])
def test_the_tip_of_a_chart_stands_beside_the_mark_under_the_pointer(report: Path, browser: Browser, width: int) -> None:
    parts, explained = 12, set()
    with window(browser, width) as (page, console):
        unfolded(page, report)
        for chart in range(page.locator("[data-spec]").count()):
            for part in range(parts):
                middle = page.evaluate(MIDDLE, [chart, part, parts])
                page.mouse.move(*middle)
                if boxes := page.evaluate(BOXES, middle):
                    assert_beside(boxes["tip"], boxes["mark"], page)
                    explained.add(chart)
        assert len(explained) == page.locator("[data-spec]").count() >= 8
        page.mouse.move(1, 1)
        assert page.locator(".chart-tip").is_hidden() and console == []


@pytest.mark.parametrize("width", [360, 1400])
def test_a_definition_and_the_words_of_a_token_stand_beside_theirs(report: Path, browser: Browser, width: int) -> None:
    with window(browser, width) as (page, _):
        unfolded(page, report)
        num_terms = page.locator(".term").count()
        for number in range(num_terms):
            assert_beside(*page.evaluate(TERM, [number, ("center", "end", "start")[number % 3]]), page)
        for number in range(6):
            assert_beside(*page.evaluate(TOKEN, number), page)
        assert num_terms > 8
