"""Regional compilation: `torch.compile` of a language model's decoder layers, one at a time and in place."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from accelerate.utils import DynamoBackend, TorchDynamoPlugin

from theodolite.models.cpu_products import fast_bf16_products, has_bf16_products
from theodolite.models.taps import layers_of
from theodolite.records.errors import BadInput


def compile_decoder_layers(model: Any, options: Mapping[str, Any]) -> None:
    """Compiles each decoder layer in place; `options` are those of `torch.compile`.

    All layers share one compiled graph. Names of parameters stay as they are, so checkpoints and exports do too. Accelerate's own regional
    compilation replaces modules by wrappers, the objective too, which is then no LaVer and has no teacher.
    """
    for layer in layers_of(model):
        layer.compile(**options)


def cpu_products(model: Any, autocast: bool) -> AbstractContextManager[None]:
    """The context `fast_bf16_products` for a model on the CPU with weights in bf16, or under bf16 `autocast`; else one that does nothing.

    Within it each of PyTorch's operations goes through Python, which would slow down a float32 model, and the host of a GPU. It does
    nothing for a model with compiled layers either, which would then run uncompiled.
    """
    weights = tuple(model.parameters())
    in_bf16 = autocast or any(weight.dtype == torch.bfloat16 for weight in weights)
    compiled = any(layer._compiled_call_impl is not None for layer in layers_of(model))
    return nullcontext() if compiled or not in_bf16 or weights[0].device.type != "cpu" else fast_bf16_products()


def compile_as_asked(model: Any, plugin: TorchDynamoPlugin, device: torch.device, bf16: bool) -> None:
    """Compiles the decoder layers if training arguments or `accelerate launch` ask for `torch.compile`.

    Raises `BadInput` for bf16 on a CPU without instructions for it: its products are computed in float32 by a mode under which
    `torch.compile` silently compiles nothing.
    """
    if plugin.backend == DynamoBackend.NO:
        return
    if bf16 and device.type == "cpu" and not has_bf16_products():
        raise BadInput(
            "this CPU has no bf16 products, and those that stand in for them cannot be compiled; leave out bf16, or torch_compile"
        )
    compile_decoder_layers(model, plugin.to_kwargs())
