"""Matrix products in bfloat16 on CPUs that have no instructions for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

_aten = torch.ops.aten
PRODUCTS: frozenset[Callable[..., Any]] = frozenset(
    {
        _aten.mm.default,
        _aten.addmm.default,
        _aten.bmm.default,
        _aten.baddbmm.default,
        _aten.convolution.default,
        _aten.convolution_backward.default,
    }
)


def has_bf16_products() -> bool:
    """Whether this CPU's bf16 matrix products run in a library kernel; without AVX-512 torch falls back to a loop."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


class _ProductsInSinglePrecision(TorchDispatchMode):
    """Computes each bf16 product on the CPU in float32 and rounds the result to bf16."""

    supports_higher_order_operators = True  # flex attention is one, and passes as it is

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        if func not in PRODUCTS or not _in_bf16(args):
            return func(*args, **kwargs)
        wide_args, wide_kwargs = tree_map_only(Tensor, Tensor.float, (args, kwargs))
        return tree_map_only(Tensor, Tensor.bfloat16, func(*wide_args, **wide_kwargs))


def _in_bf16(args: tuple[Any, ...]) -> bool:
    first = next(each for each in args if isinstance(each, Tensor))
    return first.dtype == torch.bfloat16 and first.device.type == "cpu"


@contextmanager
def fast_bf16_products() -> Iterator[None]:
    """Context in which bf16 matrix products and convolutions on a CPU without AVX-512 are computed by the float32 kernels.

    Same numbers up to the order of summation: bf16 kernels too multiply exactly, sum in float32 and round once. Does nothing on other
    CPUs and to tensors on other devices. Not for code under `torch.compile`, which compiles nothing in such a context and does not say so.
    """
    if has_bf16_products():
        yield
        return
    with _ProductsInSinglePrecision():
        yield
