"""Runs of LaVer with interventional pairs on the tiny world, on one process or under FSDP2 on several: `interventional_run.py FOLDER`."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from helpers.fsdp2_run import ENVIRONMENT, fsdp_on_cpu
from helpers.paired_pictures import paired_collator, paired_examples
from helpers.tiny_llava import TINY, WORLD
from helpers.tiny_training import LAVER, arguments
from theodolite.data.epochs import FixedOrder
from theodolite.data.examples import training_order
from theodolite.models.construction.build import build_vlm
from theodolite.models.forward import Adaptation
from theodolite.objectives.interventional import InterventionalConfig
from theodolite.objectives.visual import AuxiliaryConfig
from theodolite.training.step_metrics import JsonLinesLog
from theodolite.training.trainer import LaverTrainer

STEPS, BATCH = 3, 4


def run(folder: Path) -> None:
    """Three steps of four pictures, of which two thirds have a partner, so that the processes' numbers of pairs differ."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    model, processor = build_vlm(WORLD.texts, 0, decoder=replace(TINY, initial_std=0.3))
    model.model.vision_tower.requires_grad_(False)
    examples = paired_examples(2 / 3)
    given: dict[str, Any] = {
        "train_dataset": FixedOrder(training_order(len(examples), STEPS * BATCH, 0)),
        "data_collator": paired_collator(processor, examples),
        "callbacks": [JsonLinesLog(folder / "log.jsonl")],
    }
    options = {"max_steps": STEPS, "per_device_train_batch_size": BATCH // processes, "adam_epsilon": 1e-6, "optim": "adamw_torch"}
    torch.manual_seed(1)
    trainer = LaverTrainer(
        model,
        replace(LAVER, adaptation=Adaptation("mixed", "2d")),
        AuxiliaryConfig(interventional=InterventionalConfig()),
        args=arguments(folder / "checkpoints", **options),
        **given,
    )
    sharded = "FSDP_VERSION" in os.environ
    assert trainer.args.world_size == processes and trainer.is_fsdp_enabled == sharded
    trainer.train()
    trained = [parameter for parameter in trainer.objective_module.parameters() if parameter.requires_grad]
    assert all(isinstance(parameter, DTensor) == sharded for parameter in trained)
    state = trainer.vlm_state() or model.state_dict()
    if trainer.is_world_process_zero():
        torch.save(state, folder / "state.pt")


def main() -> None:
    torch.set_num_threads(1)
    os.environ |= {**ENVIRONMENT, "FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT", "FSDP_CPU_RAM_EFFICIENT_LOADING": "false"}
    dist.init_process_group("gloo")
    fsdp_on_cpu()
    run(Path(sys.argv[1]))
    dist.barrier()
    sys.stdout.flush()
    os._exit(0)  # as in `fsdp2_run`


if __name__ == "__main__":
    main()
