"""Accuracy on the questions that came with a world's pictures, beside what the text alone gives away."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from theodolite.asking.answer import Ask, Asker
from theodolite.records.survey import Score
from theodolite.worlds.world import OfficialSplit, World


def text_only_answers(train: OfficialSplit, test: OfficialSplit) -> list[str | None]:
    """The commonest answer in `train` to the very same text (first in the alphabet of equals); None for a text that `train` lacks."""
    counts: dict[str, Counter[str]] = {}
    for text, answer in zip(train.text, train.answer, strict=True):
        counts.setdefault(text, Counter())[answer] += 1
    best = {text: min(found, key=lambda answer: (-found[answer], answer)) for text, found in counts.items()}
    return [best.get(text) for text in test.text]


def score_official(world: World, asker: Asker, size: int, split: str = "test", train: str = "train") -> tuple[Score, ...]:
    """Accuracy, 0 to 1, on an official split: open, yes/no and overall. Every answer that occurs in training is a choice."""
    questions, lessons = world.official_split(split), world.official_split(train)
    choices = tuple(sorted(set(lessons.answer)))
    asks = [Ask(int(scene), text, choices) for scene, text in zip(questions.scene, questions.text, strict=True)]
    answers = asker.ask(world.render(questions.scenes, size), asks, lambda done: None)
    said = [choices[int(answer.probabilities.argmax())] for answer in answers]
    truth = np.array(questions.answer)
    right = np.array(said) == truth
    blind = np.array(text_only_answers(lessons, questions), dtype=object) == truth
    forms = np.array([world.query(name).form for name in questions.query])
    return tuple(_score(split, form, right[part], blind[part]) for form, part in _parts(forms))


def _parts(forms: np.ndarray) -> Sequence[tuple[str, np.ndarray]]:
    names = [name for name in ("open", "yes_no", "conjunction") if (forms == name).any()]
    return [*((name, forms == name) for name in names), ("overall", np.ones(len(forms), dtype=bool))]


def _score(split: str, form: str, right: np.ndarray, blind: np.ndarray) -> Score:
    return Score(
        split=split,
        form=form,
        accuracy_frac=float(right.mean()),
        text_only_frac=float(blind.mean()),
        num_questions=len(right),
    )
