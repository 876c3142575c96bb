"""Comparison of two surveys of the same pairs: known differences, rows in another order, and refused input."""

from __future__ import annotations

import json
from collections.abc import Mapping
from io import StringIO
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from rich.console import Console
from scipy import stats

from helpers.survey_records import record
from theodolite.asking.prompts import prompt_hash
from theodolite.commands.compare import alone_line, comparison_table, verdict_change_lines, withheld_lines
from theodolite.commands.csv_tables import comparison_csv
from theodolite.measurement.survey.compare import adjust, compare, compare_records
from theodolite.records.comparison import CellChange, Comparison
from theodolite.records.endpoint import Capabilities, EndpointConfig
from theodolite.records.errors import BadInput
from theodolite.records.survey import BadRecord, SurveyRecord, Verdict
from theodolite.stats.rates import difference_p, paired_difference

NUM_SCENES = 60
VALUES = ["a", "b", "c"]
Habits = Mapping[tuple[str, str], float]  # (factor, query) -> how often the answer follows the factor


def rows_of(habits: Habits, salt: int, queries: tuple[str, ...] = ("shape", "colour"), num_scenes: int = NUM_SCENES) -> pl.DataFrame:
    """Interventions on shape and colour, two pairs a scene, and one row of nuisance; `habits` are the rates of changed answers."""
    rng = np.random.default_rng(salt)
    rows: list[dict[str, object]] = []
    for scene in range(num_scenes):
        for factor in ("shape", "colour", ""):
            for query in queries:
                for pair in range(2 if factor else 1):
                    moved = bool(rng.random() < habits.get((factor, query), 0.0))
                    truth = ("a", "b") if factor == query else ("a", "a")
                    answer = ("a", "b") if moved else ("a", "a")
                    picture = 100 * scene + 10 * pair
                    row = {"kind": "intervention" if factor else "nuisance", "scene": scene, "factor": factor, "query": query}
                    row |= {"form": "open", "name": query, "question_before": f"{query}?", "question_after": f"{query}?", "choices": VALUES}
                    row |= {"truth_before": truth[0], "truth_after": truth[1], "picture_before": picture, "picture_after": picture + 1}
                    row |= {"moved": moved, "right": answer == truth, "variation": 0.8 * moved}
                    rows.append(row)
    return pl.DataFrame(rows)


FIRST = rows_of({("shape", "shape"): 0.2, ("colour", "colour"): 0.9, ("colour", "shape"): 0.8, ("shape", "colour"): 0.1}, 0)
SECOND = rows_of({("shape", "shape"): 0.8, ("colour", "colour"): 0.9, ("colour", "shape"): 0.2, ("shape", "colour"): 0.1}, 1)
ONE, OTHER = (record(title, title, {}, {}) for title in ("before", "after"))


def compared(one: pl.DataFrame = FIRST, other: pl.DataFrame = SECOND) -> Comparison:
    return compare_records(ONE, one, OTHER, other)


def cell(comparison: Comparison, factor: str, query: str) -> CellChange:
    (only,) = [cell for cell in comparison.cells if (cell.factor, cell.query) == (factor, query)]
    return only


def named(comparison: Comparison) -> tuple[set[tuple[str, str, str]], set[tuple[str, str, str]]]:
    grew, shrank = ({(item.measure, item.factor, item.query) for item in items} for items in (comparison.grew, comparison.shrank))
    return grew, shrank


# Findings


def test_what_grew_and_what_shrank_is_what_was_planted() -> None:
    comparison = compared()
    grew, shrank = named(comparison)
    assert grew == {("moved", "shape", "shape"), ("right", "shape", "shape"), ("variation", "shape", "shape"), ("right", "colour", "shape")}
    assert shrank == {("moved", "colour", "shape"), ("variation", "colour", "shape")}
    assert [item.difference for item in comparison.grew] == sorted((item.difference for item in comparison.grew), reverse=True)
    read, leak = cell(comparison, "shape", "shape"), cell(comparison, "colour", "shape")
    assert read.truth_moves and not leak.truth_moves
    assert (read.num_pairs, read.num_scenes, comparison.num_rows) == (120, 60, 480)
    assert read.moved.difference.value == pytest.approx(0.6, abs=0.15) and leak.moved.difference.value == pytest.approx(-0.6, abs=0.15)


