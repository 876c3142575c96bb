"""Draws the pictures of docs/concepts: from what theodolite computes, and from the committed records of studies.

`python scripts/draw_concepts.py` writes coverage.png, shadows.png, verdicts.png, ladder.png and laver.png there.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import polars as pl
import torch
from PIL import Image, ImageDraw

from theodolite.models.exported.attention import visible
from theodolite.models.exported.layout import layout_of
from theodolite.questions.coverage import measure_coverage
from theodolite.worlds.shapes.world import Shapes

DOCS = Path(__file__).resolve().parents[1] / "docs"
OUT = DOCS / "concepts"
STRENGTH = 0.9
# What is asked, and the policy that asks it.
POLICIES = {
    "shape of all scenes": "shape",
    "shape where the two agree": "shape:agree",
    "shape where they do not": "shape:odd",
    "shape of all, odd scenes twice": "shape,shape:odd",
    '"is it round?" of all': "shape=round",
}
ARMS = {"agree": "agreeing scenes only", "all": "all scenes", "both": "all scenes, and colour too"}


def draw_coverage() -> alt.Chart:
    """Coverage of shape and what colour could earn, under five policies: no model, exact."""
    world = Shapes().correlate("shape", "colour", STRENGTH)
    rows = []
    for title, policy in POLICIES.items():
        found = measure_coverage(world.prior, world.policy(policy))
        (proxy,) = (bits for name, bits in found.proxy_bits.items() if name.startswith("colour->"))
        rows += [
            {"asked": title, "quantity": "coverage of shape, 0 to 1", "value": found.coverage["shape"]},
            {"asked": title, "quantity": "coverage limit of shape, 0 to 1", "value": found.coverage_limit["shape"]},
            {"asked": title, "quantity": "proxy bits of colour", "value": proxy},
        ]
    base = alt.Chart(pl.DataFrame(rows)).encode(
        y=alt.Y("asked:N", sort=list(POLICIES), title=None, axis=alt.Axis(labelLimit=260)), x=alt.X("value:Q", title=None)
    )
    text = base.mark_text(align="left", dx=4).encode(text=alt.Text("value:Q", format=".3~f"))
    panels = ["coverage of shape, 0 to 1", "coverage limit of shape, 0 to 1", "proxy bits of colour"]
    return (
        (base.mark_bar(color="#4c78a8") + text)
        .properties(width=190, height=130)
        .facet(column=alt.Column("quantity:N", sort=panels, title=None))
        .resolve_scale(x="independent")
    )


def draw_shadows() -> Image.Image:
    """One scene with its two interventions, rendered, beside how often they move the shape answer at strength 0.8, a dot a seed."""
    rows = []
    for run in runs_of("flip"):
        arm = run["facts"]["arm"]
        if run["setup"]["world"] == "shapes" and run["setup"]["strength"] == 0.8 and arm in ARMS:
            for factor in ("colour", "shape"):
                rows.append({"asked": ARMS[arm], "intervention": f"do({factor})", "moved": moved(run, factor, "shape")})
    chart = (
        alt.Chart(pl.DataFrame(rows))
        .mark_circle(size=70, opacity=0.6)
        .encode(
            x=alt.X("moved:Q", scale=alt.Scale(domain=[0, 1]), title="pairs in which the answer about shape changes"),
            y=alt.Y("asked:N", sort=list(ARMS.values()), title=None, axis=alt.Axis(labelLimit=260)),
            color=alt.Color("intervention:N", title=None, scale=alt.Scale(range=["#e45756", "#4c78a8"])),
        )
        .properties(width=330, height=150)
    )
    return side_by_side(pair_picture(), opened(chart))


def draw_verdicts() -> alt.Chart:
    """Every model of the flip study on shapes: how far it reads shape and how far colour leaks, with colour's verdict."""
    rows = [
        {"read": moved(run, "shape", "shape"), "leak": moved(run, "colour", "shape"), "verdict of colour": run["verdicts"]["colour"]}
        for run in runs_of("flip")
        if run["setup"]["world"] == "shapes" and any(cell["query"] == "shape" for cell in run["cells"])
    ]
    order = ["shadow", "entangled", "identified", "inert", "undecided"]
    return (
        alt.Chart(pl.DataFrame(rows))
        .mark_point(size=60, filled=True, opacity=0.65)
        .encode(
            x=alt.X("read:Q", title="read: do(shape) changes the answer about shape", scale=alt.Scale(domain=[-0.03, 1.03], nice=False)),
            y=alt.Y("leak:Q", title="leak: do(colour) changes it", scale=alt.Scale(domain=[-0.03, 1.03], nice=False)),
            color=alt.Color(
                "verdict of colour:N",
                sort=order,
                scale=alt.Scale(domain=order, range=["#e45756", "#f58518", "#4c78a8", "#54a24b", "#9d9da3"]),
            ),
            shape=alt.Shape("verdict of colour:N", sort=order, scale=alt.Scale(domain=order)),
        )
        .properties(width=420, height=300)
    )


