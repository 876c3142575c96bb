"""What decides between choices: the total log-probability favours short ones, that per token does not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from helpers.tiny_llava import WORLD
from theodolite.asking.answer import Question, answer_from_scores
from theodolite.asking.local import LocalAsker
from theodolite.models.construction.build import DecoderSize, build_vlm
from theodolite.records.asking import ChoiceScore

LONG, SHORT = "the upper row", "bottom"
# Chances of the next word after each; the rest goes to all other words alike.
CHAIN = {
    "<answer>": {"the": 0.5, "bottom": 0.2},
    "the": {"upper": 0.6},
    "upper": {"row": 0.6},
    "row": {"</s>": 0.9},
    "bottom": {"</s>": 0.9},
}
ASKS = [Question(0, "which row?", (LONG, SHORT)), Question(0, "which row?", (SHORT, LONG))]
PICTURES = WORLD.render(WORLD.sample(1, np.random.default_rng(0)))


def chain_vlm() -> tuple[Any, Any]:
    """A model whose next word depends on the last one alone, by `CHAIN`."""
    model, processor = build_vlm(["which row? the upper row bottom"], 0, DecoderSize(2, 32, 2, 1), "patches")
    decoder, tokenizer = model.model.language_model, processor.tokenizer
    for layer in decoder.layers:  # the blocks write nothing
        layer.self_attn.o_proj.weight.data.zero_()
        layer.mlp.down_proj.weight.data.zero_()
    number, width = decoder.embed_tokens.weight.shape
    assert number <= width
    decoder.embed_tokens.weight.data = torch.eye(number, width)
    head = torch.zeros(number, width)
    for word, chances in CHAIN.items():
        column = torch.full((number,), (1 - sum(chances.values())) / (number - len(chances)))
        for after, chance in chances.items():
            column[tokenizer.convert_tokens_to_ids(after)] = chance
        # The final norm takes the embedding to this length.
        head[:, tokenizer.convert_tokens_to_ids(word)] = column.log() / width**0.5
    model.lm_head.weight = nn.Parameter(head)
    model.config.tie_word_embeddings = model.config.text_config.tie_word_embeddings = False
    return model.eval(), processor


@pytest.mark.parametrize(("score", "chosen"), [("total", SHORT), ("per_token", LONG)])
def test_a_long_right_choice_loses_in_total_and_wins_per_token(score: ChoiceScore, chosen: str) -> None:
    totals = {LONG: np.log(0.5 * 0.6 * 0.6 * 0.9), SHORT: np.log(0.2 * 0.9)}
    for ask, answer in zip(ASKS, LocalAsker(*chain_vlm(), score=score).ask(PICTURES, ASKS), strict=True):
        assert answer.chosen is not None and ask.choices[answer.chosen] == chosen
        assert answer.total_logprob is not None and answer.num_tokens is not None and answer.probabilities is not None
        np.testing.assert_allclose(answer.total_logprob, [totals[choice] for choice in ask.choices], atol=1e-3)
        assert dict(zip(ask.choices, answer.num_tokens.tolist(), strict=True)) == {LONG: 4, SHORT: 2}
        scores = np.array([totals[choice] / (1 if score == "total" else {LONG: 4, SHORT: 2}[choice]) for choice in ask.choices])
        np.testing.assert_allclose(answer.probabilities, np.exp(scores) / np.exp(scores).sum(), atol=1e-3)
        assert answer.outside == pytest.approx(1 - np.exp(list(totals.values())).sum(), abs=1e-3)  # a probability, whatever decides


def test_measures_of_the_inside_see_the_score_that_decides() -> None:
    for score, chosen in (("total", SHORT), ("per_token", LONG)):
        asker = LocalAsker(*chain_vlm(), score=score)
        ((_, scored),) = asker.passes(PICTURES, {0: ASKS[0]}, None)
        assert ASKS[0].choices[int(scored.choices.argmax())] == chosen and ASKS[0].choices[int(scored.totals.argmax())] == SHORT


def test_a_score_per_token_needs_the_numbers_of_tokens() -> None:
    totals, numbers = np.log([0.2, 0.1]), np.array([1, 4])
    with pytest.raises(ValueError, match="number of tokens"):
        answer_from_scores(totals, score="per_token")
    by_token, equal = answer_from_scores(totals, numbers, "per_token"), answer_from_scores(totals, np.array([3, 3]), "total")
    assert by_token.chosen == 1 and equal.chosen == 0 and by_token.outside == equal.outside == pytest.approx(0.7)
    np.testing.assert_allclose(by_token.probabilities, np.array([0.2, 0.1**0.25]) / (0.2 + 0.1**0.25))
