"""The inside of a model on the page: the numbers are the record's, and no similarity number stands without its causal counterpart."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from helpers import inside_records
from helpers import survey_records as made
from helpers.live_browser import open_page
from helpers.parsed_page import Attributes, Page
from theodolite.records.causal import PARTNERS, Causal, Responses
from theodolite.records.inside import Inside
from theodolite.records.part import Estimate, Rate
from theodolite.records.survey import SurveyRecord
from theodolite.report.stored import StoredSurvey
from theodolite.report.survey import inside as views
from theodolite.report.survey.arms import label_arms
from theodolite.report.survey.causal_counterparts import COUNTERPARTS, NO_CAUSAL, find_causal_counterparts, nearest
from theodolite.report.survey.inside_charts import inside_charts
from theodolite.report.survey.page import build_page, write_report
from theodolite.report.words import show_measured

Cells = list[tuple[Attributes, str]]
OLD = made.three_records()
FIRST = OLD[0].model_copy(update={"inside": inside_records.inside()})
SECOND = OLD[1].model_copy(update={"inside": inside_records.inside(500)})
HTML = build_page([StoredSurvey(FIRST), StoredSurvey(SECOND)])

PATCHED = ("subspace", "random_direction", "shuffled_direction", "other_direction", "whole")


def rows(html: str, **wanted: str) -> list[tuple[Attributes, Cells]]:
    """Rows of the page's tables with all of these attributes: their own attributes, and those and the text of every cell."""
    found = []
    for opening, body in re.findall(r"<tr([^>]*)>(.*?)</tr>", html, re.DOTALL):
        row = attributes(opening)
        if all(row.get(f"data-{name}") == value for name, value in wanted.items()):
            cells = re.findall(r"<td([^>]*)>(.*?)</td>", body, re.DOTALL)
            found.append((row, [(attributes(cell), " ".join(unescape(re.sub("<[^>]*>", "", text)).split())) for cell, text in cells]))
    return found


def attributes(opening: str) -> Attributes:
    return {name: unescape(value) for name, value in re.findall(r'([a-z-]+)="([^"]*)"', opening)}


def named(cells: Cells) -> dict[str, tuple[Attributes, str]]:
    return {cell["data-name"]: (cell, text) for cell, text in cells if "data-name" in cell}


def shown(found: Estimate | Rate) -> str:
    value = found.frac if isinstance(found, Rate) else found.value
    return " ".join(show_measured(value, found.low, found.high))


def check(cells: Cells, wanted: dict[str, Estimate | Rate | None]) -> None:
    """The row's named cells hold these numbers: exactly as attributes, rounded as text."""
    present = named(cells)
    for name, found in wanted.items():
        cell, text = present[name]
        if found is None:
            assert (cell["data-value"], text) == ("", "–")
        else:
            assert cell["data-value"] == repr(found.frac if isinstance(found, Rate) else found.value)
            assert (cell["data-low"], cell["data-high"]) == (repr(found.low), repr(found.high))
            assert text == shown(found)


def one_row(title: str, **wanted: str) -> Cells:
    (found,) = rows(HTML, title=title, **wanted)
    return found[1]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> tuple[Page, list[str]]:
    home = tmp_path_factory.mktemp("inside")
    folders = [made.write(home / name, survey) for name, survey in (("a", FIRST), ("b", SECOND))]
    write_report(folders, home / "report.html")
    dom, console, *_ = open_page(home / "report.html")
    return Page(dom), console


# Partners


@pytest.mark.parametrize("measure", PARTNERS)
def test_every_row_of_a_similarity_number_holds_all_of_its_counterparts(measure: str) -> None:
    assert tuple(COUNTERPARTS[measure]) == tuple(PARTNERS[measure])
    found = rows(HTML, measure=measure)
    assert {row["data-title"] for row, _ in found} == {FIRST.title, SECOND.title}
    for _, cells in found:
        beside = [(cell["data-counterpart"], text) for cell, text in cells if "data-counterpart" in cell]
        assert [kind for kind, _ in beside] == list(PARTNERS[measure])
        assert all(text for _, text in beside)


def test_every_number_of_a_measure_with_counterparts_stands_in_such_a_row() -> None:
    sections = re.findall(r"<tr[^>]*>.*?</tr>", HTML[HTML.index('id="inside"') : HTML.index('data-group="causal"')], re.DOTALL)
    alone = [row for row in sections if "data-value" in row and "data-counterpart" not in row]
    assert len(sections) > 60 and alone == []


