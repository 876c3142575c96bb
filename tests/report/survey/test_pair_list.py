"""The list of pairs: its counts are the rows', its filters are in the address, and its cards show one pair each."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest

from helpers import survey_records as made
from helpers.live_browser import window
from helpers.pair_rows import answered_rows, webp
from helpers.parsed_page import Page
from theodolite.report.stored import StoredSurvey
from theodolite.report.survey.arms import label_arms
from theodolite.report.survey.outcomes import with_outcomes
from theodolite.report.survey.page import build_page
from theodolite.report.survey.pair_list import MOST_PICTURE_BYTES, pair_list
from theodolite.report.survey.pairs_address import OUTCOME_WORD, pairs_address
from theodolite.worlds.manifest.read import read_manifest
from theodolite.worlds.manifest.rows import KEYS

if TYPE_CHECKING:
    from playwright.sync_api import Browser
    from playwright.sync_api import Page as Tab

HOSTILE = "<script>console.error('owned')</script><img src=x onerror=\"console.error('owned')\">"
FIRST, SECOND, _ = made.three_records()
READY = "document.documentElement.dataset.pairs === 'ready'"
CHANGED = "new Promise((done) => {{ addEventListener('hashchange', done, {{ once: true }}); {}; }})"
COUNT = "document.getElementById('pair-count').textContent"


def arm_of(rows: pl.DataFrame, record: Any = FIRST, thumbnails: dict[int, bytes] | None = None) -> StoredSurvey:
    return StoredSurvey(record, None, {}, rows, thumbnails or {})


@pytest.fixture(scope="module")
def rows() -> list[pl.DataFrame]:
    """Two models' answers to the same pairs."""
    first, second = answered_rows(60), answered_rows(60, seed=0)
    other = answered_rows(60, seed=1).select("answer_before", "answer_after", "probabilities_before", "probabilities_after", "variation")
    replaced = second.with_columns(other).with_columns(moved=pl.col("answer_before") != pl.col("answer_after"))
    same = (pl.col("answer_before") == pl.col("truth_before")) & (pl.col("answer_after") == pl.col("truth_after"))
    # A different choice set has other answers; where they are none of the choices, the first model's stay.
    fits = pl.col("choices").list.contains(pl.col("answer_before")) & pl.col("choices").list.contains(pl.col("answer_after"))
    assert replaced.filter(pl.col("moved").is_not_null()).select(fits.all()).item()
    return [first, replaced.with_columns(right=same)]


