"""Files that are cut off at every byte of their last block, as a full disk, a broken copy or a lost cable leave them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from theodolite.records.errors import BadInput

LAST_BLOCK = 8192  # bytes: more than the footer and the last row group of the Parquet files here, and two pages of SQLite
FEW = 24


def lengths(path: Path, every: bool) -> list[int]:
    """Lengths to which a file is cut: each within its last block if `every`, else some of them, the first and the last among them."""
    size = path.stat().st_size
    first = max(size - LAST_BLOCK, 0)
    step = 1 if every else max((size - first) // FEW, 1)
    return sorted({*range(first, size, step), size - 1, size - 2})


def cut(path: Path, every: bool) -> Iterator[int]:
    """Cuts a file to one length after the other, and restores it in the end."""
    whole, tried = path.read_bytes(), lengths(path, every)
    print(f"\n{path.name}: cut to {len(tried)} lengths")
    try:
        for length in tried:
            path.write_bytes(whole[:length])
            yield length
    finally:
        path.write_bytes(whole)


def refused_or_same(path: Path, read: Callable[[], Any], same: Callable[[Any], bool], every: bool) -> tuple[int, int]:
    """How often the reader of a file refuses it by its name, and how often it reads what the whole file holds; anything else fails."""
    refused = read_as_whole = 0
    for length in cut(path, every):
        try:
            value = read()
        except BadInput as error:
            assert path.name in str(error) and "\n" not in str(error), (length, str(error))
            refused += 1
            continue
        except (Exception, pl.exceptions.PanicException) as error:  # noqa: BLE001 whatever else is raised would be a traceback
            pytest.fail(f"{path.name} cut to {length} bytes: {type(error).__name__}: {error}")
        assert same(value), f"{path.name} cut to {length} bytes is read as something else"
        read_as_whole += 1
    return refused, read_as_whole
