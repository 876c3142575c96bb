"""Accuracy on the official questions of a world's pictures, beside the accuracy of answers from the question's text alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import polars as pl

from theodolite.asking.answer import Answer, Asker, Question
from theodolite.measurement.behaviour.outside import queries_above
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
    world: World, asker: Asker, size: int, progress: Progress, outside_frac: float = 0.5, split: str = "test", train: str = "train"
) -> tuple[Score, ...]:
    """Accuracy, 0 to 1, on an official split, by form of question and overall. The choices are all answers that occur in training.

    Unanswered questions are left out; so are those of a query whose mean mass outside the choices is above `outside_frac`.
    """
    questions, train_split = world.official_split(split), world.official_split(train)
    choices = tuple(sorted(set(train_split.answer)))
    asks = [Question(int(scene), text, choices) for scene, text in zip(questions.scene, questions.text, strict=True)]
    answers = asker.ask(world.render(questions.scenes, size), asks, progress)
    truth = np.array(questions.answer)
    right = np.array(["" if answer.chosen is None else choices[answer.chosen] for answer in answers]) == truth
    text_only = np.array(text_only_answers(train_split, questions), dtype=object) == truth
    answered = np.array([answer.chosen is not None for answer in answers], dtype=bool)
    queries = [(query.about, query.form) for query in map(world.query, questions.query)]
    withheld = _withheld(queries, answers, outside_frac)
    used = answered & np.array([query not in withheld for query in queries], dtype=bool)
    forms = np.array([form for _, form in queries])
    scores = []
    for form in ("open", "yes_no", "conjunction", "overall"):
        of_form = (forms == form) | (form == "overall")
        if not (answered & of_form).any():
            continue
        counted = used & of_form
        rate = clustered_rate(right[counted].astype(float), questions.scene[counted]) if counted.any() else None
        scores.append(
            Score(
                split=split,
                form=form,
                accuracy_frac=None if rate is None else rate.frac,
                low=None if rate is None else rate.low,
                high=None if rate is None else rate.high,
                text_only_frac=None if rate is None else float(text_only[counted].mean()),
                num_questions=int(counted.sum()),
                withheld={f"{query} ({of})": mass for (query, of), mass in withheld.items() if form in (of, "overall")},
            )
        )
    return tuple(scores)


def _withheld(queries: Sequence[tuple[str, str]], answers: Sequence[Answer], limit: float) -> dict[tuple[str, str], float]:
    """Mean mass outside the choices, 0 to 1, of every (query, form) where it is above `limit`; unknown masses do not count."""
    outside = pl.Series("outside", [answer.outside for answer in answers], dtype=pl.Float64)
    frame = pl.DataFrame(queries, schema={"query": pl.String, "form": pl.String}, orient="row").with_columns(outside)
    return queries_above(frame.drop_nulls(), limit)
