"""Front ends of the small models, 8 x 8 tokens of a picture of 64 pixels.

`conv` is a tower trained to make every factor linearly readable; `conv-random` has its architecture and random weights. `patches` are the
raw pixels; `dct` are their low spatial frequencies, a fixed bank of filters. Only `conv` has seen a label.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from safetensors.torch import load
from scipy.fft import dct
from torch import Tensor
from transformers import SiglipImageProcessorPil, SiglipVisionConfig, SiglipVisionModel

from theodolite.models.exported.conv_tower import ConvTower, ConvTowerConfig
from theodolite.records.errors import BadInput

FrontEnd = Literal["conv", "conv-random", "patches", "dct"]
SIZE = 64
PATCH = 8
WEIGHTS = "conv_tower.safetensors"
WEIGHTS_SHA256 = "6c0e3dc644f9d32b8be2dbe9e07ace11f8ecbed3f51ca08297cd8f7788d23365"
NUM_FREQUENCIES = 32


class DamagedWeights(RuntimeError):
    """The installed weights of the tower have another hash than the tested ones."""


def picture_size(image_processor: Any) -> int:
    """Side in pixels of an image processor's square pictures. Raises `BadInput` if they are not square or not of one size."""
    crop = getattr(image_processor, "crop_size", None) if getattr(image_processor, "do_center_crop", False) else None
    sides = crop or image_processor.size
    height, width = (sides.get(side) if hasattr(sides, "get") else None for side in ("height", "width"))
    if height is None or height != width:
        raise BadInput(f"the image processor makes pictures of {sides}; pictures of one square size are needed")
    return int(height)


class Pixels:
    """Pictures as a tower's input, (picture, 3, size, size): the image processor's normalisation of a whole batch at once.

    Raises `BadInput` for a processor that does more than scale, shift and divide.
    """

    def __init__(self, image_processor: Any) -> None:
        self.size = picture_size(image_processor)
        self.mean = torch.tensor(image_processor.image_mean).view(1, 3, 1, 1)
        self.std = torch.tensor(image_processor.image_std).view(1, 3, 1, 1)
        probe = np.random.default_rng(0).integers(0, 256, (1, self.size, self.size, 3), dtype=np.uint8)
        stock = image_processor([Image.fromarray(probe[0])], return_tensors="pt")["pixel_values"]
        if stock.shape != (1, 3, self.size, self.size) or not torch.allclose(stock, self(probe), atol=1e-4):
            raise BadInput(
                f"{type(image_processor).__name__} does more to a picture than scale, shift and divide; it cannot be surveyed yet"
            )

    def __call__(self, pictures: UInt8[np.ndarray, "picture height width 3"]) -> Float[Tensor, "picture 3 height width"]:
        if pictures.shape[1:3] != (self.size, self.size):
            raise ValueError(f"pictures are {pictures.shape[1:3]}; this model takes {self.size}: render them at that size")
        values = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
        return (values - self.mean) / self.std


def image_processor(size: int = SIZE) -> SiglipImageProcessorPil:
    """The image processor of both front ends (Pillow only), for square pictures of `size` pixels a side."""
    return SiglipImageProcessorPil(size={"height": size, "width": size}, image_mean=[0.5] * 3, image_std=[0.5] * 3, do_convert_rgb=True)


def pretrained_tower() -> ConvTower:
    """The tower `conv`, all factors linearly readable: five convolutions, 8 x 8 tokens of width 96, weights shipped with the package.

    Raises `DamagedWeights` if the file has another hash than the tested one.
    """
    data = files("theodolite.models").joinpath("weights", WEIGHTS).read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if digest != WEIGHTS_SHA256:
        raise DamagedWeights(f"{WEIGHTS} has SHA-256 {digest[:16]}..., expected {WEIGHTS_SHA256[:16]}...; install theodolite again")
    tower = ConvTower(ConvTowerConfig())
    tower.load_state_dict(load(data))
    return tower


def random_tower(seed: int) -> ConvTower:
    """The tower `conv-random`: as `conv`, with the initial weights of a seed. The global random state is unchanged."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return ConvTower(ConvTowerConfig())


def raw_patches(size: int = SIZE, patch: int = PATCH) -> SiglipVisionModel:
    """Raw pixels as tokens: a stock SigLIP whose patch embedding is the identity; by default 8 x 8 tokens of width 192.

    Its one layer adds nothing to its input; LLaVA takes the output of a layer, so there must be one.
    """
    width = 3 * patch * patch
    return _linear_patches(size, patch, torch.eye(width).view(width, 3, patch, patch))


def frequency_patches() -> SiglipVisionModel:
    """The tower `dct`: each token the `NUM_FREQUENCIES` lowest spatial frequencies of its patch in each of three colour contrasts.

    Filters are products of orthonormal cosines (type II) over rows, columns and colours; 8 x 8 tokens of width 96.
    """
    space, colour = (dct(np.eye(number), axis=0, norm="ortho") for number in (PATCH, 3))
    order = sorted(np.ndindex(PATCH, PATCH), key=lambda pair: (sum(pair), pair))[:NUM_FREQUENCIES]
    filters = [np.einsum("c,y,x->cyx", contrast, space[row], space[column]) for contrast in colour for row, column in order]
    return _linear_patches(SIZE, PATCH, torch.from_numpy(np.stack(filters)).float())


def _linear_patches(size: int, patch: int, filters: Float[Tensor, "width 3 patch patch"]) -> SiglipVisionModel:
    """A stock SigLIP whose tokens are the filters' responses to each patch, brought to mean 0 and deviation 1 by its layer norm."""
    width = len(filters)
    config = SiglipVisionConfig(
        image_size=size,
        patch_size=patch,
        hidden_size=width,
        intermediate_size=width,
        num_hidden_layers=1,
        num_attention_heads=1,
        vision_use_head=False,
    )
    tower = SiglipVisionModel(config)
    weights = {name: torch.zeros_like(value) for name, value in tower.state_dict().items()}
    weights["embeddings.patch_embedding.weight"] = filters
    weights |= {name: torch.ones_like(value) for name, value in weights.items() if "norm" in name and "weight" in name}
    tower.load_state_dict(weights)
    return tower


def front_end(name: FrontEnd, seed: int = 0) -> ConvTower | SiglipVisionModel:
    """A vision tower by name, without gradients; `seed` sets random weights and is ignored by the others."""
    made: Mapping[FrontEnd, Callable[[], ConvTower | SiglipVisionModel]] = {
        "conv": pretrained_tower,
        "conv-random": lambda: random_tower(seed),
        "patches": raw_patches,
        "dct": frequency_patches,
    }
    return made[name]().requires_grad_(False).eval()
