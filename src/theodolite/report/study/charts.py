"""Figures of a study as Vega-Lite specifications and as PNG; every number in them is also in a table of the page."""

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
from theodolite.report.vega import GRID, INK, LEAK_MARK, LETTER_PIXELS, PAPER, READ_MARK, Spec, finish_chart
from theodolite.report.words import show_measured

# From the palette of Okabe and Ito: with blue and orange, distinguishable under every common colour blindness.
OTHER_MARKS = ("#009e73", "#cc79a7", "#56b4e9", "#4d4d4d", "#e0a800")
SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross")
ZERO_LINE, DIAGONAL = "#b4b4ae", "#8a8a84"
QUARTERS = [0, 0.25, 0.5, 0.75, 1]
MAX_COLUMNS = 4
# Panel width by the number of panels in a row, on a wide page. A narrower page shrinks panels down to LEAST_PIXELS.
PANEL_PIXELS = {1: 620, 2: 450, 3: 300, 4: 246}
LEAST_PIXELS, PANEL_HEIGHT, BETWEEN, AXIS_PIXELS = 240, 215, 22, 46
NAME_LINE_PIXELS = 13
MAX_LEVELS = 10
MAX_LINES = 3
SLANTED_LABEL_PIXELS, SLANT_DEGREES = 150, 32
SMALL_LETTER_PIXELS = 5.9
LEGEND_LABEL_PIXELS, LEGEND_MARK_PIXELS = 320, 34
# Width of a level that has room for a mark in its middle with a number beside it.
ROOM_PIXELS = 80
PICTURE_PPI = 110
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def write_study_pictures(folder: Path) -> tuple[Path, ...]:
    """Writes NAME.png of each figure of the study in a folder. Raises `BadRecord` without a study or on an unsafe figure name."""
    figures = read_study(folder).figures
    for figure in figures:
        if not SAFE_NAME.fullmatch(figure.name):
            raise BadRecord(f"a figure is called {figure.name!r}, which is no file name; use letters, digits, - and _")
    # All are drawn before any is written.
    pictures = [(folder / f"{figure.name}.png", draw_picture(figure)) for figure in figures]
    for path, data in pictures:
        write_whole(path, data)
    return tuple(path for path, _ in pictures)


def draw_picture(figure: Figure) -> bytes:
    """A figure with its title as PNG bytes, on white."""
    spec = figure_chart(figure, titled=True) | {"background": PAPER, "padding": 12}
    version = "_".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
    return bytes(vl_convert.vegalite_to_png(spec, vl_version=version, ppi=PICTURE_PPI))


