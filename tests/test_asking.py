"""Answers as probabilities over whole choices, against a forward pass of each whole sequence."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from small import WORLD, tiny_vlm
from theodolite.asking.answer import Ask, answer_from_scores
from theodolite.asking.local import LocalAsker
from theodolite.models.families import UnknownFamily

PICTURES = WORLD.render(WORLD.sample(5, np.random.default_rng(11)))
ASKS = [
    Ask(picture, question, choices)
    for picture in (2, 0, 4)
    for question, choices in (
        ("what is its shape?", ("round", "square", "triangular", "crossed")),
        ("would you say that it is on dark ground?", ("yes", "no")),
        ("which row does the object have?", ("the top row", "it is in the lower row", "bottom")),
    )
]


def whole_scores(model: torch.nn.Module, asker: LocalAsker, ask: Ask) -> np.ndarray:
    """Log-probability in nats of every choice, each by one pass over picture, question and choice."""
    scores = []
    for choice in ask.choices:
        turn = asker.prompter.turn(ask.question, choice)
        ids = torch.tensor([turn.prefix + turn.question + turn.answer])
        with torch.inference_mode():
            logits = model(input_ids=ids, pixel_values=asker.pixels(PICTURES[ask.picture : ask.picture + 1])).logits[0]
        steps = logits[-len(turn.answer) - 1 : -1].log_softmax(-1)
        scores.append(float(steps.gather(-1, torch.tensor(turn.answer)[:, None]).sum()))
    return np.array(scores)


@pytest.mark.parametrize("batch", [1, 2, 32])
def test_sharing_a_pictures_keys_changes_no_answer(batch: int) -> None:
    model, processor = tiny_vlm()
    asker = LocalAsker(model, processor, batch)
    done: list[int] = []
    answers = asker.ask(PICTURES, ASKS, done.append)
    assert sum(done) == len(ASKS)
    for ask, answer in zip(ASKS, answers, strict=True):
        expected = answer_from_scores(whole_scores(model, asker, ask))
        np.testing.assert_allclose(answer.probabilities, expected.probabilities, atol=1e-5)
        assert answer.outside == pytest.approx(expected.outside, abs=1e-5)


def test_asking_twice_gives_the_same_bits() -> None:
    model, processor = tiny_vlm()
    first, second = (LocalAsker(model, processor, 2).ask(PICTURES, ASKS) for _ in range(2))
    assert all(np.array_equal(one.probabilities, other.probabilities) for one, other in zip(first, second, strict=True))


def test_a_choice_counts_with_all_its_tokens_and_its_end() -> None:
    _, processor = tiny_vlm()
    asker = LocalAsker(tiny_vlm()[0], processor)
    turn = asker.prompter.turn("which row does the object have?", "it is in the lower row")
    assert len(turn.answer) == 7
    assert turn.answer[-1] == processor.tokenizer.eos_token_id


def test_probabilities_and_the_mass_outside_have_their_closed_form() -> None:
    answer = answer_from_scores(np.log([0.2, 0.3]))
    np.testing.assert_allclose(answer.probabilities, [0.4, 0.6])
    assert answer.outside == pytest.approx(0.5)
    far = answer_from_scores(np.array([-1000.0, -1001.0]))
    assert far.probabilities[0] == pytest.approx(1 / (1 + np.exp(-1)))
    assert far.outside == pytest.approx(1.0)


def test_scores_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="no finite numbers"):
        answer_from_scores(np.array([-1.0, np.nan]))


def test_a_picture_with_many_questions_gets_several_rows_and_the_same_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = tiny_vlm()
    asker = LocalAsker(model, processor)
    whole = asker.ask(PICTURES, ASKS)
    monkeypatch.setattr("theodolite.asking.local.MAX_BRANCH_TOKENS", 1)
    assert len(list(asker._rows(ASKS))) == len(ASKS)
    for one, other in zip(whole, asker.ask(PICTURES, ASKS), strict=True):
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-5)


def test_a_batch_of_none_and_an_unknown_family_are_refused() -> None:
    model, processor = tiny_vlm()
    with pytest.raises(ValueError, match="batch is 0"):
        LocalAsker(model, processor, 0)
    model.config.model_type = "paligemma"
    with pytest.raises(UnknownFamily, match="it holds llava"):
        LocalAsker(model, processor)
