"""How often a training step waits for the device: never, but for what the library's own forward waits for."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PrinterCallback

from helpers import tiny_families
from helpers.tiny_training import arguments, examples
from theodolite.data.packing import PackingCollator
from theodolite.models.forward import Adaptation
from theodolite.models.freezing import set_trainable
from theodolite.models.pictures import PictureReader
from theodolite.objectives.language import Language
from theodolite.objectives.laver import LaverConfig
from theodolite.training.host_syncs import HostSyncs, OnDevice
from theodolite.training.laver_trainer import LaverTrainer
from theodolite.training.objective_module import ObjectiveModule
from theodolite.training.trainer import ObjectiveTrainer

SHORT, LONG = 2, 4  # steps of two runs, whose difference leaves out what happens once a run


def a_step(name: str, folder: Path, laver: LaverConfig | None, accumulation: int = 1) -> tuple[float, HostSyncs]:
    """Waits a step, and those of the longer of two runs by line of code."""
    short, long = (waits(name, folder, laver, accumulation, steps) for steps in (SHORT, LONG))
    return (long.total - short.total) / (LONG - SHORT), long


def waits(name: str, folder: Path, laver: LaverConfig | None, accumulation: int, steps: int) -> HostSyncs:
    """Waits of a run of so many steps."""
    syncs = HostSyncs()
    model, image_processor, tokenizer = tiny_families.tiny(name)
    set_trainable(model, ("connector", "language_model"))
    chosen = arguments(folder, max_steps=steps, gradient_accumulation_steps=accumulation, logging_steps=100, logging_nan_inf_filter=False)
    chosen.dataloader_pin_memory = True  # as where there is a GPU, but memory cannot be pinned without one
    options: dict[str, Any] = {
        "args": chosen,
        "train_dataset": examples(8),
        "data_collator": syncs.on_host(PackingCollator(tokenizer, PictureReader(image_processor, tokenizer, model.config), max_length=512)),
    }
    trainer = LaverTrainer(model, laver, **options) if laver else ObjectiveTrainer(ObjectiveModule(model, Language()), **options)
    chosen.dataloader_pin_memory = False
    trainer.remove_callback(PrinterCallback)
    with syncs:
        trainer.train()
    return syncs


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], float]:
    """Waits a step of next-token training."""
    return cache(lambda name: a_step(name, tmp_path_factory.mktemp("plain"), None)[0])


@pytest.mark.parametrize("branch", ["separate", "joint"])
@pytest.mark.parametrize("name", ["llava", "qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_a_step_does_not_wait_for_the_device(name: str, branch: Any, plain: Callable[[str], float], tmp_path: Path) -> None:
    waits_a_step, by_line = a_step(name, tmp_path, laver_config(branch))
    assert waits_a_step == plain(name) == 0, by_line.by_line


@pytest.mark.parametrize("branch", ["separate", "joint"])
def test_only_the_librarys_own_waits_are_left_in_every_pass(branch: Any, plain: Callable[[str], float], tmp_path: Path) -> None:
    """SmolVLM's forward waits several times; its encoder waits once a step, although three passes use its output."""
    waits_a_step, by_line = a_step("smolvlm", tmp_path, laver_config(branch))
    assert waits_a_step <= plain("smolvlm") + 10, by_line.by_line


def laver_config(branch: Any) -> LaverConfig:
    return LaverConfig(head_hidden=16, branch=branch, mask_ratio=0.4, mask_ramp="constant", adaptation=Adaptation("mixed", "2d"))


def test_micro_batches_add_no_waits(tmp_path: Path) -> None:
    laver = LaverConfig(head_hidden=16, mask_ratio=0.4, mask_ramp="constant")
    (one, _), (two, by_line) = (a_step("llava", tmp_path, laver, accumulation) for accumulation in (1, 2))
    assert one == two == 0, by_line.by_line


def test_the_counter_counts() -> None:
    with HostSyncs() as syncs:
        there = torch.arange(4).to("cpu", non_blocking=True)
        assert isinstance(there + 1, OnDevice)
        _ = there[there > 1], int(there.sum()), there.tolist(), torch.arange(3).to("cpu")
        _ = there[torch.tensor([1])], torch.arange(3).tolist(), torch.tensor([1]).tolist(), torch.tensor([1], device="cpu")
    assert syncs.total == 5