def test_counterparts_come_from_the_nearest_site_and_say_which() -> None:
    causal = FIRST.inside.causal if FIRST.inside else None
    assert causal is not None
    by_site = {one.site: one.overall.moved for one in causal.mean}
    sites = {"encoder": "connector", "connector": "connector", "layer.1": "connector", "layer.2": "layer.2", "layer.3": "layer.2"}
    for site, near in sites.items():
        (cell,) = [each for each in one_row(FIRST.title, measure="likeness", site=site) if each[0].get("data-counterpart") == "mean"]
        assert cell[0]["data-counterpart-site"] == near and cell[0]["data-value"] == repr(by_site[near].frac)
        assert cell[1] == f"{shown(by_site[near])} at {near}"
    last = nearest("spoken", causal.mean)
    assert last is not None and last.site == "layer.2"


def test_counterparts_of_a_factor_are_of_that_factor_and_of_a_question_of_that_question() -> None:
    causal = FIRST.inside.causal if FIRST.inside else None
    assert causal is not None
    patch = {(one.factor, one.site): one for one in causal.patch}
    erase = {(one.factor, one.site): one for one in causal.erase}
    got = find_causal_counterparts(causal, "geometry", "layer.3", "colour")
    assert [one.value for one in got] == [patch["colour", "layer.2"].subspace.own.moved, erase["colour", "layer.2"].lost]
    (felt,) = find_causal_counterparts(causal, "fisher", "connector", "shape", "colour")
    assert felt.value == patch["shape", "connector"].by_query["colour"]
    assert [one.value for one in find_causal_counterparts(causal, "geometry", "layer.3", "sheen")] == [None, None]
    assert "sheen was not erased" in HTML


def test_without_causal_numbers_each_table_and_chart_says_so() -> None:
    bare = FIRST.model_copy(update={"inside": inside_records.inside(causal=None)})
    html = build_page([StoredSurvey(bare)])
    for measure in COUNTERPARTS:
        found = [cell for _, cells in rows(html, measure=measure) for cell in cells if "data-counterpart" in cell[0]]
        assert found and all(text == NO_CAUSAL and cell["data-counterpart"] == "none" for cell, text in found)
        # One cell beside all rows of a table; the ladder and its rungs are two tables.
        (first, *_) = found
        assert len(found) == (2 if measure == "ladder" else 1) and int(first[0]["rowspan"]) >= 3
    assert "--measures causal" in html and 'data-group="causal"' not in html
    drawn = inside_charts(view(bare))
    assert all(NO_CAUSAL in spec["description"] for spec in drawn.values() if spec is not None)


def view(survey: SurveyRecord) -> views.InsideView:
    found = views.view_inside(label_arms([StoredSurvey(survey)])[0])
    assert found is not None
    return found


def unasked(causal: Causal) -> Causal:
    """The same with no question about any factor."""

    def only_others(found: Responses) -> Responses:
        return found.model_copy(update={"own": None})

    empty = {"accuracy": None, "read": None}
    return causal.model_copy(
        update={
            "patch": tuple(one.model_copy(update={name: only_others(getattr(one, name)) for name in PATCHED}) for one in causal.patch),
            "erase": tuple(
                one.model_copy(
                    update={"lost": None, **{name: getattr(one, name).model_copy(update=empty) for name in ("before", "after", "control")}}
                )
                for one in causal.erase
            ),
        }
    )


def test_a_factor_that_no_question_is_about_shows_what_happens_to_the_other_questions() -> None:
    found = inside_records.inside()
    assert found.causal is not None
    html = build_page([StoredSurvey(FIRST.model_copy(update={"inside": found.model_copy(update={"causal": unasked(found.causal)})}))])
    (cells,) = [cells for _, cells in rows(html, measure="geometry", site="connector", factor="colour", product="Euclidean")]
    patched, erased = [(cell, text) for cell, text in cells if "data-counterpart" in cell]
    (patch,) = [one for one in found.causal.patch if (one.factor, one.site) == ("colour", "connector")]
    (erase,) = [one for one in found.causal.erase if (one.factor, one.site) == ("colour", "connector")]
    assert patched[0]["data-value"] == repr(max(rate.frac for rate in patch.by_query.values())) and "none is about colour" in patched[1]
    assert erased[0]["data-value"] == repr(max(rate.frac for rate in erase.moved.values())) and "no question is about colour" in erased[1]


# Numbers


