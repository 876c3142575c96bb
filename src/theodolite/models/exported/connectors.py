"""Connectors: modules that map a vision tower's tokens to as many tokens of the language model.

All map (picture, token, vision width) to (picture, token, text width), so that arms of a study differ in the connector alone: the length
of sequences is the same, and so is the initial scale of vision tokens (see `start_scale`). This file is copied beside exported models, so
it imports only torch and transformers.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

__all__ = ["CONNECTORS", "Connector", "ConnectorLlava", "connector_of", "exchange_connector", "make_connector"]

Connector = Literal["linear", "mlp", "resampler", "local"]
STOCK = "mlp"
# Written into the configuration as the activation's name: stock classes raise on it, instead of making a projector of their own.
NOTE = "none: the connector is {!r} of theodolite, which export_vlm writes and trust_remote_code=True loads"


def start_scale(vision_width: int, text_width: int, std: float) -> float:
    """Root mean square (above 0) of the outputs of LLaVA's stock projector on inputs of root mean square 1, with weights drawn at `std`.

    Outputs of the first layer are normal with variance v = vision_width std^2. With the exact GELU, x Phi(x), the second moment after it
    is v/4 + v/(2 pi) (asin(v/(1+v)) + 2v / ((1+v) sqrt(1+2v))) (Tsuchida et al., arXiv 2002.08517, the kernel of GELU).
    """
    v = vision_width * std**2
    second = v / 4 + v / (2 * math.pi) * (math.asin(v / (1 + v)) + 2 * v / ((1 + v) * math.sqrt(1 + 2 * v)))
    return math.sqrt(text_width * second) * std


def _drawn(layer: Any, std: float) -> Any:
    """The layer with normal weights of standard deviation `std`, and biases of 0."""
    nn.init.normal_(layer.weight, std=std)
    nn.init.zeros_(layer.bias)
    return layer


def _linear(inputs: int, outputs: int, scale: float = 1.0) -> nn.Linear:
    """A linear layer with outputs of root mean square `scale` on inputs of root mean square 1."""
    return _drawn(nn.Linear(inputs, outputs), scale / math.sqrt(inputs))


def _vision_width(config: Any) -> int:
    layers = config.vision_feature_layer
    return int(config.vision_config.hidden_size) * (1 if isinstance(layers, int) else len(layers))


def _side(num_tokens: int) -> int:
    side = math.isqrt(num_tokens)
    if side**2 != num_tokens:
        raise ValueError(f"a picture has {num_tokens} tokens, which make no square; this connector needs a square grid of them")
    return side


class Linear(nn.Module):
    """One linear layer with a bias, token by token (as in LLaVA 1, arXiv 2304.08485, section 4.1)."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        width, text = _vision_width(config), config.get_text_config()
        scale = start_scale(width, text.hidden_size, text.initializer_range)
        self.linear = _linear(width, text.hidden_size, scale)

    def forward(self, image_features: Tensor) -> Tensor:
        return self.linear(image_features)


