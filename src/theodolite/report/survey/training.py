"""The page's section on a training run: rates of moved answers by step, from surveys on the way, and the numbers of its log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from theodolite.records.survey import Cell
from theodolite.records.training_log import TrainingLog
from theodolite.report.survey.arms import SurveyArm
from theodolite.report.vega import GRID, INK, LEAK_MARK, READ_MARK, Spec, finish_chart
from theodolite.report.words import show_frac, show_interval

PANEL_PIXELS, PANEL_HEIGHT, COLUMNS = 200, 120, 4
# Points of a line of the log: more would be finer than its pixels.
MOST_POINTS = 200
# Lines of more points are drawn without a dot at each.
MOST_DOTS = 40
# Numbers of the log that are drawn beside the losses, with what they are.
WATCHED = {
    "student_cosine": "likeness of vision tokens: mean cosine",
    "teacher_entropy": "entropy of the teacher's targets, nats",
    "prototypes_used": "prototypes in use, share",
}


@dataclass(frozen=True)
class StepRate:
    """The share of pairs, 0 to 1, in which one change moves the answers to a query, at one step."""

    factor: str
    query: str
    kind: str
    step: int
    cell: Cell


@dataclass(frozen=True)
class TrainingView:
    """What the section shows: rates by step, their chart, the log's chart with the last value of each number, and warnings."""

    rates: tuple[StepRate, ...]
    rates_spec: Spec | None
    log_spec: Spec | None
    last: tuple[tuple[str, int, float], ...]
    warnings: tuple[str, ...]


def training_view(arms: Sequence[SurveyArm], log: TrainingLog | None) -> TrainingView | None:
    """The section; None without a log and with fewer than two surveys of different steps, or two surveys of one step."""
    by_step = {arm.stored.run.step: arm for arm in arms if arm.stored.run is not None and arm.stored.run.step is not None}
    rates: list[StepRate] = []
    if len(by_step) > 1 and len(by_step) == sum(arm.stored.run is not None and arm.stored.run.step is not None for arm in arms):
        rates = step_rates({step: by_step[step] for step in sorted(by_step)})
    if not rates and log is None:
        return None
    last = () if log is None else tuple((name, *points[-1]) for name, points in log.series.items() if _is_drawn(name))
    return TrainingView(
        tuple(rates),
        rates_chart(rates) if rates else None,
        log_chart(log) if last and log is not None else None,
        last,
        () if log is None else log.warnings,
    )


def step_rates(by_step: dict[int, SurveyArm]) -> list[StepRate]:
    """Each factor's reads (open questions about it) and its largest leak over all steps, which stays the same query at every step."""
    cells = [(step, cell) for step, arm in by_step.items() for cell in arm.record.shadows.cells if cell.form == "open"]
    leaks: dict[str, Cell] = {}
    for _, cell in cells:
        if not cell.truth_moves and (cell.factor not in leaks or cell.moved_frac > leaks[cell.factor].moved_frac):
            leaks[cell.factor] = cell
    return [
        StepRate(cell.factor, cell.query, "read" if cell.truth_moves else "leak", step, cell)
        for step, cell in cells
        if (cell.query == cell.factor if cell.truth_moves else cell.query == leaks[cell.factor].query)
    ]


def rates_chart(rates: Sequence[StepRate]) -> Spec:
    """A panel a factor: read and leak (0 to 1) by step, with intervals."""
    leaks = {rate.factor: rate.query for rate in rates if rate.kind == "leak"}
    titles = {rate.factor: rate.factor + (f" (leak into {leaks[rate.factor]})" if rate.factor in leaks else "") for rate in rates}
    rows: list[dict[str, Any]] = [
        {
            "panel": titles[rate.factor],
            "kind": rate.kind,
            "step": rate.step,
            "value": round(rate.cell.moved_frac, 4),
            "low": None if rate.cell.low is None else round(rate.cell.low, 4),
            "high": None if rate.cell.high is None else round(rate.cell.high, 4),
            "tip": f"{rate.kind} {show_frac(rate.cell.moved_frac)} {show_interval(rate.cell.low, rate.cell.high)} at step {rate.step:,}",
        }
        for rate in rates
    ]
    x = alt.X("step:Q", title="step", axis=alt.Axis(tickCount=4, format="~s", grid=False), scale=alt.Scale(zero=True))
    y = alt.Y("value:Q", title=None, scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(tickCount=3))
    colour = alt.Color("kind:N", scale=alt.Scale(domain=["read", "leak"], range=[READ_MARK, LEAK_MARK]), legend=alt.Legend(title=None))
    shape = alt.Shape("kind:N", scale=alt.Scale(domain=["read", "leak"], range=["circle", "square"]), legend=alt.Legend(title=None))
    base = alt.Chart(alt.NamedData("rates")).encode(x=x, color=colour)
    bands = base.mark_area(opacity=0.15).encode(y=alt.Y("low:Q", title=None), y2="high:Q")
    lines = base.mark_line(strokeWidth=1.5).encode(y=y)
    points = base.mark_point(filled=True, size=45, opacity=1).encode(y=y, shape=shape, tooltip=[alt.Tooltip("tip:N", title="rate")])
    panels = alt.layer(bands, lines, points).properties(width=PANEL_PIXELS, height=PANEL_HEIGHT)
    chart = panels.facet(facet=_panels(list(dict.fromkeys(titles.values()))), columns=COLUMNS)
    return finish_chart(chart, "Read and leak by step: share of pairs whose answer moves", {"rates": rows})


def log_chart(log: TrainingLog) -> Spec:
    """A panel a number of the log by step: losses first, then what is watched."""
    drawn = {name: points for name, points in log.series.items() if _is_drawn(name)}
    names = [*sorted(name for name in drawn if name not in WATCHED), *(name for name in WATCHED if name in drawn)]
    rows = [{"panel": WATCHED.get(name, name), "step": step, "value": value} for name in names for step, value in _thinned(drawn[name])]
    x = alt.X("step:Q", title="step", axis=alt.Axis(tickCount=4, format="~s", grid=False))
    y = alt.Y("value:Q", title=None, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=4, gridColor=GRID, minExtent=46))
    tips = [alt.Tooltip("step:Q", format=","), alt.Tooltip("value:Q", format=".4~g")]
    dots = alt.OverlayMarkDef(size=14, color=INK) if max(map(len, drawn.values())) <= MOST_DOTS else False
    lines = alt.Chart(alt.NamedData("log")).mark_line(strokeWidth=1.2, color=INK, point=dots)
    panels = lines.encode(x=x, y=y, tooltip=tips).properties(width=PANEL_PIXELS, height=PANEL_HEIGHT)
    chart = panels.facet(facet=_panels([WATCHED.get(name, name) for name in names]), columns=COLUMNS).resolve_scale(y="independent")
    return finish_chart(chart, "The log of training, by step", {"log": rows})


def _panels(order: list[str]) -> alt.Facet:
    return alt.Facet("panel:N", title=None, sort=order, header=alt.Header(labelFontSize=11.5, labelFontWeight=600, labelAnchor="start"))


def _is_drawn(name: str) -> bool:
    return name == "loss" or name.startswith(("loss/", "eval_loss")) or name in WATCHED


def _thinned(points: Sequence[tuple[int, float]]) -> Sequence[tuple[int, float]]:
    """Every so many points, and the last."""
    every = -(-len(points) // MOST_POINTS)
    return [*points[:-1:every], points[-1]]
