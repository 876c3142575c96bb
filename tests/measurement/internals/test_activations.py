"""What is stored of hidden states: rows, precision on disk, and room for them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from helpers.measure_contexts import model_context
from helpers.planted_vlm import planted_vlm
from theodolite.measurement.internals import token_similarity
from theodolite.measurement.internals.activations import Activations
from theodolite.measurement.internals.token_similarity import effective_rank
from theodolite.records.errors import BadInput


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_half_precision_on_disk_loses_no_digit_of_a_bfloat16_vector_and_does_not_overflow(size: float) -> None:
    values = (size * torch.randn(3, 40, generator=torch.Generator().manual_seed(0))).bfloat16().float()
    values[1] = 0
    activations = Activations(("encoder",), (), 5, half=True)
    activations.put("one_vision", "encoder", np.array([0, 3, 4]), values)
    stored = activations.one_vision("encoder")
    assert stored.dtype == np.float32 and np.isnan(stored[[1, 2]]).all()
    np.testing.assert_array_equal(np.abs(stored[[0, 3, 4]] - values.numpy()) <= 2.0**-24 * np.abs(values.numpy()).max(), True)


def test_a_single_precision_model_s_vectors_keep_theirs() -> None:
    values = torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(0))
    activations = Activations(("encoder",), (), 2)
    activations.put("tokens", "encoder", np.arange(2), values)
    np.testing.assert_array_equal(activations.tokens("encoder"), values.numpy())


def test_only_pictures_of_interventions_have_rows_and_a_full_disk_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    context = model_context(*planted_vlm({"hue": "hue"}), "hue", 6)
    assert len(context.activations.mean("connector")) == context.pictures.max() + 1 < len(context.plan.pictures)
    full = model_context(*planted_vlm({"hue": "hue"}), "hue", 6)
    usage: Any = lambda folder: SimpleNamespace(free=1000)  # noqa: E731
    monkeypatch.setattr("theodolite.measurement.internals.activations.shutil.disk_usage", usage)
    with pytest.raises(BadInput, match=r"take 0\.0 GiB in .*TMPDIR") as refusal:
        _ = full.activations
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(("token", "dim"), [(12, 5), (5, 12)])
def test_ranks_of_blocks_are_those_of_single_pictures(token: int, dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = torch.randn(7, token, dim, generator=torch.Generator().manual_seed(1))
    tokens[4] = 0
    monkeypatch.setattr(token_similarity, "MOST_NUMBERS", 3 * token * dim)
    alone = torch.cat([effective_rank(each[None]) for each in tokens])
    torch.testing.assert_close(effective_rank(tokens), alone, equal_nan=True, rtol=1e-6, atol=0)
