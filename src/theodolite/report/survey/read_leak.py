"""Read against leak: each factor of each model as a point, with the numbers that its verdict follows from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from theodolite.records.part import Estimate, Rate
from theodolite.records.survey import Evidence, Verdict
from theodolite.report.survey.arms import SurveyArm, seed_words
from theodolite.report.survey.findings import RANK
from theodolite.report.vega import GRID, INK, LEAK_MARK, PAPER, READ_MARK, Spec, finish_chart
from theodolite.report.words import WORD, listed, show_frac, show_interval

BOTH_MARK, BLIND_MARK, QUIET_MARK = "#7b3fa0", "#5a626b", "#8b929a"
# Fill, edge and shape; what is left open is hollow.
MARKS: dict[Verdict, tuple[str, str, str]] = {
    "shadow": (LEAK_MARK, LEAK_MARK, "diamond"),
    "entangled": (BOTH_MARK, BOTH_MARK, "square"),
    "blind": (BLIND_MARK, BLIND_MARK, "triangle-down"),
    "cannot_be_asked": (PAPER, BLIND_MARK, "triangle-down"),
    "undecided": (PAPER, INK, "circle"),
    "not_measured": (PAPER, QUIET_MARK, "square"),
    "identified": (READ_MARK, READ_MARK, "circle"),
    "inert": (QUIET_MARK, QUIET_MARK, "circle"),
}
SHADES: dict[str, str] = {"identified": "#eef4fa", "entangled": "#f6eefa", "blind": "#f4f4f2", "shadow": "#fdf1e6", "inert": "#f4f4f2"}
HEIGHT = 400
LOWEST_FLOOR = -0.12
# The band of factors that no question asks about lies left of a read of 0.
BAND_LEFT, BAND_CENTRE, BAND_RIGHT, RIGHT = -0.2, -0.11, -0.03, 1.03
LABEL_GAP = 0.037  # of the height, for two labels one above the other


@dataclass(frozen=True, eq=False)
class Point:
    """One factor of one model; `read` is None where it was never asked about, `leak` is the leak above noise that decided, -1 to 1."""

    arm: SurveyArm
    number: int
    factor: str
    evidence: Evidence
    read: Rate | None
    leak: Estimate


def read_leak_points(arms: Sequence[SurveyArm]) -> tuple[Point, ...]:
    """The points of all factors whose leak was compared with noise and, where they were asked about, whose read was measured."""
    return tuple(
        Point(arm, number, factor, evidence, evidence.read if evidence.asked else None, leak)
        for number, arm in enumerate(arms, 1)
        for factor, evidence in arm.record.shadows.evidence.items()
        if (leak := _leak(evidence)) is not None and (evidence.read is not None or not evidence.asked)
    )


def without_point(arms: Sequence[SurveyArm]) -> tuple[str, ...]:
    """The factors that have no point, a text for each model that has such: "agree: size and row"."""
    placed = {(point.arm.label, point.factor) for point in read_leak_points(arms)}
    lacking = {arm.label: [factor for factor in arm.record.shadows.evidence if (arm.label, factor) not in placed] for arm in arms}
    return tuple(f"{label}: {listed(factors)}" for label, factors in lacking.items() if factors)


def _leak(evidence: Evidence) -> Estimate | None:
    """The leak above noise with the interval that decides: adjusted for the number of queries that the factor could leak into."""
    return None if evidence.leak is None else evidence.leak.adjusted or evidence.leak.above_noise


def read_leak_chart(arms: Sequence[SurveyArm]) -> Spec | None:
    """Read (0 to 1) on x and leak above noise (-1 to 1) on y, a point a factor and model, joined across models; None without points."""
    points = read_leak_points(arms)
    if not points:
        return None
    several, limits = len(arms) > 1, arms[0].record.shadows.thresholds
    has_band = any(point.read is None for point in points)
    floor = min(LOWEST_FLOOR, min(point.leak.value for point in points) - 0.05)
    datasets = {
        "quadrants": _quadrant_rows(floor, has_band, (limits.read_frac, limits.leak_above_noise_frac)),
        "points": [_row(point) for point in points],
        "labels": _label_rows(points, floor),
    }
    place = _Place(has_band, floor)
    layers = [*_quadrants(place), *_points(place, points, several), *_labels(place, several)]
    chart = alt.layer(*layers).properties(width="container", height=HEIGHT)
    return finish_chart(chart, f"Read against leak ({seed_words(arms)})", datasets)


@dataclass(frozen=True)
class _Place:
    """The axes and scales that all layers share."""

    has_band: bool
    floor: float

    def x(self, field: str = "x") -> alt.X:
        axis = alt.Axis(
            title="read: answers follow the factor",
            values=[*([BAND_CENTRE] if self.has_band else []), 0, 0.25, 0.5, 0.75, 1],
            labelExpr="datum.value < 0 ? ['never', 'asked'] : format(datum.value, '.2~f')",
            labelOverlap=False,
            grid=False,
            domain=False,
            ticks=False,
        )
        domain = [BAND_LEFT if self.has_band else BAND_RIGHT, RIGHT]
        return alt.X(f"{field}:Q", axis=axis, scale=alt.Scale(domain=domain, nice=False, zero=False, clamp=True))

    def y(self, field: str = "y") -> alt.Y:
        ticks = [0, 0.25, 0.5, 0.75, 1]
        axis = alt.Axis(title="leak above noise", values=ticks, format=".2~f", gridColor=GRID, grid=True, domain=False, ticks=False)
        return alt.Y(f"{field}:Q", axis=axis, scale=alt.Scale(domain=[self.floor, RIGHT], nice=False, zero=False, clamp=True))


def _points(place: _Place, points: Sequence[Point], several: bool) -> list[alt.Chart]:
    """Lines across models, crosshairs and marks; all factors but the one under the pointer grow pale."""
    hovered = alt.selection_point(name="hovered", fields=["factor"], on="pointerover", clear="pointerout")
    bright = alt.condition(hovered, alt.value(1), alt.value(0.15))
    base = alt.Chart(alt.NamedData("points")).encode(x=place.x(), y=place.y())
    verdicts = [verdict for verdict in MARKS if any(point.evidence.verdict == verdict for point in points)]
    faint = alt.condition(hovered, alt.value(0.55), alt.value(0.08))
    crosshair = base.mark_rule(strokeWidth=1.6).encode(opacity=faint, color=alt.Color("edge:N", scale=None))
    layers = [
        crosshair.transform_filter("datum.x_low !== null").encode(x=place.x("x_low"), x2="x_high:Q"),
        crosshair.transform_filter("datum.y_low !== null").encode(y=place.y("y_low"), y2="y_high:Q"),
        _marks(base, verdicts, several).encode(opacity=bright).add_params(hovered),
    ]
    if not several:
        return layers
    joined = base.mark_line(strokeWidth=1.6, color=QUIET_MARK).encode(detail="factor:N", order="number:Q", opacity=bright)
    ink = alt.Color("ink:N", scale=None)
    return [joined, *layers, base.mark_text(fontSize=10, fontWeight=600).encode(text="number:Q", color=ink, opacity=bright)]


def _row(point: Point) -> Spec:
    read, leak, evidence = point.read, point.leak, point.evidence
    into = "" if evidence.leak is None else f", into answers about {evidence.leak.query}"
    return {
        "factor": point.factor,
        "model": point.arm.label,
        "number": point.number,
        "word": WORD[evidence.verdict],
        "verdict": evidence.verdict,
        "edge": MARKS[evidence.verdict][1],
        "ink": INK if MARKS[evidence.verdict][0] == PAPER else PAPER,
        "x": BAND_CENTRE if read is None else read.frac,
        "x_low": None if read is None else read.low,
        "x_high": None if read is None else read.high,
        "y": leak.value,
        "y_low": leak.low,
        "y_high": leak.high,
        "read": "never asked about" if read is None else f"{show_frac(read.frac)} {show_interval(read.low, read.high)}",
        "leak": f"{show_frac(leak.value)} {show_interval(leak.low, leak.high)} above noise{into}",
    }


def _scale(verdicts: Sequence[Verdict], part: int) -> alt.Scale:
    return alt.Scale(domain=list(verdicts), range=[MARKS[verdict][part] for verdict in verdicts])


def _marks(base: alt.Chart, verdicts: Sequence[Verdict], several: bool) -> alt.Chart:
    words = " : ".join(f"datum.value === '{verdict}' ? '{WORD[verdict]}'" for verdict in verdicts)
    legend = alt.Legend(title=None, orient="bottom", columns=3, labelExpr=f"{words} : datum.value", symbolSize=90, symbolStrokeWidth=1.5)
    tips = [
        alt.Tooltip(f"{name}:N", title=head)
        for name, head in {"factor": "factor", "model": "model", "word": "verdict", "read": "read", "leak": "leak"}.items()
    ]
    marks: alt.Chart = base.mark_point(size=230 if several else 120, opacity=1, strokeWidth=1.8).encode(
        fill=alt.Fill("verdict:N", scale=_scale(verdicts, 0), legend=legend),
        stroke=alt.Stroke("verdict:N", scale=_scale(verdicts, 1), legend=legend),
        shape=alt.Shape("verdict:N", scale=_scale(verdicts, 2), legend=legend),
        tooltip=tips,
    )
    return marks


def _quadrant_rows(floor: float, has_band: bool, thresholds: tuple[float, float]) -> list[Spec]:
    """Rectangles on both sides of both thresholds; the name of each stands beside the crossing, where few points lie."""
    read, leak = thresholds
    left = 0.0 if has_band else BAND_RIGHT
    columns = [(left, read, ("blind", "shadow")), (read, RIGHT, ("identified", "entangled"))]
    columns += [(BAND_LEFT, BAND_RIGHT, ("inert", "shadow"))] if has_band else []
    return [
        {
            "left": low,
            "right": high,
            "bottom": bottom,
            "top": top,
            "name": name,
            "shade": SHADES[name],
            "x": high if name_ends else low,
            "y": leak,
            "above": top == RIGHT,
            "starts": not name_ends,
        }
        for low, high, names in columns
        for name_ends in [high == read]
        for name, bottom, top in zip(names, (floor, leak), (leak, RIGHT), strict=True)
    ]


def _quadrants(place: _Place) -> list[alt.Chart]:
    data = alt.Chart(alt.NamedData("quadrants"))
    shade = alt.Color("shade:N", scale=None)
    layers = [data.mark_rect().encode(x=place.x("left"), x2="right:Q", y=place.y("bottom"), y2="top:Q", color=shade)]
    for starts, align, dx in (("true", "left", 6), ("false", "right", -6)):
        for above, baseline, dy in (("true", "bottom", -5), ("false", "top", 5)):
            names = data.transform_filter(f"datum.starts === {starts} && datum.above === {above}")
            style: dict[str, Any] = {"align": align, "dx": dx, "baseline": baseline, "dy": dy}
            text = names.mark_text(fontSize=11.5, fontStyle="italic", opacity=0.8, color=INK, **style)
            layers.append(text.encode(x=place.x(), y=place.y(), text="name:N"))
    return layers


def _label_rows(points: Sequence[Point], floor: float) -> list[Spec]:
    """The name of each factor once, at its most leaking point, moved up where it would cover another; none where all are inert."""
    by_factor: dict[str, list[Point]] = {}
    for point in points:
        by_factor.setdefault(point.factor, []).append(point)
    shown = [
        max(members, key=lambda point: point.leak.value)
        for members in by_factor.values()
        if min(RANK[point.evidence.verdict] for point in members) < RANK["inert"]
    ]
    gap = LABEL_GAP * (RIGHT - floor)
    taken: list[tuple[float, float]] = []
    rows: list[Spec] = []
    for point in sorted(shown, key=lambda point: point.leak.value):
        x, y = (BAND_CENTRE if point.read is None else point.read.frac), point.leak.value
        while any(abs(x - other_x) < 0.25 and abs(y - other_y) < gap for other_x, other_y in taken):
            y += gap / 4
        taken.append((x, y))
        rows.append({"factor": point.factor, "x": x, "y": y})
    return rows


def _labels(place: _Place, several: bool) -> list[alt.Chart]:
    """Names right of their points, in the right third left of them."""
    base = alt.Chart(alt.NamedData("labels")).encode(x=place.x(), y=place.y(), text="factor:N")
    apart = 13 if several else 10
    sides: tuple[tuple[str, Any, int], ...] = (("datum.x <= 0.66", "left", apart), ("datum.x > 0.66", "right", -apart))
    return [base.transform_filter(test).mark_text(fontSize=12, fontWeight=600, color=INK, align=align, dx=dx) for test, align, dx in sides]