def test_numbers_of_a_cell_are_those_of_its_rows_side_by_side() -> None:
    """The rows of both have the same order here, so they can be paired by position."""
    change = cell(compared(), "colour", "shape").variation
    part = (pl.col("factor") == "colour") & (pl.col("query") == "shape")
    one, other = FIRST.filter(part), SECOND.filter(part)
    values = [side["variation"].to_numpy() for side in (one, other)]
    assert (change.one, change.other) == pytest.approx((values[0].mean(), values[1].mean()))
    expected = paired_difference(values[0], values[1], one["scene"].to_numpy(), 0.95, (-1.0, 1.0))
    assert change.difference.model_dump() == pytest.approx(expected.model_dump())
    assert change.p == pytest.approx(difference_p(values[1] - values[0], one["scene"].to_numpy()))


def test_the_other_way_round_grown_and_shrunk_change_places() -> None:
    there, back = compared(), compare_records(OTHER, SECOND, ONE, FIRST)
    assert named(back) == named(there)[::-1]
    for one, other in zip(there.cells, back.cells, strict=True):
        assert one.moved.difference.value == -other.moved.difference.value and one.moved.p_adjusted == other.moved.p_adjusted


def test_rows_are_matched_by_what_they_are_never_by_where_they_stand() -> None:
    shuffled = SECOND.sample(fraction=1.0, shuffle=True, seed=3)
    assert compared(FIRST, shuffled) == compared()
    assert compared(FIRST.reverse(), shuffled).to_json() == compared().to_json()


def test_a_pair_is_its_own_control() -> None:
    """The second differs from the first in 3 of 60 scenes, always one way: far less than scenes differ from each other."""
    changed = (pl.col("scene") < 30) & (pl.col("factor") == "shape") & (pl.col("query") == "shape")
    other = FIRST.with_columns(moved=pl.col("moved") | changed)
    paired = cell(compared(FIRST, other), "shape", "shape").moved
    assert paired.p is not None and paired.difference.low is not None and paired.difference.low > 0
    part = pl.col("kind") == "intervention"
    assert paired.p < 1e-4 and len(compared(FIRST, other).cells) == FIRST.filter(part).select("factor", "query").n_unique()


def test_a_survey_does_not_differ_from_itself() -> None:
    comparison = compared(FIRST, FIRST)
    assert comparison.grew == comparison.shrank == ()
    for each in comparison.cells:
        for change in (each.moved, each.right, each.variation):
            low, high = change.difference.low, change.difference.high
            assert change.difference.value == 0 and change.p == change.p_adjusted == 1
            assert low is not None and high is not None and low < -0.03 < 0.03 < high  # none of 60 scenes, so few of all


def test_a_difference_in_every_pair_is_told_though_no_scene_differs_from_another() -> None:
    habits = {("shape", "shape"): 1.0}
    change = cell(compared(rows_of({}, 0), rows_of(habits, 0)), "shape", "shape").moved
    assert change.difference.value == change.difference.high == 1 and change.difference.low is not None and 0.85 < change.difference.low < 1
    assert change.p is not None and change.p < 1e-9


def test_one_scene_tells_nothing() -> None:
    comparison = compared(rows_of({}, 0, num_scenes=1), rows_of({("shape", "shape"): 1.0}, 0, num_scenes=1))
    assert comparison.grew == comparison.shrank == ()
    moved = cell(comparison, "shape", "shape").moved
    assert (moved.difference.low, moved.difference.high, moved.p, moved.p_adjusted, moved.detectable) == (None,) * 5


def test_p_are_adjusted_across_the_cells_of_each_quantity_and_what_is_missing_counts_for_nothing() -> None:
    comparison = compared()
    raw = [each.moved.p for each in comparison.cells]
    assert [each.moved.p_adjusted for each in comparison.cells] == pytest.approx(list(stats.false_discovery_control(raw)))
    assert adjust([0.01, None, 0.04]) == pytest.approx([0.02, None, 0.04]) and adjust([None]) == [None]


def test_rows_that_only_one_was_asked_are_left_out_and_counted() -> None:
    third = rows_of({("shape", "shape"): 0.5}, 2, ("shape",))
    comparison = compared(FIRST, third)
    assert {each.query for each in comparison.cells} == {"shape"}
    assert (comparison.num_rows, comparison.one.num_rows_alone, comparison.other.num_rows_alone) == (240, 240, 0)
    assert alone_line(comparison) == "240 rows compared; left out: 240 that only before was asked" and alone_line(compared()) is None