@pytest.mark.parametrize("survey", [FIRST, SECOND], ids=["first", "second"])
def test_the_numbers_of_the_tables_are_those_of_the_record(survey: SurveyRecord) -> None:
    inside = survey.inside
    assert inside and inside.ladder and inside.likeness and inside.allocation and inside.gap and inside.fisher and inside.identifiability
    title = survey.title
    for site, alike in inside.likeness.sites.items():
        check(one_row(title, measure="likeness", site=site), {"cosine": alike.cosine, "rank": alike.rank})
    for site, layer in inside.allocation.layers.items():
        parts = {"share": layer.share, "baseline": layer.baseline, "excess": layer.excess}
        check(one_row(title, measure="allocation", site=site), parts)
    for site, gap in inside.gap.sites.items():
        told = {"relative": gap.relative, "distance": gap.distance, "cosine": gap.cosine, "separable": gap.separable}
        check(one_row(title, measure="gap", site=site), told)
    for one in inside.fisher.energies:
        felt = {"energy": one.energy, "energy_span": one.energy_span, "slope": one.slope, "slope_span": one.slope_span}
        check(one_row(title, measure="fisher", factor=one.factor, query=one.query), felt)
    for site, known in inside.identifiability.sites.items():
        for factor, block in known.factors.items():
            squares = {"linear_r2": block.linear_r2, "nonlinear_r2": block.nonlinear_r2}
            check(one_row(title, measure="identifiability", site=site, factor=factor), squares)


def test_the_ladder_names_the_step_and_holds_every_rung() -> None:
    ladder = FIRST.inside.ladder if FIRST.inside else None
    assert ladder is not None
    for factor, told in ladder.factors.items():
        step = told.loss.step
        cells = one_row(FIRST.title, measure="ladder", factor=factor, step=step)
        assert [text for _, text in cells[:4]] == [factor, step, told.loss.kept_at or "–", told.loss.lost_at or "–"]
        check(cells, {"drop": told.loss.drop})
        for rung in told.rungs:
            found = [
                each
                for row, each in rows(HTML, title=FIRST.title, measure="ladder", factor=factor, site=rung.site)
                if "data-step" not in row
            ]
            (cells,) = found
            check(
                cells,
                {
                    "normalised": rung.normalised,
                    "accuracy": rung.accuracy,
                    "control": rung.control,
                    "selectivity": rung.selectivity,
                    "drop": rung.drop,
                },
            )
    assert "row has no ladder: one value only" in HTML


def test_directions_stand_under_both_products_with_chance_and_overlap() -> None:
    geometry = FIRST.inside.geometry if FIRST.inside else None
    assert geometry is not None
    for site, found in geometry.sites.items():
        for product, shape in (("Euclidean", found.euclidean), ("weighted by words", found.causal)):
            if shape is None:
                assert site == "encoder" and rows(HTML, title=FIRST.title, measure="geometry", site=site, product=product) == []
                continue
            for factor, one in shape.factors.items():
                cells = named(one_row(FIRST.title, measure="geometry", site=site, factor=factor, product=product))
                if one.consistency is None:
                    assert cells["consistency"][1] == "–"
                else:
                    assert cells["consistency"][0]["data-value"] == repr(one.consistency.estimate.value)
                    assert cells["consistency"][1].startswith(shown(one.consistency.estimate) + "chance ")
                most = max(each.overlap.estimate.value for each in shape.overlaps if factor in (each.first, each.second))
                assert cells["overlap"][0]["data-value"] == repr(most)


def test_words_of_both_lenses_stand_in_one_row_beside_patch_and_erasure() -> None:
    words = FIRST.inside.words if FIRST.inside else None
    assert words is not None and words.latent is not None
    for site, logit in words.logit.sites.items():
        for factor in ("shape", "colour"):
            one, other = logit.factors[factor], words.latent.sites[site].factors.get(factor)
            cells = one_row(FIRST.title, measure="words", site=site, factor=factor)
            numbers = {"logit_share": one.share, "logit_baseline": one.baseline, "logit_excess": one.excess}
            check(cells, {**numbers, "latent_share": other.share if other else None, "latent_excess": other.excess if other else None})
    assert "The logit lens cannot name sheen sheen-0 and sheen-1" in " ".join(HTML.split()) and "sheen is left out" in HTML


