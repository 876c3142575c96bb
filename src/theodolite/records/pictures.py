"""What became of the pictures of files in a survey: a summary in `survey.json`, one row a picture in `pictures.parquet`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import polars as pl
from pydantic import Field

from theodolite.records.part import Part
from theodolite.records.rows import Column

PICTURES: Mapping[str, Column] = {
    "picture": Column(pl.Int64(), "number of the picture, as in rows.parquet"),
    "name": Column(pl.String(), "its name in the file of pairs"),
    "change": Column(pl.String(), "saved_again, shifted or brighter: how it was changed to measure noise; null: as it is"),
    "width": Column(pl.Int64(), "width of the file's picture in pixels, upright"),
    "height": Column(pl.Int64(), "height of the file's picture in pixels, upright"),
    "given_width": Column(pl.Int64(), "width in pixels that the model's image processor, or the endpoint, is given"),
    "given_height": Column(pl.Int64(), "height in pixels that the model's image processor, or the endpoint, is given"),
    "pixels": Column(pl.Int64(), "pixels that the image processor makes of it, over all tiles, padding included; null: not known"),
    "tokens": Column(pl.Int64(), "vision tokens that it becomes in the prompt; null: not known"),
    "tiles": Column(pl.Int64(), "tiles and views that it is cut into; null: not known"),
    "notes": Column(pl.List(pl.String()), "what a reader should know of it: the first of several frames, damaged metadata"),
}
COLUMNS: Mapping[str, Any] = {name: column.dtype for name, column in PICTURES.items()}


class NumberRange(Part):
    """Smallest, median and largest of whole numbers."""

    smallest: int = Field(description="the smallest")
    median: float = Field(description="the median")
    largest: int = Field(description="the largest")

    @classmethod
    def of(cls, numbers: Sequence[int]) -> NumberRange | None:
        """The range of some numbers; None without any."""
        return cls(smallest=min(numbers), median=float(median(numbers)), largest=max(numbers)) if numbers else None


class PicturesRecord(Part):
    """What became of the pictures of files; one row a picture is in `pictures.parquet`."""

    num_pictures: int = Field(description="pictures that were read, those changed to measure noise among them")
    min_pixels: int | None = Field(description="least number of pixels (width x height) that was asked for; null: no limit")
    max_pixels: int | None = Field(description="largest number of pixels that was asked for; null: no limit")
    picture_size: int | None = Field(description="side of the squares that pictures were made into; null: their own aspect ratio")
    given: NumberRange | None = Field(description="pixels of a picture that the image processor, or the endpoint, is given")
    pixels: NumberRange | None = Field(description="pixels that the image processor makes of a picture, over all tiles; null: not known")
    tokens: NumberRange | None = Field(description="vision tokens of a picture; null: not known")
    tiles: NumberRange | None = Field(description="tiles and views of a picture; null: not known")
    notes: dict[str, int] = Field(description="number of pictures by what a reader should know of them")
