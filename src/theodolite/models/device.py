"""The device and the precision that a model is loaded for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from theodolite.records.errors import BadInput

DType = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class Placement:
    """A device as torch names it ("cpu", "cuda", "mps", "cuda:1"), and the precision of weights on it."""

    device: str
    dtype: DType

    @classmethod
    def of(cls, device: str | None = None, dtype: DType | None = None) -> Placement:
        """What was asked for; else CUDA or MPS where there is one and the CPU elsewhere, and bfloat16 on the former, float32 on a CPU.

        A GPU that has no bfloat16 in hardware gets float32. Raises `BadInput` for a device that is not available.
        """
        device = device or _first_available()
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            raise BadInput(f"device {device!r} is not available ({str(error).splitlines()[0]}); give cpu, cuda or cuda:1") from error
        return cls(device, dtype or _precision(torch.device(device)))

    def __str__(self) -> str:
        device = torch.device(self.device)
        name = f"{self.device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else self.device
        return f"{name} in {self.dtype}"


def to_device(tensor: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """The tensor on a device, and in a precision. To a GPU it goes from pinned memory, so that the host need not wait."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        # Converted there: a conversion on the way would go through memory that is not pinned.
        return tensor.pin_memory().to(device, non_blocking=True).to(dtype or tensor.dtype)
    return tensor.to(device, dtype, non_blocking=device.type != "mps")


@contextmanager
def one_host_thread(device: torch.device) -> Iterator[None]:
    """Context in which torch computes with one thread on the host of a GPU; elsewhere nothing changes.

    The copies that are left to the host are short, and torch's threads wait for the next one at full load: that slows those that read
    pictures and the one that feeds the GPU (by a fifth, measured on 16 cores).
    """
    before = torch.get_num_threads()
    if device.type != "cuda":
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _first_available() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _precision(device: torch.device) -> DType:
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bfloat16" if device.type == "mps" else "float32"
