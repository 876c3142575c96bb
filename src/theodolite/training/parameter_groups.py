"""Parameter groups of an optimizer with a learning rate of their own."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from theodolite.records.errors import BadInput


def give_own_rate(optimizer: torch.optim.Optimizer, parameters: Iterable[nn.Parameter], rate: float) -> None:
    """Moves parameters into groups with this learning rate, and otherwise the settings of their present groups (weight decay).

    Call it before a scheduler is made, which then scales each group's own rate. Does nothing the second time. Raises `BadInput` if the
    optimizer does not hold them all (those that make groups of their own: GaLore, LOMO, Muon).
    """
    chosen = {id(parameter) for parameter in parameters if parameter.requires_grad}
    for group in list(optimizer.param_groups):
        mine = [parameter for parameter in group["params"] if id(parameter) in chosen]
        if not mine:
            continue
        chosen -= {id(parameter) for parameter in mine}
        if len(mine) == len(group["params"]):
            group["lr"] = rate
            continue
        group["params"] = [parameter for parameter in group["params"] if not any(parameter is one for one in mine)]
        # At the front a group would give its rate to the log, which shows the first.
        optimizer.add_param_group({**{key: value for key, value in group.items() if key != "params"}, "params": mine, "lr": rate})
    if chosen:
        raise BadInput(f"{type(optimizer).__name__} groups parameters in its own way; leave head_learning_rate out, or take adamw_torch")
