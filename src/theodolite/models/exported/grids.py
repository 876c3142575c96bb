"""Grids of pictures: (row, column) of every image token in its picture, from the inputs of the stock forward.

A tile that the image processor cuts is a picture with its own grid (InternVL, Idefics3, SmolVLM, Gemma 3's crops); only LLaVA-OneVision
has its base view and its joined tiles in one picture. This file is copied beside exported models, so it imports only torch and
transformers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from transformers.image_processing_utils import select_best_resolution

Inputs = Mapping[str, Any]


def picture_grids(config: Any, inputs: Inputs) -> list[Tensor]:
    """(tokens, 2) for each picture: row and column of its image tokens, counted from 0, in the order of the sequence.

    Pictures are in the order of their tokens in the batch. `inputs` are keyword arguments of the stock forward; without `pixel_values`
    there are no pictures. With `input_ids`, the number of image tokens is checked. Raises `ValueError` if it differs, for videos, and for
    a model type without an entry.
    """
    if any(inputs.get(name) is not None for name in ("pixel_values_videos", "video_grid_thw")):
        raise ValueError("the inputs hold videos (pixel_values_videos or video_grid_thw); give pictures only")
    name = str(config.model_type).removeprefix("theodolite_")
    if name not in KINDS:
        raise ValueError(f"no picture grids are known for models of type {config.model_type!r}, only for {', '.join(sorted(KINDS))}")
    if inputs.get("pixel_values") is None:
        return []
    grids = KINDS[name](config, inputs)
    _check_counts(config, inputs, grids)
    return [grid.to(inputs["pixel_values"].device) for grid in grids]


def token_grid(rows: int, columns: int) -> Tensor:
    """(rows * columns, 2): all cells, row by row."""
    return torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).reshape(-1, 2)


def _check_counts(config: Any, inputs: Inputs, grids: list[Tensor]) -> None:
    if inputs.get("input_ids") is None:
        return
    count, expected = int((inputs["input_ids"] == config.image_token_id).sum()), sum(len(cells) for cells in grids)
    if count != expected:
        raise ValueError(
            f"input_ids hold {count} image tokens, but the {len(grids)} pictures have {expected} places; expand each picture to all of its "
            "tokens (if one too many or too few a picture: a vision tower with a class token needs vision_feature_select_strategy "
            "'default', one without needs 'full')"
        )


def _pair(size: Any) -> tuple[int, int]:
    height, width = size if isinstance(size, list | tuple) else (size, size)
    return int(height), int(width)


def tower_grid(vision: Any) -> tuple[int, int]:
    """Rows and columns of a fixed-size vision tower's patches; in a hierarchical one each stage (`depths`) after the first halves them."""
    (height, width), (patch_height, patch_width) = _pair(vision.image_size), _pair(vision.patch_size)
    shrink = 2 ** (len(getattr(vision, "depths", (1,))) - 1)
    return height // patch_height // shrink, width // patch_width // shrink


def _by_tower(config: Any, inputs: Inputs) -> list[Tensor]:
    """LLaVA and PaliGemma: every patch of the tower is a token."""
    if inputs.get("image_sizes") is not None:
        raise ValueError("image_sizes belong to a vision tower that takes pictures of any size (Pixtral), which has no grids here")
    return [token_grid(*tower_grid(config.vision_config))] * len(inputs["pixel_values"])


def _pooled(config: Any, inputs: Inputs) -> list[Tensor]:
    """Gemma 3: square windows of patches are averaged to about `mm_tokens_per_image` tokens."""
    rows, _ = tower_grid(config.vision_config)
    side = rows // (rows // math.isqrt(config.mm_tokens_per_image))
    return [token_grid(side, side)] * len(inputs["pixel_values"])


