"""Pinned factors of the readout ladder in a real browser: by button, key, line and address, and released by the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from helpers import inside_records
from helpers import survey_records as made
from helpers.live_browser import show, window
from theodolite.report.stored import StoredSurvey
from theodolite.report.survey.page import build_page

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

RECORDS = [
    record.model_copy(update={"inside": inside_records.inside(start)})
    for record, start in zip(made.three_records()[:2], (1, 500), strict=True)
]
FACTORS = ["shape", "colour", "sheen"]
INK = "#1b1f24"
# Of each ladder: the pressed buttons, the sentences that stand out, the panels that have the line of another, and those that are faint.
STATE = """() => [...document.querySelectorAll("[data-group=ladder]")].map((own) => {
  const lines = [...own.querySelectorAll(".ladder .mark-line path")];
  return {
    pressed: [...own.querySelectorAll("[aria-pressed=true]")].map((button) => button.dataset.pin),
    sentences: [...own.querySelectorAll(".pinned")].map((line) => line.dataset.ladder),
    compared: lines.filter((line) => line.getAttribute("stroke") === "INK").map((line) => line.getAttribute("d")),
    faint: lines.filter((line) => Number(line.getAttribute("opacity") ?? 1) < 1).length,
    full: lines.filter((line) => line.getAttribute("opacity") === "1").map((line) => line.getAttribute("d")),
  };
})""".replace("INK", INK)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pins") / "report.html"
    path.write_text(build_page([StoredSurvey(record) for record in RECORDS]), encoding="utf-8")
    return path


@pytest.fixture
def page(report: Path, browser: Browser) -> Iterator[Page]:
    with window(browser) as (page, console):
        show(page, report)
        yield page
        assert console == []


def hash_of(page: Page) -> Any:
    return page.evaluate("location.hash")


def assert_pinned(page: Page, factor: str | None, *, pressed: bool = True) -> None:
    """The factor is pinned in both ladders: its own line, and no other's, is in all panels, the others are faint. None: no factor is."""
    expected = [] if factor is None else [factor]
    states = page.evaluate(STATE)
    assert len(states) == len(RECORDS)
    for state in states:
        assert state["pressed"] == (expected if pressed else []) and state["sentences"] == expected
        if factor is None:
            assert (state["compared"], state["faint"], len(state["full"])) == ([], 0, len(FACTORS))
        else:
            assert state["compared"] == state["full"] * len(FACTORS) and len(state["full"]) == 1
            assert state["faint"] == len(FACTORS) - 1


def test_a_button_pins_its_factor_in_all_ladders_and_releases_it(page: Page) -> None:
    assert page.locator("[data-pin]").all_inner_texts() == FACTORS * len(RECORDS)
    assert_pinned(page, None)
    page.locator("[data-pin=colour]").last.click()
    assert_pinned(page, "colour")
    assert hash_of(page) == "#inside?pin=colour"
    page.locator("[data-pin=sheen]").first.click()
    assert_pinned(page, "sheen")
    page.locator("[data-pin=sheen]").first.click()
    assert_pinned(page, None)
    assert hash_of(page) == "#inside"
    page.go_back()
    page.wait_for_function("location.hash.endsWith('sheen')")
    assert_pinned(page, "sheen")


def test_the_keyboard_reaches_and_pins(page: Page) -> None:
    page.locator("[data-pin=shape]").first.focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.dataset.pin") == "colour"
    page.keyboard.press("Enter")
    assert_pinned(page, "colour")
    page.keyboard.press("Enter")
    assert_pinned(page, None)


def middle_of_a_point(page: Page, factor: str) -> tuple[float, float]:
    """Where the third point of a factor's line is in the window."""
    point = page.locator(".ladder").first.locator(".mark-symbol").filter(has=page.locator("path:nth-of-type(7)")).nth(FACTORS.index(factor))
    point.scroll_into_view_if_needed()
    box = point.locator("path").nth(2).bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_the_pointer_on_a_line_shows_it_and_a_click_pins_it(page: Page) -> None:
    middle = middle_of_a_point(page, "sheen")
    page.mouse.move(*middle)
    assert_pinned(page, "sheen", pressed=False)
    assert hash_of(page) == ""
    page.mouse.move(1, 1)
    assert_pinned(page, None)
    page.mouse.click(*middle)
    page.mouse.move(1, 1)
    assert_pinned(page, "sheen")
    page.mouse.click(*middle)
    assert_pinned(page, None)


def test_an_address_pins_and_other_addresses_leave_it(report: Path, browser: Browser) -> None:
    with window(browser) as (page, console):
        show(page, f"{report.resolve().as_uri()}#inside?pin=colour")
        assert_pinned(page, "colour")
        assert page.locator("[data-pin=colour]").first.evaluate("(button) => button.getBoundingClientRect().top < innerHeight")
        page.evaluate("location.hash = '#numbers'")
        page.select_option("#theme", "light")  # the charts are drawn again
        page.wait_for_timeout(300)
        assert_pinned(page, "colour")
        page.evaluate("location.hash = '#inside'")
        page.wait_for_function("!document.querySelector('[aria-pressed=true]')")
        assert_pinned(page, None)
        for unknown in ("nothing%20of%20this%20page", "%zz"):
            page.evaluate(f"location.hash = '#inside?pin={unknown}'")
            page.wait_for_timeout(100)
            assert_pinned(page, None)
        assert console == []
