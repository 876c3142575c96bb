"""Accuracy on official questions: by form, and what is withheld where the answers are mostly none of the choices."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from helpers.survey_records import record
from theodolite.asking.answer import UNANSWERED, Answer, Question
from theodolite.asking.pictures import Pictures
from theodolite.measurement.survey.official import score_official
from theodolite.records.progress import Progress, silent
from theodolite.records.survey import Score
from theodolite.report.tables import score_table
from theodolite.worlds.easy_vqa.world import EasyVQA

WORLD = EasyVQA()
SPLIT = WORLD.official_split("test")
ABOUT = np.array([f"{query.about} ({query.form})" for query in map(WORLD.query, SPLIT.query)])
FORM = np.array([WORLD.query(name).form for name in SPLIT.query])
IS_RIGHT = np.random.default_rng(0).random(len(FORM)) < 0.7


class PlantedAsker:
    """Answers official questions right where `IS_RIGHT`, with this mass outside the choices for each query; None: unanswered."""

    def __init__(self, outside: dict[str, float | None]) -> None:
        self.outside = outside

    def ask(self, pictures: Pictures, questions: Sequence[Question], progress: Progress) -> list[Answer]:
        answers = []
        for question, truth, right, about in zip(questions, SPLIT.answer, IS_RIGHT, ABOUT, strict=True):
            outside = self.outside.get(about, 0.1)
            chosen = (question.choices.index(truth) + (not right)) % len(question.choices)
            answers.append(UNANSWERED if outside is None else Answer(np.eye(len(question.choices))[chosen], outside))
        return answers


def scores(outside: dict[str, float | None], **limits: float) -> dict[str, Score]:
    return {score.form: score for score in score_official(WORLD, PlantedAsker(outside), 8, silent, **limits)}


def accuracy(counted: np.ndarray) -> tuple[float, int]:
    return pytest.approx(IS_RIGHT[counted].mean()), int(counted.sum())


def test_all_answers_count_where_the_mass_is_on_the_choices() -> None:
    measured = scores({})
    assert set(measured) == {*FORM, "overall"}
    for form, score in measured.items():
        assert (score.accuracy_frac, score.num_questions) == accuracy((form == FORM) | (form == "overall")) and score.withheld == {}


def test_queries_with_most_mass_outside_their_choices_are_left_out_and_named() -> None:
    measured = scores({"shape (open)": 0.9, "colour (open)": 0.4, "shape (yes_no)": 0.5})
    assert (measured["open"].accuracy_frac, measured["open"].num_questions) == accuracy(ABOUT == "colour (open)")
    assert measured["open"].withheld == measured["overall"].withheld == {"shape (open)": pytest.approx(0.9)}
    assert (measured["overall"].accuracy_frac, measured["overall"].num_questions) == accuracy(ABOUT != "shape (open)")
    assert (measured["yes_no"].accuracy_frac, measured["yes_no"].withheld) == (accuracy(FORM == "yes_no")[0], {})


def test_the_limit_is_that_of_the_thresholds() -> None:
    assert scores({"shape (open)": 0.9}, outside_frac=0.95)["open"].withheld == {}
    assert set(scores({}, outside_frac=0.05)["overall"].withheld) == set(ABOUT)


def test_a_form_of_which_all_is_withheld_has_no_accuracy_and_is_shown_so() -> None:
    measured = scores({"shape (open)": 0.9, "colour (open)": 0.8})
    score = measured["open"]
    assert (score.accuracy_frac, score.low, score.high, score.text_only_frac, score.num_questions) == (None, None, None, None, 0)
    assert set(score.withheld) == {"shape (open)", "colour (open)"}
    table = score_table([record("one", "shape", {}, {}, scores=tuple(measured.values()))])
    printed = StringIO()
    Console(file=printed, width=200).print(table)
    assert "withheld" in printed.getvalue()


def test_unanswered_questions_have_no_mass_and_do_not_count() -> None:
    measured = scores({"shape (open)": None, "colour (open)": None})
    assert "open" not in measured
    assert (measured["overall"].accuracy_frac, measured["overall"].num_questions) == accuracy(FORM != "open")
