"""The survey page looks as it did when its screenshots were kept, at both widths in both themes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from helpers.kept_screenshots import TEXT, WIDTHS, differing_frac, path_of, picture_of, write_page
from helpers.live_browser import WINDOWS, window

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.mark.parametrize(("width", "theme"), WINDOWS)
def test_the_page_looks_as_its_kept_screenshot(browser: Browser, tmp_path: Path, width: int, theme: str) -> None:
    with window(browser, width, theme) as (page, _):
        picture = picture_of(page, write_page(tmp_path), width)
        if page.evaluate(TEXT) != pytest.approx(json.loads(WIDTHS.read_text()), abs=0.01):
            pytest.skip("text has other widths with the fonts of this machine")
    picture.save(tmp_path / "now.png")
    with Image.open(path_of(width, theme)) as kept:
        frac = differing_frac(picture, kept)
    # A line of text more or less moves all below it; another build of the browser changes single letters.
    assert frac < 0.005, f"{tmp_path / 'now.png'} differs; look at it, and keep it with `python tests/helpers/kept_screenshots.py`"


def test_a_moved_line_and_another_colour_are_differences() -> None:
    plain = Image.new("RGB", (200, 100), "white")
    moved, tinted = plain.copy(), Image.new("RGB", (200, 100), "#e0e0ff")
    moved.paste("black", (0, 40, 200, 44))
    assert differing_frac(plain, plain) == 0
    assert differing_frac(plain, moved) == pytest.approx(0.04)
    assert differing_frac(plain, tinted) == 1 == differing_frac(plain, plain.resize((100, 100)))
