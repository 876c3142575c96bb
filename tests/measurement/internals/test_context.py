"""Input of the measures: each picture is asked its own question with its own choices, and its answer is judged by its own truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest

from helpers.planted_vlm import planted_vlm
from theodolite.asking.answer import Question
from theodolite.asking.local import LocalAsker
from theodolite.measurement.internals.context import MeasureContext, questions_of
from theodolite.measurement.internals.ladder import measure_ladder
from theodolite.measurement.pairs.interventions import interventions_of
from theodolite.measurement.pairs.plan import Plan, plan_world
from theodolite.measurement.survey.answers import answer_plan

MUG, CAR = "what is its hue?", "which hue does it have?"
HUES, REVERSED = ["amber", "beige", "coral", "denim"], ["denim", "coral", "beige", "amber"]


def two_questions() -> tuple[Any, LocalAsker, Plan]:
    """A plan of one query name: even scenes ask one question, odd ones another with other choices. The model answers from hue."""
    model, processor, world = planted_vlm({"hue": "hue"})
    plan = plan_world(world, world.policy("hue"), 40, 0, 64)
    even = pl.col("scene") % 2 == 0
    rows = plan.rows.filter(pl.col("kind") == "intervention").with_columns(
        *(pl.when(even).then(pl.lit(MUG)).otherwise(pl.lit(CAR)).alias(f"question_{side}") for side in ("before", "after")),
        choices=pl.when(even).then(pl.lit(HUES)).otherwise(pl.lit(REVERSED)),
    )
    return model, LocalAsker(model, processor), replace(plan, rows=rows)


def context_of(model: Any, asker: LocalAsker, plan: Plan, rows: pl.DataFrame) -> MeasureContext:
    return MeasureContext(model, asker, plan, rows, interventions_of(rows), {}, questions_of(rows, None), 0.95, 0)


def test_each_picture_is_asked_its_own_question_under_one_query_name(monkeypatch: pytest.MonkeyPatch) -> None:
    model, asker, plan = two_questions()
    context = context_of(model, asker, plan, answer_plan(plan, asker))
    asked: list[Question] = []
    groups = LocalAsker.groups

    def recording(self: LocalAsker, pictures: Any, questions: Sequence[Question]) -> Any:
        asked.extend(questions)
        return groups(self, pictures, questions)

    monkeypatch.setattr(LocalAsker, "groups", recording)
    assert context.activations.queries == ("hue",)
    parity = {int(row[f"picture_{side}"]): row["scene"] % 2 for row in plan.rows.iter_rows(named=True) for side in ("before", "after")}
    assert sorted({question.picture for question in asked}) == context.pictures.tolist() and len(asked) == len(context.pictures)
    for question in asked:
        assert (question.question, list(question.choices)) == ((CAR, REVERSED) if parity[question.picture] else (MUG, HUES))


def test_the_spoken_rung_is_the_survey_s_own_accuracy_over_the_same_pictures() -> None:
    model, asker, plan = two_questions()
    rows = answer_plan(plan, asker)
    context = context_of(model, asker, plan, rows)
    right = {
        picture: answer == truth
        for side in ("before", "after")
        for picture, answer, truth in rows.select(f"picture_{side}", f"answer_{side}", f"truth_{side}").iter_rows()
    }
    spoken = context.spoken["hue"]
    assert {int(picture): bool(each) for picture, each in zip(spoken.picture, spoken.right, strict=True)} == {
        int(picture): right[int(picture)] for picture in spoken.picture
    }
    assert spoken.right.all(), "read with the other question's choices, half of the answers would be wrong"
    ladder = measure_ladder(context)
    assert ladder is not None and ladder.factors["hue"].loss.step == "said"


def test_an_answer_is_judged_by_the_row_s_truth_which_may_differ_from_the_name_of_the_value() -> None:
    """The rows name the factor's values in other words than their choices do."""
    model, asker, plan = two_questions()
    names = {value: f"hue {number}" for number, value in enumerate(HUES)}
    hue = pl.col("factor") == "hue"
    rows = plan.rows.with_columns(
        pl.when(hue).then(pl.col(f"value_{side}").replace(names)).otherwise(pl.col(f"value_{side}")).alias(f"value_{side}")
        for side in ("before", "after")
    )
    plan = replace(plan, rows=rows)
    assert context_of(model, asker, plan, answer_plan(plan, asker)).spoken["hue"].right.all()


def test_a_picture_that_is_not_asked_a_query_is_not_counted_at_its_answer_position() -> None:
    """Scenes from 30 on have a yes/no question alone: their pictures have no answer to the open one, rather than a wrong one."""
    model, asker, plan = two_questions()
    form = pl.when(pl.col("scene") < 30).then(pl.lit("open")).otherwise(pl.lit("yes_no"))
    plan = replace(plan, rows=plan.rows.with_columns(form=form))
    context = context_of(model, asker, plan, answer_plan(plan, asker))
    labelled = context.interventions["hue"].labelled()
    few = labelled.picture[labelled.scene < 30]
    assert set(context.spoken["hue"].picture.tolist()) == set(few.tolist()) < set(labelled.picture.tolist())
    answer = context.activations.answer("hue")
    np.testing.assert_array_equal(np.isfinite(answer[labelled.picture]).all(axis=1), labelled.scene < 30)
    assert np.isfinite(context.activations.mean("connector")[labelled.picture]).all(), "vision tokens are captured of every picture"
    ladder = measure_ladder(context)
    assert ladder is not None
    rungs = {rung.site: rung for rung in ladder.factors["hue"].rungs}
    assert rungs["answer"].accuracy.num_pairs == rungs["spoken"].accuracy.num_pairs < rungs["layer.4"].accuracy.num_pairs
    assert rungs["answer"].accuracy.frac == rungs["spoken"].accuracy.frac == 1


def test_a_world_s_questions_are_asked_of_every_picture_whatever_the_policy_asks() -> None:
    model, processor, world = planted_vlm()
    plan = plan_world(world, world.policy("tone"), 3, 0, 64)
    questions = questions_of(answer_plan(plan, LocalAsker(model, processor)), world)
    assert {tuple(each.about for each in own) for own in questions.values()} == {("tone", "hue", "glow")}
    assert {own[0].text for own in questions.values()} == {"what is its tone?"}
