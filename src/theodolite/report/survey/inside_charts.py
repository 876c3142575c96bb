"""Charts of a model's inside. Every number in them is also in a table of the page, except position maps: theirs are in tooltips."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import altair as alt

from theodolite.records.ladder import FactorLadder
from theodolite.records.part import Estimate, Rate
from theodolite.report.survey.causal_counterparts import depth
from theodolite.report.survey.charts import READ_COLOURS
from theodolite.report.survey.factor_charts import fisher_chart, geometry_chart, identifiability_chart, words_chart
from theodolite.report.survey.inside import DrawnMap, InsideRow, InsideView
from theodolite.report.survey.sites import BASE_MARK, CAUSAL_MARK, HEADING, SECOND_CAUSAL_MARK, lack, short_site, short_sites, site_axis
from theodolite.report.survey.words import show_estimate, value_of
from theodolite.report.vega import GRID, INK, READ_MARK, Spec, finish_chart
from theodolite.report.words import show_measured

PANEL_PIXELS, PANEL_HEIGHT, MAP_PIXELS = 196, 112, 92
TOKEN_PIXELS = 178
LADDER_COLUMNS = 5
LADDER_FLOOR = -0.5
# The panel that is pinned is a signal of the chart, set by ladder.js; empty for none.
IS_SHOWN = "pinned === '' || pinned === datum.panel"
PROBE, ERASED = "normalised accuracy of a probe, or of the spoken answer", "right answers lost when the factor is erased"


def inside_charts(view: InsideView) -> dict[str, Spec | None]:
    """All charts of one arm's inside, by group of the page; null where there is nothing to draw."""
    return {
        "ladder": ladder_chart(view),
        "maps": map_chart(view),
        "tokens": token_chart(view),
        "geometry": geometry_chart(view),
        "fisher": fisher_chart(view),
        "identifiability": identifiability_chart(view),
        "words": words_chart(view),
    }


def _point(number: Rate | Estimate) -> Spec:
    # Four decimals are finer than a pixel.
    ends = [None if end is None else round(end, 4) for end in (number.low, number.high)]
    return {"value": round(value_of(number), 4), "low": ends[0], "high": ends[1], "tip": show_estimate(number)}


# The ladder


def panel_of(row: InsideRow[FactorLadder]) -> str:
    """The heading of a factor's panel."""
    return f"{row.factor}: {row.measured.loss.step}"


def ladder_chart(view: InsideView) -> Spec | None:
    """Normalised accuracy of probes by site, a panel a factor, with intervals; diamonds: right answers lost to erasure.

    The line of a pinned factor is in all panels, whose own lines are faint then.
    """
    if not view.losses:
        return None
    panels = {row.factor: panel_of(row) for row in view.losses}
    rows = _ladder_rows(view, panels)
    floor = max(LADDER_FLOOR, min([0.0, *(row["value"] for row in rows)]) - 0.1)
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    x = alt.X("site:N", scale=alt.Scale(domain=short_sites([row.site for row in view.rungs])), axis=site_axis())
    scale = alt.Scale(domain=[floor, 1.05], clamp=True, nice=False)
    axis = alt.Axis(
        values=[value for value in (-0.5, 0, 0.5, 1) if value >= floor],
        format=".1f",
        title=None,
        gridColor=GRID,
        domain=False,
        ticks=False,
        labelOverlap=False,
    )
    colour = alt.Color(
        "kind:N",
        scale=alt.Scale(domain=kinds, range=[READ_MARK, CAUSAL_MARK][: len(kinds)]),
        legend=alt.Legend(title=None, orient="bottom", labelLimit=420, symbolType="circle", symbolOpacity=1, symbolStrokeWidth=0),
    )
    present = view.inside.ladder.thresholds.present_frac if view.inside.ladder else 0.5
    base = alt.Chart().encode(x=x, color=colour, tooltip=[alt.Tooltip("site:N"), alt.Tooltip("kind:N", title="what"), "tip:N", "note:N"])
    y = alt.Y("value:Q", scale=scale, axis=axis)
    probes = base.transform_filter(f"datum.kind === '{PROBE}'")
    diamonds = base.transform_filter(f"datum.kind === '{ERASED}'")
    visible = {share: alt.condition(IS_SHOWN, alt.value(share), alt.value(0.4 * share)) for share in (0.16, 1)}
    layers = alt.layer(
        alt.Chart(alt.NamedData("rows"))  # not the rows of its panel only
        .transform_filter(f"datum.panel === pinned && datum.kind === '{PROBE}'")
        .mark_line(color=INK, strokeWidth=1.5)
        .encode(x=x, y=y),
        alt.Chart()
        .transform_filter("datum.first")
        .mark_rule(color=BASE_MARK, strokeDash=[3, 3])
        .encode(y=alt.YDatum(present, scale=scale, axis=axis)),
        alt.Chart().transform_filter("datum.first").mark_rule(color=BASE_MARK).encode(y=alt.YDatum(0, scale=scale, axis=axis)),
        probes.mark_area().encode(y=alt.Y("low:Q", scale=scale, axis=axis), y2="high:Q", opacity=visible[0.16]),
        probes.mark_line(strokeWidth=2).encode(y=y, opacity=visible[1]),
        probes.mark_point(size=22, filled=True).encode(y=y, opacity=visible[1]),
        diamonds.transform_filter("datum.low !== null")
        .mark_rule(strokeWidth=1.5)
        .encode(y=alt.Y("low:Q", scale=scale, axis=axis), y2="high:Q", opacity=visible[1]),
        diamonds.mark_point(size=58, filled=True, shape="diamond").encode(y=y, opacity=visible[1]),
        data=alt.NamedData("rows"),
    ).properties(width=PANEL_PIXELS, height=PANEL_HEIGHT)
    header = alt.Header(title=None, labelFontSize=12, labelFontWeight=600, labelAnchor="start", labelColor=INK, labelPadding=3)
    facet = alt.Facet("panel:N", sort=list(panels.values()), header=header)
    chart = layers.facet(facet, columns=LADDER_COLUMNS, spacing={"row": 12, "column": 12})
    spec = finish_chart(chart, f"Readout ladder of {view.arm.named}{lack(view)}", {"rows": rows})
    return spec | {"params": [{"name": "pinned", "value": ""}]}


