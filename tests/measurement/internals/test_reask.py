"""Questions asked again: answers where choices tie are none, before an edit and under it."""

from __future__ import annotations

import numpy as np
import polars as pl

from helpers.measure_contexts import model_context
from helpers.planted_vlm import planted_vlm
from theodolite.measurement.internals.causal import PairAnswers, measure_causal
from theodolite.measurement.internals.patching import response
from theodolite.measurement.internals.reask import NO_ANSWER, ModelAnswers, answered_rows, open_rows


def test_of_equal_choices_none_is_chosen() -> None:
    """Choices are padded to the longest list, and padding ties with nothing."""
    answers = ModelAnswers.of([[0.4, 0.4, 0.2], [0.2, 0.8], [0.5, 0.5], [0.3, 0.3, 0.4], [1.0]])
    assert answers.chosen.tolist() == [NO_ANSWER, 1, NO_ANSWER, 2, 0]
    assert len(ModelAnswers.of([]).chosen) == 0


def test_an_answer_that_comes_to_tie_has_moved_and_is_right_no_more() -> None:
    """Pair 0 ties on both sides under the edit, pair 1 on none; both were right."""
    plain, tied = [[0.9, 0.1], [0.9, 0.1]], [[0.5, 0.5], [0.9, 0.1]]
    before, under = ModelAnswers.of(plain), ModelAnswers.of(tied)
    assert response(under, before, before, np.array([0, 1]), 0.95).moved.frac == 0.5
    rows = pl.DataFrame(
        {"scene": [0, 1], "query": ["hue"] * 2, "choices": [["a", "b"]] * 2, "truth_before": ["a"] * 2, "truth_after": ["a"] * 2}
    )
    sides = ("before", "after")
    unchanged, edited = (PairAnswers(rows, dict.fromkeys(sides, each), "hue", 0.95) for each in (before, under))
    assert unchanged.right.tolist() == [1, 1] and edited.right.tolist() == [0, 1]
    assert edited.lost(unchanged, np.array([True, True])).value == 0.5


def test_questions_whose_choices_tie_in_the_survey_are_left_out() -> None:
    """Nothing is planted for the question about tone, so its choices tie whatever the picture."""
    surveyed = model_context(*planted_vlm({"hue": "hue"}), "hue,tone", 10)
    rows = open_rows(surveyed.rows)
    assert set(rows["query"]) == {"hue", "tone"} and set(answered_rows(rows)["query"]) == {"hue"}
    causal = measure_causal(surveyed)
    assert causal is not None
    assert {query for patch in causal.patch for query in patch.by_query} == {"hue"}
    assert all(set(each.by_query) == {"hue"} for each in (*causal.shuffle, *causal.mean))
    only_ties = model_context(*planted_vlm({"hue": "hue"}), "tone", 4)
    assert measure_causal(only_ties) is None
