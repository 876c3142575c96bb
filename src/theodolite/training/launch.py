"""How a run was launched: on one process or several, and whether that is what is happening."""

from __future__ import annotations

import gc
import os
from typing import Any

import torch.distributed as dist
from accelerate.utils import DistributedType

from theodolite.records.errors import BadInput


def refuse_undistributed(world_size: int, kind: DistributedType, fsdp_plugin: Any = None) -> None:
    """Raises `BadInput` where a launcher started several processes that would each train alone, or asked for FSDP and got none.

    Both happen without a word: torchrun on a machine without an accelerator leaves each process a world of its own unless the Trainer is
    told `use_cpu=True`, and on a CPU accelerate ignores its FSDP plug-in.
    """
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


def refuse_many_processes() -> None:
    """Raises `BadInput` where a launcher started several processes: this run is made for one, and each would train its own model."""
    found = int(os.environ.get("WORLD_SIZE", "1"))
    if found > 1:
        raise BadInput(f"WORLD_SIZE is {found}; tours train in one process: start theodolite without a launcher")


def leave_together() -> None:
    """Ends this process's group, if it is in one: the last thing a launched command does, once its model and Trainer have gone.

    A gloo group's threads may hold the last tensors that went through them. One that is still letting go of a tensor when the interpreter
    ends aborts the process (exit -6, "terminate called without an active exception"), now and then, with all its work done. Destroying the
    group joins those threads only where nothing else holds the group, as wrapped modules do, in cycles.
    """
    if dist.is_available() and dist.is_initialized():
        gc.collect()
        dist.destroy_process_group()