def _shuffled(pixels: Tensor, patch: tuple[int, int], shrink: int) -> list[Tensor]:
    """Tiles of equal size, squares of `shrink` x `shrink` patches merged into one token (pixel shuffle); tokens are row by row."""
    height, width = pixels.shape[-2:]
    return [token_grid(height // patch[0] // shrink, width // patch[1] // shrink)] * len(pixels)


def _internvl(config: Any, inputs: Inputs) -> list[Tensor]:
    return _shuffled(inputs["pixel_values"], _pair(config.vision_config.patch_size), round(1 / config.downsample_ratio))


def _idefics(config: Any, inputs: Inputs) -> list[Tensor]:
    """Idefics3: `pixel_values` are (row, tile, channel, height, width); the stock forward drops tiles of zeros, which are padding."""
    tiles = inputs["pixel_values"].flatten(0, 1)
    real = (tiles != 0).flatten(1).any(dim=1)
    return _shuffled(tiles[real], _pair(config.vision_config.patch_size), config.scale_factor)


def _smolvlm(config: Any, inputs: Inputs) -> list[Tensor]:
    """As Idefics3, but the first tile is kept where all are zeros."""
    tiles = inputs["pixel_values"].flatten(0, 1)
    real = (tiles != 0).flatten(1).any(dim=1)
    real[0] |= ~real.any()
    return _shuffled(tiles[real], _pair(config.vision_config.patch_size), config.scale_factor)


def _by_thw(config: Any, inputs: Inputs) -> list[Tensor]:
    """Qwen-VL: `image_grid_thw` counts patches; squares of them are merged into tokens, which are row by row.

    Patches are ordered by merge square before the encoder (`get_vision_position_ids`), and Qwen2.5-VL undoes its window order after the
    merger.
    """
    merge = config.vision_config.spatial_merge_size
    sizes = inputs["image_grid_thw"].tolist()
    if any(frames != 1 for frames, _, _ in sizes):
        raise ValueError(f"image_grid_thw has more than one frame a picture: {sizes}; give pictures only")
    return [token_grid(height // merge, width // merge) for _, height, width in sizes]


def _anyres(config: Any, inputs: Inputs) -> list[Tensor]:
    """LLaVA-OneVision: the base view row by row, then the joined and unpadded tiles row by row with a line break at each row's end.

    A line break has the row that it ends and the column after the last. Rows and columns of the tiles start at 0 again, as those of the
    base view do. One of several pictures of a conversation (`batch_num_images`) has a base view and one line break.
    """
    side = tower_grid(config.vision_config)[0]
    sizes = [(int(height), int(width)) for height, width in inputs["image_sizes"].tolist()]
    counts = inputs.get("batch_num_images")
    alone = [True] * len(sizes) if counts is None else [count == 1 for count in torch.as_tensor(counts).tolist() for _ in range(count)]
    grids = []
    for size, is_alone in zip(sizes, alone, strict=False):  # as the stock forward pairs them
        if is_alone:
            rows, columns = _unpadded(config, size, side)
            grids.append(torch.cat([token_grid(side, side), token_grid(rows, columns + 1)]))
        else:
            grids.append(torch.cat([token_grid(side, side), torch.tensor([[side - 1, side]])]))
    return grids


def _unpadded(config: Any, size: tuple[int, int], side: int) -> tuple[int, int]:
    """Rows and columns of the joined tiles without their padding, within the limit of `vision_aspect_ratio`.

    The rounding is that of `unpad_image` and `pack_image_features` in transformers, so that the counts agree.
    """
    height, width = size
    best_height, best_width = select_best_resolution(size, config.image_grid_pinpoints)
    tile = config.vision_config.image_size
    rows, columns = side * (best_height // tile), side * (best_width // tile)
    if width / height > columns / rows:
        rows -= 2 * ((rows - int(round(height * (columns / width), 7))) // 2)
    else:
        columns -= 2 * ((columns - int(round(width * (rows / height), 7))) // 2)
    ratio = math.sqrt(rows * columns / (int(config.vision_aspect_ratio.removeprefix("anyres_max_")) * side**2))
    return (int(rows // ratio), int(columns // ratio)) if ratio > 1.1 else (rows, columns)


KINDS: Mapping[str, Callable[[Any, Inputs], list[Tensor]]] = {
    "llava": _by_tower,
    "paligemma": _by_tower,
    "gemma3": _pooled,
    "internvl": _internvl,
    "idefics3": _idefics,
    "smolvlm": _smolvlm,
    "qwen2_vl": _by_thw,
    "qwen2_5_vl": _by_thw,
    "qwen3_vl": _by_thw,
    "llava_onevision": _anyres,
}
