"""The stand-in for bf16 products on a CPU: in training and evaluation steps in bf16, and in no others, as it costs every operation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from helpers.tiny_families import tiny
from helpers.tiny_training import examples, laver_trainer
from theodolite.models import cpu_products as products
from theodolite.training.compilation import cpu_products


@pytest.mark.parametrize("precision", ["fp32", "autocast", "weights"])
def test_every_pass_of_a_bf16_run_is_in_the_mode_and_none_of_a_float32_run(
    precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "has_bf16_products", lambda: False)
    trainer = laver_trainer(tmp_path, given={"eval_dataset": examples(2)}, max_steps=1, bf16=precision == "autocast")
    if precision == "weights":
        trainer.objective_module.bfloat16()
    seen: set[tuple[str, bool]] = set()

    def note(module: Any, args: Any, output: Any) -> None:
        seen.add(("training" if module.training else "evaluation", is_in_torch_dispatch_mode()))

    trainer.objective_module.register_forward_hook(note)
    trainer.train()
    trainer.evaluate()
    in_mode = precision != "fp32"
    assert seen == {("training", in_mode), ("evaluation", in_mode)}


def test_a_model_on_another_device_runs_without_the_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "has_bf16_products", lambda: False)
    model = tiny("llava")[0]
    with cpu_products(model, True):
        assert is_in_torch_dispatch_mode()
    with cpu_products(model.to("meta", torch.bfloat16), True):
        assert not is_in_torch_dispatch_mode()
