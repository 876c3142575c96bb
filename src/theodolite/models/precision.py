"""A pass in single precision of a model that is stored in half precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import psutil
import torch
from torch import Tensor, nn

HALF = (torch.bfloat16, torch.float16)
ROOM = 0.9  # of the free memory that the wider parameters may take


def half_precision_tensors(model: nn.Module) -> list[Tensor]:
    """The parameters and buffers in bfloat16 or float16, each once."""
    return list({id(each): each for each in chain(model.parameters(), model.buffers()) if each.dtype in HALF}.values())


def fits_in_single_precision(model: nn.Module) -> bool:
    """Whether free memory has room for the parameters in single precision, which take two bytes more for each value."""
    tensors = half_precision_tensors(model)
    extra = sum(2 * each.numel() for each in tensors)
    # One tensor at a time exists in both precisions.
    extra += max((4 * each.numel() for each in tensors), default=0)
    device = next((each.device for each in tensors), torch.device("cpu"))
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    return extra <= ROOM * free


@contextmanager
def in_single_precision(model: nn.Module) -> Iterator[None]:
    """Context in which half-precision parameters and buffers are float32 and autocast is off; after it each has its own dtype again.

    The values are the same before, within and after: every half-precision number is one in single precision. Parameters stay the same
    objects, so an optimizer keeps them; gradients of parameters are left as they are.
    """
    tensors = half_precision_tensors(model)
    kinds = [each.dtype for each in tensors]
    device = next((each.device.type for each in model.parameters()), "cpu")
    gradients = [each.grad for each in tensors]
    try:
        for each in tensors:
            each.grad = None  # a gradient must have its parameter's dtype
            each.data = each.data.float()
        with torch.autocast(device, enabled=False):
            yield
    finally:
        for each, kind, gradient in zip(tensors, kinds, gradients, strict=True):
            each.data = each.data.to(kind)
            each.grad = gradient
