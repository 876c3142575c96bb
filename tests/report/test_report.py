"""The report: a page that needs nothing, says what the records say, and says what they lack."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import theodolite.report
from helpers import survey_records as made
from helpers.live_browser import open_page
from helpers.parsed_page import Attributes, Page
from theodolite.records.survey import BadRecord, Shadows, SurveyRecord, Thresholds
from theodolite.report.stored import StoredSurvey, read_stored
from theodolite.report.survey.arms import label_arms
from theodolite.report.survey.comparability import check_arms, same_training
from theodolite.report.survey.page import build_page, write_report

HOSTILE = "</script><script>console.error('owned')</script><img src=x onerror=\"console.error('owned')\"> & {{ 7*7 }} "


def stored(*surveys: SurveyRecord) -> list[StoredSurvey]:
    return [StoredSurvey(survey) for survey in surveys]


def warnings(page: Page) -> list[Attributes]:
    return page.of("p", role="alert")


@pytest.fixture(scope="module")
def records() -> tuple[SurveyRecord, SurveyRecord, SurveyRecord]:
    return made.three_records()


@pytest.fixture(scope="module")
def written(records: Sequence[SurveyRecord], tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("records")
    folders = [made.write(home / f"arm-{number}", survey) for number, survey in enumerate(records)]
    write_report(folders, home / "out" / "report.html")
    return home / "out" / "report.html"


@pytest.fixture(scope="module")
def source(written: Path) -> Page:
    return Page(written.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def opened(written: Path) -> tuple[Page, list[str]]:
    dom, console, *_ = open_page(written)
    return Page(dom), console


# Nothing from outside


def test_no_element_or_style_names_a_resource_outside_the_page(source: Page) -> None:
    named = [value for _, found in source.elements for key, value in found.items() if key in ("src", "href", "srcset", "data", "action")]
    assert len(named) > 4
    assert [value for value in named if not value.startswith(("data:image/png;base64,", "#"))] == []
    assert not source.of("link") and not source.of("iframe")
    style = "".join(source.styles)
    assert len(style) > 1000 and "url(" not in style and "@import" not in style


def test_the_browser_is_told_to_load_nothing(source: Page) -> None:
    (policy,) = [found["content"] for found in source.of("meta") if found.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy and "http" not in policy


def test_charts_name_no_schema_or_data_by_address(written: Path) -> None:
    specs = re.findall(r'<script type="application/json" id="spec-\d+">(.*?)</script>', written.read_text(encoding="utf-8"))
    assert len(specs) == 1 + 3
    assert not any("http" in spec or '"url"' in spec or "<" in spec for spec in specs)


def test_only_records_are_imported_of_this_package() -> None:
    home = Path(theodolite.report.__file__).parent
    modules = [node for path in home.rglob("*.py") for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    named = {node.module for node in modules if isinstance(node, ast.ImportFrom) and node.module}
    named |= {alias.name for node in modules if isinstance(node, ast.Import) for alias in node.names}
    own = {name for name in named if name.startswith("theodolite")}
    assert own and all(name.startswith(("theodolite.records", "theodolite.report")) for name in own)
    assert not named & {"torch", "transformers", "numpy"}
    assert not any("report.survey" in path.read_text(encoding="utf-8") for path in home.glob("study/*.py"))


# In a browser


def test_the_console_stays_empty(opened: tuple[Page, list[str]]) -> None:
    assert opened[1] == []


def test_a_chart_that_breaks_shows_in_the_console(written: Path, tmp_path: Path) -> None:
    html = written.read_text(encoding="utf-8")
    broken = tmp_path / "broken.html"
    broken.write_text(re.sub(r'(id="spec-1">)\{', r'\1{"mark": "no such mark", "data": ', html, count=1), encoding="utf-8")
    assert len(open_page(broken).console) == 1


def test_every_chart_is_drawn(opened: tuple[Page, list[str]]) -> None:
    page, _ = opened
    # Read against leak, then the coverage of each of three models.
    assert len(page.charts) == 1 + 3
    for parts in page.charts:
        assert {"mark-rect", "mark-text"} <= set(parts) or {"mark-rule", "mark-symbol"} <= set(parts)


def test_the_numbers_in_the_tables_are_those_of_the_records(opened: tuple[Page, list[str]], records: Sequence[SurveyRecord]) -> None:
    rows = [row for row in opened[0].of("tr") if "data-factor" in row and "data-form" in row]
    assert len(rows) == sum(len(survey.shadows.cells) for survey in records)
    for survey in records:
        for cell in survey.shadows.cells:
            key = {
                "data-title": survey.title,
                "data-seed": "0",
                "data-factor": cell.factor,
                "data-query": cell.query,
                "data-form": cell.form,
                "data-truth-moves": str(cell.truth_moves).lower(),
            }
            (row,) = [row for row in rows if key.items() <= row.items()]
            assert row["data-moved-frac"] == repr(cell.moved_frac)
            assert (float(row["data-low"]), float(row["data-high"])) == (cell.low, cell.high)
            assert (float(row["data-right-frac"]), float(row["data-variation"])) == (cell.right_frac, cell.variation)
            assert (int(row["data-num-pairs"]), int(row["data-num-scenes"])) == (cell.num_pairs, cell.num_scenes)


def test_the_summary_shows_read_and_leak_of_each_question_about_a_correlated_factor(source: Page) -> None:
    lines = {(row["data-title"], row["data-query"], row["data-form"]): row["data-other"] for row in source.of("tr") if "data-other" in row}
    assert lines == {
        ("shape only", "shape", "open"): "colour",
        ("shape and colour", "shape", "open"): "colour",
        ("shape and colour", "colour", "open"): "shape",
        ("shape, and is it round", "shape", "open"): "colour",
        ("shape, and is it round", "shape", "yes_no"): "colour",
    }
    shown = [cell["data-moved-frac"] for cell in source.of("td") if "data-moved-frac" in cell]
    assert shown[:2] == ["0.085", "0.97"] and len(shown) == 2 * len(lines)


def test_verdicts_scores_and_provenance_are_there(source: Page, records: Sequence[SurveyRecord]) -> None:
    for survey in records:
        chips = source.of("tr", **{"data-title": survey.title})
        found = {row["data-factor"]: row["data-verdict"] for row in chips if "data-verdict" in row}
        assert found == dict(survey.shadows.verdicts)
    chip = next(found for found in source.of("span") if found.get("data-verdict") == "shadow")
    assert "The leak that decides: 0.97" in chip["title"] and "the threshold is 0.1." in chip["title"]
    for text in ("cannot be asked", "0.91", "0.34", "transformers 5.23.0", "2026-01-02", "12" * 6, "above 0.5 of pairs", "strength 0.9"):
        assert text in source.text
    assert "round → red" in source.text and "exact" in source.text


def test_answers_to_the_same_pair_stand_together(source: Page) -> None:
    cards = source.of("article", **{"class": "pair-card"})
    assert len(cards) == 2
    # Two cards, and the failing pair at the head of the page.
    assert len(source.of("img")) == 4 + 2
    outcomes = [found["data-outcome"] for found in source.of("tr") if "data-outcome" in found]
    assert outcomes == ["leaked", "steady-right", "missed", "moved-right"]


# What may be compared


def test_equal_training_is_stated_as_a_fact(source: Page) -> None:
    assert "All 3 models were trained on the same 4,000 pictures in the same order" in source.text
    assert warnings(source) == []


def test_training_that_differs_is_a_warning_instead(records: Sequence[SurveyRecord]) -> None:
    first, second, _ = records
    other = second.model_copy(update={"training": made.training("shape,colour", pictures_sha256="99" * 32)})
    page = Page(build_page(stored(first, other)))
    assert len(warnings(page)) == 1 and "not trained alike: the training pictures" in page.text
    assert "trained on the same" not in page.text


@pytest.mark.parametrize("changed", [{"order_sha256": "99" * 32}, {"num_questions": 7}, {"num_answer_tokens": 7}, {"num_steps": 7}])
def test_whatever_differs_between_the_arms_is_named(records: Sequence[SurveyRecord], changed: dict[str, Any]) -> None:
    first, second, _ = records
    arms = label_arms(stored(first, second.model_copy(update={"training": made.training("shape,colour", **changed)})))
    (notice,) = check_arms(arms)
    assert notice.kind == "warning" and f"shape and colour: {str(*changed.values())[:12]}" in notice.text
    assert same_training(arms) == ()


def test_arms_of_another_comparison_are_not_held_against_the_others(records: Sequence[SurveyRecord]) -> None:
    first, second, third = records
    facts = made.training("all", comparison="official", pictures_sha256="77" * 32)
    arms = label_arms(stored(first, second, third.model_copy(update={"training": facts})))
    told = [notice.text for notice in check_arms(arms) if notice.kind == "note"]
    assert any(text.endswith("not across: shape only and shape and colour; shape, and is it round.") for text in told)
    assert not any(notice.kind == "warning" for notice in check_arms(arms))
    (sentence,) = same_training(arms)
    assert sentence.startswith("The models shape only and shape and colour were trained on the same 4,000 pictures")


def test_different_worlds_scenes_and_thresholds_are_warnings(records: Sequence[SurveyRecord]) -> None:
    first, second, _ = records
    assert second.world is not None
    strange = second.model_copy(
        update={
            "world": second.world.model_copy(update={"name": "elsewhere"}),
            "num_scenes": 50,
            "shadows": second.shadows.model_copy(update={"thresholds": Thresholds(read_frac=0.6)}),
        }
    )
    assert [notice.kind for notice in check_arms(label_arms(stored(first, strange)))] == ["warning"] * 3


# Seeds


def test_one_seed_stands_beside_every_figure(source: Page, written: Path) -> None:
    captions = re.findall(r"<caption>(.*?)</caption>", written.read_text(encoding="utf-8"))
    assert len(captions) == 2 + 3 + 1 + 5 * 3 + 1
    assert all("one seed" in caption for caption in captions)
    titles = re.findall(r'"description": "(.*?)"', written.read_text(encoding="utf-8"))
    assert len(titles) == 1 + 3 and all("one seed" in title for title in titles)


def test_seeds_of_one_policy_are_rows_of_their_own(records: Sequence[SurveyRecord]) -> None:
    first, second, _ = records
    again = [
        survey.model_copy(update={"training": made.training(survey.policy or "", seed=1, pictures_sha256="55" * 32)})
        for survey in (first, second)
    ]
    page = Page(build_page(stored(first, second, *again)))
    for label in ("shape only, seed 0", "shape only, seed 1", "shape and colour, seed 0", "shape and colour, seed 1"):
        assert label in page.text
    assert "one seed" not in page.text and "2 training seeds, a row each" in page.text
    # The two seeds saw different pictures, as they must; within a seed all saw the same.
    assert warnings(page) == [] and "in the same order, for each training seed" in page.text


def test_a_seed_that_only_one_policy_has_is_a_warning(records: Sequence[SurveyRecord]) -> None:
    first, second, _ = records
    (notice,) = check_arms(label_arms(stored(first, second.model_copy(update={"training": made.training("shape,colour", seed=1)}))))
    assert notice.kind == "warning" and "nothing shows that it saw the same pictures" in notice.text


# What is missing, and what is hostile


def foreign(survey: SurveyRecord) -> SurveyRecord:
    """A record of a model from elsewhere, asked about pairs from a file that was written by an enemy."""

    def spoil(shadows: Shadows) -> Shadows:
        cells = tuple(cell.model_copy(update={"factor": HOSTILE + cell.factor, "query": HOSTILE + cell.query}) for cell in shadows.cells)
        evidence = {HOSTILE + factor: found for factor, found in shadows.evidence.items()}
        return shadows.model_copy(update={"cells": cells, "evidence": evidence})

    examples = tuple(
        shown.model_copy(update={"question": HOSTILE, "answer_after": HOSTILE, "picture_before": "../../secret.png"})
        for shown in survey.examples
    )
    nothing = {"world": None, "coverage": None, "training": None, "policy": None}
    return survey.model_copy(update={"title": HOSTILE, "shadows": spoil(survey.shadows), "examples": examples, **nothing})


@pytest.fixture(scope="module")
def foreign_opened(records: Sequence[SurveyRecord], tmp_path_factory: pytest.TempPathFactory) -> tuple[Page, list[str], str]:
    path = tmp_path_factory.mktemp("foreign") / "report.html"
    html = build_page(stored(foreign(records[0])))
    path.write_text(html, encoding="utf-8")
    opened = open_page(path, width=700)
    assert opened.overflow == 0, "the page scrolls sideways"
    return Page(opened.dom), opened.console, html


def test_hostile_text_is_text(foreign_opened: tuple[Page, list[str], str]) -> None:
    page, console, html = foreign_opened
    assert console == []
    assert "<script>console.error('owned')</script>" in page.text
    assert not any("onerror" in found for _, found in page.elements)
    assert "owned" not in "".join(re.findall(r"<script>(.*?)</script>", html, re.DOTALL))


def test_on_the_pairs_of_others_the_page_says_what_is_missing_and_no_word_of_policies(foreign_opened: tuple[Page, list[str], str]) -> None:
    page, console, _ = foreign_opened
    for text in ("no world is known", "Nothing is recorded of the training", "How to read this page", "What the verdicts mean"):
        assert text in page.text
    for word in ("overage", "olicy", "olicies", "what was asked", "ext-token prediction learns"):
        assert word not in page.text.partition("Where these numbers come from")[0], word
    assert "training seed unknown" in page.text and "one seed" not in page.text
    assert "no picture in this page" in page.text
    assert len(page.charts) == 1 and "mark-rect" in page.charts[0]
    assert console == [] and warnings(page) == []


def test_without_cells_or_examples_there_is_still_a_page(records: Sequence[SurveyRecord]) -> None:
    empty = records[0].shadows.model_copy(update={"cells": (), "noise_cells": (), "competence": ()})
    page = Page(build_page(stored(records[0].model_copy(update={"shadows": empty, "examples": ()}))))
    assert "No rates of pairs: " in page.text and "No noise was measured" in page.text


# Reading and writing


def test_a_bad_record_goes_to_the_caller_and_leaves_the_old_page(records: Sequence[SurveyRecord], tmp_path: Path) -> None:
    good, out = made.write(tmp_path / "good", records[0]), tmp_path / "report.html"
    out.write_text("old")
    with pytest.raises(BadRecord, match=r"holds no survey\.json"):
        write_report([good, tmp_path / "nowhere"], out)
    (good / "run.json").write_text("{}")
    with pytest.raises(BadRecord, match="is no run record"):
        write_report([good], out)
    assert out.read_text() == "old"
    strange = records[0].model_copy(update={"coverage": {"coverage": {"shape": "much"}}})
    with pytest.raises(BadRecord, match="coverage of 'shape only'"):
        build_page(stored(strange))
    with pytest.raises(ValueError, match="at least one survey"):
        build_page([])


def test_the_same_records_give_the_same_page(written: Path) -> None:
    home = written.parent.parent
    write_report([home / f"arm-{number}" for number in range(3)], home / "again.html")
    assert (home / "again.html").read_bytes() == written.read_bytes()


def test_pictures_come_from_the_record_s_own_folder_only(records: Sequence[SurveyRecord], tmp_path: Path) -> None:
    first, second = records[0].examples
    (tmp_path / "secret.png").write_bytes(made.png("secret"))
    shown = (first.model_copy(update={"picture_before": "../secret.png"}), second)
    survey = records[0].model_copy(update={"examples": shown})
    made.write(tmp_path / "one", survey.model_copy(update={"examples": (second,)}), run=False)
    (tmp_path / "one" / "survey.json").write_text(survey.to_json(), encoding="utf-8")
    (tmp_path / "one" / second.picture_after).write_text("no picture")
    assert set(read_stored(tmp_path / "one").pictures or {}) == {second.picture_before}
