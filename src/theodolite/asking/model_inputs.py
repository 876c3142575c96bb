"""A model's pixel inputs for pictures of one size or of one token grid, and their placeholder tokens in prompts."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Int, UInt8
from PIL import Image
from torch import Tensor

from theodolite.models.construction.frontends import Pixels, picture_size
from theodolite.models.conversation_tokenizer import QuestionTokenizer
from theodolite.models.exported.grids import picture_grids
from theodolite.models.families import image_token_id
from theodolite.models.pictures import PictureReader, ProcessedPicture
from theodolite.records.errors import BadInput

# In pixels, for image processors that take pictures of any size.
FREE_SIZE = 224


def survey_size(image_processor: Any) -> int:
    """Side in pixels at which pictures are rendered for a model: the image processor's fixed output size, else `FREE_SIZE`."""
    try:
        return picture_size(image_processor)
    except BadInput:
        return FREE_SIZE


def tiles_of(config: Any, processed: ProcessedPicture) -> list[Int[Tensor, "token 2"]]:
    """The (row, column) of the tokens of each tile of a picture."""
    return picture_grids(config, processed.inputs)


def grid_key(config: Any, processed: ProcessedPicture) -> tuple[str, tuple[bytes, ...]]:
    """Equal for pictures that can stand in one batch: the same placeholder text and the same places of tokens."""
    return processed.placeholder, tuple(tile.numpy().tobytes() for tile in tiles_of(config, processed))


def num_pixels(config: Any, processed: ProcessedPicture) -> int:
    """The number of pixels of a picture that the encoder is given, over all tiles and crops, padding included."""
    if (grid := processed.inputs.get("image_grid_thw")) is not None:
        return int(grid.prod()) * int(config.vision_config.patch_size) ** 2
    return processed.inputs["pixel_values"].numel() // 3


class GridInputs:
    """What all pictures of one token grid share: `grids`, the (row, column) of the tokens of each tile, the number of tokens, and the
    tokenizer of questions about them."""

    def __init__(self, model: Any, processor: Any, reader: PictureReader, processed: ProcessedPicture) -> None:
        self.reader = reader
        self.grids = tiles_of(model.config, processed)
        self.num_tokens = processed.tokens
        self.question_tokenizer = QuestionTokenizer(
            processor, processed.tokens, reader.marker, processed.placeholder, image_token_id(model.config)
        )


class ModelInputs(GridInputs):
    """Pixel inputs of pictures of one size, and the tokenizer of questions about them.

    All pictures of a size have equally many vision tokens. An image processor that only rescales and normalises is vectorised over
    pictures; any other runs picture by picture.
    """

    def __init__(self, model: Any, processor: Any, reader: PictureReader, height: int, width: int) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        super().__init__(model, processor, reader, reader.read(Image.fromarray(noise)))
        self._pixels = _vectorised_pixels(reader, height, width)

    def inputs(self, pictures: UInt8[np.ndarray, "picture height width 3"]) -> dict[str, Tensor]:
        """The model's keyword arguments for these pictures, in order."""
        if self._pixels is not None:
            return {"pixel_values": self._pixels(pictures)}
        return self.reader.join([self.reader.read(Image.fromarray(picture)) for picture in pictures])


def _vectorised_pixels(reader: PictureReader, height: int, width: int) -> Pixels | None:
    image_processor = reader.image_processor
    if reader.family.pixel_inputs != ("pixel_values",):
        return None
    try:
        pixels = Pixels(image_processor)
    except (BadInput, AttributeError):  # it crops, pads or has no fixed size
        return None
    probe = np.zeros((1, height, width, 3), dtype=np.uint8)
    if (height, width) != (pixels.size, pixels.size):
        return None
    shape = image_processor([Image.fromarray(probe[0])], return_tensors="pt")["pixel_values"].shape
    return pixels if shape == torch.Size([1, 3, height, width]) else None
