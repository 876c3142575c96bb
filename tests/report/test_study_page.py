"""The page and the pictures of a study: what the records say, all of it, and nothing from outside."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator
from html import unescape
from io import BytesIO, StringIO
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import vl_convert
from PIL import Image
from rich.console import Console

from helpers import REPOSITORY
from helpers import study_records as made
from helpers.live_browser import open_page
from helpers.parsed_page import Page
from theodolite.records.errors import BadInput
from theodolite.records.study import Figure, Point, StudyRecord
from theodolite.records.survey import BadRecord
from theodolite.report.study.charts import figure_chart, num_columns, series_marks, write_study_pictures
from theodolite.report.study.page import build_study_page, matched_runs, write_study_page
from theodolite.report.study.words import claims_table, claims_text, put_between, result_documents, results_text, show_span

SCRIPT = REPOSITORY / "scripts" / "describe_results.py"
HOSTILE = "</script><script>console.error('owned')</script><img src=x onerror=\"console.error('owned')\"> & 'a', `b`|*c* {{ 7*7 }}"
POLICY = "shape:agree*0.0225225,shape:odd*0.833333,shape=round&colour=red,row:odd,row,size=large,column:all,sheen:agree&shape=round"
STUDY = made.study()
RUNS = made.grid_runs(seeds=(0, 1))


def hostile() -> StudyRecord:
    names = (HOSTILE, POLICY, "plain")
    points = [
        made.point(panel, series, level, {0: 0.1 * place, 1: 0.12 * place})
        for panel in (HOSTILE, "")
        for series in names
        for place, level in enumerate((HOSTILE, POLICY, 'a "quoted", level\\'))
    ]
    figure = made.figure("odd", points, title=HOSTILE, caption=HOSTILE, x_title=HOSTILE, y_title=HOSTILE, y_range=None, joined=False)
    claim = made.claim(HOSTILE, statement=HOSTILE, rule=HOSTILE, unit=HOSTILE, source=POLICY)
    return made.study(
        question=HOSTILE,
        command=f"theodolite study '{HOSTILE}'",
        claims=(claim,),
        figures=(figure,),
        notes=(HOSTILE,),
        num_missing=2,
        quick=True,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = made.write(tmp_path_factory.mktemp("study") / "flip", STUDY, RUNS)
    write_study_page(home)
    return home


@pytest.fixture(scope="module")
def source(folder: Path) -> Page:
    return Page((folder / "index.html").read_text(encoding="utf-8"))


# The page


def test_the_claims_of_the_page_are_those_of_the_record_to_the_last_digit(source: Page) -> None:
    rows = [row for row in source.of("tr") if "data-claim" in row]
    assert [row["data-claim"] for row in rows] == [claim.name for claim in STUDY.claims]
    for row, claim in zip(rows, STUDY.claims, strict=True):
        numbers = [claim.effect, claim.low, claim.high]
        assert [row[f"data-{name}"] for name in ("effect", "low", "high")] == ["" if number is None else repr(number) for number in numbers]
        assert (row["data-finding"], int(row["data-num-independent"]), int(row["data-num-runs"])) == (
            claim.finding,
            claim.num_independent,
            claim.num_runs,
        )
    chips = [found["class"] for found in source.of("span") if found.get("class") in ("chip holds", "chip fails", "chip undecided")]
    assert chips == [f"chip {claim.finding}" for claim in STUDY.claims]


def test_effects_rules_seeds_and_sources_are_there_to_read(source: Page) -> None:
    for text in (
        "0.93 [0.90, 0.96] difference of shares of pairs", "-0.03 [-0.05, -0.01]", "0.40 [no interval]", "nothing to measure it by",
        "Rule: holds if the interval of the difference lies above 0.5", "seed 0: 0.92, seed 1: 0.93",
        "open question 3: catch shadows in the act",
        "open question 2: measure coverage", "a trial", "5 seeds (0, 1, 2, 3, 4), 150 runs, none missing", "Intervals at 95 %",
    ):  # fmt: skip
        assert text in source.text, text


def test_every_point_of_every_figure_stands_in_a_table_and_in_a_chart(source: Page, folder: Path) -> None:
    rows = [row for row in source.of("tr") if "data-figure" in row]
    points = [(figure.name, point) for figure in STUDY.figures for point in figure.points]
    assert [(row["data-figure"], row["data-panel"], row["data-series"]) for row in rows] == [(n, p.panel, p.series) for n, p in points]
    assert [row["data-value"] for row in rows] == [repr(point.value) for _, point in points]
    assert [row["data-low"] for row in rows] == ["" if point.low is None else repr(point.low) for _, point in points]
    html = (folder / "index.html").read_text(encoding="utf-8")
    specs = [json.loads(text) for text in re.findall(r'<script type="application/json" id="spec-\d+">(.*?)</script>', html)]
    drawn = [row for spec in specs for row in spec["datasets"]["rows"]]
    means = sorted((row["panel"], row["series"], row["value"]) for row in drawn if row["kind"] == "mean")
    assert means == sorted((point.panel, point.series, round(point.value, 5)) for _, point in points)
    assert sum(row["kind"] == "seed" for row in drawn) == sum(len(point.by_seed) for _, point in points)
    told = [(row["mean"], row["seeds"]) for row in drawn if row["kind"] == "mean"]
    assert told[0] == ("0.02 [-0.01, 0.05]", "seed 0: 0.03, seed 1: 0.00, seed 2: 0.02, seed 3: 0.04, seed 4: 0.01")


def test_every_run_is_in_the_table_with_its_training_accuracy_cells_and_verdicts(source: Page) -> None:
    rows = [row for row in source.of("tr") if "data-run" in row]
    assert [row["data-run"] for row in rows] == [run.key for run in RUNS]
    cells = [cell["data-moved-frac"] for cell in source.of("td") if "data-moved-frac" in cell]
    assert cells == [repr(run.cells[place].moved_frac) for run in RUNS for place in (1, 0)]
    assert "do(colour) → shape (leak)" in source.text and "do(size)" not in source.text
    assert "size: inert" in source.text and "colour shadow" in source.text


def test_provenance_tells_command_times_code_and_packages(source: Page) -> None:
    total = show_span(sum(100.0 + place for place in range(len(RUNS))))
    for text in ("theodolite study flip --seeds 5", "2 h 15 min of wall time", f"{total} in 48 runs", "0123456789abcdef", "torch 2.13.0"):
        assert text in source.text, text


def test_a_folder_without_runs_or_times_says_so(tmp_path: Path) -> None:
    write_study_page(made.write(tmp_path, STUDY, run=False))
    text = Page((tmp_path / "index.html").read_text(encoding="utf-8")).text
    assert "The runs are not in the study's folder" in text and "not recorded" in text


def test_quick_and_missing_runs_are_warnings() -> None:
    told = Page(build_study_page(made.study(quick=True, num_missing=3, num_runs=147))).text
    assert "results are indications, not findings" in told and "3 runs of the grid are missing" in told
    assert not Page(build_study_page(STUDY, RUNS)).of("p", role="alert")


def test_runs_that_are_compared_are_held_against_each_other() -> None:
    assert len(matched_runs(RUNS)) == 12 and all(found.num_runs == 4 and not found.different for found in matched_runs(RUNS))
    assert "48 runs in 12 comparisons" in build_study_page(STUDY, RUNS) and "in all of them hashes" in build_study_page(STUDY, RUNS)
    other = RUNS[0].model_copy(update={"facts": RUNS[0].facts.model_copy(update={"order_sha256": "99", "num_questions": 7})})
    page = Page(build_study_page(STUDY, [other, *RUNS[1:]]))
    assert "in 11 of them hashes" in page.text and len(page.of("p", role="alert")) == 1
    assert "their order and the number of questions (policy, shapes, strength 0, 12,000 pictures, 300 steps, seed 0)" in page.text


def test_the_same_records_give_the_same_bytes(folder: Path) -> None:
    before = (folder / "index.html").read_bytes()
    write_study_page(folder)
    assert (folder / "index.html").read_bytes() == before


def test_the_page_loads_nothing_and_says_so_to_the_browser(source: Page) -> None:
    named = [value for _, found in source.elements for key, value in found.items() if key in ("src", "href", "srcset", "data", "action")]
    assert [value for value in named if not value.startswith("#")] == [] and "url(" not in "".join(source.styles)
    (policy,) = [found["content"] for found in source.of("meta") if found.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy and "http" not in policy


# In a browser


def test_every_chart_is_drawn_and_the_console_stays_empty(folder: Path) -> None:
    dom, console, *_ = open_page(folder / "index.html")
    assert console == []
    charts = Page(dom).charts
    assert len(charts) == len(STUDY.figures)
    assert all("mark-symbol" in parts for parts in charts) and "mark-line" in charts[0] and "mark-rule" in charts[1]


def test_charts_fit_a_narrow_page_and_nothing_scrolls_sideways(folder: Path) -> None:
    beyond = "[...document.querySelectorAll('.chart')].map((box) => box.scrollWidth - box.clientWidth)"
    opened = open_page(folder / "index.html", beyond, width=500)
    assert (opened.console, opened.overflow, opened.result) == ([], 0, [0, 0, 0])


def test_awkward_text_is_shown_as_text(tmp_path: Path) -> None:
    runs = [made.grid_run(POLICY, 0.8, 0, 0.5).model_copy(update={"key": HOSTILE})]
    html = build_study_page(hostile(), runs, made.timed(runs)).replace("<details", "<details open")
    (tmp_path / "page.html").write_text(html, encoding="utf-8")
    opened = open_page(tmp_path / "page.html", width=700)
    page = Page(opened.dom)
    assert (opened.console, opened.overflow) == ([], 0) and len(page.charts) == 1 and "mark-symbol" in page.charts[0]
    assert page.text.count("<script>console.error('owned')</script>") > 10
    assert not any("onerror" in found for _, found in page.elements)
    assert "quick" in page.text.lower() and POLICY in unescape(page.text)


# Charts and pictures


def panels(figure: Figure) -> dict[str, Any]:
    return figure_chart(figure)["spec"]


def axis_of(figure: Figure, channel: str) -> dict[str, Any]:
    layers = [layer for layer in panels(figure)["layer"] if channel in layer["encoding"] and "field" in layer["encoding"][channel]]
    return layers[0]["encoding"][channel]


def test_the_ends_of_the_vertical_axis_are_kept_and_no_mean_or_seed_is_left_out() -> None:
    assert axis_of(made.flip_figure(), "y")["scale"]["domain"] == [0.0, 1.0]
    over = made.figure("over", [made.point("", "a", 0.0, {0: 1.2, 1: 0.8}), made.point("", "a", 1.0, {0: 0.5, 1: 0.5})])
    assert axis_of(over, "y")["scale"] == {"domain": [0.0, 1.2], "nice": False, "zero": False, "clamp": True}
    free = made.figure("free", over.points, y_range=None)
    low, high = axis_of(free, "y")["scale"]["domain"]
    assert low <= 0.5 and high >= 1.2 and "clamp" not in axis_of(free, "y")["scale"]


def test_levels_keep_the_order_of_their_points_in_each_panel() -> None:
    svg = vl_convert.vegalite_to_svg(figure_chart(made.lock_figure()))
    drawn = re.findall(r">(x\d+)</text>", svg)
    assert drawn == ["x1", "x4", "x16", "x1", "x4", "x8", "x1", "x2", "x4"]


def test_few_values_that_are_joined_are_levels_and_others_a_quantity() -> None:
    assert axis_of(made.flip_figure(), "x")["axis"]["title"] == ["strength of the correlation (not to scale)"]
    assert axis_of(made.forecast_figure(), "x")["type"] == "quantitative"
    many = made.figure("many", [made.point("", "a", float(step), {0: 0.5}) for step in range(40)])
    assert axis_of(many, "x")["type"] == "quantitative" and "mark-line" not in str(panels(many))


def test_an_axis_whose_ends_are_given_is_to_scale_however_few_its_values() -> None:
    points = [made.point(panel, "measured", x, {0: x}) for panel in ("read", "leak") for x in (0.1, 0.75, 0.9)]
    axis = axis_of(made.figure("f", points, x_range=(0.0, 1.0)), "x")
    assert (axis["type"], axis["scale"]["domain"], axis["scale"]["nice"]) == ("quantitative", [0.0, 1.0], False)
    assert axis["axis"]["title"] == ["strength of the correlation"] and axis["axis"]["values"] == [0, 0.25, 0.5, 0.75, 1]
    over = made.figure("f", [*points, made.point("leak", "measured", 1.5, {0: 1.0})], x_range=(0.0, 1.0))
    assert axis_of(over, "x")["scale"]["domain"] == [0.0, 1.5], "no point is left out"
    assert "values" not in axis_of(over, "x")["axis"], "quarters up to 1 would leave the rest without a label"


def test_the_diagonal_is_where_both_axes_are_equal_in_every_panel() -> None:
    points = [made.point(panel, "measured", x, {0: 0.5}) for panel in ("read", "leak") for x in (0.1, 0.9)]
    figure = made.figure("f", points, x_range=(0.0, 1.0), y_range=(0.25, 2.0), diagonal=True)
    rows = [row for row in figure_chart(figure)["datasets"]["rows"] if row["kind"] == "equal"]
    assert [(row["panel"], row["x"], row["value"]) for row in rows] == [
        (name, end, end) for name in ("read", "leak") for end in (0.25, 1.0)
    ]
    svg = vl_convert.vegalite_to_svg(figure_chart(figure))
    assert svg.count('stroke-dasharray="4,4"') == 2
    apart = figure_chart(figure.model_copy(update={"y_range": (3.0, 4.0), "points": (made.point("", "s", 0.5, {0: 3.5}),)}))
    assert not [row for row in apart["datasets"]["rows"] if row["kind"] == "equal"], "axes that have nothing in common"
    plain = vl_convert.vegalite_to_svg(figure_chart(figure.model_copy(update={"diagonal": False})))
    assert "stroke-dasharray" not in plain


@pytest.mark.parametrize(("x", "given", "told"), [(0.5, {"diagonal": True}, "x_range"), ("name", {"x_range": (0.0, 1.0)}, "names")])
def test_a_scale_is_of_quantities_and_a_diagonal_of_a_scale(x: str | float, given: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        made.figure("f", [made.point("", "s", x, {0: 0.5})], **given)


def test_numbers_of_pooled_seeds_say_so_and_leave_no_column_empty() -> None:
    pooled = made.figure("f", [Point(panel="", series="s", x=0.5, value=0.5, low=None, high=None, by_seed={})])
    told, with_seeds = (build_study_page(made.study(figures=(figure,))) for figure in (pooled, made.flip_figure()))
    assert "seeds are pooled" in told and '"title": "value"' in json.dumps(figure_chart(pooled)) and "mean over seeds" not in told
    assert "<th>each seed</th>" not in told and '<td class="seeds">' not in told
    assert "seeds are pooled" not in with_seeds and with_seeds.count('<td class="seeds">') == len(made.flip_figure().points)


def test_quantities_stand_in_their_order_whichever_series_comes_first() -> None:
    late = [made.point("p", "late", 0.5, {0: 0.5}), made.point("p", "late", 1.0, {0: 0.5})]
    figure = made.figure("f", [*late, made.point("p", "early", 0.0, {0: 0.5})])
    rows = figure_chart(figure)["datasets"]["rows"]
    assert {row["level"]: row["place"] for row in rows if row["kind"] == "mean"} == {"0": 0, "0.5": 1, "1": 2}


def test_panels_of_one_series_each_under_its_own_name_need_no_legend() -> None:
    points = [made.point(name, name, "agree", {0: 0.5}) for name in ("leak", "read")]
    assert "orient" not in json.dumps(panels(made.figure("f", points, joined=False))["layer"])
    assert "orient" in json.dumps(panels(made.lock_figure())["layer"])


def test_series_stand_apart_only_where_several_share_a_level() -> None:
    assert "xOffset" in str(panels(made.lock_figure()))
    alone = made.figure("alone", [made.point("", name, name, {0: 0.5, 1: 0.6}) for name in ("agree", "all", "odd")], joined=False)
    assert "xOffset" not in json.dumps(panels(alone)["layer"])


def test_a_mean_has_its_number_beside_it_where_names_stand_side_by_side_with_room() -> None:
    def numbered(names: list[str], **given: Any) -> bool:
        figure = made.figure("f", [made.point("", name, name, {0: 0.5, 1: 0.625}) for name in names], joined=False)
        figure = figure.model_copy(update=given)
        assert '"shown": "0.56"' in json.dumps(figure_chart(figure))
        return "shown" in json.dumps(panels(figure)["layer"])

    assert numbered(["agree", "all", "both"])
    assert not numbered(["agree", "all", "both", "odd"]), "no room"
    assert not numbered(["agree", "all"], joined=True)
    assert "shown" not in json.dumps(panels(made.lock_figure())["layer"]), "several marks at each"


@pytest.mark.parametrize(("panels", "columns"), [(1, 1), (2, 2), (4, 4), (5, 3), (6, 3), (7, 4), (8, 4), (9, 3)])
def test_more_than_four_panels_are_spread_over_rows(panels: int, columns: int) -> None:
    assert num_columns(panels) == columns


def test_read_and_leak_keep_their_colours_and_no_two_series_look_alike() -> None:
    marks = series_marks(["training accuracy", "leak", "read of shape", *map(str, range(20))])
    assert marks["leak"][0] == "#d1580a" and marks["read of shape"][0] == "#1f6fb5"
    assert len(set(marks.values())) == len(marks)


def test_a_figure_without_points_is_refused() -> None:
    with pytest.raises(BadRecord, match="no points"):
        figure_chart(made.figure("none", []))


def test_a_picture_of_each_figure_is_written_and_is_not_blank(folder: Path) -> None:
    paths = write_study_pictures(folder)
    assert [path.name for path in paths] == ["flip.png", "lock.png", "forecast.png"]
    for path in paths:
        picture = Image.open(BytesIO(path.read_bytes())).convert("RGB")
        assert picture.width > 900 and picture.getpixel((0, 0)) == (255, 255, 255)
        colours = {colour for _, colour in picture.getcolors(1 << 24) or []}
        assert (0x1F, 0x6F, 0xB5) in colours and len(colours) > 50


def test_a_figure_whose_name_leads_elsewhere_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    figures = (made.flip_figure(), made.figure("../out", made.lock_figure().points))
    with pytest.raises(BadRecord, match="no file name"):
        write_study_pictures(made.write(tmp_path / "study", made.study(figures=figures)))
    assert not list(tmp_path.rglob("*.png"))


# Documents and the terminal


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("describe_results", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module


@pytest.fixture
def results(tmp_path: Path) -> Path:
    home = tmp_path / "results"
    made.write(home / "flip", STUDY)
    (home / "flip.md").write_text("# Flip\n\n<!-- claims:flip -->\nstale\n<!-- /claims -->\n\nMore.\n")
    (home / "README.md").write_text("# Results\n\n<!-- results -->\n<!-- /results -->\n")
    return home


def test_the_tables_are_written_once_and_then_stay(
    script: ModuleType, results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(script, "RESULTS", results)
    assert script.main(["--check"]) == 1 and "flip.md is not what the records say" in capsys.readouterr().err
    assert "stale" in (results / "flip.md").read_text()
    assert script.main([]) == 0 and script.main(["--check"]) == 0
    text = (results / "flip.md").read_text()
    assert (
        text.startswith("# Flip\n\n<!-- claims:flip -->\n| claim |")
        and text.endswith("|\n<!-- /claims -->\n\nMore.\n")
        and "stale" not in text
    )
    assert result_documents(results)[results / "flip.md"] == text
    cells = ["**holds**", "0.93 (difference of shares of pairs)", "[0.90, 0.96]", "5 seeds, 10 runs", "3: catch shadows in the act"]
    assert f"| {' | '.join(cells)} | [flip](flip.md) |" in (results / "README.md").read_text()


@pytest.mark.parametrize("name", ["flip.md", "README.md"])
@pytest.mark.parametrize("change", ["without", "missing", "twice"])
def test_a_document_without_one_place_for_its_table_is_refused(results: Path, name: str, change: str) -> None:
    path = results / name
    text = path.read_text()
    if change == "missing":
        path.unlink()
    else:
        path.write_text("# Nothing\n" if change == "without" else text + text)
    with pytest.raises(BadInput, match=name):
        result_documents(results)


def test_the_script_tells_what_is_amiss(
    script: ModuleType, results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(script, "RESULTS", results)
    (results / "flip.md").write_text("nothing\n")
    assert script.main([]) == 2 and "no place for the table" in capsys.readouterr().err
    assert script.main(["--chekc"]) == 2 and "there is --check" in capsys.readouterr().err


def test_the_documents_of_this_repository_are_what_the_records_say(script: ModuleType) -> None:
    assert script.main(["--check"]) == 0, "run python scripts/describe_results.py"


def test_awkward_text_stays_within_its_cell() -> None:
    for text in (claims_text(hostile()), results_text([hostile()])):
        head, _, *rows = text.splitlines()
        assert len(rows) == 1
        bars = re.compile(r"(?<!\\)\|")
        assert len(bars.findall(rows[0])) == len(bars.findall(head))
        assert "<" not in rows[0] and "quick: a sign and no more" in rows[0]


def test_no_study_leaves_a_sentence_and_put_between_is_idempotent() -> None:
    text = put_between("a <!-- results --> x <!-- /results --> b", "<!-- results -->", "<!-- /results -->", "it", results_text([]))
    assert text == "a <!-- results -->\nNo study has landed yet.\n<!-- /results --> b"
    assert put_between(text, "<!-- results -->", "<!-- /results -->", "it", results_text([])) == text


@pytest.mark.parametrize("wide", [80, 140])
def test_the_terminal_shows_each_claim_with_its_effect(wide: int) -> None:
    console = Console(width=wide, record=True, file=StringIO(), color_system=None)
    console.print(claims_table(made.study(question="[bold]Is it[/bold]?", quick=True)))
    shown = " ".join(console.export_text().split())
    assert "[bold]Is it[/bold]?" in shown and "quick: signs and no more" in shown
    for text in ("holds", "fails", "undecided", "0.93 [0.90, 0.96]", "0.40 [no interval]"):
        assert text in shown
