"""Small pictures of a survey's pairs, for pages: one row a picture in `thumbnails.parquet`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from theodolite.records.rows import Column

THUMBNAILS: Mapping[str, Column] = {
    "picture": Column(pl.Int64(), "number of the picture, as in rows.parquet"),
    "webp": Column(pl.Binary(), "the picture as a WebP file, scaled down to a longer side of 192 pixels where it is larger"),
}
COLUMNS: Mapping[str, Any] = {name: column.dtype for name, column in THUMBNAILS.items()}
