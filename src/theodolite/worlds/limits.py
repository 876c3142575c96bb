"""Limits of the pixels of a picture that a model is given."""

from __future__ import annotations

import math
from dataclasses import dataclass

from PIL import Image

from theodolite.records.errors import BadInput


@dataclass(frozen=True)
class PixelLimits:
    """The number of pixels (width x height) that pictures of their own size may have, or the side of the squares that they become.

    None means no limit. Raises `BadInput` for limits that contradict each other.
    """

    min_pixels: int | None = None
    max_pixels: int | None = None
    side: int | None = None

    def __post_init__(self) -> None:
        if self.side is not None and self.ranged:
            raise BadInput("a picture size makes squares of one size, so --min-pixels and --max-pixels mean nothing beside --picture-size")
        if any(limit is not None and limit < 1 for limit in (self.min_pixels, self.max_pixels, self.side)):
            raise BadInput(f"{self}: give 1 or more pixels")
        if self.min_pixels is not None and self.max_pixels is not None and self.min_pixels > self.max_pixels:
            raise BadInput(f"--min-pixels {self.min_pixels:,} is more than --max-pixels {self.max_pixels:,}; exchange them")

    @property
    def ranged(self) -> bool:
        """Whether there is a limit of the number of pixels."""
        return self.min_pixels is not None or self.max_pixels is not None

    def size_within(self, width: int, height: int) -> tuple[int, int]:
        """The width and height of a picture brought within the limits of its number of pixels, at its aspect ratio."""
        area = width * height
        if self.max_pixels is not None and area > self.max_pixels:
            scale = math.sqrt(self.max_pixels / area)
            return max(1, math.floor(width * scale)), max(1, math.floor(height * scale))
        if self.min_pixels is not None and area < self.min_pixels:
            scale = math.sqrt(self.min_pixels / area)
            return math.ceil(width * scale), math.ceil(height * scale)
        return width, height

    def scaled(self, picture: Image.Image, width: int, height: int) -> Image.Image:
        """The picture brought within the limits; `width` and `height` are those of its file, of which it may be a reduced reading."""
        size = self.size_within(width, height)
        return picture if size == picture.size else picture.resize(size, Image.Resampling.BICUBIC)
