"""Vega-Lite specifications of all pages: colours, common style, and embedding in HTML."""

from __future__ import annotations

import json
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from typing import Any

import altair as alt
import vl_convert
from markupsafe import Markup

from theodolite.records.errors import BadInput
from theodolite.records.folder import cache_folder, write_whole

# Blue and orange are distinguishable under every common colour blindness.
READ_MARK, LEAK_MARK = "#1f6fb5", "#d1580a"
INK, PAPER, GRID = "#1b1f24", "#ffffff", "#ececE8"
# In the dark theme the page replaces each colour of a chart by its counterpart; colours that are not here are read on both.
# Scales run from near the page's colour to a light end, of equal depth where the text on them turns from light to dark.
DARK_COLOURS = {
    INK: "#e6e8eb",
    PAPER: "#14171b",
    GRID.lower(): "#2c3138",
    READ_MARK: "#5aa9f0",
    LEAK_MARK: "#f08a3c",
    "#f4f4f2": "#1e2227",
    "#eef4fa": "#16212d",
    "#0b4a8a": "#5c9ce2",
    "#fdf1e6": "#2a1c12",
    "#9a3403": "#e47d35",
    "#f0f3ee": "#18221b",
    "#2d5a3d": "#5ba273",
    "#fbeff5": "#2b1722",
    "#8a1250": "#dd77ae",
    "#b0206a": "#f27fb8",
    "#5d0f3c": "#c9a0b8",
    "#4d4d4d": "#bcbcbc",
    "#b4b4ae": "#5e646c",
    "#f6eefa": "#231a2c",
    "#7b3fa0": "#c08be0",
    "#5a626b": "#a8b0b9",
    "#8b929a": "#7d858e",
}
LETTER_PIXELS = 6.4
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

Spec = dict[str, Any]
LayeredChart = alt.LayerChart | alt.FacetChart  # Altair's return type of methods on a layered chart


@cache
def chart_script() -> str:
    """Vega, Vega-Lite and vega-embed as one script that needs no network; sets `vegaEmbed` on the window.

    It is bundled once for each version of vl-convert-python, which takes seconds, and kept in the cache folder.
    """
    bundled = cache_folder() / f"vega-{version('vl-convert-python')}.js"
    if bundled.is_file():
        return bundled.read_text(encoding="utf-8")
    script = str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))
    if "</script" in script.lower() or "<!--" in script:
        raise ValueError("the chart library's script would end the page's script element; install another vl-convert-python")
    with suppress(BadInput):  # a page can be made where no cache can be written
        write_whole(bundled, script)
    return script


def spec_json(spec: Spec) -> Markup:
    """A specification as JSON, with <, > and & escaped so that it is safe inside a script element."""
    text = json.dumps(spec, ensure_ascii=True, allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def finish_chart(
    chart: alt.HConcatChart | LayeredChart, title: str, datasets: dict[str, list[Spec]], heading: alt.TitleParams | None = None
) -> Spec:
    """The specification as a dictionary, with title, style and data; without the schema's address, since a page loads nothing.

    `heading` replaces the title that is drawn above the chart.
    """
    heading = heading or alt.TitleParams(title, anchor="start", fontSize=13, fontWeight=600, color=INK, offset=10)
    spec: Spec = chart.properties(title=heading, background="transparent", padding=2).to_dict()
    spec.pop("$schema", None)
    # Added to the dictionary: Altair copies and validates the whole chart in every step, and all data that it is given.
    return spec | {"config": _config(), "description": title, "datasets": datasets}


@cache
def _config() -> Spec:
    """The style that all charts have."""
    styled = (
        alt.Chart(alt.NamedData("none"))
        .mark_point()
        .configure(font=FONT)
        .configure_view(stroke=None)
        .configure_axis(labelColor=INK, labelFontSize=11.5, titleFontSize=11.5, titleFontWeight="normal", titleColor=INK, gridColor=GRID)
        .configure_legend(labelFontSize=11.5, labelColor=INK, titleColor=INK)
        # Vega's own black would not be replaced in the dark theme.
        .configure_title(color=INK, subtitleColor=INK)
        .configure_header(labelColor=INK, titleColor=INK)
        .configure_text(color=INK)
    )
    return dict(styled.to_dict()["config"])
