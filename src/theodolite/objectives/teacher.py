"""The teacher: an exponential moving average of exactly the trained parameters, which takes their place while it teaches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

from theodolite.records.errors import BadInput


@dataclass
class Teacher:
    """One copy of every parameter that wants a gradient, by name (adapters only under LoRA), in fp32 at least.

    There is no second module: within `teaching` the copies stand in the student's place, so frozen weights are shared, and whatever
    wraps the module (DDP, FSDP2, autocast) works as it does for the student. Teach before the student's forward, never between
    it and its backward. Raises `BadInput` where parameters are partitioned outside PyTorch (DeepSpeed ZeRO-3), since they read as empty.
    """

    shadow: dict[str, Tensor]

    @classmethod
    def of(cls, module: nn.Module) -> Teacher:
        """A teacher equal to the module as it is now. Raises `BadInput` if nothing is trained or parameters are partitioned."""
        trained = trained_parameters(module)
        if not trained:
            raise BadInput("no parameter of the model wants a gradient, so there is nothing for a teacher to follow; unfreeze a part")
        # ZeRO-3 leaves an empty tensor in each parameter's place and marks it.
        if empty := [name for name, parameter in trained.items() if parameter.numel() == 0]:
            raise BadInput(
                f"{len(empty)} trained parameters are empty here, {empty[0]} first: DeepSpeed ZeRO-3 keeps them elsewhere, and "
                "a teacher of empty tensors would teach nothing; use FSDP2, DDP or ZeRO-2"
            )
        return cls({name: _wide(parameter.detach()) for name, parameter in trained.items()})

    @torch.no_grad()
    def update(self, module: nn.Module, decay: float) -> None:
        """teacher = decay * teacher + (1 - decay) * student, for every trained parameter; each shard on its own process."""
        trained = trained_parameters(module)
        if trained.keys() != self.shadow.keys():
            changed = sorted(trained.keys() ^ self.shadow.keys())
            raise BadInput(f"what is trained changed during the run ({changed[0]} ...); freeze and unfreeze before training starts")
        for name, parameter in trained.items():
            _local(self.shadow[name]).lerp_(_local(parameter.detach()).to(self.shadow[name].dtype), 1.0 - decay)

    @contextmanager
    def teaching(self, module: nn.Module) -> Iterator[None]:
        """Within, the module's trained parameters are the teacher's, and no gradients are taken; afterwards the student's, to the bit."""
        trained = trained_parameters(module)
        learning = [part for part in module.modules() if part.training]
        module.eval()  # a teacher drops nothing out
        with torch.no_grad():
            _reshard(module)
            kept = self._exchange(trained)
            try:
                yield
            finally:
                self._exchange_back(trained, kept)
                _reshard(module)
                for part in learning:
                    part.training = True
                # autocast keeps casts of weights by parameter; those made here are the teacher's, and have no gradient.
                torch.clear_autocast_cache()

    def _exchange(self, trained: dict[str, nn.Parameter]) -> dict[str, Tensor]:
        torch.clear_autocast_cache()
        kept = {}
        for name, parameter in trained.items():
            shadow = self.shadow[name]
            if isinstance(parameter, DTensor):
                # FSDP2 holds the shard's storage, so contents move, not pointers.
                kept[name] = parameter.to_local().clone()
                parameter.to_local().copy_(_local(shadow))
            else:
                kept[name] = parameter.data
                parameter.data = shadow.to(parameter.dtype)
        return kept

    def _exchange_back(self, trained: dict[str, nn.Parameter], kept: dict[str, Tensor]) -> None:
        for name, parameter in trained.items():
            if isinstance(parameter, DTensor):
                parameter.to_local().copy_(kept[name])
            else:
                parameter.data = kept[name]

    def state_dict(self) -> dict[str, Tensor]:
        """Whole tensors by name, gathered from all processes (call it on every one)."""
        return {name: value.full_tensor() if isinstance(value, DTensor) else value for name, value in self.shadow.items()}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes the tensors of `state_dict`. Raises `BadInput` if they are of other parameters."""
        if state.keys() != self.shadow.keys():
            changed = sorted(state.keys() ^ self.shadow.keys())
            raise BadInput(f"the saved teacher is of other parameters ({changed[0]} ...); resume with the recipe that the run began with")
        for name, value in state.items():
            held = self.shadow[name]
            if isinstance(held, DTensor):
                held.to_local().copy_(distribute_tensor(value.to(held.device), held.device_mesh, held.placements).to_local())
            else:
                held.copy_(value)


def trained_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that want a gradient, by name, without what wrappers put before it."""
    return {name.removeprefix("module."): parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def _reshard(module: nn.Module) -> None:
    """Lets go of weights that FSDP2 has gathered: its outermost unit keeps them after a forward, and they would be the other's."""
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.reshard()


def _wide(value: Tensor) -> Tensor:
    """A copy in fp32 at least: in bf16 a step of 0.05 of a small difference would be rounded away."""
    return value.to(torch.promote_types(value.dtype, torch.float32), copy=True)


def _local(value: Tensor) -> Tensor:
    return value.to_local() if isinstance(value, DTensor) else value
