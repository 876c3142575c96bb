"""A wrapper that makes any Hugging Face vision model a tower for LLaVA: one token for each cell of a picture's grid, and no others.

For models whose configuration LLaVA cannot read (ResNet, ConvNext: several widths), that put other tokens in front (registers,
distillation), or that take pictures of another size than their configuration says. This file imports nothing of theodolite: a copy of it
is saved with a model, so that the model loads anywhere with `trust_remote_code=True`.
"""

from collections.abc import Mapping
from typing import Any

import torch
from transformers import AutoConfig, AutoModel, LlavaConfig, LlavaForConditionalGeneration, PreTrainedModel
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_outputs import BaseModelOutputWithPooling

__all__ = ["CellsTower", "CellsTowerConfig", "CellsTowerLlava", "CellsTowerLlavaConfig"]


class CellsTowerConfig(PreTrainedConfig):
    """`inner` is the configuration of the wrapped model; `skip` counts its tokens in front of those of the grid."""

    model_type = "theodolite_cells_tower"

    def __init__(
        self,
        inner: Mapping[str, Any] | None = None,
        image_size: int = 224,
        patch_size: int = 16,
        hidden_size: int = 768,
        skip: int = 0,
        **kwargs: Any,
    ) -> None:
        self.inner = dict(inner or {"model_type": "vit"})
        self.image_size = image_size
        self.patch_size = patch_size
        self.hidden_size = hidden_size
        self.skip = skip
        super().__init__(**kwargs)


class CellsTower(PreTrainedModel):
    """Pictures (batch, 3, size, size) at `config.image_size` to tokens (batch, cells, channels), row by row: the inner model's last layer.

    Always in evaluation mode: else batch norm and stochastic depth of the frozen inner model would act in training.
    """

    config: CellsTowerConfig
    config_class = CellsTowerConfig
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    # The inner model uses an attention back end that it supports, so the decoder may use any.
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __init__(self, config: CellsTowerConfig) -> None:
        super().__init__(config)
        self.inner = AutoModel.from_config(AutoConfig.for_model(**config.inner))
        self.post_init()
        self.eval()

    def train(self, mode: bool = True) -> "CellsTower":
        super().train(False)
        return self

    def forward(self, pixel_values: torch.Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
        size, side = self.config.image_size, self.config.image_size // self.config.patch_size
        if tuple(pixel_values.shape[1:]) != (3, size, size):
            raise ValueError(f"pictures are {tuple(pixel_values.shape[1:])}; this tower takes (3, {size}, {size}): resize them")
        maps = self.inner(pixel_values=pixel_values.to(self.dtype)).last_hidden_state
        tokens = maps.flatten(2).transpose(1, 2) if maps.ndim == 4 else maps[:, self.config.skip :]
        if tokens.shape[1] != side**2:
            raise ValueError(
                f"the inner model gives {tokens.shape[1]} tokens, and the configuration has {side**2} cells; rebuild the model"
            )
        # LLaVA selects a layer of `hidden_states`; the tower has only its last.
        return BaseModelOutputWithPooling(last_hidden_state=tokens, hidden_states=(tokens,))


class CellsTowerLlavaConfig(LlavaConfig):
    """The configuration of a stock LLaVA on this tower, in a class of its own: see `CellsTowerLlava`."""


class CellsTowerLlava(LlavaForConditionalGeneration):
    """A stock LLaVA on this tower, in a class of its own. transformers marks a class loaded with `trust_remote_code` as custom code for the
    rest of the process, and loads its weights by other names: with the stock class marked, the next LLaVA would silently lose its head.
    """

    config_class = CellsTowerLlavaConfig


AutoConfig.register(CellsTowerConfig.model_type, CellsTowerConfig, exist_ok=True)
AutoModel.register(CellsTowerConfig, CellsTower, exist_ok=True)
