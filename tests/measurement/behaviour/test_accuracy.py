"""Item, pair and group accuracy: their counts, their chance, and missing answers."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from theodolite.measurement.behaviour.accuracy import measure_accuracy
from theodolite.records.accuracy import Accuracy

YES_NO = ("yes", "no")
TRUTHS = {("q", 0): "yes", ("q", 1): "no", ("r", 0): "no", ("r", 1): "yes"}


def pair(scene: int, question: str, answers: tuple[str | None, str | None], truths: tuple[str, str], **more: object) -> dict[str, object]:
    row = {
        "kind": "intervention", "scene": scene, "choices": list(YES_NO), "question_before": question, "question_after": question,
        "picture_before": 10 * scene, "picture_after": 10 * scene + 1, "truth_before": truths[0], "truth_after": truths[1],
        "answer_before": answers[0], "answer_after": answers[1], "query": question, "form": "yes_no", "name": question,
        "outside_before": 0.1, "outside_after": 0.1,
    }  # fmt: skip
    return row | more


def measured(*rows: dict[str, object]) -> Accuracy:
    accuracy = measure_accuracy(pl.DataFrame(rows))
    assert accuracy is not None
    return accuracy


def group(scene: int, right: str) -> list[dict[str, object]]:
    """Two pictures under two questions; `right` holds 1 or 0 for q0, q1, r0, r1."""
    answers = {
        key: truth if ok == "1" else "no" if truth == "yes" else "yes" for (key, truth), ok in zip(TRUTHS.items(), right, strict=True)
    }
    return [pair(scene, name, (answers[name, 0], answers[name, 1]), (TRUTHS[name, 0], TRUTHS[name, 1])) for name in "qr"]


def fracs(accuracy: Accuracy) -> dict[str, float | None]:
    parts = {name: getattr(accuracy, name) for name in ("item", "pair", "question", "picture", "group")}
    return {name: None if part is None or part.rate is None else part.rate.frac for name, part in parts.items()}


def test_naturalbench_s_four_numbers_are_those_of_its_definition() -> None:
    """Acc over 4 items, Q-Acc over 2 questions, I-Acc over 2 pictures, G-Acc over the group, each averaged over groups."""
    rng = np.random.default_rng(0)
    results = rng.integers(0, 2, (50, 4)) | (rng.random((50, 1)) < 0.3)
    accuracy = measured(*(row for scene, one in enumerate(results) for row in group(scene, "".join(map(str, one)))))
    q0, q1, r0, r1 = results.T
    assert fracs(accuracy) == pytest.approx(
        {
            "item": results.mean(),
            "pair": np.mean([q0 & q1, r0 & r1]),
            "question": np.mean([q0 & q1, r0 & r1]),
            "picture": np.mean([q0 & r0, q1 & r1]),
            "group": (q0 & q1 & r0 & r1).mean(),
        }
    )
    chances = [
        part.chance_frac for part in (accuracy.item, accuracy.pair, accuracy.question, accuracy.picture, accuracy.group) if part is not None
    ]
    assert chances == pytest.approx([1 / 2, 1 / 4, 1 / 4, 1 / 4, 1 / 16])


def test_one_who_always_says_the_same_has_half_the_items_and_no_pair() -> None:
    accuracy = measured(*(pair(scene, "q", ("yes", "yes"), ("yes", "no")) for scene in range(40)))
    assert fracs(accuracy) == {"item": 0.5, "pair": 0.0, "question": 0.0, "picture": None, "group": None}
    assert accuracy.pair is not None
    assert accuracy.pair.rate is not None
    assert (accuracy.pair.rate.num_pairs, accuracy.pair.rate.num_scenes) == (40, 40)
    assert accuracy.pair.rate.low == 0
    assert 0 < float(accuracy.pair.rate.high or 0) < 0.1


def test_a_pair_whose_answer_stands_still_is_no_pair_but_two_items() -> None:
    accuracy = measured(pair(1, "q", ("yes", "yes"), ("yes", "yes")), pair(2, "q", ("yes", "yes"), ("yes", "no")))
    assert fracs(accuracy)["item"] == 0.75
    assert fracs(accuracy)["pair"] == 0.0


def test_set_accuracy_takes_all_pictures_of_a_scene() -> None:
    """Four pictures under one question, as in What'sUp: two pairs of one scene."""
    wrong = pair(1, "q", ("yes", "yes"), ("yes", "no"), picture_before=12, picture_after=13)
    accuracy = measured(
        pair(1, "q", YES_NO, YES_NO), wrong, pair(2, "q", YES_NO, YES_NO), pair(2, "q", YES_NO, YES_NO, picture_before=22, picture_after=23)
    )
    assert fracs(accuracy) == {"item": 7 / 8, "pair": 3 / 4, "question": 1 / 2, "picture": None, "group": 1 / 2}
    assert accuracy.group is not None
    assert accuracy.group.chance_frac == 1 / 16


