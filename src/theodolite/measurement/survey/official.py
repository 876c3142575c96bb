"""Accuracy on the questions that came with a world's pictures, beside what the text alone gives away."""

from __future__ import annotations

from collections import Counter

import numpy as np

from theodolite.asking.answer import Asker, Question
from theodolite.records.progress import Progress
from theodolite.records.survey import Score
from theodolite.stats.rates import clustered_rate
from theodolite.worlds.world import OfficialSplit, World


def text_only_answers(train: OfficialSplit, test: OfficialSplit) -> list[str | None]:
    """The commonest answer in `train` to the very same text (first in the alphabet of equals); None for a text that `train` lacks."""
    counts: dict[str, Counter[str]] = {}
    for text, answer in zip(train.text, train.answer, strict=True):
        counts.setdefault(text, Counter())[answer] += 1
    best = {text: min(found, key=lambda answer: (-found[answer], answer)) for text, found in counts.items()}
    return [best.get(text) for text in test.text]


def score_official(
    world: World, asker: Asker, size: int, progress: Progress, split: str = "test", train: str = "train"
) -> tuple[Score, ...]:
    """Accuracy, 0 to 1, on an official split: open, yes/no and overall. Every answer that occurs in training is a choice.

    Questions that were not answered are left out.
    """
    questions, train_split = world.official_split(split), world.official_split(train)
    choices = tuple(sorted(set(train_split.answer)))
    asks = [Question(int(scene), text, choices) for scene, text in zip(questions.scene, questions.text, strict=True)]
    answers = asker.ask(world.render(questions.scenes, size), asks, progress)
    said = [answer.chosen for answer in answers]
    answered = np.array([chosen is not None for chosen in said], dtype=bool)
    truth = np.array(questions.answer)
    right = np.array(["" if chosen is None else choices[chosen] for chosen in said]) == truth
    blind = np.array(text_only_answers(train_split, questions), dtype=object) == truth
    forms = np.array([world.query(name).form for name in questions.query])
    found = []
    for form in ("open", "yes_no", "conjunction", "overall"):
        part = answered & (forms == form) if form != "overall" else answered
        if not part.any():
            continue
        rate = clustered_rate(right[part].astype(float), questions.scene[part])
        found.append(
            Score(
                split=split,
                form=form,
                accuracy_frac=rate.frac,
                low=rate.low,
                high=rate.high,
                text_only_frac=float(blind[part].mean()),
                num_questions=int(part.sum()),
            )
        )
    return tuple(found)
