"""Under mixed attention a sample of text alone is attended alike, whatever its batch holds: each token sees those before it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers import tiny_families
from helpers.adapted_models import MIXED, at_prompt, read_logits, view_of, written, written_by_hand
from theodolite.models.export import export_vlm
from theodolite.models.exported.layout import Layout
from theodolite.models.families import family_of
from theodolite.models.forward import Adaptation, adapt, run_forward
from theodolite.models.load import adapted_classes
from theodolite.models.pass_inputs import PassInputs

WORDS = torch.tensor([[33, 40, 45, 50, 55, 41, 46, 47]])
WIDTH = WORDS.shape[1]


def text_of(model: Any) -> dict[str, Tensor]:
    return at_prompt({"input_ids": WORDS, "attention_mask": torch.ones_like(WORDS)}, family_of(model.config))


def packed_behind_a_picture(model: Any, name: str) -> PassInputs:
    """One row: a sample with a picture, then the text as a sample of its own, at whose tokens logits are wanted."""
    first = view_of(model.config, at_prompt(tiny_families.inputs(name, model, (1,), (5,)), family_of(model.config)))
    before, layout = first.input_ids.shape[1], first.layout
    ones = torch.ones_like(WORDS)
    both = Layout(
        torch.cat([layout.sample, ones], dim=1),
        torch.cat([layout.branch, 0 * ones], dim=1),
        torch.cat([layout.picture, -ones], dim=1),
        torch.cat([layout.cell, torch.zeros(1, WIDTH, 2, dtype=torch.long)], dim=1),
    )
    suffix = None if first.suffix is None else torch.zeros(both.sample.shape, dtype=torch.bool)
    ids = torch.cat([first.input_ids, WORDS], dim=1)
    return replace(first, input_ids=ids, layout=both, wanted=torch.arange(before, before + WIDTH), suffix=suffix)


@pytest.mark.contract("mixed, 2D")
@pytest.mark.parametrize("adaptation", [MIXED, Adaptation("mixed", "native")], ids=str)
@pytest.mark.parametrize("name", tiny_families.NAMES)
@torch.inference_mode()
def test_text_alone_gets_the_logits_that_it_gets_packed_behind_a_picture(name: str, adaptation: Adaptation) -> None:
    model = tiny_families.tiny(name)[0]
    adapt(model, adaptation)
    alone = read_logits(model, text_of(model), adaptation)[0]
    beside = run_forward(model, packed_behind_a_picture(model, name), adaptation).logits
    torch.testing.assert_close(alone, beside, atol=1e-5, rtol=1e-5)
    start = read_logits(model, {key: value[:, :3] for key, value in text_of(model).items()}, adaptation)[0]
    torch.testing.assert_close(alone[:3], start, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_an_exported_paligemma_reads_and_continues_text_as_in_training(tmp_path: Path) -> None:
    """Its stock model attends to a prompt in both directions, also to one of text alone."""
    model = tiny_families.tiny("paligemma")[0]
    adapt(model, MIXED)
    export_vlm(model, None, tmp_path)
    exported, given = adapted_classes("paligemma")[1].from_pretrained(tmp_path), text_of(model)
    expected = read_logits(model, given)
    stock = model(**given).logits
    assert (stock - expected).abs().max() > 1e-2
    for inputs in (given, {"input_ids": WORDS}):
        torch.testing.assert_close(exported(**inputs).logits, expected, atol=1e-5, rtol=1e-5)
    continued = written_by_hand(model, given, 5).tolist()
    for options in ({}, {"cache_implementation": "static"}, {"use_cache": False}):
        assert written(exported, given, 5, **options).tolist() == continued
