"""Screenshots of the survey page that are kept in tests/report/screenshots; `python tests/helpers/kept_screenshots.py` makes them again.

Text is as wide as the system's fonts have it, so they are compared only where these give the same widths as where they were made.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))

from helpers import TESTS
from helpers import survey_records as made
from helpers.live_browser import WINDOWS, live_browser, show, window
from theodolite.report.stored import StoredSurvey
from theodolite.report.survey.page import build_page
from theodolite.report.vega import FONT

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

KEPT = TESTS / "report" / "screenshots"
WIDTHS = KEPT / "font.json"
# Finding, health lights and the verdict board; the page below has tests of its numbers.
HEIGHT = 2200
# Pictures are compared in squares of so many pixels: fonts are smoothed otherwise from build to build.
SQUARE = 4
TEXT = f"""() => {{
  const context = document.createElement("canvas").getContext("2d");
  return ["400", "700"].map((weight) => {{
    context.font = `${{weight}} 15px {FONT}`;
    return context.measureText("Read against leak, 0123456789 [0.97, 1.00]").width;
  }});
}}"""


def path_of(width: int, theme: str) -> Path:
    return KEPT / f"survey-{width}-{theme}.png"


def write_page(folder: Path) -> Path:
    """The page of two models, without a date."""
    path = folder / "report.html"
    path.write_text(build_page([StoredSurvey(record) for record in made.three_records()[::2]]), encoding="utf-8")
    return path


def picture_of(page: Page, path: Path, width: int) -> Image.Image:
    """The top of the page as the browser shows it."""
    show(page, path)
    page.set_viewport_size({"width": width, "height": HEIGHT})
    with Image.open(io.BytesIO(page.screenshot(animations="disabled"))) as picture:
        return picture.convert("RGB")


def differing_frac(one: Image.Image, other: Image.Image) -> float:
    """The share of squares, 0 to 1, whose mean colour differs by over a tenth of its range; 1 if the sizes differ."""
    if one.size != other.size:
        return 1.0
    small = (one.width // SQUARE, one.height // SQUARE)
    first, second = (np.asarray(each.convert("RGB").resize(small, Image.Resampling.BOX), np.int16) for each in (one, other))
    return float((np.abs(first - second).max(axis=2) > 25).mean())


def keep(browser: Browser) -> None:
    """Writes the screenshots and the widths of text beside them."""
    KEPT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        path = write_page(Path(folder))
        for width, theme in WINDOWS:
            with window(browser, width, theme) as (page, _):
                picture_of(page, path, width).quantize(48, dither=Image.Dither.NONE).save(path_of(width, theme), optimize=True)
                WIDTHS.write_text(json.dumps(page.evaluate(TEXT)) + "\n")


if __name__ == "__main__":
    with live_browser() as opened:
        keep(opened)