def test_causal_numbers_have_tables_of_their_own() -> None:
    causal = FIRST.inside.causal if FIRST.inside else None
    assert causal is not None
    page = HTML[: HTML.index(f'data-inside="{SECOND.title}"')]
    patches, erasures, disturbed = (
        [each for _, each in rows(table)]
        for kind in ("patches", "erasures", "disturbances")
        for table in re.findall(rf'<table class="{kind}">.*?<tbody>(.*?)</tbody>', page, re.DOTALL)
    )
    for cells, patch in zip(patches, causal.patch, strict=True):
        moved = {"subspace": patch.subspace.own.moved, "random": patch.random_direction.own.moved, "whole": patch.whole.own.moved}
        check(cells, {**moved, "becomes": patch.subspace.own.becomes})
    for cells, erase in zip(erasures, causal.erase, strict=True):
        check(
            cells, {"before": erase.before.accuracy, "after": erase.after.accuracy, "control": erase.control.accuracy, "lost": erase.lost}
        )
    assert len(disturbed) == len(causal.shuffle) + len(causal.mean)
    check(disturbed[0], {"moved": causal.shuffle[0].overall.moved, "after": causal.shuffle[0].overall.accuracy_after})


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [
        (0.4321, 0.1, 0.9, ("0.43", "[0.10, 0.90]")),
        (-0.03989, -0.0426, -0.0371, ("-0.040", "[-0.043, -0.037]")),
        (-0.001, -0.2, 0.2, ("0.00", "[-0.20, 0.20]")),
        (182.3, 125.3, 239.2, ("182", "[125, 239]")),
        (45.32, 45.1, 45.5, ("45.3", "[45.1, 45.5]")),
        (0.5, None, None, ("0.50", "[no interval]")),
    ],
)
def test_a_number_has_the_decimals_that_its_interval_needs(
    value: float, low: float | None, high: float | None, text: tuple[str, str]
) -> None:
    assert show_measured(value, low, high) == text


# The page


def test_both_arms_are_drawn_and_the_console_stays_empty(opened: tuple[Page, list[str]]) -> None:
    page, console = opened
    assert console == []
    assert [found["data-inside"] for found in page.of("article") if "data-inside" in found] == [FIRST.title, SECOND.title]
    # One chart compares, one an arm is of its coverage, seven are of its inside.
    assert len(page.charts) == 1 + 2 * (1 + 7)
    assert all({"mark-rect", "mark-symbol"} & set(parts) for parts in page.charts)
    assert page.text.count("What this does not say") == 6


def test_records_without_an_inside_give_a_page_without_a_word_of_it() -> None:
    page = build_page([StoredSurvey(survey) for survey in OLD])
    assert 'id="inside"' not in page and "Inside the model" not in page and "insides" not in page


def test_an_arm_without_an_inside_says_so_beside_one_that_has_it() -> None:
    page = build_page([StoredSurvey(FIRST), StoredSurvey(OLD[1])])
    assert page.count("Nothing was measured inside this model") == 1


@pytest.mark.parametrize("left", ["ladder", "likeness", "allocation", "geometry", "fisher", "causal", "gap", "identifiability", "words"])
def test_any_one_measure_alone_gives_a_page(left: str) -> None:
    found = inside_records.inside()
    nothing: dict[str, Any] = dict.fromkeys(inside_records.MEASURES)
    alone = found.model_copy(update={**nothing, left: getattr(found, left), "measures": (left,)})
    html = build_page([StoredSurvey(FIRST.model_copy(update={"inside": alone}))])
    assert (rows(html, measure=left) != []) == (left != "causal")


def test_the_captions_of_the_inside_name_the_seed() -> None:
    captions = re.findall(r"<caption>(.*?)</caption>", HTML)
    assert len(captions) > 30 and all("one seed" in caption for caption in captions)


# Words over a picture


def cells_of(page: Page) -> list[Attributes]:
    return [found for found in page.of("span") if "data-token" in found]


CHOOSE = """() => {
const choose = (control, value) => { control.value = value; control.dispatchEvent(new Event("input")); };
const [first] = document.querySelectorAll("figure.words");
const before = first.querySelector("[data-token]").textContent;
choose(first.querySelectorAll("select")[0], "1");
choose(first.querySelector("input"), "3");
choose(first.querySelectorAll("select")[1], "shape");
first.querySelector("[data-token='1']").dispatchEvent(new MouseEvent("mouseover", { bubbles: true }));
return [before, first.querySelector("[data-token]").textContent,
  first.querySelectorAll(".named").length, first.querySelector(".word-tip").innerText.replaceAll("\\n", " ")];
}"""


