"""Allocation of attention: shares against full attention maps, their baseline under uniform attention, and a back end that is restored."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from helpers.family_askers import built
from helpers.measure_contexts import model_context
from helpers.planted_vlm import planted_vlm
from helpers.tiny_families import NAMES
from helpers.tiny_llava import tiny_vlm
from theodolite.asking.answer import Question
from theodolite.asking.local import LocalAsker
from theodolite.measurement.internals.allocation import SeenShare, measure_allocation, seen_share, vision_share
from theodolite.models.taps import watching_attention
from theodolite.worlds.shapes.world import Shapes


def test_even_attention_gives_the_baseline_in_every_layer_and_head() -> None:
    allocation = measure_allocation(model_context(*planted_vlm(), "hue,tone", 6))
    assert allocation is not None and (allocation.num_scenes, allocation.num_questions) == (6, 2)
    assert list(allocation.layers) == [f"layer.{number}" for number in range(1, 5)]
    for layer in allocation.layers.values():
        assert layer.excess.value == pytest.approx(0, abs=2e-6)
        assert layer.share.value == pytest.approx(layer.baseline.value, abs=2e-6)
        assert layer.heads == pytest.approx([layer.share.value] * 2, abs=2e-6)
        assert 0.85 < layer.baseline.value < 0.97


def test_shares_are_those_of_whole_maps_and_the_back_end_is_restored() -> None:
    model, processor = tiny_vlm()
    model.model.language_model.layers[1].self_attn.q_proj.weight.data *= 40
    context = model_context(model, processor, Shapes(), "shape,row", 5)
    before = model.model.language_model.config._attn_implementation
    allocation = measure_allocation(context)
    assert allocation is not None and before != "eager"
    assert model.model.language_model.config._attn_implementation == before
    rows = context.rows.filter((context.rows["kind"] == "intervention") & (context.rows["scene"] == 0))
    pairs = {(text, tuple(choices)) for text, choices in zip(rows["question_before"], rows["choices"].to_list(), strict=True)}
    shares, evens = [], []
    for text, choices in sorted(pairs):
        for choice in choices:
            turn = context.asker.model_inputs(context.plan.pictures).question_tokenizer.tokenize(text, choice)
            ids = torch.tensor([turn.prefix + turn.question + turn.answer[:-1]])
            pixels = context.asker.model_inputs(context.plan.pictures).inputs(context.plan.pictures[:1])
            model.model.language_model.set_attn_implementation("eager")
            with torch.inference_mode():
                maps = model(input_ids=ids, output_attentions=True, **pixels).attentions[1][0]
            model.model.language_model.set_attn_implementation(before)
            vision = ids[0] == model.config.image_token_id
            start = len(turn.prefix) if choice == choices[0] else len(turn.prefix) + len(turn.question)
            shares += maps[:, start:, vision].sum(dim=2).mean(dim=0).tolist()
            evens += [int(vision.sum()) / (place + 1) for place in range(start, ids.shape[1])]
    one = measure_allocation(replace(context, rows=rows))
    assert one is not None
    assert one.layers["layer.2"].share.value == pytest.approx(sum(shares) / len(shares), abs=1e-5)
    assert one.layers["layer.2"].baseline.value == pytest.approx(sum(evens) / len(evens), abs=1e-5)
    assert abs(one.layers["layer.2"].excess.value) > 1e-3 and one.layers["layer.2"].excess.low is None


@pytest.mark.contract("inside")
@pytest.mark.parametrize("name", NAMES)
def test_in_every_family_what_gets_attention_is_what_counts_as_seen(name: str) -> None:
    """With random weights all visible tokens get attention, and no others."""
    model, processor, pictures = built(name)
    asker = LocalAsker(model, processor)
    asks = [Question(0, "what colour", ("red", "a b c")), Question(0, "what shape a b", ("no", "yes"))]
    wrong = []
    for rows in asker.groups(pictures, asks):
        batch = asker.collate(rows, pictures)
        seen = SeenShare(asker, batch)

        def look(number: int, attention: torch.Tensor, batch=batch, seen=seen) -> None:  # type: ignore[no-untyped-def]
            share = seen_share((attention > 0).all(dim=1), batch.vision, batch.text)
            wrong.append(float((share - seen.share(number)).abs().max()))

        with torch.inference_mode(), watching_attention(asker.base, look):
            asker.score(batch, asker.encode_batch(batch, pictures))
    assert wrong and max(wrong) < 1e-9


def test_memory_that_runs_out_within_the_layers_halves_the_rows_and_changes_no_share(monkeypatch: pytest.MonkeyPatch) -> None:
    context = model_context(*tiny_vlm(), Shapes(), "shape,row", 6)
    whole, own = measure_allocation(context), LocalAsker.score
    inference = []

    def cramped(self: LocalAsker, batch: Any, vision_features: Any, edits: Any = None) -> Any:
        inference.append(torch.is_inference_mode_enabled())
        scored = own(self, batch, vision_features, edits)
        if len(batch.pictures) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return scored

    monkeypatch.setattr(LocalAsker, "score", cramped)
    halved = measure_allocation(context)
    assert whole is not None and halved is not None and len(context.asker.notices) == 2
    for site, layer in whole.layers.items():
        assert halved.layers[site].heads == pytest.approx(layer.heads, abs=1e-5)
        assert halved.layers[site].baseline.value == pytest.approx(layer.baseline.value, abs=1e-5)
    assert not any(inference), "tensors of inference mode would stay in a model that goes on training"


def test_shares_count_text_tokens_only() -> None:
    attention = torch.tensor([[[[1.0, 0, 0], [0.25, 0.75, 0], [0.5, 0.2, 0.3]]]])
    vision, text = torch.tensor([[True, False, False]]), torch.tensor([[False, True, True]])
    assert vision_share(attention, vision, text).tolist() == [[0.75]]
    seen = torch.ones(3, 3, dtype=torch.bool).tril()[None]
    assert seen_share(seen, vision, text).tolist() == [pytest.approx(1 / 2 + 1 / 3)]


def test_without_open_questions_there_is_no_allocation() -> None:
    context = model_context(*tiny_vlm(), Shapes(), "shape", 2)
    assert measure_allocation(replace(context, rows=context.rows.clear())) is None
