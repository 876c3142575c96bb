"""Prompts: what each style writes, that both routes write the same, and that letters are scored in place of choices."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from helpers.endpoint_askers import asker_at, questions
from helpers.endpoint_server import said, serving
from helpers.tiny_llava import TINY, WORLD, tiny_vlm
from theodolite.asking.answer import Question, answer_from_scores
from theodolite.asking.local import LocalAsker
from theodolite.asking.prompts import DEFAULT, LETTERS, TEMPLATES, Prompt, added_text, prompt_hash, write_prompt
from theodolite.models.construction.build import build_vlm
from theodolite.records.asking import BARE_QUESTION_SHA256, PromptStyle
from theodolite.records.errors import BadInput

WRITTEN: dict[PromptStyle, Prompt] = {
    "free": Prompt("what colour is it?", ("red", "light red")),
    "options": Prompt("what colour is it?\n- red\n- light red\nAnswer with one of these options only.", ("red", "light red")),
    "letters": Prompt("what colour is it?\nA. red\nB. light red\nAnswer with the letter only.", ("A", "B")),
}
PICTURES = WORLD.render(WORLD.sample(3, np.random.default_rng(11)))
ASKS = [Question(picture, "what colour is it?", ("red", "light red", "blue")) for picture in range(3)]


def listing_vlm() -> tuple[torch.nn.Module, object]:
    """A tiny model that has words for lists of options."""
    added = [added_text(style, 6) for style in TEMPLATES]
    return build_vlm([*WORLD.texts, *added, "what colour is it? light red"], 3, decoder=TINY, frontend="patches")


@pytest.mark.parametrize("style", TEMPLATES)
def test_each_style_writes_its_text_and_the_answers_that_stand_for_the_choices(style: PromptStyle) -> None:
    assert write_prompt(style, "what colour is it?", ("red", "light red")) == WRITTEN[style]


def test_braces_in_a_question_are_text() -> None:
    assert write_prompt("letters", "{question} {0}?", ("{letter}", "b")).text.startswith("{question} {0}?\nA. {letter}\nB. b\n")


def test_there_are_no_more_options_than_letters_and_other_styles_take_more() -> None:
    many = tuple(map(str, range(27)))
    with pytest.raises(BadInput, match="27 choices"):
        write_prompt("letters", "which?", many)
    assert write_prompt("options", "which?", many).answers == write_prompt("free", "which?", many).answers == many
    assert write_prompt("letters", "which?", many[:26]).answers == tuple(LETTERS)


def test_hashes_are_of_the_templates_and_those_of_older_records_stay() -> None:
    assert DEFAULT == "free" and prompt_hash("free") == BARE_QUESTION_SHA256
    # As endpoints' records had it before there were styles.
    assert prompt_hash("letters") == hashlib.sha256(b"{question}\n{options}\nAnswer with the letter only.\0{letter}. {choice}").hexdigest()
    assert len({prompt_hash(style) for style in TEMPLATES}) == len(TEMPLATES)


@pytest.mark.parametrize("style", TEMPLATES)
def test_a_model_here_reads_what_an_endpoint_is_sent(style: PromptStyle) -> None:
    model, processor = listing_vlm()
    asker = LocalAsker(model, processor, prompt=style)
    with serving(lambda asked: said("red")) as server:
        remote = asker_at(server, prompt=style)
        remote.ask(PICTURES, ASKS)
        assert questions(server) == len(ASKS)
        (sent,) = {asked.prompt for asked in server.asked if "colour" in asked.prompt}
    words = processor.tokenizer(sent)["input_ids"]  # type: ignore[attr-defined]
    assert processor.tokenizer.unk_token_id not in words  # type: ignore[attr-defined]
    for row in (row for rows in asker.groups(PICTURES, ASKS) for row in rows):
        branch = row.tokens[row.behind :]
        assert branch[: len(words)] == words
    config = remote.describe()
    assert (config.prompt, config.prompt_sha256) == (style, prompt_hash(style))


@pytest.mark.parametrize("style", TEMPLATES)
def test_the_answers_of_a_prompt_are_scored_each_as_it_runs_alone(style: PromptStyle) -> None:
    model, processor = listing_vlm()
    asker = LocalAsker(model, processor, prompt=style)
    tokenizer, pixels = asker.model_inputs(PICTURES).question_tokenizer, asker.model_inputs(PICTURES).inputs(PICTURES)["pixel_values"]
    for ask, answer in zip(ASKS, asker.ask(PICTURES, ASKS), strict=True):
        prompt = write_prompt(style, ask.question, ask.choices)
        totals, numbers = [], []
        for text in prompt.answers:
            turn = tokenizer.tokenize(prompt.text, text)
            ids = torch.tensor([turn.prefix + turn.question + turn.answer])
            with torch.inference_mode():
                logits = model(input_ids=ids, pixel_values=pixels[ask.picture : ask.picture + 1]).logits[0]
            steps = logits[-len(turn.answer) - 1 : -1].log_softmax(-1)
            totals.append(float(steps.gather(-1, torch.tensor(turn.answer)[:, None]).sum()))
            numbers.append(len(turn.answer))
        expected = answer_from_scores(np.array(totals))
        np.testing.assert_allclose(answer.probabilities, expected.probabilities, atol=1e-5)
        np.testing.assert_allclose(answer.total_logprob, totals, atol=1e-4)
        assert answer.num_tokens is not None and answer.num_tokens.tolist() == numbers
        assert numbers == ([2, 2, 2] if style == "letters" else [2, 3, 2])


@pytest.mark.parametrize("style", ["options", "letters"])
def test_a_model_without_words_for_lists_is_asked_free_or_not_at_all(style: PromptStyle) -> None:
    model, processor = tiny_vlm()
    asks = [Question(0, "what is its shape?", ("round", "square"))]
    assert LocalAsker(model, processor).ask(PICTURES, asks)[0].chosen is not None
    with pytest.raises(BadInput, match=rf"closed vocabulary.*'{style}'.*--prompt free"):
        LocalAsker(model, processor, prompt=style).ask(PICTURES, asks)
