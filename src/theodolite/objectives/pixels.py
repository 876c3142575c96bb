"""Vision tokens regress the pixels they stand for: masked ones as in MAE (arXiv 2111.06377), all as in ROSS (arXiv 2410.09575)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from theodolite.models.families import family_of
from theodolite.models.pass_inputs import BatchPlan, plan_of
from theodolite.objectives.auxiliary import AuxiliaryLoss, VisionPass
from theodolite.objectives.masked_latent import VisionHead
from theodolite.objectives.terms import Term, Terms, at_least_single
from theodolite.records.errors import BadInput

GRID = "image_grid_thw"
EPSILON = 1e-6  # of MAE's normalised pixels


@dataclass(frozen=True)
class PixelsConfig:
    """Weights of the mean squared error over masked and over unmasked vision tokens, and the size of target and head.

    MAE weighs masked tokens alone, ROSS all alike. `side` is the target's height and width in pixels, to which each token's part of the
    picture is averaged (8 is the whole part for patches of 8).
    """

    masked_weight: float = 1.0
    unmasked_weight: float = 1.0
    side: int = 8
    head_hidden: int = 1024

    def __post_init__(self) -> None:
        if self.side < 1:
            raise BadInput(f"side of pixels is {self.side}; give 1 or more")


def pixel_targets(
    pixels: Mapping[str, Tensor], plan: BatchPlan, config: Any, side: int, device: torch.device
) -> Float[Tensor, "vision value"]:
    """Normalised pixels of the part of the picture that each vision token stands for (3 x side x side values, mean 0, variance 1).

    Raises `BadInput` for pictures cut into tiles, whose tokens do not stand for equal parts of one picture.
    """
    sizes = plan.layout.sizes()
    if not sizes:
        return torch.zeros(0, 3 * side**2, device=device)
    values = at_least_single(pixels["pixel_values"])
    parts = _merged_patches(values, config.vision_config) if GRID in pixels else _parts_of_pictures(values, plan, side, config)
    if len(parts) != sum(sizes):
        raise BadInput(f"the pictures have {len(parts)} parts for {sum(sizes)} vision tokens; pixels needs pictures without tiles")
    flat = F.adaptive_avg_pool2d(parts, side).flatten(1)
    variance, mean = torch.var_mean(flat, dim=1, keepdim=True, unbiased=True)
    return ((flat - mean) / (variance + EPSILON).sqrt()).to(device)


def _merged_patches(values: Float[Tensor, "patch value"], vision: Any) -> Float[Tensor, "vision 3 height width"]:
    """Of Qwen-VL: the patches of each token put together. Each holds the picture twice, for two moments of a film."""
    merge, patch = vision.spatial_merge_size, vision.patch_size
    shape = (-1, merge, merge, 3, vision.temporal_patch_size, patch, patch)
    by_token = values.view(shape)[:, :, :, :, 0]
    return by_token.permute(0, 3, 1, 4, 2, 5).reshape(-1, 3, merge * patch, merge * patch)


def _parts_of_pictures(values: Tensor, plan: BatchPlan, side: int, config: Any) -> Float[Tensor, "vision 3 height width"]:
    """Each token's part of its picture, for pictures of one size and a token grid of one size."""
    if values.ndim == 5:
        values = values.flatten(0, 1)
    layout, sizes = plan.layout, plan.layout.sizes()
    index = layout.vision_index
    cell, picture = layout.cell.flatten(0, 1)[index], layout.picture.flatten()[index]
    rows, columns = (int(number) + 1 for number in cell.max(dim=0).values)
    if values.ndim != 4 or len(values) != len(sizes) or set(sizes) != {rows * columns}:
        raise BadInput(
            f"{family_of(config).name} gives {len(values)} arrays of pixels for {len(sizes)} pictures of {sorted(set(sizes))} tokens; "
            "pixels needs pictures without tiles"
        )
    # A multiple of the grid that loses nothing of the picture, so that a token's part has whole pixels.
    height, width = (-(-size // cells) * cells for size, cells in zip(values.shape[-2:], (rows, columns), strict=True))
    whole = values if (height, width) == tuple(values.shape[-2:]) else F.interpolate(values, (height, width), mode="bilinear")
    parts = whole.unfold(2, height // rows, height // rows).unfold(3, width // columns, width // columns)  # picture 3 row column ...
    place = (each.to(values.device) for each in (picture, cell[:, 0], cell[:, 1]))
    return parts.permute(0, 2, 3, 1, 4, 5)[tuple(place)]


class Pixels(AuxiliaryLoss):
    """Mean squared error between a head's output on the last layer's vision tokens and the normalised pixels of their part."""

    masks = True

    def __init__(self, width: int, settings: PixelsConfig | None = None) -> None:
        super().__init__()
        self.settings = settings or PixelsConfig()
        self.head = VisionHead(width, self.settings.head_hidden, 3 * self.settings.side**2)

    def counts(self, batch: Mapping[str, Any]) -> Mapping[str, int]:
        num_masked = len(batch["masked_index"])
        return {"pixels_masked": num_masked, "pixels_unmasked": sum(plan_of(batch).layout.sizes()) - num_masked}

    def forward(self, seen: VisionPass) -> Terms:
        """Two terms: sums over masked and over unmasked tokens of the error's mean over pixels."""
        output = at_least_single(self.head(seen.last))
        target = pixel_targets(seen.inputs.pixels, seen.plan, seen.config, self.settings.side, output.device)
        errors = (output - target).square().mean(dim=1)
        masked = errors[seen.masked].sum()
        num_masked = len(seen.masked)
        return {
            "pixels_masked": Term(masked, num_masked, self.settings.masked_weight),
            "pixels_unmasked": Term(errors.sum() - masked, len(errors) - num_masked, self.settings.unmasked_weight),
        }
