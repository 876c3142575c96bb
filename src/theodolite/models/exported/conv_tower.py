"""A small convolutional vision tower, as a Hugging Face model of its own type.

This file imports nothing of theodolite: a copy of it is saved with a model, so that the model loads anywhere with
`trust_remote_code=True`. Importing it (as `import theodolite.models` does) registers the type, and no flag is needed.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoConfig, AutoModel, LlavaConfig, LlavaForConditionalGeneration, PreTrainedModel
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_outputs import BaseModelOutputWithPooling

__all__ = ["ConvTower", "ConvTowerConfig", "ConvTowerLlava", "ConvTowerLlavaConfig"]


class ConvTowerConfig(PreTrainedConfig):
    """Configuration: channels and strides of the convolutions. The product of the strides is the patch size."""

    model_type = "theodolite_conv_tower"

    def __init__(
        self,
        image_size: int = 64,
        channels: Sequence[int] = (32, 64, 96, 96, 96),
        strides: Sequence[int] = (2, 2, 2, 1, 1),
        num_groups: int = 8,
        **kwargs: Any,
    ) -> None:
        self.image_size = image_size
        self.channels = list(channels)
        self.strides = list(strides)
        self.num_groups = num_groups
        super().__init__(**kwargs)

    @property
    def hidden_size(self) -> int:
        return self.channels[-1]

    @property
    def patch_size(self) -> int:
        size = 1
        for stride in self.strides:
            size *= stride
        return size


class ConvTower(PreTrainedModel):
    """Pictures (batch, 3, size, size) at `config.image_size` to tokens (batch, cells, channels), row by row.

    Convolutions with group norm and GELU, then one token for each cell of the last map, with a learned position added.
    """

    config: ConvTowerConfig
    config_class = ConvTowerConfig
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    # The tower has no attention, so the decoder may use any back end.
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __init__(self, config: ConvTowerConfig) -> None:
        super().__init__(config)
        widths = [3, *config.channels]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(widths[i], widths[i + 1], 3 if i else 5, stride, padding=1 if i else 2) for i, stride in enumerate(config.strides)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(config.num_groups, width) for width in config.channels)
        side = config.image_size // config.patch_size
        self.position = nn.Parameter(torch.zeros(config.hidden_size, side, side))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_uniform_(module.weight, a=5**0.5)
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        elif isinstance(module, nn.GroupNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, ConvTower):
            nn.init.normal_(module.position, std=0.5)

    def forward(self, pixel_values: torch.Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
        size = self.config.image_size
        if tuple(pixel_values.shape[1:]) != (3, size, size):
            raise ValueError(f"pictures are {tuple(pixel_values.shape[1:])}; this tower takes (3, {size}, {size}): resize them")
        maps = pixel_values.to(self.position.dtype)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            maps = F.gelu(norm(convolution(maps)))
        tokens = (maps + self.position).flatten(2).transpose(1, 2)
        # LLaVA selects a layer of `hidden_states`; the tower has only its last.
        return BaseModelOutputWithPooling(last_hidden_state=tokens, hidden_states=(tokens,))


class ConvTowerLlavaConfig(LlavaConfig):
    """The configuration of a stock LLaVA on this tower, in a class of its own: see `ConvTowerLlava`."""


class ConvTowerLlava(LlavaForConditionalGeneration):
    """A stock LLaVA on this tower, in a class of its own. transformers marks a class loaded with `trust_remote_code` as custom code for the
    rest of the process, and loads its weights by other names: with the stock class marked, the next LLaVA would silently lose its head.
    """

    config_class = ConvTowerLlavaConfig


AutoConfig.register(ConvTowerConfig.model_type, ConvTowerConfig, exist_ok=True)
AutoModel.register(ConvTowerConfig, ConvTower, exist_ok=True)
