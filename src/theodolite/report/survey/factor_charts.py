"""Charts of factors by site or by question: what lies in a model as blue squares, and beside it what is caused, by patch and erasure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import altair as alt

from theodolite.records.part import Estimate, Rate
from theodolite.report.survey.causal_counterparts import CausalCounterpart, depth
from theodolite.report.survey.charts import ABSENT, INK, PAPER, READ_COLOURS, Spec, finish_chart, text_colour
from theodolite.report.survey.inside import InsideView
from theodolite.report.survey.sites import CAUSAL_COLOURS, HEADING, lack, short_site, site_axis
from theodolite.report.survey.words import show_exact, tell, value_of

FACTOR_PIXELS = 21
# Two heats by layer and two causal ones fit beside each other.
HEAT_PIXELS, MIN_PIXELS = 280, 7
# Below this width a number does not fit into a square.
NUMBER_PIXELS = 34


@dataclass
class Heat:
    """One table of squares: factors down, columns across."""

    heading: str
    columns: list[str]
    colours: tuple[str, str]
    scale: dict[str, Any] = field(default_factory=lambda: {"domain": [0, 1], "clamp": True})
    squares: dict[tuple[str, str], tuple[float, str]] = field(default_factory=dict)

    def add(self, factor: str, column: str, found: Rate | Estimate | None, note: str = "") -> None:
        if found is not None:
            self.squares[factor, column] = (value_of(found), tell(found) + (f" ({note})" if note else ""))


def geometry_chart(view: InsideView) -> Spec | None:
    """Consistency of a factor's direction across scenes, by factor and site under both inner products, beside patch and erase."""
    if not view.geometry:
        return None
    sites = [short_site(site) for site in sorted({row.site for row in view.geometry}, key=depth)]
    plain, read = Heat("consistency, Euclidean", sites, READ_COLOURS), Heat("consistency, weighted by words", sites, READ_COLOURS)
    for row in view.geometry:
        for heat, found in ((plain, row.found.euclidean), (read, row.found.causal)):
            if found is not None and found.consistency is not None:
                note = f"chance {show_exact(found.consistency.chance)}, p {found.consistency.p_adjusted:.3f}"
                heat.add(row.factor, short_site(row.site), found.consistency.estimate, note)
    factors = list(dict.fromkeys(row.factor for row in view.geometry))
    heats = [plain, read, *_caused(view, factors, ("patch", "erase"))]
    return _heat_chart(f"Factor directions of {view.arm.named}{lack(view)}", heats, factors)


def fisher_chart(view: InsideView) -> Spec | None:
    """Energy of each query's answers along each factor's displacement (random directions: 1), beside patch at the nearest site."""
    if not view.fisher:
        return None
    queries = list(dict.fromkeys(row.found.query for row in view.fisher))
    factors = list(dict.fromkeys(row.factor for row in view.fisher))
    top = max((row.found.energy.value for row in view.fisher if row.found.energy is not None), default=1.0)
    # Energies span powers of ten, and may be 0.
    scale = {"type": "symlog", "constant": 1, "domain": [0, max(top, 10.0)], "clamp": True}
    energy = Heat("energy: answers about ... feel the factor", queries, READ_COLOURS, scale)
    moved = Heat("causal: answers about ... moved by a patch", queries, CAUSAL_COLOURS)
    for row in view.fisher:
        energy.add(row.factor, row.found.query, row.found.energy)
        for partner in row.partners:
            moved.add(row.factor, row.found.query, partner.found, f"at {partner.site}")
    heats = [energy, *([moved] if view.causal is not None else [])]
    return _heat_chart(f"Fisher information of {view.arm.named}{lack(view)}", heats, factors)


def identifiability_chart(view: InsideView) -> Spec | None:
    """Nonlinear and linear R2 by factor and site, beside erasure."""
    if not view.blocks:
        return None
    sites = [short_site(site) for site in sorted({row.site for row in view.blocks}, key=depth)]
    linear, curved = Heat("linear R\u00b2", sites, READ_COLOURS), Heat("nonlinear R\u00b2", sites, READ_COLOURS)
    for row in view.blocks:
        linear.add(row.factor, short_site(row.site), row.found.linear_r2)
        curved.add(row.factor, short_site(row.site), row.found.nonlinear_r2)
    factors = list(dict.fromkeys(row.factor for row in view.blocks))
    heats = [linear, curved, *_caused(view, factors, ("erase",))]
    return _heat_chart(f"Identifiability of {view.arm.named}{lack(view)}", heats, factors)


def _caused(view: InsideView, factors: Sequence[str], kinds: Sequence[str]) -> list[Heat]:
    """Causal numbers by factor and the site where they were measured."""
    causal = view.causal
    if causal is None:
        return []
    headings = {"patch": "causal: answers moved by a patch", "erase": "causal: right answers lost to erasure"}
    finders: dict[str, Callable[[], list[tuple[str, CausalCounterpart]]]] = {"patch": view.patched, "erase": view.erased}
    heats = []
    for kind in kinds:
        heat = Heat(headings[kind], [short_site(site) for site in causal.subspace_sites], CAUSAL_COLOURS)
        for factor, partner in finders[kind]():
            if factor in factors and partner.site is not None:
                heat.add(factor, short_site(partner.site), partner.found, partner.note)
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
    tips = ["factor:N", alt.Tooltip("column:N", title="at or about"), alt.Tooltip("tip:N", title="value")]
    layers = [
        alt.Chart(alt.NamedData(f"{name}_absent")).mark_rect(color=ABSENT, stroke=PAPER).encode(x=x, y=y),
        squares.mark_rect(stroke=PAPER).encode(color=fill, tooltip=tips),
    ]
    if pixels >= NUMBER_PIXELS:
        ink = text_colour("value") if heat.scale.get("type") != "symlog" else _symlog_colour(heat.scale["domain"][1])
        layers.append(squares.mark_text(fontSize=10.5).encode(text="text:N", color=ink))
    heading = alt.TitleParams(heat.heading, **{**HEADING, "frame": "bounds" if labels else "group"})
    width = max(pixels * len(heat.columns), 120)
    return alt.layer(*layers).properties(width=width, height=FACTOR_PIXELS * len(factors), title=heading)


def _square_pixels(heat: Heat) -> int:
    longest = max((len(column) for column in heat.columns), default=1)
    return max(MIN_PIXELS, min(max(38, 7 * longest + 8), HEAT_PIXELS // max(len(heat.columns), 1)))


def _symlog_colour(top: float) -> Any:
    """White text from where the scale is dark: at two thirds of its logarithm."""
    return alt.condition(f"datum.value > {round((1 + top) ** 0.66 - 1, 3)}", alt.value(PAPER), alt.value(INK))


def _few_digits(value: float) -> str:
    if abs(value) < 10:
        return f"{round(value, 2) + 0.0:.2f}"
    return f"{value:.1f}" if abs(value) < 100 else f"{value:.0f}"
