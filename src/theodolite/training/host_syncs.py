"""Counts the operations for which the host waits for the device: on a GPU by CUDA's own warnings, without one by a stand-in.

The stand-in makes tensors that are moved to a device, and all that is computed from them, a subclass whose methods that read values
are counted.
"""

from __future__ import annotations

import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.overrides import TorchFunctionMode

# Reading a value, or a result whose shape depends on values.
READS = {"item", "tolist", "cpu", "numpy", "__bool__", "__int__", "__float__", "__index__", "__array__", "__contains__"}
SHAPES = {"nonzero", "argwhere", "masked_select", "unique", "unique_consecutive", "bincount"}
# Gradients are not marked, and this code moves their norms to the device where they are.
ON_DEVICE_ALREADY = "torch/nn/utils/clip_grad.py"
# Frames of wrappers that check types at run time, if somebody switched them on: they call nothing by themselves.
TYPE_CHECKS = ("/jaxtyping/", "<@beartype", "/beartype/")


@contextmanager
def counted_host_syncs(device: str | torch.device) -> Iterator[Counter[str]]:
    """The number of waits for the device within the context, by operation and line of code: complete when the context ends.

    On a CUDA device `torch.cuda.set_sync_debug_mode` reports them; elsewhere the stand-in `HostSyncs` does.
    """
    if torch.device(device).type != "cuda":
        with HostSyncs() as syncs:
            yield syncs.by_line
        return
    by_line: Counter[str] = Counter()
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield by_line
        finally:
            torch.cuda.set_sync_debug_mode(before)
    for warning in caught:
        if "synchroniz" in str(warning.message):
            by_line[f"{'/'.join(warning.filename.split('/')[-2:])}:{warning.lineno}"] += 1
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


class OnDevice(Tensor):
    """A tensor that stands for one on a GPU; results computed from it are of this class too."""


class HostSyncs(TorchFunctionMode):
    """The mode that counts: `by_line` has the number of waits by operation and the line of code that called it."""

    def __init__(self) -> None:
        super().__init__()
        self.by_line: Counter[str] = Counter()

    @property
    def total(self) -> int:
        return sum(self.by_line.values())

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name == "tensor" and kwargs.get("device") is not None:
            self._count("copied tensor")
            return func(*args, **kwargs).as_subclass(OnDevice)
        if name == "to" and _names_a_device(args[1:], kwargs):
            if not isinstance(args[0], OnDevice | Parameter) and not kwargs.get("non_blocking", False):
                self._count("blocking to")
            moved = func(*args, **kwargs)
            return moved if isinstance(moved, Parameter) else moved.as_subclass(OnDevice)
        if any(isinstance(each, OnDevice) for each in (*args, *kwargs.values())) and _waits(name, args, kwargs):
            self._count(name)
        return func(*args, **kwargs)

    def on_host(self, work: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, done by a loader's worker process on a real machine: nothing in it is counted."""

        def uncounted(*args: Any) -> Any:
            with torch._C.DisableTorchFunction():
                return work(*args)

        return uncounted

    def _count(self, name: str) -> None:
        own = (__file__, *TYPE_CHECKS)
        stack = [each for each in traceback.extract_stack() if not any(name in each.filename for name in own)]
        if any(each.filename.endswith(ON_DEVICE_ALREADY) for each in stack[-4:]):
            return
        frame = next(each for each in reversed(stack) if "/torch/" not in each.filename)
        self.by_line[f"{name} at {'/'.join(frame.filename.split('/')[-2:])}:{frame.lineno}"] += 1


def _names_a_device(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    return "device" in kwargs or any(isinstance(each, str | torch.device) for each in args)


def _waits(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    if name in READS | SHAPES:
        return True
    if name in ("__getitem__", "__setitem__", "index_put", "index_put_"):
        index = args[1] if isinstance(args[1], tuple) else (args[1],)
        return any(isinstance(each, Tensor) and each.dtype == torch.bool for each in index)
    if name == "repeat_interleave":
        return isinstance(args[1], Tensor) and kwargs.get("output_size") is None
    return name == "where" and len(args) + len(kwargs) == 1
