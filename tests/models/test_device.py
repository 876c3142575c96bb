"""The device and precision that a model is loaded for."""

from __future__ import annotations

import pytest
import torch

from theodolite.models.device import Placement
from theodolite.records.errors import BadInput


def test_without_a_gpu_it_is_the_cpu_in_single_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert Placement.of() == Placement("cpu", "float32")
    assert str(Placement.of(dtype="bfloat16")) == "cpu in bfloat16"


@pytest.mark.parametrize(("cuda", "mps", "bf16", "expected"), [
    (True, True, True, Placement("cuda", "bfloat16")),
    (True, False, False, Placement("cuda", "float32")),
    (False, True, True, Placement("mps", "bfloat16")),
])  # fmt: skip
def test_a_gpu_is_taken_where_there_is_one(monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, bf16: bool, expected: Placement) -> None:
    # No GPU here: the library's own answers are stood in for, and the choice among them is what is tested.
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: bf16)
    monkeypatch.setattr(torch, "empty", lambda *shape, device: None)
    assert Placement.of() == expected
    assert Placement.of("cpu") == Placement("cpu", "float32")
    assert Placement.of("cpu", "float16").dtype == "float16"


def test_a_device_that_is_not_there_is_named() -> None:
    with pytest.raises(BadInput, match=r"device 'cuda:99' is not available \(.*\); give cpu, cuda or cuda:1"):
        Placement.of("cuda:99")
