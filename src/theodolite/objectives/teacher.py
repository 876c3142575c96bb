"""The teacher: an exponential moving average of the trained parameters, swapped into the model while it teaches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

from theodolite.records.errors import BadInput


@dataclass(frozen=True, eq=False)
class ModuleParts:
    """What of a module is needed at every pass of a teacher: to walk through thousands of submodules takes the host milliseconds.

    `trained` is None where FSDP2 shards: there a parameter is another object once it is gathered.
    """

    submodules: tuple[nn.Module, ...]
    sharded: tuple[FSDPModule, ...]
    trained: dict[str, nn.Parameter] | None

    @classmethod
    def of(cls, module: nn.Module) -> ModuleParts:
        submodules = tuple(module.modules())
        sharded = tuple(submodule for submodule in submodules if isinstance(submodule, FSDPModule))
        return cls(submodules, sharded, None if sharded else trained_parameters(module))

    def reshard(self) -> None:
        """Frees weights that FSDP2 has gathered: its root unit keeps them after a forward, and after a swap they would be stale."""
        for submodule in self.sharded:
            submodule.reshard()


@dataclass
class Teacher:
    """A copy of every trainable parameter, by name (adapters only under LoRA).

    `shadow` is the average, in fp32 or wider: on the host for parameters on an accelerator, beside the parameter's shard under FSDP2.
    `working` is what teaches, in the parameter's own precision on its device, written when the average changes: one copy of the trained
    parameters is all that a teacher takes there.

    There is no second module: within `teaching` the copies replace the student's parameters, so frozen weights are shared, and wrappers
    (DDP, FSDP2, autocast) work as they do for the student. Teach before the student's forward, never between it and its backward. Raises
    `BadInput` where parameters are partitioned outside PyTorch (DeepSpeed ZeRO-3), since they read as empty.
    """

    shadow: dict[str, Tensor]
    working: dict[str, Tensor]
    _parts: WeakKeyDictionary[nn.Module, ModuleParts] = field(default_factory=WeakKeyDictionary, repr=False, compare=False)

    @classmethod
    def of(cls, module: nn.Module) -> Teacher:
        """A teacher equal to the module's present parameters. Raises `BadInput` if nothing is trained or parameters are partitioned."""
        ModuleParts.of(module).reshard()
        trained = trained_parameters(module)
        if not trained:
            raise BadInput("no parameter of the model requires a gradient, so a teacher has nothing to average; unfreeze a part")
        # ZeRO-3 leaves an empty tensor in each parameter's place and marks it.
        if empty := [name for name, parameter in trained.items() if parameter.numel() == 0]:
            raise BadInput(
                f"{len(empty)} trained parameters are empty, {empty[0]} first: DeepSpeed ZeRO-3 partitions them, and the teacher "
                "cannot read them; use FSDP2 or DDP"
            )
        shadow = {name: _average(parameter.detach()) for name, parameter in trained.items()}
        return cls(shadow, {name: _working(shadow[name], parameter) for name, parameter in trained.items()})

    @torch.no_grad()
    def update(self, module: nn.Module, decay: float) -> None:
        """teacher = decay * teacher + (1 - decay) * student, for every trained parameter; each shard on its own process."""
        self._parts[module] = parts = ModuleParts.of(module)
        parts.reshard()
        trained = trained_parameters(module)
        if trained.keys() != self.shadow.keys():
            changed = sorted(trained.keys() ^ self.shadow.keys())
            raise BadInput(f"the trained parameters changed during the run ({changed[0]} ...); freeze and unfreeze before training starts")
        for name, parameter in trained.items():
            # Averaged on the parameter's device, one tensor at a time: the same numbers as there, and no work for the host.
            average, own = _local(self.shadow[name]), _local(parameter.detach())
            moved = average.to(own.device, non_blocking=True).lerp_(own.to(average.dtype), 1.0 - decay)
            self.working[name].copy_(moved)
            if moved is not average:
                average.copy_(moved)

    @contextmanager
    def teaching(self, module: nn.Module) -> Iterator[None]:
        """Runs with the teacher's parameters in eval mode, without gradients; afterwards the student's are restored bit by bit."""
        if module not in self._parts:
            self._parts[module] = ModuleParts.of(module)
        parts = self._parts[module]
        # First: parameters that FSDP2 has gathered are other objects, whose memory it then frees.
        parts.reshard()
        trained = trained_parameters(module) if parts.trained is None else parts.trained
        in_training = [submodule for submodule in parts.submodules if submodule.training]
        _set_training(in_training, False)  # no dropout in a teacher
        with torch.no_grad():
            student = self._swap_in(trained)
            try:
                yield
            finally:
                self._swap_out(trained, student)
                parts.reshard()
                _set_training(in_training, True)
                # autocast caches casts of weights by parameter; those made here are the teacher's, and have no gradient.
                torch.clear_autocast_cache()

    def _swap_in(self, trained: dict[str, nn.Parameter]) -> dict[str, Tensor]:
        """Puts the teacher's values into the parameters and returns the student's."""
        torch.clear_autocast_cache()
        student = {}
        for name, parameter in trained.items():
            if isinstance(parameter, DTensor):
                # FSDP2 owns the shard's storage, so contents are copied and pointers stay.
                student[name] = parameter.to_local().clone()
                parameter.to_local().copy_(self.working[name])
            else:
                student[name] = parameter.data
                parameter.data = self.working[name]
        return student

    def _swap_out(self, trained: dict[str, nn.Parameter], student: dict[str, Tensor]) -> None:
        for name, parameter in trained.items():
            if isinstance(parameter, DTensor):
                parameter.to_local().copy_(student[name])
            else:
                parameter.data = student[name]

    def state_dict(self) -> dict[str, Tensor]:
        """Full tensors by name, on the CPU where they were sharded: gathered one by one from all processes (call it on each of them)."""
        return {name: value.full_tensor().cpu() if isinstance(value, DTensor) else value for name, value in self.shadow.items()}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Loads the tensors of `state_dict`. Raises `BadInput` if their names differ from the trained parameters'."""
        if state.keys() != self.shadow.keys():
            changed = sorted(state.keys() ^ self.shadow.keys())
            raise BadInput(f"the saved teacher has other parameters ({changed[0]} ...); resume with the recipe of the original run")
        for name, value in state.items():
            shadow = self.shadow[name]
            if isinstance(shadow, DTensor):
                shadow.to_local().copy_(distribute_tensor(value.to(shadow.device), shadow.device_mesh, shadow.placements).to_local())
            else:
                shadow.copy_(value)
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Writes the average into the working copy: call it after a change of `shadow`."""
        for name, value in self.working.items():
            value.copy_(_local(self.shadow[name]))


def trained_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that require a gradient, by name without the wrappers' prefix."""
    return {name.removeprefix("module."): parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def _set_training(submodules: list[nn.Module], training: bool) -> None:
    """Sets the mode of each submodule, past the checks that `nn.Module` makes when an attribute is set."""
    for submodule in submodules:
        vars(submodule)["training"] = training


def _average(value: Tensor) -> Tensor:
    """A copy in fp32 or wider (in bf16 a step of 0.05 of a small difference would be rounded away), on the host but for shards."""
    wide = value.to(torch.promote_types(value.dtype, torch.float32), copy=True)
    if isinstance(wide, DTensor) or not wide.is_cuda:
        return wide
    return wide.cpu().pin_memory()  # so that an update's copies need not wait


def _working(average: Tensor, parameter: Tensor) -> Tensor:
    """The average in the parameter's precision on its device: the same tensor where both are the average's own."""
    return _local(average).to(_local(parameter).device, parameter.dtype)


def _local(value: Tensor) -> Tensor:
    return value.to_local() if isinstance(value, DTensor) else value
