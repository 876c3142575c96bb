"""Accuracy on the official questions of a world's pictures, beside the accuracy of answers from the question's text alone."""

from __future__ import annotations

from collections import Counter

import numpy as np

from theodolite.asking.answer import Asker, Question
from theodolite.records.progress import Progress
from theodolite.records.survey import Score
from theodolite.stats.rates import clustered_rate
from theodolite.worlds.world import OfficialSplit, World


def text_only_answers(train: OfficialSplit, test: OfficialSplit) -> list[str | None]:
    """The commonest answer in `train` to the identical text (the alphabetically first of equals); None for a text that `train` lacks."""
    counts: dict[str, Counter[str]] = {}
    for text, answer in zip(train.text, train.answer, strict=True):
        counts.setdefault(text, Counter())[answer] += 1
    best = {text: min(answers, key=lambda answer: (-answers[answer], answer)) for text, answers in counts.items()}
    return [best.get(text) for text in test.text]


def score_official(
    world: World, asker: Asker, size: int, progress: Progress, split: str = "test", train: str = "train"
) -> tuple[Score, ...]:
    """Accuracy, 0 to 1, on an official split, by form of question and overall. The choices are all answers that occur in training.

    Unanswered questions are left out.
    """
    questions, train_split = world.official_split(split), world.official_split(train)
    choices = tuple(sorted(set(train_split.answer)))
    asks = [Question(int(scene), text, choices) for scene, text in zip(questions.scene, questions.text, strict=True)]
    answers = asker.ask(world.render(questions.scenes, size), asks, progress)
    answered = np.array([answer.chosen is not None for answer in answers], dtype=bool)
    truth = np.array(questions.answer)
    right = np.array(["" if answer.chosen is None else choices[answer.chosen] for answer in answers]) == truth
    text_only = np.array(text_only_answers(train_split, questions), dtype=object) == truth
    forms = np.array([world.query(name).form for name in questions.query])
    scores = []
    for form in ("open", "yes_no", "conjunction", "overall"):
        counted = answered & (forms == form) if form != "overall" else answered
        if not counted.any():
            continue
        rate = clustered_rate(right[counted].astype(float), questions.scene[counted])
        scores.append(
            Score(
                split=split,
                form=form,
                accuracy_frac=rate.frac,
                low=rate.low,
                high=rate.high,
                text_only_frac=float(text_only[counted].mean()),
                num_questions=int(counted.sum()),
            )
        )
    return tuple(scores)
