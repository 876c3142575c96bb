"""Vision encoders by name: this package's own, and any Hugging Face vision model that LLaVA can take."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import MODEL_MAPPING, AutoConfig, AutoImageProcessor, AutoModel, SiglipImageProcessorPil

from theodolite.models.construction.frontends import PATCH, SIZE, Pixels, image_processor, pretrained_tower, raw_patches
from theodolite.models.construction.lite0 import lite0_image_processor, pretrained_lite0
from theodolite.models.exported.cells_tower import CellsTower, CellsTowerConfig
from theodolite.models.exported.grids import tower_grid
from theodolite.models.load import loading
from theodolite.models.untrusted import NO_CODE, SAFE_WEIGHTS
from theodolite.records.errors import BadInput

WORKS = (
    "CLIP, SigLIP, SigLIP2 (of fixed size), DINOv2, DINOv3, ViT, Swin, ResNet and ConvNext work, "
    "and conv, patches:SIZE/PATCH and lite0:SIZE/STRIDE of this package"
)


@dataclass(frozen=True, eq=False)
class Encoder:
    """A vision tower and its image processor. `has_class_token`: whether the first token of its output is a class token."""

    tower: nn.Module
    image_processor: Any
    has_class_token: bool = False

    @property
    def num_tokens(self) -> int:
        """Tokens of one picture, without the class token."""
        rows, columns = tower_grid(self.tower.config)
        return rows * columns

    @property
    def token_size(self) -> int:
        """Side in pixels of the square that one token covers."""
        return int(self.tower.config.image_size) // tower_grid(self.tower.config)[0]


def encoder_named(name: str, attention: str = "sdpa") -> Encoder:
    """An encoder by name: `conv`, `patches:64/8` (raw pixels: size/patch), `lite0:128/16` (size/stride), or a Hugging Face folder or name.

    Raises `BadInput` for unsupported sizes, weights that are not installed, and models without a token for each cell of a picture's grid.
    """
    kind, colon, sizes = name.partition(":")
    if kind not in OWN:
        return _from_hugging_face(name, attention)
    match = re.fullmatch(r"(\d+)/(\d+)", sizes)
    if colon and not match:
        raise BadInput(f"encoder {name!r} cannot be read; write {kind}, or sizes in pixels as in {EXAMPLES[kind]}")
    encoder = OWN[kind](*(map(int, match.groups()) if match else DEFAULTS[kind]))
    encoder.tower.requires_grad_(False).eval()
    return encoder


def _conv(size: int, patch: int) -> Encoder:
    if (size, patch) != (SIZE, PATCH):
        raise BadInput(f"the tower conv takes pictures of {SIZE} with tokens of {PATCH} pixels, not {size}/{patch}; write conv")
    return Encoder(pretrained_tower(), image_processor())


def _patches(size: int, patch: int) -> Encoder:
    if patch < 1 or size < patch or size % patch:
        raise BadInput(f"pictures of {size} cannot be cut into patches of {patch}; give a multiple, as in {EXAMPLES['patches']}")
    return Encoder(raw_patches(size, patch), image_processor(size))


def _lite0(size: int, stride: int) -> Encoder:
    return Encoder(pretrained_lite0(size, stride), lite0_image_processor(size))


OWN: Mapping[str, Callable[[int, int], Encoder]] = {"conv": _conv, "patches": _patches, "lite0": _lite0}
DEFAULTS: Mapping[str, tuple[int, int]] = {"conv": (SIZE, PATCH), "patches": (SIZE, PATCH), "lite0": (224, 16)}
EXAMPLES: Mapping[str, str] = {"conv": f"conv:{SIZE}/{PATCH}", "patches": "patches:64/8", "lite0": "lite0:128/16"}


def _from_hugging_face(name: str, attention: str) -> Encoder:
    """The tower itself where LLaVA can take it; else wrapped in a `CellsTower`, which outputs the last layer's tokens of the grid."""
    with loading("vision encoder", name):
        config = AutoConfig.from_pretrained(name, **NO_CODE)
        # Models with a text tower too (CLIP) have a configuration of the vision tower within theirs.
        vision = getattr(config, "vision_config", config)
        _refuse_non_vision(name, vision)
        processor = AutoImageProcessor.from_pretrained(name, backend="pil", **NO_CODE)
        model = AutoModel.from_pretrained(name, config=config, dtype=torch.float32, **SAFE_WEIGHTS).eval()
    tower = getattr(model, "vision_model", model)
    size = _side(name, processor)
    if type(tower) is not MODEL_MAPPING[type(vision)]:
        raise BadInput(f"{name} has its vision tower within {type(tower).__name__}, not as vision_model; save it alone; {WORKS}")
    output = _probe(name, tower, size)
    num_cells = math.prod(tower_grid(vision)) if _is_plain(vision, size) and tower._supports_sdpa else 0
    layers = output.hidden_states or ()
    extra = layers[-1].shape[1] - num_cells if num_cells and layers and layers[-1].ndim == 3 and len(layers[-1]) == 2 else -1
    if extra == 0 or (extra == 1 and len(layers) > 1):
        tower.set_attn_implementation(attention)
        return Encoder(tower, _resize_only(processor, size), has_class_token=extra == 1)
    return Encoder(_cells_tower(name, tower, size, output.last_hidden_state), _resize_only(processor, size))


