"""Draws docs/results/smol.png from the records beside it: how alike a picture's vision tokens are at each site, before and after."""

from __future__ import annotations

import json
from pathlib import Path

import altair as alt
import polars as pl

HERE = Path(__file__).resolve().parents[1] / "docs" / "results" / "smol"
MODELS = {"aligned": "aligned only", "plain": "trained, no visual loss", "laver": "trained with LaVer"}


def likeness_rows() -> list[dict[str, object]]:
    """One row a model and site: mean cosine of a picture's tokens with its interval, and their effective rank."""
    rows: list[dict[str, object]] = []
    for name, title in MODELS.items():
        sites = json.loads((HERE / name / "survey.json").read_text())["inside"]["likeness"]["sites"]
        for order, (site, found) in enumerate(sites.items()):
            cosine = found["cosine"]
            rows.append(
                {"model": title, "order": order, "site": site, "cos": cosine["value"], "low": cosine["low"], "high": cosine["high"]}
            )
    return rows


if __name__ == "__main__":
    base = alt.Chart(pl.DataFrame(likeness_rows())).encode(
        x=alt.X("site:N", sort=alt.EncodingSortField("order"), title="site"),
        color=alt.Color("model:N", sort=list(MODELS.values()), title=None),
    )
    band = base.mark_area(opacity=0.2).encode(y=alt.Y("low:Q", title="mean cosine of a picture's vision tokens"), y2="high:Q")
    chart = (band + base.mark_line(point=True).encode(y="cos:Q")).properties(width=760, height=280)
    chart.save(str(HERE.with_suffix(".png")), ppi=110)
