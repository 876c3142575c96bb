"""The device and the precision that a model is loaded for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

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


def _first_available() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _precision(device: torch.device) -> DType:
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bfloat16" if device.type == "mps" else "float32"