def judged(survey: SurveyRecord, verdicts: dict[str, Verdict]) -> SurveyRecord:
    return survey.model_copy(update={"shadows": survey.shadows.model_copy(update={"verdicts": verdicts})})


def test_verdicts_that_differ_come_worst_first() -> None:
    one = judged(ONE, {"shape": "blind", "colour": "identified", "row": "identified", "size": "inert", "tilt": "inert"})
    other = judged(OTHER, {"shape": "identified", "colour": "entangled", "row": "shadow", "size": "inert", "sheen": "blind"})
    comparison = compare_records(one, FIRST, other, SECOND)
    assert [each.factor for each in comparison.verdicts] == ["row", "colour", "shape"]
    assert verdict_change_lines(comparison)[0] == "verdict of row: identified -> shadow"
    assert verdict_change_lines(compare_records(one, FIRST, one, FIRST)) == ["no verdict differs"]


def test_the_csv_of_a_comparison_has_the_differences_and_a_head_even_without_cells() -> None:
    comparison = compared()
    table = pl.read_csv(comparison_csv(comparison).encode())
    assert table["moved_difference"].to_list() == [each.moved.difference.value for each in comparison.cells]
    assert comparison_csv(comparison.model_copy(update={"cells": ()})).strip().split(",") == table.columns


def withholding(survey: SurveyRecord, withheld: dict[str, float]) -> SurveyRecord:
    return survey.model_copy(update={"shadows": survey.shadows.model_copy(update={"withheld": withheld})})


@pytest.mark.parametrize("which", [0, 1])
def test_queries_that_either_survey_withholds_are_not_compared_and_named(which: int) -> None:
    one, other = (withholding(each, {"shape (open)": 0.93} if side == which else {}) for side, each in enumerate((ONE, OTHER)))
    comparison = compare_records(one, FIRST, other, SECOND)
    assert {each.query for each in comparison.cells} == {"colour"} and comparison.num_rows == 240
    assert not comparison.grew and not comparison.shrank and alone_line(comparison) is None
    assert (comparison.one, comparison.other)[which].withheld == {"shape (open)": 0.93}
    (line,) = withheld_lines(comparison)
    assert line.startswith("not compared: shape (open), since 93% of the probability of " + ("before", "after")[which])
    expected = cell(compared(), "colour", "colour").right
    assert cell(comparison, "colour", "colour").right.difference == expected.difference
    assert compare_records(one, FIRST, other, SECOND).to_json() == comparison.to_json()


def test_another_form_of_a_withheld_query_is_compared() -> None:
    assert compare_records(withholding(ONE, {"shape (yes_no)": 0.9}), FIRST, OTHER, SECOND).cells == compared().cells


def test_where_all_is_withheld_nothing_is_compared_and_that_is_recorded() -> None:
    one = withholding(ONE, {"shape (open)": 0.93, "colour (open)": 0.7})
    comparison = compare_records(one, FIRST, OTHER, SECOND)
    assert (comparison.cells, comparison.grew, comparison.shrank, comparison.num_rows) == ((), (), (), 0)
    assert len(withheld_lines(comparison)) == 2


def test_rows_that_are_there_twice_are_matched_as_often() -> None:
    twice = pl.concat([FIRST, FIRST])
    comparison = compared(twice, pl.concat([SECOND, SECOND]))
    assert comparison.num_rows == 960 and compared(twice, SECOND).num_rows == 480
    once, more = (cell(each, "shape", "shape").moved.difference for each in (compared(), comparison))
    assert once.value == more.value and once.low is not None and once.high is not None
    assert (more.low, more.high) == pytest.approx((once.low, once.high), abs=0.01)  # the number of rows only caps the size of the sample


def test_another_order_of_choices_is_another_question() -> None:
    turned = SECOND.with_columns(choices=pl.when(pl.col("scene") < 10).then(pl.col("choices").list.reverse()).otherwise("choices"))
    assert compared(FIRST, turned).num_rows == 480 - 80


# Refused input


def test_different_pairs_are_refused_with_the_reason() -> None:
    strange = OTHER.model_copy(update={"pictures_sha256": "99" * 32})
    with pytest.raises(BadInput, match=r"different pairs.*before.*1212.*after.*9999.*same world"):
        compare_records(ONE, FIRST, strange, SECOND)


