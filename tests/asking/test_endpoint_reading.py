"""How an endpoint's answers are read: letters, words, and log-probabilities of letters. Nothing is guessed."""

from __future__ import annotations

import math

import numpy as np
import pytest

from helpers.endpoint_askers import COLOURS
from theodolite.asking.answer import answer_from_scores
from theodolite.asking.endpoint.reading import answer_of_logprobs, read_choice


@pytest.mark.parametrize(
    ("text", "position"),
    [
        *((text, 0) for text in ("A", "a", "(a)", "A.", "**A**", " A\n", "red", "Red.", "The answer is red", "A. red", "A red square")),
        *((text, 1) for text in ("B)", "light red", "The answer is light red.", "Answer: B", "b. light red")),
        *((text, 2) for text in ("(C) blue", "I think it is C.", "Option C", "<think>red or blue</think>C", "Blue, as the sky is")),
        *((text, 3) for text in ("The answer is D", "dark green!", "D\n\nBecause it is dark green")),
        *(
            (text, None)
            for text in ("A. blue", "A or B", "A, B", "red or blue", "It is not red", "E", "", "banana", "<think>red", "C\nnot red")
        ),
        *((text, None) for text in ("I can't tell", "Red, I am not sure", "The answer is A red or blue thing", "redder", "none of them")),
    ],
)
def test_a_text_is_read_as_the_one_choice_that_it_says_and_never_guessed(text: str, position: int | None) -> None:
    assert read_choice(text, COLOURS) == position


@pytest.mark.parametrize(
    ("text", "position"),
    [
        *((text, 0) for text in ("red", "Red.", "The answer is red", "A red square", "I think that it is red.", "red, as in B")),
        *((text, 1) for text in ("light red", "It is light red.", "- light red", "<think>red or blue</think>light red")),
        *(
            (text, None)
            for text in ("A", "(b)", "Answer: C", "B.", "red or blue", "It is not red", "I can't tell", "", "The picture shows a car")
        ),
    ],
)
def test_where_no_letters_were_shown_none_stands_for_a_choice(text: str, position: int | None) -> None:
    assert read_choice(text, COLOURS, lettered=False) == position


@pytest.mark.parametrize(
    ("text", "position"), [("The letter is K.", 1), ("It's E", 0), ("It's unclear", None), ("k", 1), ("3", 3), ("a K or an E", None)]
)
def test_choices_of_one_character_are_read_in_their_case(text: str, position: int | None) -> None:
    assert read_choice(text, ("E", "K", "S", "3", "A"), lettered=False) == position


def test_a_number_is_read_beside_letters() -> None:
    assert read_choice("There are 2 of them.", ("1", "2", "3")) == 1 and read_choice("There are 2 or 3.", ("1", "2", "3")) is None


@pytest.mark.parametrize(
    ("text", "position"), [("No, it is not.", 1), ("Yes, it is.", 0), ("B. yes", None), ("yes and no", None), ("B", 1)]
)
def test_yes_and_no_are_read_with_what_follows_them(text: str, position: int | None) -> None:
    assert read_choice(text, ("yes", "no")) == position


def test_a_letter_that_is_a_choice_of_its_own_is_ambiguous_unless_both_agree() -> None:
    assert read_choice("B", ("B", "A")) is None and read_choice("B", ("A", "B")) == 1


def test_letters_share_their_mass_and_the_rest_is_outside() -> None:
    top = {"A": 0.3, " A": 0.1, "▁B": 0.2, "(B": 0.1, "C": 0.05, "The": 0.2, "E": 0.01}
    answer = answer_of_logprobs({token: math.log(mass) for token, mass in top.items()}, 3)
    assert answer.probabilities is not None
    np.testing.assert_allclose(answer.probabilities, np.array([0.4, 0.3, 0.05]) / 0.75)
    assert answer.outside == pytest.approx(0.25) and answer.chosen == 0
    for top in ({"The": 0.0, "A": -math.inf}, {"The": -0.001, "A": -12.0, "B": -14.0}):  # renormalised, the second would be 0.88 of A
        answer = answer_of_logprobs(top, 3)
        assert answer.probabilities is None and answer.chosen is None and answer.outside == pytest.approx(1.0, abs=1e-5)


def test_equal_choices_are_no_answer_and_the_first_is_not_favoured() -> None:
    tie = answer_of_logprobs({"A": math.log(0.4), "B": math.log(0.4), "C": math.log(0.1)}, 3)
    assert tie.chosen is None and tie.probabilities is not None and tie.probabilities[0] == tie.probabilities[1]
    totals = np.log([0.1, 0.3, 0.3])
    assert answer_from_scores(totals).chosen is None and answer_from_scores(totals[:2]).chosen == 1


@pytest.mark.parametrize(
    ("text", "choices", "with_letters", "alone"),
    [
        ("The answer is A", ("A", "B"), 0, 0),
        ("The answer is A.", ("B", "A"), None, 1),  # the letter of B, or the choice A
        ("The answer is B.", ("B", "A"), None, 0),
        ("It is option (B).", ("A", "B"), 1, 1),
        ("A or B", ("A", "B"), None, None),
        ("I see a cat.", ("I", "J"), None, None),
        ("It is A red square", ("A", "red"), 1, 1),
        ("Is it red or is it blue?", ("red", "blue"), None, None),
        ("The left one is red and the right one blue.", ("red", "blue"), None, None),
        ("I have no idea.", ("yes", "no"), None, None),
        ("It is hard to tell, no", ("yes", "no"), None, None),
        ("red or blue?</think>Blue.", ("red", "blue"), 1, 1),
        ("B. Red", ("red", "Red"), 1, None),
    ],
)
def test_what_may_mean_two_choices_is_read_as_neither(
    text: str, choices: tuple[str, ...], with_letters: int | None, alone: int | None
) -> None:
    assert (read_choice(text, choices), read_choice(text, choices, lettered=False)) == (with_letters, alone)