def _ladder_rows(view: InsideView, panels: Mapping[str, str]) -> list[Spec]:
    """A row a rung (`first`: the rung that draws the lines of its panel), and a row an erasure."""
    first = view.rungs[0].site
    rows: list[Spec] = [
        {
            "panel": panels[row.factor],
            "site": short_site(row.site),
            "kind": PROBE,
            "first": row.site == first,
            **_point(row.measured.normalised),
        }
        for row in view.rungs
    ]
    for factor, counterpart in view.erased():
        if factor in panels and counterpart.value is not None and counterpart.site is not None:
            row = {"panel": panels[factor], "site": short_site(counterpart.site), "kind": ERASED}
            rows.append({**row, **_point(counterpart.value), "note": counterpart.note})
    return rows


def map_chart(view: InsideView) -> Spec | None:
    """Accuracy of a probe on the token at each position, 0 (chance) to 1, by factor and site."""
    if not view.maps:
        return None
    factors = list(dict.fromkeys(one.factor for one in view.maps))
    sites = sorted({one.position_map.site for one in view.maps}, key=depth)
    side = max(1 + max(max(cell) for cell in one.cells) for one in view.maps)
    places = alt.Axis(labels=False, ticks=False, domain=False, title=None, grid=False)
    scale = alt.Scale(domain=list(range(side)), paddingInner=0, paddingOuter=0)
    squares = (
        alt.Chart(alt.NamedData("maps"))
        # One row a map, with its squares as lists: a row a square would make up most of the page.
        .transform_flatten(["row", "column", "value", "tip"])
        .mark_rect()
        .encode(
            x=alt.X("column:O", axis=places, scale=scale),
            y=alt.Y("row:O", axis=places, scale=scale),
            color=alt.Color(
                "value:Q",
                scale=alt.Scale(domain=[0, 1], range=list(READ_COLOURS), clamp=True),
                legend=alt.Legend(title="accuracy: 0 is chance", orient="bottom", gradientLength=160, values=[0, 0.5, 1]),
            ),
            tooltip=["factor:N", "site:N", alt.Tooltip("row:O"), alt.Tooltip("column:O"), alt.Tooltip("tip:N", title="decoded right")],
        )
        .properties(width=MAP_PIXELS, height=MAP_PIXELS)
    )
    heads = {"title": None, "labelFontSize": 12, "labelColor": INK, "labelPadding": 5}
    chart = squares.facet(
        row=alt.Row("site:N", sort=sites, header=alt.Header(labelAngle=0, labelAlign="left", labelFontWeight="normal", **heads)),
        column=alt.Column("factor:N", sort=factors, header=alt.Header(labelFontWeight=600, **heads)),
        spacing=6,
    )
    title = f"Where in the picture a token carries a factor: {view.arm.named}{lack(view)}"
    return finish_chart(chart, title, {"maps": [_map_row(one) for one in view.maps]})