def draw_ladder() -> alt.Chart:
    """Probe accuracy by site in a trained SmolLM2 on easy-VQA: one factor that is asked about, one that is not."""
    record = json.loads((DOCS / "results" / "smol" / "plain" / "survey.json").read_text())
    factors = record["inside"]["ladder"]["factors"]
    titles = {
        "colour": f"colour (asked): {factors['colour']['loss']['step']}",
        "column": f"column (not asked): {factors['column']['loss']['step']}",
    }
    rows = []
    for factor, title in titles.items():
        for order, rung in enumerate(factors[factor]["rungs"]):
            for probe, found in (("probe", rung["accuracy"]), ("control task", rung["control"])):
                if found is not None:
                    rows.append({"factor": title, "order": order, "site": rung["site"], "probe": probe, **found})
    data = pl.DataFrame([{key: row[key] for key in ("factor", "order", "site", "probe", "frac", "low", "high")} for row in rows])
    base = alt.Chart(data).encode(
        x=alt.X("site:N", sort=alt.EncodingSortField("order"), title=None, axis=alt.Axis(labelOverlap=True, labelAngle=-60)),
        color=alt.Color("probe:N", sort=["probe", "control task"], title=None, scale=alt.Scale(range=["#4c78a8", "#9d9da3"])),
    )
    band = base.mark_area(opacity=0.2).encode(y=alt.Y("low:Q", title="held-out accuracy", scale=alt.Scale(domain=[0, 1])), y2="high:Q")
    return (band + base.mark_line().encode(y="frac:Q")).properties(width=330, height=190).facet(column=alt.Column("factor:N", title=None))


def draw_laver() -> alt.Chart:
    """Who sees whom under causal and under mixed attention: a picture of four tokens, text, a second picture, text."""
    picture, words = 9, ["what", "is", "it", "?"]
    ids = torch.tensor([[1, *[picture] * 4, 2, 3, *[picture] * 4, 4, 5, 6, 7]])
    grid = torch.tensor([[row, column] for row in range(2) for column in range(2)])
    layout = layout_of(ids, picture, [grid, grid])
    names = ["bos", *(f"A{place}" for place in range(1, 5)), "and", "then", *(f"B{place}" for place in range(1, 5)), *words]
    rows = []
    for title, mixed in (("causal, as pretrained", False), ("mixed, as LaVer has it", True)):
        seen = visible(layout, mixed)[0]
        for query, key in np.argwhere(seen.numpy()):
            kind = "within a picture" if layout.picture[0, query] == layout.picture[0, key] >= 0 else "all else"
            rows.append({"attention": title, "query": names[query], "key": names[key], "pair": kind})
    return (
        alt.Chart(pl.DataFrame(rows))
        .mark_rect(stroke="white")
        .encode(
            x=alt.X("key:N", sort=names, title="is seen", axis=alt.Axis(labelAngle=-60)),
            y=alt.Y("query:N", sort=names, title="sees"),
            color=alt.Color("pair:N", title=None, scale=alt.Scale(domain=["within a picture", "all else"], range=["#e45756", "#9ecae9"])),
        )
        .properties(width=250, height=250)
        .facet(column=alt.Column("attention:N", title=None))
    )


def runs_of(study: str) -> list[dict[str, Any]]:
    """The committed runs of a study."""
    return [json.loads(line) for line in (DOCS / "results" / study / "runs.jsonl").read_text().splitlines()]


def moved(run: dict[str, Any], factor: str, query: str) -> float:
    """The share of pairs in which do(factor) changes the open answer to a query."""
    (cell,) = (cell for cell in run["cells"] if (cell["factor"], cell["query"], cell["form"]) == (factor, query, "open"))
    return float(cell["moved_frac"])


def pair_picture() -> Image.Image:
    """A scene, the same with another colour, the same with another shape."""
    world = Shapes()
    base = world.independent.sample(1, np.random.default_rng(5))
    variants = {
        "scene": base,
        "do(colour)": base.do("colour", (base.of_factor("colour") + 2) % 4),
        "do(shape)": base.do("shape", (base.of_factor("shape") + 1) % 4),
    }
    sheet = Image.new("RGB", (3 * 150 + 10, 190), "white")
    pen = ImageDraw.Draw(sheet)
    for place, (title, scenes) in enumerate(variants.items()):
        sheet.paste(Image.fromarray(world.render(scenes, 140)[0]), (10 + 150 * place, 30))
        pen.text((10 + 150 * place, 8), title, fill="black", font_size=14)
    return sheet


def side_by_side(*pictures: Image.Image) -> Image.Image:
    """Pictures in a row, on white."""
    sheet = Image.new("RGB", (sum(picture.width for picture in pictures), max(picture.height for picture in pictures)), "white")
    left = 0
    for picture in pictures:
        sheet.paste(picture, (left, (sheet.height - picture.height) // 2))
        left += picture.width
    return sheet


def opened(chart: alt.Chart) -> Image.Image:
    """A chart as a picture."""
    held = BytesIO()
    chart.save(held, format="png", ppi=90)
    return Image.open(held).convert("RGB")


def main(names: Sequence[str] = ("coverage", "shadows", "verdicts", "ladder", "laver")) -> None:
    drawings = {"coverage": draw_coverage, "shadows": draw_shadows, "verdicts": draw_verdicts, "ladder": draw_ladder, "laver": draw_laver}
    for name in names:
        drawn = drawings[name]()
        picture = drawn if isinstance(drawn, Image.Image) else opened(drawn)
        picture.quantize(128).save(OUT / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
