"""Charts of a comparison: slopes of each factor's read and leak from one model to the other, and a forest of paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import altair as alt

from theodolite.records.comparison import CellChange, Comparison
from theodolite.records.part import Estimate, Rate
from theodolite.records.survey import Evidence
from theodolite.report.comparison.words import cell_words, show_difference
from theodolite.report.survey.arms import SurveyArm
from theodolite.report.survey.words import value_of
from theodolite.report.vega import GRID, INK, LEAK_MARK, READ_MARK, LayeredChart, Spec, finish_chart
from theodolite.report.words import WORD, show_frac, show_interval

Kind = Literal["read", "leak"]
SLOPE_HEIGHT = 280
LABEL_GAP = 0.052  # of the height, for two labels one above the other
MOST_CELLS = 40
ROW_PIXELS = 22
CHANGED, SAME = 1.0, 0.35  # opacity of factors whose verdict changes, and of the others


def slope_chart(arms: Sequence[SurveyArm], kind: Kind) -> Spec | None:
    """Read (0 to 1) or leak above noise (-1 to 1) of each factor in both models; None where no factor has it in both."""
    rows = [row for factor in arms[0].factors for row in _slope_rows(arms, factor, kind)]
    if not rows:
        return None
    values = [row["value"] for row in rows]
    floor = min([0.0, *(value - 0.03 for value in values if value < 0)])
    labels = _slope_labels([row for row in rows if row["side"] == arms[1].label], 1.0 - floor)
    floor = min(floor, -0.03)
    limits = arms[0].record.shadows.thresholds
    threshold = limits.read_frac if kind == "read" else limits.leak_above_noise_frac
    scale = alt.Scale(domain=[floor, 1.03], nice=False, clamp=True)
    ticks = [0, 0.25, 0.5, 0.75, 1]
    axis = alt.Axis(title=None, values=ticks, format=".2~f", gridColor=GRID, domain=False, ticks=False)
    x_axis = alt.Axis(title=None, labelAngle=0, labelLimit=130, domain=False, ticks=False, grid=False, labelFontWeight=600)
    x = alt.X("side:N", axis=x_axis, scale=alt.Scale(domain=[arm.label for arm in arms], padding=0.5))
    colour = READ_MARK if kind == "read" else LEAK_MARK
    base = alt.Chart(alt.NamedData("rows")).encode(x=x, opacity=alt.Opacity("opacity:Q", scale=None))
    tips = [alt.Tooltip("factor:N"), alt.Tooltip("side:N", title="model"), alt.Tooltip("word:N", title="verdict"), alt.Tooltip("text:N")]
    y = alt.Y("value:Q", axis=axis, scale=scale)
    spans = base.transform_filter("datum.low !== null").mark_rule(color=colour, strokeWidth=1.5)
    points = base.mark_point(color=colour, filled=True, size=70, shape="circle" if kind == "read" else "diamond")
    names = alt.Chart(alt.NamedData("labels")).mark_text(align="left", dx=9, color=INK, fontSize=12)
    layers = [
        alt.Chart().mark_rule(strokeDash=[2, 3], color=INK).encode(y=alt.datum(threshold, axis=axis, scale=scale)),
        base.mark_line(color=colour, strokeWidth=2).encode(y=y, detail="factor:N"),
        spans.encode(y=alt.Y("low:Q", axis=axis, scale=scale), y2="high:Q"),
        points.encode(y=y, tooltip=tips),
        names.encode(x=x, y=y, text="factor:N", opacity=alt.Opacity("opacity:Q", scale=None)),
    ]
    chart = alt.layer(*layers, data=alt.NamedData("rows")).properties(width="container", height=SLOPE_HEIGHT)
    title = "Read" if kind == "read" else "Leak above noise"
    return finish_chart(chart, f"{title} of each factor", {"rows": rows, "labels": labels})


def _slope_rows(arms: Sequence[SurveyArm], factor: str, kind: Kind) -> list[Spec]:
    """A row for each model, or none where one lacks the number."""
    evidence = [arm.evidence(factor) for arm in arms]
    numbers = [None if each is None else _number(each, kind) for each in evidence]
    if any(number is None for number in numbers):
        return []
    differs = len({each.verdict for each in evidence if each is not None}) > 1
    return [
        {
            "factor": factor,
            "side": arm.label,
            "value": value_of(number),
            "low": number.low,
            "high": number.high,
            "opacity": CHANGED if differs else SAME,
            "word": WORD[each.verdict],
            "text": f"{show_frac(value_of(number))} {show_interval(number.low, number.high)}",
        }
        for arm, each, number in zip(arms, evidence, numbers, strict=True)
        if each is not None and number is not None
    ]


def _number(evidence: Evidence, kind: Kind) -> Rate | Estimate | None:
    if kind == "read":
        return evidence.read if evidence.asked else None
    return None if evidence.leak is None else evidence.leak.adjusted or evidence.leak.above_noise


def _slope_labels(rows: Sequence[Spec], height: float) -> list[Spec]:
    """The names at the second model, moved up where they would cover each other."""
    labels: list[Spec] = []
    for row in sorted(rows, key=lambda row: row["value"]):
        lowest = labels[-1]["value"] + LABEL_GAP * height if labels else row["value"]
        labels.append({**{name: row[name] for name in ("factor", "side", "opacity")}, "value": max(row["value"], lowest)})
    return labels


def forest_cells(comparison: Comparison) -> list[CellChange]:
    """The cells of the largest differences, at most `MOST_CELLS`: reads, then leaks, each worst first."""
    largest = sorted(comparison.cells, key=lambda cell: -abs(cell.moved.difference.value))[:MOST_CELLS]
    return sorted(largest, key=lambda cell: (not cell.truth_moves, cell.gain))


def forest_chart(comparison: Comparison) -> Spec | None:
    """Paired difference of the share of answers that move, second less first, -1 to 1, by cell; None without cells."""
    cells = forest_cells(comparison)
    if not cells:
        return None
    rows = [_forest_row(cell) for cell in cells]
    ends = [abs(end) for row in rows for end in (row["value"], row["low"], row["high"]) if end is not None]
    most = min(1.0, max([0.1, *ends]) * 1.08)
    axis = alt.Axis(title="difference in the share that moves", format="+.2~f", grid=True, gridColor=GRID, domain=False, ticks=False)
    names = alt.Axis(title=None, domain=False, ticks=False, labelLimit=190, labelPadding=6)
    scale = alt.Scale(domain=[-most, most], nice=False)
    legend = alt.Legend(title=None, orient="bottom", direction="vertical", labelLimit=300)
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    reads = [kind.startswith("read") for kind in kinds]
    base = alt.Chart(alt.NamedData("rows")).encode(
        y=alt.Y("label:N", axis=names, scale=alt.Scale(domain=[row["label"] for row in rows])),
        color=alt.Color("kind:N", scale=alt.Scale(domain=kinds, range=[READ_MARK if read else LEAK_MARK for read in reads]), legend=legend),
        tooltip=[alt.Tooltip("label:N", title="cell"), alt.Tooltip("kind:N", title="what"), alt.Tooltip("both:N", title="moved"), "text:N"],
    )
    shape = alt.Shape("kind:N", scale=alt.Scale(domain=kinds, range=["circle" if read else "diamond" for read in reads]), legend=legend)
    x = alt.X("value:Q", axis=axis, scale=scale)
    layers: list[alt.Chart | LayeredChart] = [
        alt.Chart(alt.NamedData("zero")).mark_rule(color=INK).encode(x=alt.X("value:Q", axis=axis, scale=scale)),
        base.transform_filter("datum.low !== null")
        .mark_rule(strokeWidth=2.5)
        .encode(x=alt.X("low:Q", axis=axis, scale=scale), x2="high:Q"),
        base.mark_point(filled=True, size=80, opacity=1).encode(x=x, shape=shape),
    ]
    chart = alt.layer(*layers).properties(width="container", height=ROW_PIXELS * len(rows))
    return finish_chart(chart, "Paired differences, worst first", {"rows": rows, "zero": [{"value": 0}]})


def _forest_row(cell: CellChange) -> Spec:
    change = cell.moved
    return {
        # A place of its own on the axis where one question has both a read and a leak.
        "label": cell_words(cell) + ("" if cell.truth_moves else " "),
        "kind": "read: more is better" if cell.truth_moves else "leak: less is better",
        "value": change.difference.value,
        "low": change.difference.low,
        "high": change.difference.high,
        "both": f"{show_frac(change.one)} to {show_frac(change.other)}",
        "text": f"{show_difference(change)}, {cell.num_pairs} pairs of {cell.num_scenes} scenes",
    }
