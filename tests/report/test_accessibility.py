"""Survey pages by axe-core in a real browser: nothing serious at either width in either theme."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from helpers import inside_records
from helpers import survey_records as made
from helpers.live_browser import WINDOWS, grave_faults, overflow, show, window
from theodolite.report.survey.page import write_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


def unfolded(page: Page, report: Path) -> Page:
    """The page with all that is folded open."""
    show(page, report)
    page.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
    return page


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of two models, by their answers."""
    folder = tmp_path_factory.mktemp("plain")
    write_report(
        [made.write(folder / str(number), record) for number, record in enumerate(made.three_records()[::2])], folder / "report.html"
    )
    return folder / "report.html"


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of one model with all measures of its inside."""
    folder = tmp_path_factory.mktemp("inside")
    record = made.three_records()[2].model_copy(update={"inside": inside_records.inside()})
    write_report([made.write(folder / "one", record)], folder / "report.html")
    return folder / "report.html"


@pytest.mark.parametrize(("width", "theme"), WINDOWS)
def test_the_survey_page_has_no_grave_fault(plain: Path, browser: Browser, width: int, theme: str) -> None:
    with window(browser, width, theme) as (page, console):
        assert grave_faults(unfolded(page, plain)) == []
        assert (console, overflow(page)) == ([], 0)


@pytest.mark.parametrize("width", [360, 1400])
def test_the_page_of_a_models_inside_has_no_grave_fault(inside: Path, browser: Browser, width: int) -> None:
    """Without contrast, which takes half a minute on its thousands of words; `test_frame` checks that of all colours."""
    with window(browser, width) as (page, console):
        assert grave_faults(unfolded(page, inside), contrast=False) == []
        assert (console, overflow(page)) == ([], 0)


def test_axe_finds_what_is_wrong(tmp_path: Path, browser: Browser) -> None:
    """Without this, a browser in which axe-core does nothing would pass the tests above."""
    (tmp_path / "wrong.html").write_text('<!doctype html><html lang="en"><title>x</title><main><img src="data:,"></main></html>')
    with window(browser) as (page, _):
        show(page, tmp_path / "wrong.html")
        assert [fault.partition(":")[0] for fault in grave_faults(page)] == ["image-alt"]
