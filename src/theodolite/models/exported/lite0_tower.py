"""EfficientNet-Lite0 as a vision tower, a token for each cell of a feature map, as a Hugging Face model of its own type.

This file imports nothing of theodolite: a copy of it is saved with a model, so that the model loads anywhere with
`trust_remote_code=True`. Importing it (as `import theodolite.models` does) registers the type, and no flag is needed.

The network is EfficientNet (arXiv 1905.11946, table 1) in its Lite form: no squeeze-and-excite, ReLU6 for swish.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoConfig, AutoModel, LlavaConfig, LlavaForConditionalGeneration, PreTrainedModel
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_outputs import BaseModelOutputWithPooling

__all__ = ["Lite0Tower", "Lite0TowerConfig", "Lite0TowerLlava", "Lite0TowerLlavaConfig"]

STEM = 32
# Stages of equal blocks: number of blocks, kernel, stride of the first, expansion, channels.
STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320))
# Number of stages up to the last map of each stride; the convolution before the classifier is left out.
DEPTHS = {8: 3, 16: 5, 32: 7}


class Lite0TowerConfig(PreTrainedConfig):
    """Configuration: side of the pictures, stride of the output map (8, 16 or 32), and whether its channels are normalised."""

    model_type = "theodolite_lite0_tower"

    def __init__(self, image_size: int = 224, stride: int = 16, normalise: bool = True, **kwargs: Any) -> None:
        if stride not in DEPTHS:
            raise ValueError(f"stride is {stride!r}; EfficientNet-Lite0 has maps to read at {', '.join(map(str, DEPTHS))}")
        if image_size < stride or image_size % stride:
            raise ValueError(f"image_size is {image_size}; give a multiple of the stride, {stride}")
        self.image_size = image_size
        self.stride = stride
        self.normalise = normalise
        super().__init__(**kwargs)

    @property
    def hidden_size(self) -> int:
        return STAGES[DEPTHS[self.stride] - 1][-1]

    @property
    def patch_size(self) -> int:
        return self.stride


class FixedNorm(nn.BatchNorm2d):
    """Batch norm by its stored statistics, in training mode too: the frozen tower must not depend on the batch."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=1e-3)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return F.batch_norm(maps, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps)


class SameConv(nn.Conv2d):
    """A convolution with "same" padding: output sides are side / stride, rounded up; of odd padding the extra one is below and right."""

    def __init__(self, width: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(width, out, kernel, stride, groups=groups, bias=False)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        (kernel, _), (stride, _) = self.kernel_size, self.stride
        high, wide = (max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in maps.shape[-2:])
        padded = F.pad(maps, (wide // 2, wide - wide // 2, high // 2, high - high // 2)) if high or wide else maps
        return super().forward(padded)


class Block(nn.Module):
    """Inverted bottleneck: 1 x 1 expansion, depthwise convolution, linear 1 x 1 projection; residual where the shapes agree."""

    def __init__(self, width: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = width * expansion
        self.expand = nn.Sequential(SameConv(width, inner, 1), FixedNorm(inner), nn.ReLU6()) if expansion > 1 else nn.Identity()
        self.look = nn.Sequential(SameConv(inner, inner, kernel, stride, groups=inner), FixedNorm(inner), nn.ReLU6())
        self.narrow = nn.Sequential(SameConv(inner, out, 1), FixedNorm(out))
        self.is_residual = stride == 1 and width == out

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.narrow(self.look(self.expand(maps)))
        return maps + out if self.is_residual else out


class Lite0Tower(PreTrainedModel):
    """Pictures (batch, 3, size, size) at `config.image_size` to tokens (batch, cells, channels), row by row.

    With `config.normalise` each channel is shifted and scaled by fixed numbers saved with the weights (`feature_mean`, `feature_std`).
    """

    config: Lite0TowerConfig
    config_class = Lite0TowerConfig
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    # The tower has no attention, so the decoder may use any back end.
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __init__(self, config: Lite0TowerConfig) -> None:
        super().__init__(config)
        self.stem = nn.Sequential(SameConv(3, STEM, 3, 2), FixedNorm(STEM), nn.ReLU6())
        blocks, width = [], STEM
        for count, kernel, stride, expansion, out in STAGES[: DEPTHS[config.stride]]:
            for number in range(count):
                blocks.append(Block(width, out, kernel, 1 if number else stride, expansion))
                width = out
        self.blocks = nn.ModuleList(blocks)
        if config.normalise:
            self.register_buffer("feature_mean", torch.zeros(width))
            self.register_buffer("feature_std", torch.ones(width))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)

    def forward(self, pixel_values: torch.Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
        size = self.config.image_size
        if tuple(pixel_values.shape[1:]) != (3, size, size):
            raise ValueError(f"pictures are {tuple(pixel_values.shape[1:])}; this tower takes (3, {size}, {size}): resize them")
        maps = self.stem(pixel_values.to(self.stem[0].weight.dtype))
        for block in self.blocks:
            maps = block(maps)
        tokens = maps.flatten(2).transpose(1, 2)
        if self.config.normalise:
            tokens = (tokens - self.feature_mean) / self.feature_std
        # LLaVA selects a layer of `hidden_states`; the tower has only its last.
        return BaseModelOutputWithPooling(last_hidden_state=tokens, hidden_states=(tokens,))


class Lite0TowerLlavaConfig(LlavaConfig):
    """The configuration of a stock LLaVA on this tower, in a class of its own: see `Lite0TowerLlava`."""


class Lite0TowerLlava(LlavaForConditionalGeneration):
    """A stock LLaVA on this tower, in a class of its own. transformers marks a class loaded with `trust_remote_code` as custom code for the
    rest of the process, and loads its weights by other names: with the stock class marked, the next LLaVA would silently lose its head.
    """

    config_class = Lite0TowerLlavaConfig


AutoConfig.register(Lite0TowerConfig.model_type, Lite0TowerConfig, exist_ok=True)
AutoModel.register(Lite0TowerConfig, Lite0Tower, exist_ok=True)