def test_what_was_not_answered_is_counted_apart_and_never_wrong() -> None:
    accuracy = measured(*group(1, "1111"), pair(2, "q", ("yes", None), YES_NO), pair(2, "r", ("no", "yes"), ("no", "yes")))
    assert fracs(accuracy) == {"item": 1.0, "pair": 1.0, "question": 1.0, "picture": 1.0, "group": 1.0}
    unanswered = [
        part.num_unanswered
        for part in (accuracy.item, accuracy.pair, accuracy.question, accuracy.picture, accuracy.group)
        if part is not None
    ]
    assert unanswered == [1, 1, 1, 1, 1]
    nothing = measured(pair(1, "q", (None, None), YES_NO))
    assert (nothing.item.rate, nothing.item.num_unanswered, nothing.item.chance_frac) == (None, 2, 0.5)


def test_an_item_counts_once_and_training_rows_do_not_count() -> None:
    twice = pair(1, "q", YES_NO, YES_NO)
    turned = pair(1, "q", ("no", "yes"), ("no", "yes"), picture_before=11, picture_after=10)
    training = pair(9, "q", ("no", "no"), ("yes", "yes"), kind="training", picture_after=90)
    sharing = [pair(1, "q", YES_NO, YES_NO, picture_before=one, picture_after=other) for one, other in ((9, 11), (10, 12))]
    accuracy = measured(twice, twice, turned, *sharing, training)
    assert accuracy.item.rate is not None
    assert accuracy.pair is not None
    assert accuracy.pair.rate is not None
    assert (accuracy.item.rate.num_pairs, accuracy.pair.rate.num_pairs, accuracy.item.rate.frac) == (4, 3, 1.0)
    assert measure_accuracy(pl.DataFrame([training])) is None


def test_rows_that_are_there_for_the_noise_floor_make_no_group() -> None:
    """A pair under one question, and the same picture once more under another seed: items, and no group."""
    edited = pair(0, "q", ("yes", "no"), ("yes", "no"))
    noise = pair(0, "q", ("yes", "no"), ("yes", "yes"), kind="nuisance", picture_after=7)
    accuracy, alone = measured(edited, noise), measured(edited)
    assert accuracy.item.rate is not None and accuracy.item.rate.frac == pytest.approx(2 / 3)
    assert accuracy.group is None and (accuracy.question, accuracy.picture) == (alone.question, alone.picture)


def test_queries_whose_probability_lies_outside_the_choices_have_no_accuracy() -> None:
    """Two questions, one of them answered by letters at a ten-thousandth of the probability."""
    rows = [row for scene in range(4) for row in group(scene, "1111")]
    far = [row | {"outside_before": 0.9999, "outside_after": 0.9999} if row["question_before"] == "r" else row for row in rows]
    accuracy = measured(*far)
    assert accuracy.item.rate is not None and (accuracy.item.rate.num_pairs, accuracy.item.num_unanswered) == (8, 8)
    assert accuracy.group is not None and accuracy.group.rate is None
    everywhere = measured(*(row | {"outside_before": 0.9, "outside_after": 0.2} for row in rows))
    assert everywhere.item.rate is None and everywhere.item.num_unanswered == 16
