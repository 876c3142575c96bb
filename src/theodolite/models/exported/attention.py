"""Mixed attention (LaVer, arXiv 2512.06281): bidirectional within a picture, causal otherwise, within a token's own sample and branch.

This file is copied beside exported models, so it imports only torch and its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .layout import Layout
from .positions import order_in_sample

LAYERS = ("full_attention", "sliding_attention")
ADDITIVE = ("eager", "sdpa")
FLEX = "flex_attention"
WORKING = (*ADDITIVE, FLEX)
# Tokens of a block of flex attention: widths that are multiples of it compile once and leave no partial block.
FLEX_BLOCK = 128
# Pairs of tokens whose visibility is computed at a time: a few booleans each, beside the mask itself.
MOST_PAIRS = 2**23


def refuse_dropped_masks(implementation: str | None) -> None:
    """Raises `ValueError` for an attention back end that would silently drop a prepared mask, such as FlashAttention-2."""
    if implementation not in WORKING:
        raise ValueError(
            f"attention {implementation!r} does not take a prepared mask: pictures would be attended causally and samples would see each "
            f"other; load the model with attn_implementation set to one of {', '.join(WORKING)}"
        )


def visible(layout: Layout, mixed: bool, window: int | None = None, queries: slice = slice(None)) -> Tensor:
    """(row, query, key): whether the query attends to the key. Padding attends to itself only, and no other token attends to it.

    With `window`, causal attention covers the last `window` positions, the query's own included, as in sliding-window layers; attention
    within a picture is not limited, as in Gemma 3. `queries` are the columns of the queries, all by default.
    """
    column = torch.arange(layout.sample.shape[1], device=layout.sample.device)
    causal = column[None, :] <= column[queries, None]
    if window is not None:
        order = order_in_sample(layout)
        causal = causal & (order[:, queries, None] - order[:, None, :] < window)
    seen = causal & _isolated(layout, queries)
    if mixed:
        seen = seen | _same_picture(layout, queries)
    return seen | (column[None, :] == column[queries, None])


def _isolated(layout: Layout, queries: slice) -> Tensor:
    """(row, query, key): whether both are in one sample, and the key in the trunk, the stem of the query's branch, or the query's twig."""
    same = (layout.sample[:, queries, None] == layout.sample[:, None, :]) & layout.real[:, queries, None]
    own = layout.branch[:, queries, None] == layout.branch[:, None, :]
    if layout.twig is not None:
        own &= (layout.twig[:, None, :] == 0) | (layout.twig[:, queries, None] == layout.twig[:, None, :])
    return same & ((layout.branch[:, None, :] == 0) | own)


def _same_picture(layout: Layout, queries: slice) -> Tensor:
    return (layout.picture[:, queries, None] == layout.picture[:, None, :]) & layout.vision[:, queries, None]


def additive_mask(layout: Layout, mixed: bool, dtype: torch.dtype, window: int | None = None) -> Tensor:
    """(row, 1, query, key): 0 where the key is `visible`, the lowest number of `dtype` elsewhere.

    Not boolean, since eager attention would silently add a boolean mask as 0 and 1. Computed for some queries at a time: at thousands of
    tokens the booleans of all would take more than the mask.
    """
    rows, width = layout.sample.shape
    mask = torch.zeros((rows, width, width), dtype=dtype, device=layout.sample.device)
    step = max(MOST_PAIRS // max(rows * width, 1), 1)
    for first in range(0, width, step):
        queries = slice(first, first + step)
        mask[:, queries].masked_fill_(~visible(layout, mixed, window, queries), torch.finfo(dtype).min)
    return mask[:, None]


def prepared_mask(
    layout: Layout, mixed: bool, implementation: str | None, dtype: torch.dtype, window: int | None = None, num_keys: int | None = None
) -> Any:
    """The mask in the form that an attention back end takes: additive (row, 1, query, key), or a `BlockMask` for flex attention.

    `num_keys` is the length of an empty cache of fixed length; its keys after the tokens are masked. Raises `ValueError` for back ends
    that drop masks, and for such a cache with flex attention.
    """
    refuse_dropped_masks(implementation)
    num_unused = 0 if num_keys is None else num_keys - layout.sample.shape[1]
    if implementation in ADDITIVE:
        mask = additive_mask(layout, mixed, dtype, window)
        return F.pad(mask, (0, num_unused), value=torch.finfo(dtype).min) if num_unused else mask
    if num_unused:
        raise ValueError("flex attention has no mixed mask over a cache of fixed length; use sdpa or eager, or a cache that grows")
    return _block_mask(layout, mixed, window)


def layer_kinds(text_config: Any) -> tuple[str, ...]:
    """The kinds of attention among a language model's layers, sorted by name. Raises `ValueError` on unknown ones."""
    kinds = tuple(sorted(set(_kinds_by_layer(text_config))))
    if not set(kinds) <= set(LAYERS):
        raise ValueError(f"the language model has layers of {', '.join(kinds)}; prepared masks are made for {', '.join(LAYERS)} only")
    return kinds


