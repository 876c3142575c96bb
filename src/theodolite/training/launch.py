"""How a run was launched: on one process or several, and whether that is what is happening."""

from __future__ import annotations

import os
from typing import Any

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
