"""Noise of given pairs that bring none: changed pictures and other wordings, for the queries that need them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest

from theodolite.measurement.pairs.perturb import CHANGES, Picture, add_noise, brighter, reworded, saved_again, shifted
from theodolite.measurement.pairs.plan import plan_gallery
from theodolite.worlds.gallery import TABLE, Gallery

SIZE = 32


def render(names: list[str], size: int) -> np.ndarray:
    seeds = [np.random.default_rng(int(name)) for name in names]
    # Smooth pictures, as photographs are: noise of single pixels would not survive compression.
    small = [rng.integers(0, 230, (4, 4, 3)) for rng in seeds]
    return np.stack([np.kron(each, np.ones((size // 4, size // 4, 1))).astype(np.uint8) for each in small])


def gallery(*, noise_of: tuple[str, ...] = (), num_scenes: int = 6) -> Gallery:
    """Two queries of each scene about a changed colour; with nuisance rows of some queries."""
    rows = []
    for scene in range(num_scenes):
        pair = {"scene": scene, "factor": "colour", "value_before": "red", "value_after": "blue", "form": "open"}
        pictures = {"picture_before": str(2 * scene), "picture_after": str(2 * scene + 1)}
        questions = {"colour": f"What colour is thing {scene}?", "fill": f"Is thing {scene} full?"}
        for query, question in questions.items():
            truths = ("red", "blue") if query == "colour" else ("no", "no")
            row = pair | pictures | {"query": query, "name": query, "question_before": question, "question_after": question}
            row |= {"choices": ["red", "blue"] if query == "colour" else ["yes", "no"], "truth_before": truths[0], "truth_after": truths[1]}
            rows.append(row)
            if query in noise_of:
                rows.append(row | {"factor": "", "value_before": None, "value_after": None, "truth_after": truths[0]})
    return Gallery("things", "exact", pl.DataFrame(rows, schema=dict(TABLE)), render)


def test_queries_without_noise_rows_are_asked_of_changed_pictures_each_question_its_own() -> None:
    plan = plan_gallery(gallery(noise_of=("fill",)), SIZE, "perturb")
    perturbed = plan.rows.filter(pl.col("kind") == "perturbation")
    assert perturbed["query"].to_list() == ["colour"] * 6 and perturbed["factor"].to_list() == [""] * 6
    assert perturbed["question_before"].to_list() == [f"What colour is thing {scene}?" for scene in range(6)]
    assert (perturbed["truth_before"] == perturbed["truth_after"]).all() and perturbed["value_before"].null_count() == 6
    assert plan.num_pair_pictures == 12 and len(plan.pictures) == 18
    before, after = (plan.pictures[perturbed[f"picture_{side}"].to_numpy()] for side in ("before", "after"))
    for number in range(6):
        np.testing.assert_array_equal(after[number], CHANGES[number % 3](before[number]))
    assert plan_gallery(gallery(noise_of=("colour", "fill")), SIZE, "perturb").rows["kind"].unique().sort().to_list() == [
        "intervention",
        "nuisance",
        "paraphrase",
    ]


def test_noise_is_left_out_on_request_and_the_pictures_of_the_pairs_stay_the_same() -> None:
    given, perturbed = (plan_gallery(gallery(), SIZE, noise) for noise in ("given", "perturb"))
    assert given.rows["kind"].unique().to_list() == ["intervention"] and len(given.pictures) == given.num_pair_pictures == 12
    np.testing.assert_array_equal(perturbed.pictures[: perturbed.num_pair_pictures], given.pictures)
    assert perturbed.rows[: len(given.rows)].equals(given.rows)


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_small_and_is_one(change: Callable[[Picture], Picture]) -> None:
    [picture] = render(["3"], SIZE)
    changed = change(picture)
    assert changed.shape == picture.shape and changed.dtype == np.uint8 and not np.array_equal(changed, picture)
    assert np.abs(changed.astype(int) - picture.astype(int)).mean() < 12


def test_each_change_is_what_it_is_called() -> None:
    [picture] = render(["3"], SIZE)
    np.testing.assert_array_equal(shifted(picture)[:, 1:], picture[:, :-1])
    np.testing.assert_allclose(brighter(picture), 1.02 * picture, atol=0.5)
    assert brighter(np.full((2, 2, 3), 254, np.uint8)).max() == 255
    assert np.abs(saved_again(picture).astype(int) - picture.astype(int)).max() > 0


@pytest.mark.parametrize(
    ("question", "other"),
    [
        ("What colour is the mug?", "What is the colour of the mug?"),
        ("Is there a dog?", "Can you see a dog?"),
        ("How many cats are there?", "What is the number of cats?"),
        ("Is the mug full?", None),
    ],
)
def test_a_question_is_worded_anew_where_a_template_allows_it(question: str, other: str | None) -> None:
    assert reworded(question) == other
    rows = plan_gallery(gallery(), SIZE).rows.with_columns(question_before=pl.lit(question), question_after=pl.lit(question))
    _, more = add_noise(np.zeros((12, SIZE, SIZE, 3), np.uint8), rows)
    wordings = more.filter(pl.col("kind") == "paraphrase")
    assert wordings["question_after"].unique().to_list() == ([other] if other else [])
    assert (wordings["picture_before"] == wordings["picture_after"]).all()