def _refuse_non_vision(name: str, vision: Any) -> None:
    kind = MODEL_MAPPING.get(type(vision), None)
    if getattr(kind, "main_input_name", None) != "pixel_values":
        raise BadInput(f"{name} ({vision.model_type}) is no vision model: it takes no pictures; {WORKS}")


def _is_plain(vision: Any, size: int) -> bool:
    """Whether the configuration has one width, one patch size, and the size of the image processor's pictures."""
    sizes = [getattr(vision, name, None) for name in ("hidden_size", "patch_size", "image_size")]
    return all(isinstance(each, int) for each in sizes) and sizes[2] == size


def _side(name: str, processor: Any) -> int:
    """Side in pixels of an image processor's pictures. Raises `BadInput` if they are not squares of one size."""
    probes = [Image.new("RGB", sides) for sides in ((300, 200), (200, 200))]
    shapes = {tuple(processor([probe], return_tensors="pt")["pixel_values"].shape) for probe in probes}
    (shape, *others) = shapes
    if others or len(shape) != 4 or shape[-1] != shape[-2]:
        raise BadInput(f"the image processor of {name} makes {sorted(shapes)} of pictures; squares of one size are needed; {WORKS}")
    return int(shape[-1])


def _probe(name: str, tower: Any, size: int) -> Any:
    """The tower's output for two pictures. Raises `BadInput` if it does not take pictures of that size, or needs other inputs too."""
    try:
        with torch.no_grad():
            return tower(pixel_values=torch.zeros(2, 3, size, size, device=tower.device), output_hidden_states=True)
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        expected = getattr(tower.config, "image_size", size)
        reason = str(error).splitlines()[0] if expected == size else f"its configuration says {expected}, its image processor makes {size}"
        raise BadInput(f"{name} ({tower.config.model_type}) takes no square pictures of {size} alone: {reason}; {WORKS}") from error


def _cells_tower(name: str, inner: Any, size: int, tokens: Tensor) -> CellsTower:
    """The model in a `CellsTower`. Raises `BadInput` if its last layer has no token for each cell of a square grid."""
    patch = getattr(inner.config, "patch_size", None)
    patch = patch[0] if isinstance(patch, list | tuple) else patch
    side = tokens.shape[-1] if tokens.ndim == 4 else size // patch if isinstance(patch, int) else 0
    skip = 0 if tokens.ndim == 4 else tokens.shape[1] - side**2
    if side == 0 or len(tokens) != 2 or skip < 0 or tokens.ndim not in (3, 4):
        raise BadInput(
            f"{name} ({inner.config.model_type}) gives {tuple(tokens.shape)} for 2 pictures of {size}, which is no token for each place; "
            f"{WORKS}"
        )
    width = tokens.shape[1] if tokens.ndim == 4 else tokens.shape[2]
    tower = CellsTower(CellsTowerConfig(inner.config.to_dict(), size, size // side, width, skip))
    tower.inner.load_state_dict(inner.state_dict(), assign=True)
    return tower


def _resize_only(processor: Any, size: int) -> Any:
    """The image processor, if it only scales and shifts the values of a square picture of its size; else one that does.

    A centre crop (as of DINOv2's) would hide the edges of pictures, which questions may be about.
    """
    try:
        if Pixels(processor).size == size:
            return processor
    except BadInput:
        pass
    factor = getattr(processor, "rescale_factor", None) if getattr(processor, "do_rescale", True) else None
    if factor is None or abs(factor * 255 - 1) > 1e-6:
        raise BadInput(f"{type(processor).__name__} scales values by {factor}, not 1/255; give an encoder with another image processor")
    normalised = getattr(processor, "do_normalize", True)
    return SiglipImageProcessorPil(
        size={"height": size, "width": size},
        image_mean=processor.image_mean if normalised else [0.0] * 3,
        image_std=processor.image_std if normalised else [1.0] * 3,
        resample=processor.resample,
        do_convert_rgb=True,
    )
