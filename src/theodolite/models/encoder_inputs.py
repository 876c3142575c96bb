"""What Qwen-VL encoders derive from the pictures' grids, computed on the host with the library's own functions.

On a device the encoder would read its grids back in every pass and in every block.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers.utils.generic import is_flash_attention_requested
from transformers.vision_utils import (
    get_vision_cu_seqlens,
    get_vision_interpolation_indices_and_weights,
    get_vision_position_ids,
    get_vision_window_index,
)

from theodolite.models.families import family_of

GRID = "image_grid_thw"
# Read by the host alone; the others are indices and weights of tensors on the device.
ON_HOST = (GRID, "image_cu_seqlens", "image_cu_window_seqlens")


def encoder_inputs(config: Any, pixels: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The pictures' grids and what follows from them, as keyword arguments of the stock forward; empty for other families."""
    family = family_of(config)
    if not family.plans or GRID not in pixels:
        return {}
    vision, grid = config.vision_config, pixels[GRID].cpu()
    planned = {"position_ids": get_vision_position_ids(grid, vision.spatial_merge_size), "cu_seqlens": get_vision_cu_seqlens(grid)}
    if "window_index" in family.plans:
        window = get_vision_window_index(grid, vision.spatial_merge_size, vision.window_size, vision.patch_size)
        planned |= dict(zip(("window_index", "cu_window_seqlens"), window, strict=True))
    if "interp_indices" in family.plans:
        side, options = int(vision.num_position_embeddings**0.5), {"align_corners": True, "spatial_merge_size": vision.spatial_merge_size}
        taps = get_vision_interpolation_indices_and_weights(grid, side, **options)
        planned |= dict(zip(("interp_indices", "interp_weights"), taps, strict=True))
    return {GRID: grid, **{f"image_{name}": planned[name] for name in family.plans}}


def placed(planned: Mapping[str, Tensor], config: Any, device: Any) -> dict[str, Tensor]:
    """`encoder_inputs` where each is read; empty if the encoder runs flash attention, whose kernels take lengths on the device."""
    if not planned or is_flash_attention_requested(config.vision_config):
        return {}
    return {name: value if name in ON_HOST else value.to(device, non_blocking=True) for name, value in planned.items()}
