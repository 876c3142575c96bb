"""The figures of a study as Vega-Lite specifications (Altair) and as pictures; every number in them stands in a table of its page too."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from textwrap import wrap
from typing import Any

import altair as alt
import vl_convert

from theodolite.records.folder import write_whole
from theodolite.records.study import Figure, Point, read_study
from theodolite.records.survey import BadRecord
from theodolite.report.study.words import show_point, show_seeds, show_x
from theodolite.report.survey.charts import INK, LEAK_MARK, LETTER_PIXELS, PAPER, READ_MARK, Spec, finish_chart
from theodolite.report.survey.words import show_measured

# Blue and orange are those of the survey's page; with these of Okabe and Ito they stay apart under every common colour blindness.
OTHER_MARKS = ("#009e73", "#cc79a7", "#56b4e9", "#4d4d4d", "#e0a800")
SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross")
GRID, ZERO_LINE, DIAGONAL = "#ececE8", "#b4b4ae", "#8a8a84"
QUARTERS = [0, 0.25, 0.5, 0.75, 1]
MAX_COLUMNS = 4
# By the number of panels in a row: as wide as the page allows. A page that is narrower shares what it has, down to the least.
PANEL_PIXELS = {1: 620, 2: 450, 3: 300, 4: 246}
LEAST_PIXELS, PANEL_HEIGHT, BETWEEN, AXIS_PIXELS = 240, 215, 22, 46
NAME_LINE_PIXELS = 13
MAX_LEVELS = 10
MAX_LINES = 3
SLANTED_LABEL_PIXELS, SLANT_DEGREES = 150, 32
SMALL_LETTER_PIXELS = 5.9
LEGEND_LABEL_PIXELS, LEGEND_MARK_PIXELS = 320, 34
# What a level needs for a mark in its middle with a number beside it.
ROOM_PIXELS = 80
PICTURE_PPI = 110
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def write_study_pictures(folder: Path) -> tuple[Path, ...]:
    """Writes a picture NAME.png of each figure of the study in a folder. Raises `BadRecord` on no study, or a name that is no file's."""
    figures = read_study(folder).figures
    for figure in figures:
        if not SAFE_NAME.fullmatch(figure.name):
            raise BadRecord(f"a figure is called {figure.name!r}, which is no file name; use letters, digits, - and _")
    # All are drawn before one is written.
    drawn = [(folder / f"{figure.name}.png", draw_picture(figure)) for figure in figures]
    for path, data in drawn:
        write_whole(path, data)
    return tuple(path for path, _ in drawn)


def draw_picture(figure: Figure) -> bytes:
    """A figure as PNG, on white, with its title."""
    spec = figure_chart(figure, titled=True) | {"background": PAPER, "padding": 12}
    version = "_".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
    return bytes(vl_convert.vegalite_to_png(spec, vl_version=version, ppi=PICTURE_PPI))


