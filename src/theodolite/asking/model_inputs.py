"""A model's pixel inputs for pictures of one size, and their placeholder tokens in prompts."""

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
from theodolite.models.pictures import PictureReader
from theodolite.records.errors import BadInput

# In pixels, for image processors that take pictures of any size.
FREE_SIZE = 224


def survey_size(image_processor: Any) -> int:
    """Side in pixels at which pictures are rendered for a model: the image processor's fixed output size, else `FREE_SIZE`."""
    try:
        return picture_size(image_processor)
    except BadInput:
        return FREE_SIZE


class ModelInputs:
    """Pixel inputs of pictures of one size, and the tokenizer of questions about them.

    All pictures of a size have equally many vision tokens; `grids` are the (row, column) of the tokens of each tile of a picture. An
    image processor that only rescales and normalises is vectorised over pictures; any other runs picture by picture.
    """

    def __init__(self, model: Any, processor: Any, height: int, width: int) -> None:
        self.reader = PictureReader(processor.image_processor, processor.tokenizer, model.config)
        processed = self.reader.read(Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)))
        self.grids: list[Int[Tensor, "token 2"]] = picture_grids(model.config, processed.inputs)
        self.num_tokens = processed.tokens
        self.question_tokenizer = QuestionTokenizer(
            processor, processed.tokens, self.reader.marker, processed.placeholder, image_token_id(model.config)
        )
        self._pixels = _vectorised_pixels(self.reader, processor.image_processor, height, width)

    def inputs(self, pictures: UInt8[np.ndarray, "picture height width 3"]) -> dict[str, Tensor]:
        """The model's keyword arguments for these pictures, in order."""
        if self._pixels is not None:
            return {"pixel_values": self._pixels(pictures)}
        return self.reader.join([self.reader.read(Image.fromarray(picture)) for picture in pictures])


def _vectorised_pixels(reader: PictureReader, image_processor: Any, height: int, width: int) -> Pixels | None:
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