def _kinds_by_layer(text_config: Any) -> list[str]:
    """The kind of attention of each layer; a single entry where the configuration lists none (Llama, Mistral): all layers are alike."""
    windowed = getattr(text_config, "sliding_window", None) is not None
    return list(getattr(text_config, "layer_types", None) or [LAYERS[1] if windowed else LAYERS[0]])


def language_mask(layout: Layout, mixed: bool, text_config: Any, dtype: torch.dtype, cache: Any = None) -> Any:
    """The `attention_mask` of a language model: one prepared mask, or one for each kind of its layers if there are several.

    `cache` is an empty Hugging Face cache. Raises `ValueError` for a back end or kinds of layers that cannot take a prepared mask.
    """
    kinds = layer_kinds(text_config)
    windows = {LAYERS[0]: None, LAYERS[1]: getattr(text_config, "sliding_window", None)}
    masks = {}
    for kind in kinds:
        num_keys = None
        if cache is not None:
            num_keys = int(cache.get_mask_sizes(layout.sample.shape[1], _kinds_by_layer(text_config).index(kind))[0])
        masks[kind] = prepared_mask(layout, mixed, text_config._attn_implementation, dtype, windows[kind], num_keys)
    return masks if len(kinds) > 1 else masks[kinds[0]]


def _block_mask(layout: Layout, mixed: bool, window: int | None) -> Any:
    """`visible` as a `BlockMask`."""
    rows, width = layout.sample.shape
    sample, branch, picture, order = layout.sample, layout.branch, layout.picture, order_in_sample(layout)
    twig = torch.zeros_like(branch) if layout.twig is None else layout.twig

    def sees(row: Tensor, query: Tensor, key: Tensor) -> Tensor:
        same = (sample[row, query] == sample[row, key]) & (sample[row, query] >= 0)
        own = (branch[row, key] == branch[row, query]) & ((twig[row, key] == 0) | (twig[row, key] == twig[row, query]))
        open_branch = (branch[row, key] == 0) | own
        seen = same & open_branch & (key <= query)
        if window is not None:
            seen = seen & (order[row, query] - order[row, key] < window)
        if mixed:
            seen = seen | ((picture[row, query] == picture[row, key]) & (picture[row, query] >= 0))
        return seen | (query == key)

    # One mask for all heads. torch counts the function's arguments, which a type-checking wrapper around `sees` would hide.
    device = sample.device
    create = _mask_creator(device.type)
    return create(lambda row, head, query, key: sees(row, query, key), rows, None, width, width, device=str(device))


@cache
def _mask_creator(device: str) -> Callable[..., Any]:
    """`create_block_mask`, on a GPU compiled, which computes it by blocks; uncompiled it first makes rows x tokens x tokens booleans."""
    from torch.nn.attention.flex_attention import create_block_mask

    return torch.compile(create_block_mask) if device == "cuda" else create_block_mask