@pytest.fixture(scope="module")
def page(rows: list[pl.DataFrame], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pairs") / "report.html"
    thumbnails = {number: webp(number) for number in range(40)}
    path.write_text(build_page([arm_of(rows[0], FIRST, thumbnails), arm_of(rows[1], SECOND)]), encoding="utf-8")
    return path


@pytest.fixture
def tab(browser: Browser) -> Iterator[tuple[Tab, list[str]]]:
    with window(browser) as (tab, console):
        yield tab, console


def open_pairs(tab: Tab, page: Path, address: str = "") -> Tab:
    """The tab after the list of pairs of a page on disk is ready."""
    tab.goto(page.resolve().as_uri() + address)
    tab.wait_for_function(READY)
    return tab


@pytest.fixture
def opened(tab: tuple[Tab, list[str]], page: Path) -> Tab:
    return open_pairs(tab[0], page)


def go(tab: Tab, address: str) -> str:
    """The count after following an address."""
    tab.evaluate(CHANGED.format(f"location.hash = {json.dumps(address)}"))
    return str(tab.evaluate(COUNT))


def test_counts_by_filter_are_those_of_the_rows(tab: tuple[Tab, list[str]], opened: Tab, rows: list[pl.DataFrame]) -> None:
    pairs = [with_outcomes(table).filter(pl.col("kind") == "intervention") for table in rows]
    total = pairs[0].height
    assert opened.evaluate(COUNT) == f"{total} of {total} pairs"
    outcomes = [word for word in OUTCOME_WORD if word != "noise"]
    for number, label in enumerate(("shape only", "shape and colour")):
        for word in outcomes:
            wanted = pairs[number].filter(pl.col("outcome") == word)
            assert go(opened, pairs_address(model=label, outcome=word)) == f"{wanted.height} of {total} pairs"  # type: ignore[arg-type]
    assert sum(pairs[0]["outcome"].value_counts()["count"]) == total
    leaked = pairs[0].filter((pl.col("factor") == "colour") & (pl.col("query") == "shape") & (pl.col("outcome") == "leaked"))
    open_ones = leaked.filter(pl.col("form") == "open").height
    assert 0 < open_ones < leaked.height
    address = {"factor": "colour", "outcome": "leaked", "model": "shape only"}
    assert go(opened, pairs_address(question="shape", **address)) == f"{leaked.height} of {total} pairs"  # type: ignore[arg-type]
    assert go(opened, pairs_address(question="shape (open)", **address)) == f"{open_ones} of {total} pairs"  # type: ignore[arg-type]
    assert go(opened, pairs_address(text="SCENE 31")).startswith("4 of ")
    assert go(opened, pairs_address(text="own/31-2.png")).startswith("2 of ")
    assert go(opened, pairs_address(text="intervention-colour-1-7")).startswith("1 of ")
    assert go(opened, pairs_address(kind="nuisance")) == "60 of 60 pairs"
    moved = with_outcomes(rows[1]).filter((pl.col("kind") == "nuisance") & (pl.col("outcome") == "noise")).height
    assert go(opened, pairs_address(kind="nuisance", outcome="noise", model="shape and colour")) == f"{moved} of 60 pairs"
    differ = (pairs[0]["answer_before"].ne_missing(pairs[1]["answer_before"])) | (
        pairs[0]["answer_after"].ne_missing(pairs[1]["answer_after"])
    )
    assert 0 < differ.sum() < total
    assert go(opened, pairs_address(disagree=True)) == f"{differ.sum()} of {total} pairs"
    assert tab[1] == []


def test_the_worst_pairs_come_first_and_few_cards_are_in_the_document(opened: Tab, rows: list[pl.DataFrame]) -> None:
    go(opened, pairs_address(model="shape only"))
    shown = opened.evaluate("[...document.querySelectorAll('#pair-list article')].map((card) => card.querySelector('.source').textContent)")
    worst = with_outcomes(rows[0]).filter(pl.col("kind") == "intervention").sort("severity", descending=True, maintain_order=True)
    # The page compares thousandths.
    assert [text.split(",")[0] for text in shown[:3]] == [f"row {row}" for row in worst["row"][:3]]
    assert worst["outcome"][0] in ("leaked", "missed")
    assert 2 <= len(shown) < 20
    opened.evaluate("document.querySelector('#pair-list').scrollTop = 1e6")
    opened.wait_for_function("document.querySelector('#pair-list article:last-child').getAttribute('aria-posinset') === '240'")
    assert opened.evaluate("document.querySelectorAll('#pair-list article').length") < 20


def test_controls_write_the_address_and_back_takes_them_back(opened: Tab) -> None:
    chosen = "Object.assign(document.querySelector('[name={0}]'), {{ value: '{1}' }})"
    choose = chosen + ".dispatchEvent(new Event('change', {{ bubbles: true }}))"
    opened.evaluate(choose.format("factor", "colour"))
    opened.evaluate(choose.format("outcome", "missed"))
    assert opened.evaluate("location.hash") == pairs_address(factor="colour", outcome="missed")
    both = opened.evaluate(COUNT)
    opened.evaluate(CHANGED.format("history.back()"))
    assert opened.evaluate("location.hash") == "#pairs?factor=colour"
    assert opened.evaluate("document.querySelector('[name=outcome]').value") == ""
    assert opened.evaluate(COUNT) == "120 of 240 pairs" != both
    opened.evaluate(CHANGED.format("history.forward()"))
    assert opened.evaluate(COUNT) == both


def test_an_address_that_is_opened_is_obeyed(tab: tuple[Tab, list[str]], page: Path) -> None:
    address = pairs_address(factor="shape", outcome=("moved-right", "moved-wrong"), sort="scene")
    opened = open_pairs(tab[0], page, address)
    assert (
        opened.evaluate("document.querySelector('[name=outcome]').selectedOptions[0].textContent") == "moved and right or moved but wrong"
    )
    assert opened.evaluate("document.getElementById('pairs').getBoundingClientRect().top") < 200
    names = opened.evaluate("[...document.querySelectorAll('#pair-list .change small')].map((each) => each.textContent)")
    scenes = [int(name.split()[-1]) for name in names]
    assert scenes == sorted(scenes) and len(scenes) > 2


def test_page_down_goes_from_pair_to_pair(opened: Tab) -> None:
    opened.evaluate("document.getElementById('pair-list').focus()")
    at = "document.activeElement.getAttribute('aria-posinset')"
    for wanted in ("1", "2", "3"):
        opened.keyboard.press("PageDown")
        assert opened.evaluate(at) == wanted
    opened.keyboard.press("PageUp")
    assert opened.evaluate(at) == "2"
    opened.keyboard.press("Control+End")
    assert opened.evaluate(at) == "240"
    opened.keyboard.press("Control+Home")
    assert opened.evaluate(at) == "1"


def test_a_card_shows_both_models_with_the_probabilities_of_their_rows(opened: Tab, rows: list[pl.DataFrame]) -> None:
    go(opened, pairs_address(text="intervention-colour-1-8"))
    row = rows[0].row(by_predicate=pl.col("row") == "intervention-colour-1-8", named=True)
    shown = opened.evaluate(
        """[...document.querySelectorAll('#pair-list .reply')].map((table) => [table.dataset.model, table.dataset.outcome,
        [...table.querySelectorAll('tbody tr')].map((line) => [...line.querySelectorAll('.value')].map((each) => each.textContent))])"""
    )
    assert [label for label, *_ in shown] == ["shape only", "shape and colour"]
    wanted = [[f"{value:.2f}" for value in pair] for pair in zip(row["probabilities_before"], row["probabilities_after"], strict=True)]
    assert shown[0][2] == wanted
    assert opened.evaluate("document.querySelector('#pair-list .change').textContent") == (
        f"colour: {row['value_before']} → {row['value_after']} scene scene 8"
    )
    assert "own/8-base.png → own/8-1.png" in opened.evaluate("document.querySelector('#pair-list .source').textContent")


def test_blink_and_difference_lay_one_picture_on_the_other(opened: Tab) -> None:
    assert go(opened, pairs_address(text="intervention-colour-1-9")).startswith("1 of ")
    press = "document.querySelector('#pair-list [data-mode={}]').click()"
    boxes = "[...document.querySelectorAll('#pair-list .duo figure')].map((each) => each.getBoundingClientRect().left)"
    assert len(set(opened.evaluate(boxes))) == 2
    opened.evaluate(press.format("difference"))
    assert len(set(opened.evaluate(boxes))) == 1
    blend = "getComputedStyle(document.querySelector('#pair-list .duo figure + figure')).mixBlendMode"
    assert opened.evaluate(blend) == "difference"
    opened.evaluate(press.format("blink"))
    visible = "[...document.querySelectorAll('#pair-list .duo figure')].map((each) => getComputedStyle(each).visibility)"
    first = opened.evaluate(visible)
    assert sorted(first) == ["hidden", "visible"] and opened.evaluate(blend) == "normal"
    opened.evaluate("document.querySelector('#pair-list .duo').click()")
    assert opened.evaluate(visible) == first[::-1]


def test_the_copied_row_is_read_by_the_manifest_reader(opened: Tab, rows: list[pl.DataFrame], tmp_path: Path) -> None:
    copy = """(async () => { let text; navigator.clipboard.writeText = async (given) => (text = given);
    document.querySelector('#pair-list .copy').click(); await 0; return text; })()"""
    lines = []
    for kind, name in (("intervention", "intervention-shape-1-9"), ("nuisance", "nuisance-shape-3-9")):
        assert go(opened, pairs_address(kind=kind, text=name)).startswith("1 of ")  # type: ignore[arg-type]
        lines.append(opened.evaluate(copy))
    assert all(set(json.loads(line)) <= set(KEYS) for line in lines)
    (tmp_path / "own").mkdir()
    for number, kind in enumerate(("base", "1", "3")):
        (tmp_path / "own" / f"9-{kind}.png").write_bytes(made.png(f"{number}-{('red', 'blue', 'green')[number]}"))
    (tmp_path / "manifest.jsonl").write_text("\n".join(lines) + "\n")
    manifest = read_manifest(tmp_path / "manifest.jsonl")
    assert manifest.faults == ()
    table = manifest.gallery.table
    for copied, name in zip(table.iter_rows(named=True), ("intervention-shape-1-9", "nuisance-shape-3-9"), strict=True):
        row = rows[0].row(by_predicate=pl.col("row") == name, named=True)
        for key in ("factor", "value_before", "value_after", "query", "form", "name", "choices", "truth_before", "truth_after"):
            assert copied[key] == row[key], key
        assert (copied["scene_name"], copied["row"]) == (row["scene_name"], row["row"])
        assert (copied["picture_before"], copied["picture_after"]) == (row["path_before"], row["path_after"])


def test_hostile_names_are_text(tab: tuple[Tab, list[str]], tmp_path: Path) -> None:
    table = answered_rows(8, factor=HOSTILE).with_columns(
        scene_name=pl.lit(HOSTILE), question_before=pl.lit(HOSTILE), question_after=pl.lit(HOSTILE), path_before=pl.lit(HOSTILE)
    )
    (tmp_path / "report.html").write_text(build_page([arm_of(table, FIRST.model_copy(update={"title": HOSTILE}))]), encoding="utf-8")
    opened = open_pairs(tab[0], tmp_path / "report.html", pairs_address(factor=HOSTILE, text=HOSTILE))
    assert opened.evaluate(COUNT) == "16 of 32 pairs"
    for part in ("change", "question", "source"):
        assert HOSTILE in opened.evaluate(f"document.querySelector('#pair-list .{part}').textContent"), part
    assert opened.evaluate("document.querySelectorAll('[onerror]').length") == 0 and tab[1] == []


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1600])
def test_at_any_width_nothing_is_cut_off(browser: Browser, page: Path, width: int, theme: str) -> None:
    boxes = ("document.documentElement", "document.getElementById('pair-list')", "...document.querySelectorAll('#pair-list article')")
    with window(browser, width, theme) as (tab, _):
        open_pairs(tab, page, "#pairs")
        for box in boxes:
            assert tab.evaluate(f"Math.max(...[{box}].map((each) => each.scrollWidth - each.clientWidth))") <= 0, box