def _map_row(one: DrawnMap) -> Spec:
    measured = one.position_map
    numbers = zip(measured.accuracy_frac, measured.low, measured.high, strict=True)
    chance = one.chance_frac
    return {
        "factor": one.factor,
        "site": measured.site,
        "row": [row for row, _ in one.cells],
        "column": [column for _, column in one.cells],
        "value": [round((accuracy - chance) / (1 - chance), 2) if chance < 1 else 0 for accuracy in measured.accuracy_frac],
        "tip": [" ".join(show_measured(*number)) for number in numbers],
    }


# Vision tokens by site


@dataclass
class Panel:
    """One small chart by site: its heading, its points, and the colour of each series."""

    heading: list[str]
    rows: list[Spec] = field(default_factory=list)
    colours: dict[str, str] = field(default_factory=dict)

    def add(self, series: str, colour: str, by_site: Mapping[str, Rate | Estimate | None]) -> None:
        points = {site: number for site, number in by_site.items() if number is not None}
        if points:
            self.colours[series] = colour
            self.rows += [{"site": short_site(site), "series": series, **_point(number)} for site, number in points.items()]


def token_chart(view: InsideView) -> Spec | None:
    """Likeness, allocation and gap by site, and the rate of answers that move when vision tokens are shuffled or averaged."""
    panels = [panel for panel in _token_panels(view) if panel.rows]
    if not panels:
        return None
    sites = {row.site for rows in (view.likeness, view.allocation, view.gap) for row in rows} | {site for site, _, _ in view.disturbances}
    domain = short_sites(list(sites))
    charts = [_panel_chart(panel, f"panel{number}", domain) for number, panel in enumerate(panels)]
    chart = alt.hconcat(*charts, spacing=42, bounds="flush").resolve_scale(color="independent")
    datasets = {f"panel{number}": panel.rows for number, panel in enumerate(panels)}
    return finish_chart(chart, f"Vision tokens by site: {view.arm.named}{lack(view)}", datasets)


def _token_panels(view: InsideView) -> list[Panel]:
    cosine, rank = Panel(["likeness:", "mean cosine"]), Panel(["likeness:", "effective rank"])
    cosine.add("mean cosine", READ_MARK, {row.site: row.measured.cosine for row in view.likeness})
    rank.add("effective rank", READ_MARK, {row.site: row.measured.rank for row in view.likeness})
    share = Panel(["allocation: attention to vision", "(grey: even attention)"])
    share.add("even attention", BASE_MARK, {row.site: row.measured.baseline for row in view.allocation})
    share.add("share", READ_MARK, {row.site: row.measured.share for row in view.allocation})
    gap = Panel(["gap: distance of text and vision", "(grey: by sampling alone)"])
    chance = {row.site: _without_interval(row.measured.chance_relative) for row in view.gap}
    gap.add("by sampling alone", BASE_MARK, chance)
    gap.add("relative distance", READ_MARK, {row.site: row.measured.relative for row in view.gap})
    moved = Panel(["causal: answers moved by mean", "(dark: by shuffling)"])
    moved.add("shuffled", SECOND_CAUSAL_MARK, {site: one.moved for site, one, _ in view.disturbances if one is not None})
    moved.add("replaced by their mean", CAUSAL_MARK, {site: one.moved for site, _, one in view.disturbances if one is not None})
    return [cosine, rank, share, gap, moved]


def _without_interval(value: float | None) -> Estimate | None:
    """A number without an interval, drawn as a point."""
    return None if value is None else Estimate(value=value, low=None, high=None, num_scenes=0)


def _panel_chart(panel: Panel, name: str, domain: list[str]) -> Any:
    x = alt.X("site:N", scale=alt.Scale(domain=domain), axis=site_axis())
    axis = alt.Axis(title=None, gridColor=GRID, domain=False, ticks=False, tickCount=4)
    fractions = panel.heading[0].startswith("causal")
    scale = alt.Scale(domain=[0, 1]) if fractions else alt.Scale(zero=True, nice=4)
    order, colours = list(panel.colours), list(panel.colours.values())
    base = alt.Chart(alt.NamedData(name)).encode(
        x=x,
        color=alt.Color("series:N", scale=alt.Scale(domain=order, range=colours), legend=None),
        tooltip=["site:N", alt.Tooltip("series:N", title="what"), "tip:N"],
    )
    y = alt.Y("value:Q", scale=scale, axis=axis)
    return alt.layer(
        base.mark_line(strokeWidth=1.5).encode(y=y),
        base.transform_filter("datum.low !== null")
        .mark_rule(strokeWidth=1.5)
        .encode(y=alt.Y("low:Q", scale=scale, axis=axis), y2="high:Q"),
        base.mark_point(size=32, filled=True, opacity=1, shape="diamond" if fractions else "circle").encode(y=y),
    ).properties(width=TOKEN_PIXELS, height=PANEL_HEIGHT, title=alt.TitleParams(panel.heading, **{**HEADING, "frame": "group"}))