class CrossAttention(nn.Module):
    """Attention of queries (picture, query, width) to keys and values (picture, token, width)."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query, self.key, self.value, self.output = (_linear(width, width) for _ in range(4))

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        query, key, value = (
            layer(each).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for layer, each in ((self.query, queries), (self.key, keys), (self.value, values))
        )
        # Not the fused kernel: its backward pass in bf16 is slow on a CPU for sequences this short.
        weights = (query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])).softmax(dim=-1).to(value.dtype)
        return self.output((weights @ value).transpose(1, 2).flatten(-2))


class ResamplerBlock(nn.Module):
    """Pre-norm block: cross-attention of the queries to the picture, then a feed-forward network, both residual."""

    def __init__(self, width: int, num_heads: int, expansion: int = 4) -> None:
        super().__init__()
        self.attention_norm, self.thought_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = CrossAttention(width, num_heads)
        self.thought = nn.Sequential(_linear(width, expansion * width), nn.GELU(), _linear(expansion * width, width))

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        queries = queries + self.attention(self.attention_norm(queries), keys, values)
        return queries + self.thought(self.thought_norm(queries))


class Resampler(nn.Module):
    """Learned queries, one for each output token, that attend to the picture in two cross-attention blocks.

    After Perceiver Resampler (Flamingo, arXiv 2204.14198, section 2.1) and the one of Qwen-VL (arXiv 2308.12966, section 2.1), from which
    it takes 2D positions on the keys: without them the order of a picture's tokens would not matter. This one has two blocks where
    Flamingo has six, positions are learned (one vector a row, one a column, concatenated), queries do not attend to each other, and there
    are as many queries as tokens. An output token has no place in the picture; what it describes is learned.
    """

    def __init__(self, config: Any, num_blocks: int = 2) -> None:
        super().__init__()
        vision, text = _vision_width(config), config.get_text_config()
        width, side = text.hidden_size, _side(config.image_seq_length)
        self.inputs, self.inputs_norm = _linear(vision, width), nn.LayerNorm(width)
        # On the scale of the normalised tokens: with smaller positions, attention could not distinguish places at the start.
        self.rows, self.columns = (nn.Parameter(nn.init.normal_(torch.empty(side, half))) for half in (width // 2, width - width // 2))
        # Small, so that attention outputs outweigh the query in the residual sum; in attention the query is normalised anyway.
        self.queries = nn.Parameter(nn.init.normal_(torch.empty(side**2, width), std=text.initializer_range))
        self.blocks = nn.ModuleList(ResamplerBlock(width, text.num_attention_heads) for _ in range(num_blocks))
        self.output_norm = nn.LayerNorm(width)
        self.output = _linear(width, width, start_scale(vision, width, text.initializer_range))

    def positions(self) -> Tensor:
        """(token, width): the positions added to the keys, row by row."""
        side = len(self.rows)
        rows, columns = self.rows[:, None].expand(-1, side, -1), self.columns[None].expand(side, -1, -1)
        return torch.cat([rows, columns], dim=-1).flatten(0, 1)

    def forward(self, image_features: Tensor) -> Tensor:
        if image_features.shape[1] != len(self.rows) ** 2:
            raise ValueError(f"a picture has {image_features.shape[1]} tokens; this resampler has positions for {len(self.rows) ** 2}")
        values = self.inputs_norm(self.inputs(image_features))
        keys = values + self.positions()
        queries = self.queries.expand(len(image_features), -1, -1)
        for block in self.blocks:
            queries = block(queries, keys, values)
        return self.output(self.output_norm(queries))


class LocalBlock(nn.Module):
    """Residual block on maps (picture, channel, row, column): norm over channels, then 1 x 1, 3 x 3 and 1 x 1 convolutions."""

    def __init__(self, width: int, std: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.enter = _drawn(nn.Conv2d(width, width, 1), 1 / math.sqrt(width))
        self.look = _drawn(nn.Conv2d(width, width, 3, padding=1), 1 / math.sqrt(9 * width))
        self.leave = _drawn(nn.Conv2d(width, width, 1), std)

    def forward(self, maps: Tensor) -> Tensor:
        normalised = self.norm(maps.movedim(1, -1)).movedim(-1, 1)
        return maps + self.leave(F.gelu(self.look(F.gelu(self.enter(normalised)))))


class Local(nn.Module):
    """Convolutional residual blocks, average pooling to the number of output tokens, more blocks, and a readout of two layers.

    After C-Abstractor (Honeybee, arXiv 2312.06742, section 3.2). Differences: one block before the pooling and one after, not three and
    three, so that with 3 x 3 convolutions an output token sees 5 x 5 places of the 8 x 8 and not nearly all; no squeeze-and-excitation in
    the blocks (it averages over the picture, so nothing would be local); full 3 x 3 convolutions; no positions added to the input, whose
    tokens keep their order. The readout is LLaVA's projector, and the blocks change its inputs little at the start. With as many output
    tokens as input tokens, the pooling changes nothing.
    """

    def __init__(self, config: Any, num_blocks: int = 1) -> None:
        super().__init__()
        width, text = _vision_width(config), config.get_text_config()
        std, self.side = text.initializer_range, _side(config.image_seq_length)
        self.before, self.after = (nn.Sequential(*(LocalBlock(width, std) for _ in range(num_blocks))) for _ in range(2))
        first, second = nn.Linear(width, text.hidden_size), nn.Linear(text.hidden_size, text.hidden_size)
        self.readout = nn.Sequential(_drawn(first, std), nn.GELU(), _drawn(second, std))

    def forward(self, image_features: Tensor) -> Tensor:
        side = _side(image_features.shape[1])
        maps = self.before(image_features.transpose(1, 2).unflatten(2, (side, side)))
        maps = self.after(F.adaptive_avg_pool2d(maps, self.side))
        return self.readout(maps.flatten(2).transpose(1, 2))


CONNECTORS: Mapping[str, Callable[[Any], nn.Module]] = {
    "linear": Linear,
    "mlp": LlavaMultiModalProjector,
    "resampler": Resampler,
    "local": Local,
}


def make_connector(config: Any, name: str) -> nn.Module:
    """A connector for a LLaVA's configuration, its weights drawn from torch's generator. Raises `ValueError` for an unknown name."""
    if name not in CONNECTORS:
        raise ValueError(f"the configuration's connector is {name!r}; it must be one of {', '.join(CONNECTORS)}")
    return CONNECTORS[name](config)


def connector_of(config: Any) -> str:
    """The name of a model's connector, from its configuration; the stock one if it has no entry."""
    return str(getattr(config, "connector", STOCK))


def exchange_connector(model: Any, name: str) -> None:
    """Replaces a LLaVA's connector and writes its name into the configuration; does nothing for the stock connector.

    Afterwards stock classes raise on the configuration, since they would make a projector of their own. `ConnectorLlava` accepts it.
    """
    if name == STOCK:
        return
    model.model.multi_modal_projector = make_connector(model.config, name)
    model.config.connector = name
    model.config.projector_hidden_act = NOTE.format(name)


class ConnectorLlava(LlavaForConditionalGeneration):
    """A LLaVA with the connector that its configuration names; everything else, the forward too, is the stock class's."""

    def __init__(self, config: Any) -> None:
        name = connector_of(config)
        if name != STOCK:
            config.projector_hidden_act = "gelu"  # for the stock projector, which is made first and then replaced
        super().__init__(config)
        exchange_connector(self, name)
