"""Charts of answers, coverage and headline rates as Vega-Lite specifications; every number in them is also in a table of the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

from theodolite.records.survey import Cell
from theodolite.report.survey.arms import SurveyArm, seed_words
from theodolite.report.survey.headlines import Headline
from theodolite.report.survey.words import column_of
from theodolite.report.vega import GRID, INK, LEAK_MARK, LETTER_PIXELS, PAPER, READ_MARK, LayeredChart, Spec, finish_chart
from theodolite.report.words import show_exact, show_frac, show_interval

# Each scale runs from near white to a dark end of equal depth.
READ_COLOURS = ("#eef4fa", "#0b4a8a")
LEAK_COLOURS = ("#fdf1e6", "#9a3403")
COVERAGE_COLOURS = ("#f0f3ee", "#2d5a3d")
ABSENT = "#f4f4f2"
# From this share of the scales above, white text is easier to read than dark text.
WHITE_TEXT_FROM = 0.69
ROW_PIXELS = 25
MAX_LABEL_PIXELS = 140


def answers_chart(arm: SurveyArm) -> Spec | None:
    """Share of pairs whose answer moves, 0 to 1, by factor changed and by query, read and leak cells in two panels; None without cells."""
    cells = arm.record.shadows.cells
    if not cells:
        return None
    columns = list(dict.fromkeys(column_of(cell) for cell in cells))
    datasets: dict[str, list[Spec]] = {}
    for kind, truth_moves in (("read", True), ("leak", False)):
        shown = [cell for cell in cells if cell.truth_moves == truth_moves]
        present = {(cell.factor, column_of(cell)) for cell in shown}
        why = f"no pair in which the truth {'moves' if truth_moves else 'does not move'}"
        datasets[kind] = [_cell_row(cell) for cell in shown]
        datasets[f"{kind}_absent"] = [
            {"factor": factor, "column": column, "why": why}
            for factor in arm.factors
            for column in columns
            if (factor, column) not in present
        ]
    read = _answers_panel(arm, columns, "read", "read: the truth moves", READ_COLOURS)
    leak = _answers_panel(arm, columns, "leak", "leak: the truth does not move", LEAK_COLOURS)
    chart = alt.hconcat(read, leak, spacing=18).resolve_scale(color="independent")
    return finish_chart(chart, f"Answers of {arm.named}: share that moves", datasets)


def _answers_panel(arm: SurveyArm, columns: list[str], kind: str, title: str, colours: tuple[str, str]) -> LayeredChart:
    labels = alt.Axis(labels=kind == "read", ticks=False, domain=False, title=None, labelPadding=6, labelLimit=MAX_LABEL_PIXELS)
    y = alt.Y("factor:N", scale=alt.Scale(domain=list(arm.factors)), axis=labels)
    x = alt.X("column:N", scale=alt.Scale(domain=columns, paddingInner=0.04), axis=_column_axis())
    tips = [alt.Tooltip(f"{name}:N", title=head) for name, head in CELL_TIPS.items()]
    rows = alt.Chart(alt.NamedData(kind)).encode(x=x, y=y)
    fill = alt.Color("moved_frac:Q", scale=alt.Scale(domain=[0, 1], range=list(colours)), legend=None)
    boxes = rows.mark_rect(stroke=PAPER).encode(color=fill, tooltip=tips)
    texts = rows.mark_text(fontSize=11).encode(text=alt.Text("moved_frac:Q", format=".2f"), color=text_colour("moved_frac"))
    gaps = (
        alt.Chart(alt.NamedData(f"{kind}_absent"))
        .mark_rect(color=ABSENT, stroke=PAPER)
        .encode(x=x, y=y, tooltip=[alt.Tooltip("factor:N", title="changed"), alt.Tooltip("column:N", title="asked about"), "why:N"])
    )
    wide = _column_pixels([line for column in columns for line in column.split(" ", 1)])
    heading = alt.TitleParams(title, fontSize=12, fontWeight="normal", anchor="start", frame="bounds" if kind == "read" else "group")
    return alt.layer(gaps, boxes, texts).properties(width=wide * len(columns), height=ROW_PIXELS * len(arm.factors), title=heading)


CELL_TIPS = {
    "factor": "changed",
    "column": "asked about",
    "moved": "answer moves",
    "pairs": "measured on",
    "right": "right before and after",
    "variation": "total variation",
}


def _cell_row(cell: Cell) -> Spec:
    return {
        "factor": cell.factor,
        "column": column_of(cell),
        "moved_frac": cell.moved_frac,
        "moved": f"{show_frac(cell.moved_frac)} {show_interval(cell.low, cell.high)}",
        "pairs": f"{cell.num_pairs} pairs of {cell.num_scenes} scenes",
        "right": f"{show_frac(cell.right_frac)} {show_interval(cell.right_low, cell.right_high)}",
        "variation": f"{show_frac(cell.variation)} {show_interval(cell.variation_low, cell.variation_high)}",
    }


COVERAGE_COLUMNS = {
    "coverage": "chance that some question distinguishes two scenes that differ in this factor alone",
    "coverage limit": "the same with equal weight on all possible scenes: what infinite data would determine",
    "reach": "coverage if each question were asked of all scenes and no factors were correlated",
    "pressure (bits)": "information that the answer to one asked question carries about this factor, in bits",
    "why 0": "unasked: no question depends on it; confounded: asked, but only where another factor changes with it",
}


def coverage_chart(arm: SurveyArm) -> Spec | None:
    """Coverage, its limit and reach (0 to 1), pressure (bits), and the cause of a 0, by factor in the order of `answers_chart`."""
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


def headline_chart(lines: Sequence[Headline], about: str) -> Spec:
    """Share of pairs whose answer to one question moves, 0 to 1, by policy: with the factor asked about (read), with another (leak)."""
    shown = [line for line in lines if line.about == about]
    labels = list(dict.fromkeys(line.arm.label for line in shown))
    kinds = [kind for line in shown for kind in _kinds(line)]
    rows = [row for line in shown for row in _points(line)]
    y = alt.Y(
        "label:N", scale=alt.Scale(domain=labels), axis=alt.Axis(title=None, domain=False, ticks=False, labelLimit=170, labelPadding=8)
    )
    domain = list(dict.fromkeys(kinds))
    colours = [READ_MARK if kind.startswith("read") else LEAK_MARK for kind in domain]
    shapes = ["circle" if kind.startswith("read") else "diamond" for kind in domain]
    legend = alt.Legend(title=None, orient="bottom", direction="vertical", labelLimit=360, symbolStrokeWidth=0)
    base = alt.Chart(alt.NamedData("rows")).encode(
        y=y,
        color=alt.Color("kind:N", scale=alt.Scale(domain=domain, range=colours), legend=legend),
        tooltip=[alt.Tooltip("label:N", title="policy"), alt.Tooltip("kind:N", title="what"), alt.Tooltip("moved:N", title="answer moves")],
    )
    axis = alt.Axis(
        title="share of pairs whose answer moves",
        values=[0, 0.25, 0.5, 0.75, 1],
        format=".2~f",
        grid=True,
        gridColor=GRID,
        domain=False,
        ticks=False,
    )
    scale = alt.Scale(domain=[0, 1])
    spans = (
        base.transform_filter("datum.low !== null").mark_rule(strokeWidth=2.5).encode(x=alt.X("low:Q", axis=axis, scale=scale), x2="high:Q")
    )
    shape = alt.Shape("kind:N", scale=alt.Scale(domain=domain, range=shapes), legend=legend)
    points = base.mark_point(size=75, filled=True, opacity=1).encode(x=alt.X("moved_frac:Q", axis=axis, scale=scale), shape=shape)
    chart = alt.layer(spans, points).properties(width="container", height=30 * len(labels))
    return finish_chart(chart, f"Answers about {about} ({seed_words([line.arm for line in shown])})", {"rows": rows})


def _kinds(line: Headline) -> tuple[str, ...]:
    own = f"read: follow do({line.query})"
    return (own, f"leak: follow do({line.other})") if line.num_others == 1 else (own, "leak: follow the factor that leaks most")


def _points(line: Headline) -> list[Spec]:
    cells = [(kind, cell) for kind, cell in zip(_kinds(line), (line.read, line.leak), strict=True) if cell is not None]
    return [
        {
            "label": line.arm.label,
            "kind": kind,
            "moved_frac": cell.moved_frac,
            "low": cell.low,
            "high": cell.high,
            "moved": f"{show_frac(cell.moved_frac)} {show_interval(cell.low, cell.high)} with do({cell.factor}), {cell.num_scenes} scenes",
        }
        for kind, cell in cells
    ]


def _column_axis() -> alt.Axis:
    # Two lines, "shape" over "(open)"; a single word gets a blank first line, so that rows of neighbouring charts line up.
    split = "indexof(datum.label, ' ') < 0 ? [' ', datum.label] : "
    split += "[slice(datum.label, 0, indexof(datum.label, ' ')), slice(datum.label, indexof(datum.label, ' ') + 1)]"
    return alt.Axis(
        orient="top", labelAngle=0, ticks=False, domain=False, title=None, labelPadding=21, labelLimit=MAX_LABEL_PIXELS, labelExpr=split
    )


def _column_pixels(lines: Sequence[str]) -> int:
    return min(max(60, *(round(len(line) * LETTER_PIXELS + 10) for line in lines)), MAX_LABEL_PIXELS)


def text_colour(field: str, top: float = 1.0) -> Any:
    """White text on the dark end of a scale from 0 to `top`."""
    return alt.condition(f"datum.{field} !== null && datum.{field} > {round(WHITE_TEXT_FROM * top, 4)}", alt.value(PAPER), alt.value(INK))