def asked(survey: SurveyRecord, **how: str) -> SurveyRecord:
    return survey.model_copy(update={"model": survey.model.model_copy(update=how)})


def test_surveys_that_write_their_questions_differently_are_refused() -> None:
    lettered = asked(OTHER, prompt="letters", prompt_sha256=prompt_hash("letters"))
    with pytest.raises(BadInput, match=r"write their questions differently.*before are of style free.*after of style letters.*--prompt"):
        compare_records(ONE, FIRST, lettered, SECOND)
    assert compare_records(asked(ONE, prompt="letters", prompt_sha256=prompt_hash("letters")), FIRST, lettered, SECOND).num_rows == 480


def test_surveys_that_score_choices_differently_are_refused_and_an_endpoint_scores_none() -> None:
    by_token = asked(OTHER, score="per_token")
    with pytest.raises(BadInput, match=r"score choices differently: before by total, after by per_token.*--score"):
        compare_records(ONE, FIRST, by_token, SECOND)
    offers = Capabilities(logprobs=0, seed=True, temperature=True, limit_name="max_tokens")
    remote = EndpointConfig(
        base_url="http://localhost/v1", name="m", served_as=(), offers=offers, answers="text", prompt="free",
        prompt_sha256=prompt_hash("free"), picture_size=32, max_tokens=32, seed=0,
    )  # fmt: skip
    assert compare_records(by_token, FIRST, OTHER.model_copy(update={"model": remote}), SECOND).num_rows == 480


def test_records_from_before_prompts_were_recorded_count_as_asked_then() -> None:
    """A model in this process was asked the bare question, its choices scored in total."""
    old = json.loads(ONE.to_json())
    for name in ("prompt", "prompt_sha256", "score"):
        del old["model"][name]
    assert SurveyRecord.model_validate(old) == ONE and ONE.model.prompt_sha256 == prompt_hash("free")


def test_surveys_without_a_common_question_are_refused() -> None:
    with pytest.raises(BadInput, match=r"none of 240 and 240 rows.*--ask"):
        compared(rows_of({}, 0, ("shape",)), rows_of({}, 0, ("colour",)))


def test_surveys_that_disagree_about_the_truth_are_refused() -> None:
    lying = SECOND.with_columns(truth_after=pl.when(pl.col("scene") == 7).then(pl.lit("c")).otherwise("truth_after"))
    with pytest.raises(BadInput, match="disagree about the truth: scene 7"):
        compared(FIRST, lying)


# From disk


def written(folder: Path, survey: SurveyRecord, rows: pl.DataFrame) -> Path:
    folder.mkdir()
    (folder / "survey.json").write_text(survey.to_json())
    rows.write_parquet(folder / "rows.parquet")
    return folder


def test_two_folders_are_compared_and_shown(tmp_path: Path) -> None:
    one, other = written(tmp_path / "one", ONE, FIRST), written(tmp_path / "other", OTHER, SECOND)
    comparison = compare(one, other)
    assert comparison == compared() == Comparison.model_validate_json(comparison.to_json())
    assert compare(one / "survey.json", other) == comparison
    console = Console(width=200, file=StringIO())
    with console.capture() as printed:
        console.print(comparison_table(comparison))
    text = printed.get()
    read, leak = (cell(comparison, factor, "shape").moved for factor in ("shape", "colour"))
    for change in (read, leak):
        assert f"{change.one:.2f} -> {change.other:.2f}" in text and f"{change.difference.value:+.2f}" in text
        assert f"{change.difference.low:+.2f}, {change.difference.high:+.2f}" in text
    assert "moved grew" in text and "moved shrank" in text and "colour grew" not in text


def test_folders_without_whole_rows_are_refused(tmp_path: Path) -> None:
    one, other = written(tmp_path / "one", ONE, FIRST), written(tmp_path / "other", OTHER, SECOND.drop("variation"))
    with pytest.raises(BadRecord, match="cannot be read as the rows of a survey"):
        compare(one, other)
    (other / "rows.parquet").unlink()
    with pytest.raises(BadRecord, match=r"holds no rows\.parquet"):
        compare(one, other)
    with pytest.raises(BadRecord, match=r"survey\.json"):
        compare(one, tmp_path)
