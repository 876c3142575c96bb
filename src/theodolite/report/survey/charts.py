"""The chart of coverage, and colours of heat maps, as Vega-Lite specifications; every number in it is also in a table of the page."""

from __future__ import annotations

from typing import Any

import altair as alt

from theodolite.report.survey.arms import SurveyArm
from theodolite.report.vega import INK, PAPER, Spec, finish_chart
from theodolite.report.words import show_exact

# Each scale runs from near white to a dark end of equal depth.
READ_COLOURS = ("#eef4fa", "#0b4a8a")
COVERAGE_COLOURS = ("#f0f3ee", "#2d5a3d")
ABSENT = "#f4f4f2"
# From this share of the scales above, white text is easier to read than dark text.
WHITE_TEXT_FROM = 0.69
ROW_PIXELS = 25
MAX_LABEL_PIXELS = 140


COVERAGE_COLUMNS = {
    "coverage": "chance that some question distinguishes two scenes that differ in this factor alone",
    "coverage limit": "the same with equal weight on all possible scenes: what infinite data would determine",
    "reach": "coverage if each question were asked of all scenes and no factors were correlated",
    "pressure (bits)": "information that the answer to one asked question carries about this factor, in bits",
    "why 0": "unasked: no question depends on it; confounded: asked, but only where another factor changes with it",
}


def coverage_chart(arm: SurveyArm) -> Spec | None:
    """Coverage, its limit and reach (0 to 1), pressure (bits), and the cause of a 0, by factor in the arm's order."""
    facts = arm.coverage
    if facts is None:
        return None
    maps = dict(zip(COVERAGE_COLUMNS, (facts.coverage, facts.coverage_limit, facts.reach, facts.pressure_bits), strict=False))
    shaded = {"coverage", "coverage limit", "reach"}
    rows = []
    for factor in arm.factors:
        texts = {column: show_exact(values.get(factor)) for column, values in maps.items()}
        texts["why 0"] = facts.cause.get(factor, "")
        for column, text in texts.items():
            value = maps[column].get(factor) if column in shaded else None
            meaning = COVERAGE_COLUMNS[column]
            rows.append({"factor": factor, "column": column, "value": value, "text": text, "meaning": meaning})
    labels = alt.Axis(ticks=False, domain=False, title=None, labelPadding=6, labelLimit=MAX_LABEL_PIXELS)
    base = alt.Chart(alt.NamedData("rows")).encode(
        x=alt.X("column:N", scale=alt.Scale(domain=list(COVERAGE_COLUMNS), paddingInner=0.04), axis=_column_axis()),
        y=alt.Y("factor:N", scale=alt.Scale(domain=list(arm.factors)), axis=labels),
        tooltip=[alt.Tooltip("factor:N"), alt.Tooltip("column:N", title="what"), "text:N", "meaning:N"],
    )
    fill = alt.Color("value:Q", scale=alt.Scale(domain=[0, 1], range=list(COVERAGE_COLOURS)), legend=None)
    boxes = base.transform_filter("datum.value !== null").mark_rect(stroke=PAPER).encode(color=fill)
    texts = base.mark_text(fontSize=11).encode(text="text:N", color=text_colour("value"))
    heading = alt.TitleParams("from the questions alone, before any answer", fontSize=12, fontWeight="normal", anchor="start")
    panel = alt.layer(boxes, texts).properties(width=66 * len(COVERAGE_COLUMNS), height=ROW_PIXELS * len(arm.factors), title=heading)
    return finish_chart(alt.hconcat(panel), f"Coverage of {arm.named}", {"rows": rows})


def _column_axis() -> alt.Axis:
    # Two lines, "shape" over "(open)"; a single word gets a blank first line, so that rows of neighbouring charts line up.
    split = "indexof(datum.label, ' ') < 0 ? [' ', datum.label] : "
    split += "[slice(datum.label, 0, indexof(datum.label, ' ')), slice(datum.label, indexof(datum.label, ' ') + 1)]"
    return alt.Axis(
        orient="top", labelAngle=0, ticks=False, domain=False, title=None, labelPadding=21, labelLimit=MAX_LABEL_PIXELS, labelExpr=split
    )


def text_colour(field: str, top: float = 1.0) -> Any:
    """White text on the dark end of a scale from 0 to `top`."""
    return alt.condition(f"datum.{field} !== null && datum.{field} > {round(WHITE_TEXT_FROM * top, 4)}", alt.value(PAPER), alt.value(INK))