def figure_chart(figure: Figure, *, titled: bool = False) -> Spec:
    """A figure's specification: means over seeds with intervals, in panels, with single seeds as small marks behind the means.

    `titled` puts the figure's title above that of the vertical axis. Raises `BadRecord` on a figure without points.
    """
    if not figure.points:
        raise BadRecord(f"figure {figure.name!r} has no points; leave it out of the study")
    panels = list(dict.fromkeys(point.panel for point in figure.points))
    columns = num_columns(len(panels))
    width = PANEL_PIXELS[columns]
    layers = _layers(figure).properties(width=width, height=PANEL_HEIGHT)
    # A panel's name is drawn as a mark: the position of facet headers depends on what is drawn below them.
    facet = alt.Facet("panel:N", sort=panels, header=alt.Header(title=None, labelExpr="''", labelPadding=0, labelFontSize=1))
    chart = layers.facet(facet, columns=columns, spacing={"row": 26, "column": BETWEEN})
    # Panels may have different horizontal axes; they share the vertical one.
    chart = chart.resolve_scale(x="independent", xOffset="independent").resolve_axis(x="independent")
    longest = max(len(point.series) for point in figure.points)
    entry = min(round(longest * LETTER_PIXELS), LEGEND_LABEL_PIXELS) + LEGEND_MARK_PIXELS
    total = columns * (width + BETWEEN) + AXIS_PIXELS
    title = [*wrap(figure.title, round(total / 7.4))] if titled else []
    rows = [row for panel in panels for row in _panel_rows(panel, [point for point in figure.points if point.panel == panel])]
    rows += [row for panel in panels for row in _diagonal_rows(panel, figure)] if figure.diagonal else []
    spec = finish_chart(
        chart, figure.title, {"rows": rows}, heading=_heading(title, figure.y_title, total if titled else LEAST_PIXELS + 90)
    )
    spec["config"]["legend"]["columns"] = max(1, total // entry)
    return spec | {"usermeta": {"fit": _fit(figure, columns, entry)}}


def _fit(figure: Figure, columns: int, entry: int) -> Spec:
    """Sizes in pixels with which charts.js fits panels to the page; slanted labels need more space between panels."""
    over = 0
    levels = [show_x(point.x) for point in figure.points]
    if has_levels(figure) and _level_labels(figure, levels)["labelAngle"]:
        longest = min(max(map(len, levels)) * LETTER_PIXELS, SLANTED_LABEL_PIXELS)
        over = max(0, round(longest * math.cos(math.radians(SLANT_DEGREES)) - LEAST_PIXELS / len(set(levels)) / 2))
    most = [PANEL_PIXELS[number] for number in range(1, columns + 1)]
    return {"most": most, "least": LEAST_PIXELS - over, "between": BETWEEN + over, "axis": AXIS_PIXELS, "entry": entry}


def num_columns(num_panels: int) -> int:
    """Panels in a row: all of up to `MAX_COLUMNS`; more are spread over rows as evenly as possible."""
    rows = -(-num_panels // MAX_COLUMNS)
    return -(-num_panels // rows)


def series_marks(series: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and shape of each series. Read and leak have their colours of the survey page; the others take free colours in order."""
    own = {name: mark for name in series for word, mark in (("read", READ_MARK), ("leak", LEAK_MARK)) if _first_word(name) == word}
    free = [mark for mark in (READ_MARK, LEAK_MARK, *OTHER_MARKS) if mark not in own.values()]
    others = [name for name in series if name not in own]
    colours = own | {name: free[place % len(free)] for place, name in enumerate(others)}
    marks: dict[str, tuple[str, str]] = {}
    for place, name in enumerate(series):
        shapes = [SHAPES[(place + step) % len(SHAPES)] for step in range(len(SHAPES))]
        options = [(colours[name], shape) for shape in shapes]
        marks[name] = next((option for option in options if option not in marks.values()), options[0])
    return marks


def _first_word(name: str) -> str:
    return "".join(re.findall(r"^\w+", name)).lower()


def _heading(title: list[str], y_title: str, pixels: int) -> alt.TitleParams:
    """The title, and below it the title of the vertical axis, horizontal so that it is easy to read."""
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
    """The rows of a panel: its name, and its points, each with the place of its level in the panel."""
    numbers = [point.x for point in points if not isinstance(point.x, str)]
    # Quantities are sorted, since a series may lack some of them; names keep the order of the points.
    levels = [point.x for point in points] if len(numbers) < len(points) else sorted(numbers)
    places = {level: place for place, level in enumerate(dict.fromkeys(map(show_x, levels)))}
    name = {"kind": "name", "panel": panel, "lines": _name(panel)}
    return [name, *(row | {"place": places[row["level"]]} for point in points for row in _rows(point))]


def _diagonal_rows(panel: str, figure: Figure) -> list[Spec]:
    """The ends of the line of equal x and y, within both axes."""
    (left, right), (bottom, top) = _x_ends(figure), _y_ends(figure)
    low, high = max(left, bottom), min(right, top)
    return [{"kind": "equal", "panel": panel, "x": end, "value": end} for end in (low, high) if low < high]


def _rows(point: Point) -> list[Spec]:
    """A row of the mean and a row a seed, all with the same tooltip. Five decimals are finer than a pixel."""
    shared = {
        "panel": point.panel, "series": point.series, "x": point.x, "level": show_x(point.x),
        "mean": show_point(point), "seeds": show_seeds(point.by_seed, point.value, point.low, point.high),
    }  # fmt: skip
    # Without an interval both ends are the value: a missing row could leave a panel's axis without an end.
    ends = (point.value, point.value) if point.low is None or point.high is None else (point.low, point.high)
    mean = {
        **shared,
        "kind": "mean",
        "shown": show_measured(point.value, point.low, point.high)[0],
        "value": round(point.value, 5),
        "low": round(ends[0], 5),
        "high": round(ends[1], 5),
    }
    return [*({**shared, "kind": "seed", "value": round(value, 5)} for value in point.by_seed.values()), mean]


def _name(panel: str) -> list[str]:
    """A panel's name, wrapped to the narrowest panel."""
    return wrap(panel, int(LEAST_PIXELS / LETTER_PIXELS))


def _name_lines(figure: Figure) -> int:
    return max(1, *(len(_name(point.panel)) for point in figure.points))


def _x(figure: Figure, series: Sequence[str]) -> tuple[alt.X, dict[str, alt.XOffset]]:
    """The horizontal axis: a quantity, or levels side by side in the order of the points, with series side by side at each level."""
    quiet: dict[str, Any] = {"grid": False, "ticks": False, "domainColor": ZERO_LINE, "labelPadding": 6, "titlePadding": 8}
    if not has_levels(figure):
        quiet |= {"ticks": True, "tickColor": ZERO_LINE, "tickSize": 4, "tickCount": 5, "labelPadding": 3, "labelFlush": False}
        quiet |= {"values": QUARTERS, "format": ".3~f"} if _x_ends(figure) == [0, 1] else {}
        domain = {"nice": True} if figure.x_range is None else {"domain": _x_ends(figure), "nice": False}
        scale = alt.Scale(zero=False, **domain)
        return alt.X("x:Q", scale=scale, axis=alt.Axis(title=_wrapped(figure.x_title), **quiet)), {}
    levels = list(dict.fromkeys(show_x(point.x) for point in figure.points))
    title = figure.x_title + (" (not to scale)" if not _even([point.x for point in figure.points]) else "")
    axis = alt.Axis(title=_wrapped(title), labelOverlap=False, **quiet, **_level_labels(figure, levels))
    x = alt.X("level:O", sort=alt.EncodingSortField("place", op="min"), scale=alt.Scale(paddingInner=0.28, paddingOuter=0.14), axis=axis)
    one_each = len({(point.panel, show_x(point.x)) for point in figure.points}) == len(figure.points)
    offset = alt.XOffset("series:N", sort=list(series), scale=alt.Scale(domain=list(series), paddingOuter=0.5))
    return x, {} if one_each else {"xOffset": offset}


def has_levels(figure: Figure) -> bool:
    """Whether x is drawn as levels side by side: names, or a quantity of few values joined by lines."""
    values = {point.x for point in figure.points}
    few = figure.x_range is None and figure.joined and len(values) <= MAX_LEVELS
    return few or any(isinstance(value, str) for value in values)


def is_seeded(figure: Figure) -> bool:
    """Whether the figure has values of single seeds behind its means."""
    return any(point.by_seed for point in figure.points)


def _has_room(figure: Figure) -> bool:
    """Whether numbers can be written beside the means: levels are names, one mark a level, with room in the narrowest panel."""
    if figure.joined or not all(isinstance(point.x, str) for point in figure.points):
        return False
    levels = [(point.panel, point.x) for point in figure.points]
    most = max(Counter(panel for panel, _ in levels).values())
    return len(set(levels)) == len(levels) and LEAST_PIXELS / most >= ROOM_PIXELS


def _even(values: Sequence[str | float]) -> bool:
    """Whether levels side by side are to scale, with equal steps; true for names."""
    numbers = sorted({value for value in values if not isinstance(value, str)})
    steps = [after - before for before, after in pairwise(numbers)]
    return not steps or max(steps) - min(steps) < 1e-6 * max(steps)


def _level_labels(figure: Figure, levels: Sequence[str]) -> Spec:
    """Axis label options: horizontal where labels fit into the narrowest panel, wrapped if needed; else slanted and cut."""
    most = max(
        len({show_x(point.x) for point in figure.points if point.panel == panel}) for panel in {point.panel for point in figure.points}
    )
    letters = max(1, _letters(LEAST_PIXELS / most))
    if all(len(level) <= letters for level in levels):
        return {"labelAngle": 0}
    lines = {level: wrap(level, letters, break_long_words=False) or [""] for level in levels}
    deep = max(map(len, lines.values()))
    # The same height below all panels, so that their titles align.
    if deep <= MAX_LINES and all(len(line) <= letters for wrapped in lines.values() for line in wrapped):
        return {"labelAngle": 0, "labelExpr": _lookup(lines, "datum.label"), "minExtent": 14 * deep + 8}
    longest = min(max(map(len, levels)) * LETTER_PIXELS, SLANTED_LABEL_PIXELS)
    # They slant to the right: to the left they would push the labels of the vertical axis away from it.
    slanted = {"labelAngle": SLANT_DEGREES, "labelAlign": "left", "labelBaseline": "middle", "labelLimit": SLANTED_LABEL_PIXELS}
    return slanted | {"minExtent": round(longest * math.sin(math.radians(SLANT_DEGREES))) + 16}


def _letters(pixels: int | float) -> int:
    """Number of letters of an axis label that fit."""
    return int(pixels / SMALL_LETTER_PIXELS)


def _y(figure: Figure, field: str = "value") -> alt.Y:
    """The vertical axis. The figure's range clips intervals, but no mean and no seed."""
    values: Spec = {"values": QUARTERS} if figure.y_range and _y_ends(figure) == [0, 1] else {"tickCount": 5}
    limits: Spec = {"nice": True} if figure.y_range is None else {"nice": False, "clamp": True}
    scale = alt.Scale(domain=_y_ends(figure), zero=False, **limits)
    line: Any = {"condition": {"test": "datum.value === 0", "value": ZERO_LINE}, "value": GRID}
    axis = alt.Axis(title=None, domain=False, ticks=False, gridColor=line, labelPadding=6, format=".3~f", **values)
    return alt.Y(f"{field}:Q", scale=scale, axis=axis)


def _y_ends(figure: Figure) -> list[float]:
    """Ends of the vertical axis before rounding: the figure's range, widened to all means and seeds; else those of all that is drawn."""
    values = [value for point in figure.points for value in (point.value, *point.by_seed.values())]
    if figure.y_range is None:
        values += [end for point in figure.points for end in (point.low, point.high) if end is not None]
    return _ends([*values, *(figure.y_range or ())])


def _x_ends(figure: Figure) -> list[float]:
    """Ends of a horizontal axis that is a quantity: the figure's range, widened to all points."""
    return _ends([*(float(point.x) for point in figure.points), *(figure.x_range or ())])


def _ends(values: Sequence[float]) -> list[float]:
    return [min(values), max(values)]


def _wrapped(text: str) -> list[str]:
    return wrap(text, _letters(LEAST_PIXELS + BETWEEN))


def _lookup(texts: dict[str, list[str]], key: str) -> str:
    """A Vega expression for the lines of the text `key`."""
    return f"({json.dumps(texts, ensure_ascii=True)})[{key}]"