def figure_chart(figure: Figure, *, titled: bool = False) -> Spec:
    """A figure's specification: means over seeds with intervals, a panel for each of its panels, seeds as small marks behind the means.

    `titled` puts the figure's title above it; else the vertical axis alone is named there. Raises `BadRecord` on a figure without points.
    """
    if not figure.points:
        raise BadRecord(f"figure {figure.name!r} has no points; leave it out of the study")
    panels = list(dict.fromkeys(point.panel for point in figure.points))
    columns = num_columns(len(panels))
    wide = PANEL_PIXELS[columns]
    layers = _layers(figure).properties(width=wide, height=PANEL_HEIGHT)
    # A panel's name is drawn in the panel: headers of a facet stand higher or lower with what is drawn below them.
    facet = alt.Facet("panel:N", sort=panels, header=alt.Header(title=None, labelExpr="''", labelPadding=0, labelFontSize=1))
    chart = layers.facet(facet, columns=columns, spacing={"row": 26, "column": BETWEEN})
    # Panels may stand for different things along the horizontal axis; the vertical one is theirs together.
    chart = chart.resolve_scale(x="independent", xOffset="independent").resolve_axis(x="independent")
    longest = max(len(point.series) for point in figure.points)
    entry = min(round(longest * LETTER_PIXELS), LEGEND_LABEL_PIXELS) + LEGEND_MARK_PIXELS
    whole = columns * (wide + BETWEEN) + AXIS_PIXELS
    title = [*wrap(figure.title, round(whole / 7.4))] if titled else []
    rows = [row for panel in panels for row in _panel_rows(panel, [point for point in figure.points if point.panel == panel])]
    rows += [row for panel in panels for row in _diagonal_rows(panel, figure)] if figure.diagonal else []
    spec = finish_chart(
        chart, figure.title, {"rows": rows}, heading=_heading(title, figure.y_title, whole if titled else LEAST_PIXELS + 90)
    )
    spec["config"]["legend"]["columns"] = max(1, whole // entry)
    return spec | {"usermeta": {"fit": _fit(figure, columns, entry)}}


def _fit(figure: Figure, columns: int, entry: int) -> Spec:
    """What a page needs to know to give panels the width that it has; slanted labels reach into the space between them."""
    over = 0
    levels = [show_x(point.x) for point in figure.points]
    if has_levels(figure) and _level_labels(figure, levels)["labelAngle"]:
        longest = min(max(map(len, levels)) * LETTER_PIXELS, SLANTED_LABEL_PIXELS)
        over = max(0, round(longest * math.cos(math.radians(SLANT_DEGREES)) - LEAST_PIXELS / len(set(levels)) / 2))
    most = [PANEL_PIXELS[number] for number in range(1, columns + 1)]
    return {"most": most, "least": LEAST_PIXELS - over, "between": BETWEEN + over, "beside": AXIS_PIXELS, "entry": entry}


def num_columns(num_panels: int) -> int:
    """How many panels stand side by side: all up to four; more are spread over rows as evenly as may be."""
    rows = -(-num_panels // MAX_COLUMNS)
    return -(-num_panels // rows)


def series_marks(series: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and shape of each series. Read and leak have the colours that they have on every page; the others follow in order."""
    own = {name: mark for name in series for word, mark in (("read", READ_MARK), ("leak", LEAK_MARK)) if _first_word(name) == word}
    free = [mark for mark in (READ_MARK, LEAK_MARK, *OTHER_MARKS) if mark not in own.values()]
    others = [name for name in series if name not in own]
    colours = own | {name: free[place % len(free)] for place, name in enumerate(others)}
    found: dict[str, tuple[str, str]] = {}
    for place, name in enumerate(series):
        shapes = [SHAPES[(place + step) % len(SHAPES)] for step in range(len(SHAPES))]
        marks = [(colours[name], shape) for shape in shapes]
        found[name] = next((mark for mark in marks if mark not in found.values()), marks[0])
    return found


def _first_word(name: str) -> str:
    return "".join(re.findall(r"^\w+", name)).lower()


def _heading(title: list[str], y_title: str, pixels: int) -> alt.TitleParams:
    """The title, and below it, level and at the left, what the vertical axis is: nobody has to turn the head."""
    below = wrap(y_title, round(pixels / LETTER_PIXELS))
    small: dict[str, Any] = {"anchor": "start", "color": INK, "offset": 8}
    if not title:
        return alt.TitleParams(below, fontSize=11.5, fontWeight="normal", **small)
    return alt.TitleParams(title, subtitle=below, fontSize=14, fontWeight=600, subtitleFontSize=12, subtitlePadding=5, **small)


def _layers(figure: Figure) -> alt.LayerChart:
    series = list(dict.fromkeys(point.series for point in figure.points))
    marks = series_marks(series)
    x, dodge = _x(figure, series)
    y = _y(figure)
    legend = None
    if len(series) > 1 and any(point.series != point.panel for point in figure.points):
        legend = alt.Legend(
            title=None, orient="bottom", labelLimit=LEGEND_LABEL_PIXELS, symbolSize=70, symbolStrokeWidth=0, symbolOpacity=1, offset=14
        )
    colour = alt.Color("series:N", scale=alt.Scale(domain=series, range=[marks[name][0] for name in series]), legend=legend)
    shape = alt.Shape("series:N", scale=alt.Scale(domain=series, range=[marks[name][1] for name in series]), legend=legend)
    heads = TIPS if is_seeded(figure) else POOLED_TIPS
    tips = [alt.Tooltip(f"{name}:N", title=head) for name, head in heads.items()]
    base = alt.Chart().encode(x=x, color=colour, tooltip=tips, **dodge)
    means = base.transform_filter("datum.kind === 'mean'")
    lines = [means.mark_line(strokeWidth=1.6, opacity=0.75).encode(y=y, tooltip=alt.TooltipValue(None))] if figure.joined else []
    if figure.diagonal:
        equal = alt.Chart().transform_filter("datum.kind === 'equal'").encode(x=x, y=y)
        lines.insert(0, equal.mark_line(strokeWidth=1.2, strokeDash=[4, 4], color=DIAGONAL))
    numbers = [means.mark_text(align="left", dx=9, fontSize=11, color=INK).encode(y=y, text="shown:N", color=alt.value(INK))]
    return alt.layer(
        *lines,
        base.transform_filter("datum.kind === 'seed'").mark_point(shape="circle", size=24, filled=True, opacity=0.34).encode(y=y),
        means.mark_rule(strokeWidth=1.6).encode(y=_y(figure, "low"), y2="high:Q"),
        means.mark_point(size=58, filled=True, opacity=1, stroke=PAPER, strokeWidth=0.8).encode(y=y, shape=shape),
        alt.Chart()
        .transform_filter("datum.kind === 'name'")
        .mark_text(align="left", baseline="line-bottom", fontSize=12, fontWeight=600, color=INK)
        .encode(x=alt.XValue(0), y=alt.YValue(4 - NAME_LINE_PIXELS * _name_lines(figure)), text="lines:N"),
        *(numbers if _has_room(figure) else []),
        data=alt.NamedData("rows"),
    )


TIPS = {"panel": "panel", "series": "series", "level": "at", "mean": "mean over seeds", "seeds": "each seed"}
POOLED_TIPS = {"panel": "panel", "series": "series", "level": "at", "mean": "value"}


def _panel_rows(panel: str, points: Sequence[Point]) -> list[Spec]:
    """The panel's name, and the rows of its points, each with the place of its level among those of the panel."""
    numbers = [point.x for point in points if not isinstance(point.x, str)]
    # Quantities stand in their order, whichever series has the first of them; names in that of the points.
    levels = [point.x for point in points] if len(numbers) < len(points) else sorted(numbers)
    places = {level: place for place, level in enumerate(dict.fromkeys(map(show_x, levels)))}
    name = {"kind": "name", "panel": panel, "lines": _name(panel)}
    return [name, *(row | {"place": places[row["level"]]} for point in points for row in _rows(point))]


def _diagonal_rows(panel: str, figure: Figure) -> list[Spec]:
    """The ends of the line of equal x and y, as far as both axes reach."""
    (left, right), (bottom, top) = _x_ends(figure), _y_ends(figure)
    low, high = max(left, bottom), min(right, top)
    return [{"kind": "equal", "panel": panel, "x": end, "value": end} for end in (low, high) if low < high]


def _rows(point: Point) -> list[Spec]:
    """A row of the mean and one of each seed; all say the same when pointed at. Five decimals are finer than a pixel."""
    told = {
        "panel": point.panel, "series": point.series, "x": point.x, "level": show_x(point.x),
        "mean": show_point(point), "seeds": show_seeds(point.by_seed, point.value, point.low, point.high),
    }  # fmt: skip
    # Without an interval its ends meet, and nothing is drawn: rows that were left out could leave a panel's axis without an end.
    ends = (point.value, point.value) if point.low is None or point.high is None else (point.low, point.high)
    mean = {
        **told,
        "kind": "mean",
        "shown": show_measured(point.value, point.low, point.high)[0],
        "value": round(point.value, 5),
        "low": round(ends[0], 5),
        "high": round(ends[1], 5),
    }
    return [*({**told, "kind": "seed", "value": round(value, 5)} for value in point.by_seed.values()), mean]


def _name(panel: str) -> list[str]:
    """A panel's name on lines that the narrowest panel has room for."""
    return wrap(panel, int(LEAST_PIXELS / LETTER_PIXELS))


def _name_lines(figure: Figure) -> int:
    return max(1, *(len(_name(point.panel)) for point in figure.points))


def _x(figure: Figure, series: Sequence[str]) -> tuple[alt.X, dict[str, alt.XOffset]]:
    """The horizontal axis: a quantity, or levels side by side in the order of the points, on each of which series stand apart."""
    quiet: dict[str, Any] = {"grid": False, "ticks": False, "domainColor": ZERO_LINE, "labelPadding": 6, "titlePadding": 8}
    if not has_levels(figure):
        quiet |= {"ticks": True, "tickColor": ZERO_LINE, "tickSize": 4, "tickCount": 5, "labelPadding": 3, "labelFlush": False}
        quiet |= {"values": QUARTERS, "format": ".3~f"} if _x_ends(figure) == [0, 1] else {}
        given = {"nice": True} if figure.x_range is None else {"domain": _x_ends(figure), "nice": False}
        scale = alt.Scale(zero=False, **given)
        return alt.X("x:Q", scale=scale, axis=alt.Axis(title=_wrapped(figure.x_title), **quiet)), {}
    levels = list(dict.fromkeys(show_x(point.x) for point in figure.points))
    title = figure.x_title + (" (not to scale)" if not _even([point.x for point in figure.points]) else "")
    axis = alt.Axis(title=_wrapped(title), labelOverlap=False, **quiet, **_level_labels(figure, levels))
    x = alt.X("level:O", sort=alt.EncodingSortField("place", op="min"), scale=alt.Scale(paddingInner=0.28, paddingOuter=0.14), axis=axis)
    alone = len({(point.panel, show_x(point.x)) for point in figure.points}) == len(figure.points)
    offset = alt.XOffset("series:N", sort=list(series), scale=alt.Scale(domain=list(series), paddingOuter=0.5))
    return x, {} if alone else {"xOffset": offset}


def has_levels(figure: Figure) -> bool:
    """Whether points stand at levels side by side: names, or the few values of a quantity that lines join."""
    values = {point.x for point in figure.points}
    few = figure.x_range is None and figure.joined and len(values) <= MAX_LEVELS
    return few or any(isinstance(value, str) for value in values)


def is_seeded(figure: Figure) -> bool:
    """Whether its values are means over seeds, which can be told one by one."""
    return any(point.by_seed for point in figure.points)


def _has_room(figure: Figure) -> bool:
    """Whether each mean's number can stand beside it: names side by side, one mark at each, with room for it in the narrowest panel."""
    if figure.joined or not all(isinstance(point.x, str) for point in figure.points):
        return False
    levels = [(point.panel, point.x) for point in figure.points]
    most = max(Counter(panel for panel, _ in levels).values())
    return len(set(levels)) == len(levels) and LEAST_PIXELS / most >= ROOM_PIXELS


def _even(values: Sequence[str | float]) -> bool:
    """Whether levels side by side are true to scale; names have none."""
    numbers = sorted({value for value in values if not isinstance(value, str)})
    steps = [after - before for before, after in pairwise(numbers)]
    return not steps or max(steps) - min(steps) < 1e-6 * max(steps)


def _level_labels(figure: Figure, levels: Sequence[str]) -> Spec:
    """Labels level where they fit into the narrowest panel, on lines of their own if need be; else slanted and cut."""
    most = max(
        len({show_x(point.x) for point in figure.points if point.panel == panel}) for panel in {point.panel for point in figure.points}
    )
    letters = max(1, _letters(LEAST_PIXELS / most))
    if all(len(level) <= letters for level in levels):
        return {"labelAngle": 0}
    lines = {level: wrap(level, letters, break_long_words=False) or [""] for level in levels}
    deep = max(map(len, lines.values()))
    # The same room below all panels, so that their titles stand level.
    if deep <= MAX_LINES and all(len(line) <= letters for found in lines.values() for line in found):
        return {"labelAngle": 0, "labelExpr": _lookup(lines, "datum.label"), "minExtent": 14 * deep + 8}
    longest = min(max(map(len, levels)) * LETTER_PIXELS, SLANTED_LABEL_PIXELS)
    # They run to the right: to the left they would push the vertical axis' labels away from it.
    slanted = {"labelAngle": SLANT_DEGREES, "labelAlign": "left", "labelBaseline": "middle", "labelLimit": SLANTED_LABEL_PIXELS}
    return slanted | {"minExtent": round(longest * math.sin(math.radians(SLANT_DEGREES))) + 16}


def _letters(pixels: int | float) -> int:
    """How many letters of an axis' size fit."""
    return int(pixels / SMALL_LETTER_PIXELS)


def _y(figure: Figure, field: str = "value") -> alt.Y:
    """The vertical axis. Ends that the figure gives are kept, and intervals end there; no mean and no seed is ever left out."""
    values: Spec = {"values": QUARTERS} if figure.y_range and _y_ends(figure) == [0, 1] else {"tickCount": 5}
    kept: Spec = {"nice": True} if figure.y_range is None else {"nice": False, "clamp": True}
    scale = alt.Scale(domain=_y_ends(figure), zero=False, **kept)
    line: Any = {"condition": {"test": "datum.value === 0", "value": ZERO_LINE}, "value": GRID}
    axis = alt.Axis(title=None, domain=False, ticks=False, gridColor=line, labelPadding=6, format=".3~f", **values)
    return alt.Y(f"{field}:Q", scale=scale, axis=axis)


def _y_ends(figure: Figure) -> list[float]:
    """Ends of the vertical axis before they are rounded: those of the figure, wider for a mean or a seed; else of all that is drawn."""
    shown = [value for point in figure.points for value in (point.value, *point.by_seed.values())]
    if figure.y_range is None:
        shown += [end for point in figure.points for end in (point.low, point.high) if end is not None]
    return _ends([*shown, *(figure.y_range or ())])


def _x_ends(figure: Figure) -> list[float]:
    """Ends of a horizontal axis that is a quantity: those of the figure, wider for a point that lies beyond them."""
    return _ends([*(float(point.x) for point in figure.points), *(figure.x_range or ())])


def _ends(values: Sequence[float]) -> list[float]:
    return [min(values), max(values)]


def _wrapped(text: str) -> list[str]:
    return wrap(text, _letters(LEAST_PIXELS + BETWEEN))


def _lookup(texts: dict[str, list[str]], key: str) -> str:
    """A Vega expression that gives the lines of a text."""
    return f"({json.dumps(texts, ensure_ascii=True)})[{key}]"