def test_without_javascript_the_worst_pairs_are_there(page: Path, rows: list[pl.DataFrame]) -> None:
    html = re.sub(r"<script.*?</script>", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    cards = Page(html).of("article", **{"class": "pair-card"})
    outcomes = [found["data-outcome"] for found in Page(html).of("tr") if "data-outcome" in found]
    assert len(cards) == 6 and {"leaked", "missed"} & set(outcomes)
    (form,) = Page(html).of("form")
    assert "hidden" in form


def test_pictures_are_limited_and_the_page_says_how_many_pairs_have_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    table = answered_rows(30)
    arms = label_arms([arm_of(table, FIRST, {number: webp(number) for number in range(120)})])
    assert "150 of 150 pairs have their pictures in the page" in pair_list(arms, {}).note
    assert MOST_PICTURE_BYTES < 1_000_000
    monkeypatch.setattr("theodolite.report.survey.pair_list.MOST_PICTURE_BYTES", 10 * len(webp(1)))
    few = pair_list(arms, {})
    worst = with_outcomes(table).filter(pl.col("kind") == "intervention").sort("severity", descending=True).row(0, named=True)
    assert 0 < len(few.pictures) <= 10
    assert {f"0-{worst['picture_before']}", f"0-{worst['picture_after']}"} <= set(few.pictures)
    assert "--pairs-dir" in few.note


def test_ten_thousand_pairs_stay_below_five_megabytes_and_are_whole(tab: tuple[Tab, list[str]], tmp_path: Path) -> None:
    table = answered_rows(2_500)
    assert table.filter(pl.col("kind") == "intervention").height == 10_000
    rng = np.random.default_rng(0)
    thumbnails = {number: webp(number) + rng.bytes(3000) for number in range(400)}
    html = build_page([arm_of(table, FIRST, thumbnails)])
    assert len(html.encode()) < 5_000_000
    (tmp_path / "report.html").write_text(html, encoding="utf-8")
    opened = open_pairs(tab[0], tmp_path / "report.html", pairs_address(outcome="leaked"))
    leaked = with_outcomes(table).filter(pl.col("outcome") == "leaked").height
    assert opened.evaluate(COUNT) == f"{leaked:,} of 10,000 pairs"
    assert opened.evaluate("document.querySelectorAll('#pair-list article').length") < 20
    protocol = opened.context.new_cdp_session(opened)
    protocol.send("HeapProfiler.collectGarbage")
    assert protocol.send("Runtime.getHeapUsage")["usedSize"] < 150 * 2**20


def test_findings_and_board_lead_to_their_pairs(rows: list[pl.DataFrame]) -> None:
    page = Page(build_page([arm_of(rows[0], FIRST)]))
    links = [found["href"] for found in page.of("a") if found.get("href", "").startswith("#pairs?")]
    assert pairs_address(factor="colour", question="shape (open)", outcome="leaked") in links
    assert any("outcome=missed" in link for link in links)
    assert not [found for found in Page(build_page([StoredSurvey(FIRST)])).of("a") if found.get("href", "").startswith("#pairs?")]


def test_an_address_names_conditions_that_are_text() -> None:
    assert pairs_address() == "#pairs"
    assert pairs_address(factor="a&b=c#d", text="x y+z") == "#pairs?factor=a%26b%3Dc%23d&text=x%20y%2Bz"
    assert pairs_address(outcome=("missed", "leaked"), disagree=True) == "#pairs?outcome=missed,leaked&disagree=1"
    with pytest.raises(ValueError, match="is no outcome of a pair"):
        pairs_address(outcome="lost")  # type: ignore[arg-type]


def test_outcomes_and_severity() -> None:
    frame = with_outcomes(answered_rows(200))
    truth_moves = pl.col("truth_before") != pl.col("truth_after")
    own = frame.filter(pl.col("kind") == "intervention")
    assert own.filter(pl.col("outcome") == "missed").select((truth_moves & ~pl.col("moved")).all()).item()
    assert own.filter(pl.col("outcome") == "leaked").select((~truth_moves & pl.col("moved")).all()).item()
    assert own.filter(pl.col("outcome").is_in(["moved-right", "steady-right"])).select(pl.col("right").all()).item()
    assert not own.filter(pl.col("outcome").is_in(["moved-wrong", "steady-wrong"])).select(pl.col("right").any()).item()
    assert set(own["outcome"].unique()) == set(OUTCOME_WORD) - {"noise"}
    least = dict(frame.group_by("outcome").agg(pl.col("severity").min()).iter_rows())
    most = dict(frame.group_by("outcome").agg(pl.col("severity").max()).iter_rows())
    assert min(least["leaked"], least["missed"], least["noise"]) >= 2 >= max(most["moved-wrong"], most["steady-wrong"])
    assert min(least["moved-wrong"], least["steady-wrong"]) >= 1 >= max(most["moved-right"], most["steady-right"])
    assert least["unanswered"] == most["unanswered"] == 1
