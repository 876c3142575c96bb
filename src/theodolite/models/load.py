"""Loading a VLM and its processor from a folder or a hub name."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor
from transformers.utils.logging import disable_progress_bar

from theodolite.models.families import family_of
from theodolite.records.errors import BadInput

DType = Literal["float32", "bfloat16", "float16"]
# What transformers raises on configurations of no model that it knows, and on weights that are broken or do not fit.
BROKEN = (ValueError, KeyError, TypeError, RuntimeError, SafetensorError, StrictDataclassError)


def load_vlm(path: str | Path, device: str = "cpu", dtype: DType = "float32", attention: str = "sdpa") -> tuple[nn.Module, Any]:
    """A VLM, ready to be asked, and its processor. Raises `BadInput` if there is no model, or the device or back end is not to be had.

    The family is checked before any weights are read.
    """
    if Path(path).is_dir() and not (Path(path) / "config.json").is_file():
        raise BadInput(f"{path} holds no config.json; give the folder of a Hugging Face model, such as runs/tour/all/model")
    try:
        target = torch.device(device)
        torch.empty(0, device=target)
    except (RuntimeError, AssertionError) as error:
        raise BadInput(f"device {device!r} is not to be had here ({str(error).splitlines()[0]}); give cpu, cuda or cuda:1") from error
    disable_progress_bar()  # transformers' own, one for each model
    try:
        family_of(AutoConfig.from_pretrained(path))
        model = AutoModelForImageTextToText.from_pretrained(path, dtype=getattr(torch, dtype), attn_implementation=attention)
        processor = AutoProcessor.from_pretrained(path)
    except BadInput:
        raise
    except (OSError, ImportError) as error:
        raise BadInput(f"no model can be loaded from {path}: {_first_line(error)}") from error
    except BROKEN as error:
        found = f"{type(error).__name__}: {_first_line(error)}"
        raise BadInput(f"no model can be loaded from {path} ({found}); give the name of a whole Hugging Face model") from error
    return model.to(target).eval(), processor


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "no reason given")
