"""Front ends of the small models, 8 x 8 tokens of a picture of 64 pixels.

`conv` is a tower trained to make every factor linearly readable. `conv-unlabelled` has its architecture and was trained as an autoencoder,
without any label; `conv-random` has it too, with random weights. `patches` are the raw pixels.
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
from torch import Tensor
from transformers import SiglipImageProcessorPil, SiglipVisionConfig, SiglipVisionModel

from theodolite.models.exported.conv_tower import ConvTower, ConvTowerConfig
from theodolite.records.errors import BadInput

FrontEnd = Literal["conv", "conv-unlabelled", "conv-random", "patches"]
SIZE = 64
PATCH = 8
WEIGHTS = "conv_tower.safetensors"
WEIGHTS_SHA256 = "6c0e3dc644f9d32b8be2dbe9e07ace11f8ecbed3f51ca08297cd8f7788d23365"
UNLABELLED_WEIGHTS = "conv_tower_unlabelled.safetensors"
UNLABELLED_WEIGHTS_SHA256 = "c1ace6fc6daecf1b3a60ffb114ef0f0e4c5491aed401a168fffe8df82f248e7b"


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
    return _shipped_tower(WEIGHTS, WEIGHTS_SHA256)


def unlabelled_tower() -> ConvTower:
    """The tower `conv-unlabelled`: as `conv`, but trained without labels, as an autoencoder (scripts/pretrain_unlabelled_tower.py).

    Raises `DamagedWeights` if the file has another hash than the tested one.
    """
    return _shipped_tower(UNLABELLED_WEIGHTS, UNLABELLED_WEIGHTS_SHA256)


def random_tower(seed: int) -> ConvTower:
    """The tower `conv-random`: as `conv`, with the initial weights of a seed. The global random state is unchanged."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return ConvTower(ConvTowerConfig())


def _shipped_tower(name: str, sha256: str) -> ConvTower:
    data = files("theodolite.models").joinpath("weights", name).read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if digest != sha256:
        raise DamagedWeights(f"{name} has SHA-256 {digest[:16]}..., expected {sha256[:16]}...; install theodolite again")
    tower = ConvTower(ConvTowerConfig())
    tower.load_state_dict(load(data))
    return tower


def raw_patches(size: int = SIZE, patch: int = PATCH) -> SiglipVisionModel:
    """Raw pixels as tokens: a stock SigLIP whose patch embedding is the identity; by default 8 x 8 tokens of width 192.

    Its one layer adds nothing to its input; LLaVA takes the output of a layer, so there must be one.
    """
    width = 3 * patch * patch
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
    weights["embeddings.patch_embedding.weight"] = torch.eye(width).view(width, 3, patch, patch)
    weights |= {name: torch.ones_like(value) for name, value in weights.items() if "norm" in name and "weight" in name}
    tower.load_state_dict(weights)
    return tower


def front_end(name: FrontEnd, seed: int = 0) -> ConvTower | SiglipVisionModel:
    """A vision tower by name, without gradients; `seed` sets random weights and is ignored by the others."""
    made: Mapping[FrontEnd, Callable[[], ConvTower | SiglipVisionModel]] = {
        "conv": pretrained_tower,
        "conv-unlabelled": unlabelled_tower,
        "conv-random": lambda: random_tower(seed),
        "patches": raw_patches,
    }
    return made[name]().requires_grad_(False).eval()
