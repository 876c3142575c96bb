"""Answers as probabilities over whole choices, against a forward pass of each whole sequence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.tiny_families import spread
from helpers.tiny_llava import WORLD, tiny_vlm
from theodolite.asking.answer import Question, answer_from_scores
from theodolite.asking.local import LocalAsker
from theodolite.models.export import export_vlm
from theodolite.models.families import UnknownFamily
from theodolite.models.forward import Adaptation, adapt
from theodolite.models.load import load_vlm
from theodolite.records.errors import BadInput

PICTURES = WORLD.render(WORLD.sample(5, np.random.default_rng(11)))
ASKS = [
    Question(picture, question, choices)
    for picture in (2, 0, 4)
    for question, choices in (
        ("what is its shape?", ("round", "square", "triangular", "crossed")),
        ("would you say that it is on dark ground?", ("yes", "no")),
        ("which row does the object have?", ("the top row", "it is in the lower row", "bottom")),
    )
]


def whole_scores(model: torch.nn.Module, asker: LocalAsker, ask: Question) -> np.ndarray:
    """Log-probability in nats of every choice, each by one pass over picture, question and choice."""
    scores = []
    for choice in ask.choices:
        turn = asker.model_inputs(PICTURES).question_tokenizer.tokenize(ask.question, choice)
        ids = torch.tensor([turn.prefix + turn.question + turn.answer])
        with torch.inference_mode():
            logits = model(
                input_ids=ids, pixel_values=asker.model_inputs(PICTURES).inputs(PICTURES[ask.picture : ask.picture + 1])["pixel_values"]
            ).logits[0]
        steps = logits[-len(turn.answer) - 1 : -1].log_softmax(-1)
        scores.append(float(steps.gather(-1, torch.tensor(turn.answer)[:, None]).sum()))
    return np.array(scores)


@pytest.mark.parametrize("batch", [1, 2, 32])
def test_sharing_a_pictures_keys_changes_no_answer(batch: int) -> None:
    model, processor = tiny_vlm()
    asker = LocalAsker(model, processor, batch)
    calls: list[tuple[int, int]] = []
    answers = asker.ask(PICTURES, ASKS, lambda done, total, note="": calls.append((done, total)))
    assert calls == sorted(set(calls)) and calls[-1] == (len(ASKS), len(ASKS)) and {total for _, total in calls} == {len(ASKS)}
    for ask, answer in zip(ASKS, answers, strict=True):
        expected = answer_from_scores(whole_scores(model, asker, ask))
        np.testing.assert_allclose(answer.probabilities, expected.probabilities, atol=1e-5)
        assert answer.outside == pytest.approx(expected.outside, abs=1e-5)


@pytest.mark.parametrize("frontend", ["conv", "patches"])
@pytest.mark.parametrize("adaptation", [Adaptation("mixed", "2d"), Adaptation("mixed", "native"), Adaptation("native", "2d")], ids=str)
def test_an_adapted_model_is_asked_as_it_runs_alone(frontend: str, adaptation: Adaptation, tmp_path: Path) -> None:
    """A loaded model's own forward on each picture, question and choice, against the tree; and the model as training has it."""
    model, processor = tiny_vlm(frontend=frontend)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for weight in model.model.language_model.parameters():
            spread(weight.data)  # else attention and positions would hardly show
    stock = LocalAsker(model, processor).ask(PICTURES, ASKS)
    adapt(model, adaptation)
    export_vlm(model, processor, tmp_path)
    loaded, found = load_vlm(tmp_path)
    asker = LocalAsker(loaded, found, 2)
    answers = asker.ask(PICTURES, ASKS)
    for ask, answer in zip(ASKS, answers, strict=True):
        expected = answer_from_scores(whole_scores(loaded, asker, ask))
        np.testing.assert_allclose(answer.probabilities, expected.probabilities, atol=1e-5)
        assert answer.outside == pytest.approx(expected.outside, abs=1e-5)
    for answer, trained in zip(answers, LocalAsker(model, processor, 2).ask(PICTURES, ASKS), strict=True):
        np.testing.assert_array_equal(answer.probabilities, trained.probabilities)
    assert max(np.abs(one.probabilities - other.probabilities).max() for one, other in zip(answers, stock, strict=True)) > 1e-3


def test_a_back_end_that_drops_masks_cannot_be_asked() -> None:
    model, processor = tiny_vlm()
    model.config.text_config._attn_implementation = "flash_attention_2"
    with pytest.raises(BadInput, match="one of eager, sdpa, flex_attention"):
        LocalAsker(model, processor)


def test_asking_twice_gives_the_same_bits() -> None:
    model, processor = tiny_vlm()
    first, second = (LocalAsker(model, processor, 2).ask(PICTURES, ASKS) for _ in range(2))
    assert all(np.array_equal(one.probabilities, other.probabilities) for one, other in zip(first, second, strict=True))


def test_a_choice_counts_with_all_its_tokens_and_its_end() -> None:
    _, processor = tiny_vlm()
    asker = LocalAsker(tiny_vlm()[0], processor)
    turn = asker.model_inputs(PICTURES).question_tokenizer.tokenize("which row does the object have?", "it is in the lower row")
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
    with pytest.raises(ValueError, match="scores are non-finite"):
        answer_from_scores(np.array([-1.0, np.nan]))


def test_a_picture_with_many_questions_gets_several_rows_and_the_same_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = tiny_vlm()
    asker = LocalAsker(model, processor)
    whole = asker.ask(PICTURES, ASKS)
    monkeypatch.setattr("theodolite.asking.rows.MAX_BRANCH_TOKENS", 1)
    assert sum(map(len, asker.groups(PICTURES, ASKS))) == len(ASKS)
    for one, other in zip(whole, asker.ask(PICTURES, ASKS), strict=True):
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-5)


def test_a_batch_of_none_and_an_unknown_family_are_refused() -> None:
    model, processor = tiny_vlm()
    with pytest.raises(ValueError, match="batch is 0"):
        LocalAsker(model, processor, 0)
    model.config.model_type = "bert"
    with pytest.raises(UnknownFamily, match=r"it holds .*llava"):
        LocalAsker(model, processor)
