"""Parquet files from elsewhere: damaged ones, and small ones that stand for gigabytes, are refused; others are as Polars has them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers.pair_rows import answered_rows
from theodolite.records.parquet import BadParquet, check_parquet, parse_parquet


def test_a_table_is_as_polars_reads_it(tmp_path: Path) -> None:
    answered_rows(5).write_parquet(tmp_path / "rows.parquet")
    expected = pl.read_parquet(tmp_path / "rows.parquet")
    assert parse_parquet(tmp_path / "rows.parquet").equals(expected)
    assert parse_parquet(tmp_path / "rows.parquet").schema == expected.schema
    assert parse_parquet(tmp_path / "rows.parquet", ["scene"]).columns == ["scene"]
    check_parquet(tmp_path / "rows.parquet")


@pytest.mark.parametrize("column", ["text", "list"])
def test_texts_that_are_repeated_by_reference_are_counted_before_they_are_copied(tmp_path: Path, column: str) -> None:
    text = "x" * 2_000_000
    table = pa.table({"a": [text if column == "text" else [text]] * 400})
    pq.write_table(table, tmp_path / "x.parquet", compression="zstd", dictionary_pagesize_limit=2**30)
    assert (tmp_path / "x.parquet").stat().st_size < 10_000
    for read in (parse_parquet, check_parquet):
        with pytest.raises(BadParquet, match="bytes of memory"):
            read(tmp_path / "x.parquet")


def test_millions_of_rows_in_a_small_file_are_refused(tmp_path: Path) -> None:
    writer = pq.ParquetWriter(tmp_path / "x.parquet", pa.schema([("a", pa.int8())]), compression="zstd")
    for _ in range(8):
        writer.write_table(pa.table({"a": pa.array(np.zeros(8_000_000, np.int8))}), row_group_size=8_000_000)
    writer.close()
    with pytest.raises(BadParquet, match="bytes of memory"):
        parse_parquet(tmp_path / "x.parquet")


def test_damaged_bytes_raise_nothing_else(tmp_path: Path) -> None:
    """Among them some on which Polars' reader panics, and some on which it ends the process."""
    target = io.BytesIO()
    answered_rows(3).write_parquet(target)
    whole, rng = target.getvalue(), np.random.default_rng(3)
    refused = 0
    for _ in range(300):
        data = bytearray(whole)
        for at in rng.integers(4, len(data), 3):
            data[at] = rng.integers(256)
        (tmp_path / "x.parquet").write_bytes(data)
        try:
            parse_parquet(tmp_path / "x.parquet")
        except (BadParquet, OSError):
            refused += 1
    assert refused > 100
