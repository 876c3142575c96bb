"""Small pictures of a survey's pairs for the report: those of the pairs that failed most severely first, limited in number and size."""

from __future__ import annotations

import io

import numpy as np
import polars as pl
from PIL import Image

from theodolite.measurement.pairs.file_pictures import FilePictures
from theodolite.measurement.pairs.plan import Plan
from theodolite.records.thumbnails import COLUMNS
from theodolite.report.survey.outcomes import with_outcomes

SIDE = 192
MOST_PICTURES = 500
MOST_BYTES = 800_000
# Lossy compression smears the few pixels of a picture that is no larger than this, and saves nothing.
SMALL_SIDE = 96


def thumbnails_of(plan: Plan, rows: pl.DataFrame) -> pl.DataFrame:
    """The pictures of the severest pairs as WebP files (columns: `records.thumbnails`), whole pairs as long as the limits allow."""
    pairs = with_outcomes(rows.filter(pl.col("kind") == "intervention")).sort("severity", descending=True, maintain_order=True)
    files: dict[int, bytes] = {}
    num_bytes = 0
    for sides in pairs.select("picture_before", "picture_after").unique(maintain_order=True).iter_rows():
        new = {number: webp_bytes(_small(plan, number)) for number in sides if number not in files}
        num_bytes += sum(map(len, new.values()))
        if len(files) + len(new) > MOST_PICTURES or num_bytes > MOST_BYTES:
            break
        files |= new
    return pl.DataFrame({"picture": list(files), "webp": list(files.values())}, schema=COLUMNS)


def webp_bytes(picture: Image.Image) -> bytes:
    """A picture as the bytes of a WebP file; a small one without loss."""
    target = io.BytesIO()
    picture.save(target, "WEBP", quality=72, method=3, lossless=max(picture.size) <= SMALL_SIDE)
    return target.getvalue()


def _small(plan: Plan, number: int) -> Image.Image:
    if isinstance(plan.pictures, FilePictures):
        picture = Image.fromarray(plan.pictures.thumbnail(number, 4 * SIDE * SIDE))
    else:
        picture = Image.fromarray(np.asarray(plan.pictures[number]))
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return picture
