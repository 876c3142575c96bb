"""Checks of a run's processes against its launcher, and a clean exit from the process group."""

from __future__ import annotations

import gc
import os
from typing import Any

import torch.distributed as dist
from accelerate.utils import DistributedType
from torch import nn

from theodolite.records.errors import BadInput


def refuse_undistributed(world_size: int, kind: DistributedType, fsdp_plugin: Any = None, zero_stage: int | None = None) -> None:
    """Raises `BadInput` if several launched processes would each train alone, if FSDP was requested and is not active, or for DeepSpeed.

    Neither gives an error otherwise: under torchrun without an accelerator each process is a world of size 1 unless the Trainer has
    `use_cpu=True`, and on a CPU accelerate ignores its FSDP plug-in.
    """
    if kind is DistributedType.DEEPSPEED:
        raise BadInput(
            f"DeepSpeed ZeRO-{zero_stage} is not supported: its checkpoints hold no teacher, and ZeRO-3 empties the parameters that a "
            "teacher follows; launch with FSDP2 (accelerate launch --use_fsdp, fsdp_version 2) or DDP (torchrun)"
        )
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started != world_size:
        raise BadInput(
            f"a launcher started {started} processes, but this one trains in a world of {world_size}: each would train a model of its own; "
            "without an accelerator set use_cpu=True in the training arguments"
        )
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() in ("1", "true") and kind is not DistributedType.FSDP:
        raise BadInput(f"FSDP was asked for, but the run is {kind.value}; accelerate ignores FSDP on a CPU: launch without it, or on GPUs")
    if kind is DistributedType.FSDP and fsdp_plugin is not None and fsdp_plugin.fsdp_version != 2:
        raise BadInput("FSDP version 1 hides the parameters that a teacher has to follow; set fsdp_version to 2")


def refuse_broadcast_buffers(module: nn.Module, fsdp_plugin: Any) -> None:
    """Raises `BadInput` under `cpu_ram_efficient_loading` for a model whose state dict holds buffers, as that of EfficientNet-Lite0 does.

    accelerate takes each entry of the state dict for a sharded parameter, and ends with "no attribute 'device_mesh'".
    """
    if not fsdp_plugin.cpu_ram_efficient_loading:
        return
    parameters = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    if buffers := [name for name in module.state_dict() if name not in parameters]:
        raise BadInput(
            f"the model has {len(buffers)} buffers in its state dict ({buffers[0]} first), which accelerate cannot broadcast; set "
            "fsdp_cpu_ram_efficient_loading to false"
        )


def refuse_many_processes() -> None:
    """Raises `BadInput` if a launcher started several processes, each of which would train its own model."""
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started > 1:
        raise BadInput(f"WORLD_SIZE is {started}; tours train in one process: start theodolite without a launcher")


def leave_together() -> None:
    """Destroys the process group, if there is one. Call it last in a launched command, after model and Trainer are released.

    A gloo thread that still releases its last tensor at interpreter exit sometimes aborts the process (exit -6, "terminate called without
    an active exception"). Destroying the group joins the threads only if nothing else references it; wrapped modules do, in cycles, hence
    the garbage collection.
    """
    if dist.is_available() and dist.is_initialized():
        gc.collect()
        dist.destroy_process_group()
