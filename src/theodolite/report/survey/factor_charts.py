"""Heat maps of factors by site or by query: similarity numbers in blue, and causal numbers (patch, erasure) beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import altair as alt

from theodolite.records.part import Estimate, Rate
from theodolite.report.survey.causal_counterparts import CausalCounterpart, depth
from theodolite.report.survey.charts import ABSENT, READ_COLOURS, text_colour
from theodolite.report.survey.inside import InsideView
from theodolite.report.survey.sites import CAUSAL_COLOURS, HEADING, lack, short_site, site_axis
from theodolite.report.survey.words import show_estimate, value_of
from theodolite.report.vega import INK, PAPER, Spec, finish_chart
from theodolite.report.words import show_exact

FACTOR_PIXELS = 21
# Two similarity and two causal heat maps by layer fit in a row.
HEAT_PIXELS, MIN_PIXELS = 280, 7
# Least width of a square that has room for its number.
NUMBER_PIXELS = 34


@dataclass
class Heat:
    """One heat map: a row a factor, a square (value, tooltip) for each factor and column that has a number."""

    heading: str
    columns: list[str]
    colours: tuple[str, str]
    scale: dict[str, Any] = field(default_factory=lambda: {"domain": [0, 1], "clamp": True})
    squares: dict[tuple[str, str], tuple[float, str]] = field(default_factory=dict)

    def add(self, factor: str, column: str, number: Rate | Estimate | None, note: str = "") -> None:
        if number is not None:
            self.squares[factor, column] = (value_of(number), show_estimate(number) + (f" ({note})" if note else ""))


def geometry_chart(view: InsideView) -> Spec | None:
    """Consistency of a factor's direction across scenes, by factor and site under both inner products, beside patch and erase."""
    if not view.geometry:
        return None
    sites = [short_site(site) for site in sorted({row.site for row in view.geometry}, key=depth)]
    plain, weighted = Heat("consistency, Euclidean", sites, READ_COLOURS), Heat("consistency, weighted by words", sites, READ_COLOURS)
    for row in view.geometry:
        for heat, directions in ((plain, row.measured.euclidean), (weighted, row.measured.causal)):
            if directions is not None and directions.consistency is not None:
                note = f"chance {show_exact(directions.consistency.chance)}, p {directions.consistency.p_adjusted:.3f}"
                heat.add(row.factor, short_site(row.site), directions.consistency.estimate, note)
    factors = list(dict.fromkeys(row.factor for row in view.geometry))
    heats = [plain, weighted, *_causal_heats(view, factors, ("patch", "erase"))]
    return _heat_chart(f"Factor directions of {view.arm.named}{lack(view)}", heats, factors)


def fisher_chart(view: InsideView) -> Spec | None:
    """Energy of each query's answers along each factor's displacement (random directions: 1), beside patch at the nearest site."""
    if not view.fisher:
        return None
    queries = list(dict.fromkeys(row.measured.query for row in view.fisher))
    factors = list(dict.fromkeys(row.factor for row in view.fisher))
    top = max((row.measured.energy.value for row in view.fisher if row.measured.energy is not None), default=1.0)
    # Energies span powers of ten, and may be 0.
    scale = {"type": "symlog", "constant": 1, "domain": [0, max(top, 10.0)], "clamp": True}
    energy = Heat("energy: answers about ... respond to the factor", queries, READ_COLOURS, scale)
    moved = Heat("causal: answers about ... moved by a patch", queries, CAUSAL_COLOURS)
    for row in view.fisher:
        energy.add(row.factor, row.measured.query, row.measured.energy)
        for counterpart in row.counterparts:
            moved.add(row.factor, row.measured.query, counterpart.value, f"at {counterpart.site}")
    heats = [energy, *([moved] if view.causal is not None else [])]
    return _heat_chart(f"Fisher information of {view.arm.named}{lack(view)}", heats, factors)


def identifiability_chart(view: InsideView) -> Spec | None:
    """Nonlinear and linear R2 by factor and site, beside erasure."""
    if not view.blocks:
        return None
    sites = [short_site(site) for site in sorted({row.site for row in view.blocks}, key=depth)]
    linear, nonlinear = Heat("linear R\u00b2", sites, READ_COLOURS), Heat("nonlinear R\u00b2", sites, READ_COLOURS)
    for row in view.blocks:
        linear.add(row.factor, short_site(row.site), row.measured.linear_r2)
        nonlinear.add(row.factor, short_site(row.site), row.measured.nonlinear_r2)
    factors = list(dict.fromkeys(row.factor for row in view.blocks))
    heats = [linear, nonlinear, *_causal_heats(view, factors, ("erase",))]
    return _heat_chart(f"Identifiability of {view.arm.named}{lack(view)}", heats, factors)


