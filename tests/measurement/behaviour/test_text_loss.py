"""The loss on plain text: against the model's own loss, and against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from theodolite.measurement.behaviour.text_loss import measure_text_loss, text_loss_change, text_windows
from theodolite.models.construction.build import word_tokenizer
from theodolite.records.errors import BadInput

WORDS = ["the", "sun", "rose", "over", "the", "hill", "and", "the", "cat", "slept", "on", "a", "warm", "wall"]


def language_model(vocabulary: int, seed: int = 0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2
    )
    return LlamaForCausalLM(config).eval()


def text(length: int) -> str:
    rng = np.random.default_rng(0)
    return " ".join(str(rng.choice(WORDS)) for _ in range(length))


def test_the_loss_is_the_models_own_over_every_window() -> None:
    tokenizer = word_tokenizer(WORDS)
    model = language_model(len(tokenizer))
    loss = measure_text_loss(model, tokenizer, text(50), name="m", source="t", window=16)
    ids = torch.tensor(tokenizer(text(50), add_special_tokens=False)["input_ids"])
    parts = [ids[at : at + 16] for at in range(0, len(ids), 16)]
    own = [float(model(input_ids=part[None], labels=part[None]).loss.detach()) * (len(part) - 1) for part in parts]
    assert loss.num_windows == len(parts) == 4 and loss.num_tokens == len(ids) - 4
    assert loss.window_nats == pytest.approx(own, rel=1e-5)
    assert loss.nats_per_token.value == pytest.approx(sum(own) / (len(ids) - 4), rel=1e-6)
    assert loss.nats_per_token.low < loss.nats_per_token.value < loss.nats_per_token.high


def test_a_model_that_knows_nothing_loses_the_logarithm_of_its_vocabulary() -> None:
    tokenizer = word_tokenizer(WORDS)
    model = language_model(len(tokenizer))
    torch.nn.init.zeros_(model.lm_head.weight)
    loss = measure_text_loss(model, tokenizer, text(60), name="m", source="t", window=16)
    assert loss.nats_per_token.value == pytest.approx(math.log(len(tokenizer)), rel=1e-6)


def test_a_model_against_itself_did_not_change_and_the_interval_is_paired() -> None:
    tokenizer = word_tokenizer(WORDS)
    one, other = (
        measure_text_loss(language_model(len(tokenizer), seed), tokenizer, text(200), name="m", source="t", window=16) for seed in (0, 1)
    )
    assert text_loss_change(one, one).relative.value == 0
    change = text_loss_change(one, other)
    assert change.relative.value == pytest.approx(other.nats_per_token.value / one.nats_per_token.value - 1)
    paired = change.relative.high - change.relative.low
    unpaired = (other.nats_per_token.high - other.nats_per_token.low) / one.nats_per_token.value
    assert 0 < paired < 2 * unpaired


def test_texts_that_cannot_be_compared_or_are_too_short_are_refused() -> None:
    tokenizer = word_tokenizer(WORDS)
    model = language_model(len(tokenizer))
    one = measure_text_loss(model, tokenizer, text(40), name="m", source="t", window=16)
    other = measure_text_loss(model, tokenizer, text(41), name="m", source="t", window=16)
    with pytest.raises(BadInput, match="different tokens"):
        text_loss_change(one, other)
    with pytest.raises(BadInput, match="windows to compare"):
        text_windows([1, 2, 3], 16)
