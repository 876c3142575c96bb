"""Axis labels of a model's sites, and the colours of causal and similarity numbers, for charts of a model's inside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

from theodolite.report.survey.causal_counterparts import NO_CAUSAL, depth
from theodolite.report.survey.inside import InsideView
from theodolite.report.vega import INK

# Causal numbers have a colour of their own; similarity numbers are blue.
CAUSAL_COLOURS = ("#fbeff5", "#8a1250")
CAUSAL_MARK, SECOND_CAUSAL_MARK, BASE_MARK = "#b0206a", "#5d0f3c", "#8b929a"
SHORT_SITES = {"encoder": "enc", "connector": "con", "answer": "ans", "spoken": "said"}
HEADING: dict[str, Any] = {"fontSize": 12, "fontWeight": "normal", "anchor": "start", "color": INK, "frame": "bounds"}


def short_site(site: str) -> str:
    """Axis label of a site: enc, con, 1 to L for layers, ans, said."""
    return SHORT_SITES.get(site, site.removeprefix("layer."))


def lack(view: InsideView) -> str:
    """Addition to a chart's title where no causal numbers were measured; else empty."""
    return "" if view.causal is not None else f" ({NO_CAUSAL})"


def short_sites(sites: Sequence[str]) -> list[str]:
    """Axis labels in the order of the model."""
    return [short_site(site) for site in sorted(dict.fromkeys(sites), key=lambda site: (depth(site), site == "spoken"))]


def site_axis(orient: str = "bottom") -> alt.Axis:
    return alt.Axis(
        orient=orient,
        labelAngle=0,
        labelOverlap="greedy",
        labelSeparation=3,
        ticks=False,
        domain=False,
        title=None,
        grid=False,
        labelPadding=4,
        labelFontSize=10.5,
    )