def words_chart(view: InsideView) -> Spec | None:
    """Share of vision tokens that name a factor's value above that under other pictures' values, by factor and site, beside the causal."""
    if not view.words:
        return None
    sites = [short_site(site) for site in sorted({row.site for row in view.words}, key=depth)]
    named = [number.excess.value for row in view.words for number in (row.measured.logit, row.measured.latent) if number is not None]
    # One scale for both lenses; often a few tokens of many lie on the thing that has the factor.
    scale = {"domain": [0, max([0.05, *named])], "clamp": True}
    logit, latent = (Heat(f"{name}: tokens that name it", sites, READ_COLOURS, scale) for name in ("logit lens", "LatentLens"))
    for row in view.words:
        for heat, number in ((logit, row.measured.logit), (latent, row.measured.latent)):
            if number is not None:
                heat.add(row.factor, short_site(row.site), number.excess, f"share {number.share.value:.3f}")
    factors = list(dict.fromkeys(row.factor for row in view.words))
    heats = [logit, *([latent] if latent.squares else []), *_causal_heats(view, factors, ("patch", "erase"))]
    return _heat_chart(f"Vision tokens in words: {view.arm.named}{lack(view)}", heats, factors)


def _causal_heats(view: InsideView, factors: Sequence[str], kinds: Sequence[str]) -> list[Heat]:
    """Heat maps of causal numbers by factor and by the site of the change."""
    causal = view.causal
    if causal is None:
        return []
    headings = {"patch": "causal: answers moved by a patch", "erase": "causal: right answers lost to erasure"}
    finders: dict[str, Callable[[], list[tuple[str, CausalCounterpart]]]] = {"patch": view.patched, "erase": view.erased}
    heats = []
    for kind in kinds:
        heat = Heat(headings[kind], [short_site(site) for site in causal.subspace_sites], CAUSAL_COLOURS)
        for factor, counterpart in finders[kind]():
            if factor in factors and counterpart.site is not None:
                heat.add(factor, short_site(counterpart.site), counterpart.value, counterpart.note)
        heats.append(heat)
    return heats


def _heat_chart(title: str, heats: Sequence[Heat], factors: list[str]) -> Spec:
    panels = [_heat_panel(heat, f"heat{number}", factors, number == 0) for number, heat in enumerate(heats)]
    datasets: dict[str, list[Spec]] = {}
    for number, heat in enumerate(heats):
        datasets[f"heat{number}"] = [
            {"factor": factor, "column": column, "value": round(value, 4), "text": _few_digits(value), "tip": tip}
            for (factor, column), (value, tip) in heat.squares.items()
        ]
        datasets[f"heat{number}_absent"] = [
            {"factor": factor, "column": column} for factor in factors for column in heat.columns if (factor, column) not in heat.squares
        ]
    return finish_chart(alt.hconcat(*panels, spacing=22).resolve_scale(color="independent"), title, datasets)


def _heat_panel(heat: Heat, name: str, factors: list[str], labels: bool) -> Any:
    pixels = _square_pixels(heat)
    x = alt.X("column:N", scale=alt.Scale(domain=heat.columns, paddingInner=0.04), axis=site_axis("top"))
    axis = alt.Axis(labels=labels, ticks=False, domain=False, title=None, labelPadding=6, labelLimit=130)
    y = alt.Y("factor:N", scale=alt.Scale(domain=factors), axis=axis)
    squares = alt.Chart(alt.NamedData(name)).encode(x=x, y=y)
    fill = alt.Color("value:Q", scale=alt.Scale(range=list(heat.colours), **heat.scale), legend=None)
    tips = ["factor:N", alt.Tooltip("column:N", title="site or query"), alt.Tooltip("tip:N", title="value")]
    layers = [
        alt.Chart(alt.NamedData(f"{name}_absent")).mark_rect(color=ABSENT, stroke=PAPER).encode(x=x, y=y),
        squares.mark_rect(stroke=PAPER).encode(color=fill, tooltip=tips),
    ]
    if pixels >= NUMBER_PIXELS:
        top = heat.scale["domain"][1]
        ink = text_colour("value", float(top)) if heat.scale.get("type") != "symlog" else _symlog_colour(top)
        layers.append(squares.mark_text(fontSize=10.5).encode(text="text:N", color=ink))
    heading = alt.TitleParams(heat.heading, **{**HEADING, "frame": "bounds" if labels else "group"})
    width = max(pixels * len(heat.columns), 120)
    return alt.layer(*layers).properties(width=width, height=FACTOR_PIXELS * len(factors), title=heading)


def _square_pixels(heat: Heat) -> int:
    longest = max((len(column) for column in heat.columns), default=1)
    return max(MIN_PIXELS, min(max(38, 7 * longest + 8), HEAT_PIXELS // max(len(heat.columns), 1)))


def _symlog_colour(top: float) -> Any:
    """White text from two thirds of the logarithmic scale on, where squares are dark."""
    return alt.condition(f"datum.value > {round((1 + top) ** 0.66 - 1, 3)}", alt.value(PAPER), alt.value(INK))


def _few_digits(value: float) -> str:
    if abs(value) < 10:
        return f"{round(value, 2) + 0.0:.2f}"
    return f"{value:.1f}" if abs(value) < 100 else f"{value:.0f}"