def test_words_lie_over_the_tokens_and_follow_lens_site_and_factor(tmp_path: Path) -> None:
    folder = made.write(tmp_path / "a", FIRST)
    picture = next((folder / "pictures").iterdir()).read_bytes()
    (folder / "pictures" / "words-000003.png").write_bytes(picture)
    write_report([folder], tmp_path / "report.html")
    whole = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "words-000003" not in whole, "the picture itself is in the page"
    opened = open_page(tmp_path / "report.html", CHOOSE)
    page = Page(opened.dom)
    assert opened.console == [] and len(cells_of(page)) == 2 * 16
    # LatentLens at the second of four sites, then the logit lens at the last, whose second token names the colour.
    before, after, marked, tip = opened.result
    assert (before, after, marked) == ("l10", "l30", 0)
    assert tip.startswith("row 1, column 2") and "red" in tip and "names colour: red" in tip and "probability of the first: 0.25" in tip
    first, second = page.of("div", **{"class": "word-grid over"}), page.of("div", **{"class": "word-grid"})
    assert len(first) == 1 and "data:image/png" in first[0]["style"], "a picture lies behind its words"
    assert len(second) == 1, "without its file there are words alone"
    named = [found for found in cells_of(page) if found.get("class") == "named"]
    assert [found["data-token"] for found in named] == ["1", "2"], "of the second picture, under any factor"


def test_a_record_without_words_has_no_script_of_words() -> None:
    bare = build_page([StoredSurvey(FIRST.model_copy(update={"inside": inside_records.inside(words=None)}))])
    assert "wordGrid" not in bare and "wordGrid" in HTML


# Position maps


@pytest.mark.parametrize(("asked", "drawn"), [("size", ["shape", "sheen"]), ("colour", ["shape", "colour", "sheen"])])
def test_maps_are_of_factors_that_are_lost_or_asked_about(asked: str, drawn: list[str]) -> None:
    evidence = {name: found.model_copy(update={"asked": name == asked}) for name, found in FIRST.shadows.evidence.items()}
    found = view(FIRST.model_copy(update={"shadows": FIRST.shadows.model_copy(update={"evidence": evidence})}))
    # Colour is said: nothing of it is lost.
    assert [(one.factor, one.position_map.site) for one in found.maps] == [
        (name, site) for name in drawn for site in ("connector", "layer.2")
    ]


def test_a_map_places_each_token_s_accuracy_above_chance() -> None:
    spec = inside_charts(view(FIRST))["maps"]
    ladder = FIRST.inside.ladder if FIRST.inside else None
    assert spec is not None and ladder is not None
    for row in spec["datasets"]["maps"]:
        told = ladder.factors[row["factor"]]
        (found,) = [one for one in told.positions if one.site == row["site"]]
        assert list(zip(row["row"], row["column"], strict=True)) == list(found.cells or ())
        assert row["value"] == [round((accuracy - 0.25) / 0.75, 2) for accuracy in found.accuracy_frac]


def test_maps_beyond_what_a_page_can_hold_are_left_out_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "MAX_SQUARES", 2 * 16)
    found = view(FIRST)
    assert {one.factor for one in found.maps} == {"shape"} and found.undrawn == ["sheen"]
    assert "No map is drawn of sheen" in build_page([StoredSurvey(FIRST)])


def test_large_maps_keep_the_page_small() -> None:
    large: Inside = inside_records.inside(side=24)
    spec = inside_charts(view(FIRST.model_copy(update={"inside": large})))["maps"]
    assert spec is not None
    squares = sum(len(row["value"]) for row in spec["datasets"]["maps"])
    assert squares == 24 * 24 * 2 * 2 and len(json.dumps(spec)) < 60 * squares


HOSTILE = "</script><script>console.error('owned')</script><img src=x onerror=\"console.error('owned')\"> & {{ 7*7 }}"


def test_hostile_names_are_text_and_at_700_pixels_nothing_scrolls_sideways(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(inside_records, "FACTORS", (*inside_records.FACTORS, HOSTILE))
    monkeypatch.setattr(inside_records, "QUERIES", (*inside_records.QUERIES, HOSTILE))
    monkeypatch.setitem(inside_records.LOSSES, HOSTILE, ("not said", "answer", "spoken"))
    opened_all = build_page([StoredSurvey(FIRST.model_copy(update={"inside": inside_records.inside()}))]).replace(
        "<details", "<details open"
    )
    (tmp_path / "page.html").write_text(opened_all, encoding="utf-8")
    opened = open_page(tmp_path / "page.html", width=700)
    page = Page(opened.dom)
    assert (opened.console, opened.overflow) == ([], 0)
    assert page.text.count("<script>console.error('owned')</script>") > 10
    assert not any("onerror" in found for _, found in page.elements)
