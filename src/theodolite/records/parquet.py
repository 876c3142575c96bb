"""Reading of Parquet files that anyone may have written: damaged ones, and those that grow without measure, are refused.

pyarrow decodes and checks them. Polars' own reader panics on damaged pages, and ends the process where a size is beyond all memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from theodolite.records.errors import BadInput

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

# A table may take MOST_GROWTH times the bytes of its file, and FREE_BYTES in any case; a value counts for BYTES_PER_VALUE and its text.
MOST_GROWTH = 200
FREE_BYTES = 2**29
BYTES_PER_VALUE = 16


class BadParquet(ValueError):
    """A file that is not Parquet, or not safe to read; the message is a reason, without the file's name."""


def read_parquet(
    path: Path, kind: str, advice: str, *, columns: Sequence[str] | None = None, refusal: type[BadInput] = BadInput
) -> pl.DataFrame:
    """The table of a Parquet file, or some of its columns. `kind` says what it should be, `advice` what to do with one that is not.

    Raises `refusal` on a file that cannot be read: one that was cut off, is damaged or grows too much.
    """
    try:
        return parse_parquet(path, columns)
    except (OSError, BadParquet) as error:
        raise refusal(f"{path} cannot be read as {kind} ({error}); {advice}") from error


def parse_parquet(path: Path, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """The table of a Parquet file, some columns or all. Raises `OSError`, and `BadParquet` for what is damaged or grows too much."""
    with _opened(path) as (file, plain, most):
        if missing := set(columns or ()).difference(plain.names):
            raise BadParquet(f"it lacks {', '.join(sorted(missing))}")
        table = _checked(file.read(None if columns is None else list(columns)), plain, most)
        result = pl.from_arrow(table)
    assert isinstance(result, pl.DataFrame)
    return result


def check_parquet(path: Path) -> None:
    """Reads a file through, one group of rows at a time. Raises as `parse_parquet` does."""
    with _opened(path) as (file, plain, most):
        for group in range(file.num_row_groups):
            _checked(file.read_row_group(group), plain, most)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[pq.ParquetFile, pa.Schema, int]]:
    """The file, its schema, and the bytes that its table may take. A text that is repeated by reference is read so: not copied by row."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    most = max(FREE_BYTES, MOST_GROWTH * os.path.getsize(path))
    try:
        with pq.ParquetFile(path) as file:
            plain, texts = file.schema_arrow, _refuse_claims(file.metadata, most)
        with pq.ParquetFile(path, read_dictionary=texts) as file:
            yield file, plain, most
    except BadParquet:
        raise
    except (pa.ArrowException, pl.exceptions.PolarsError, pl.exceptions.PanicException, ValueError, TypeError, LookupError) as error:
        raise BadParquet(str(error).partition("\n")[0] or type(error).__name__) from error
    except MemoryError as error:
        raise BadParquet("its sizes are beyond this machine's memory") from error


def _checked(table: pa.Table, plain: pa.Schema, most: int) -> pa.Table:
    """The table with its texts written out, and found to be valid UTF-8."""
    import pyarrow as pa

    _refuse(sum(_decoded_bytes(chunk) for column in table.columns for chunk in column.chunks), most)
    result = table.cast(pa.schema([plain.field(name) for name in table.column_names]))
    result.validate(full=True)
    return result


def _refuse_claims(metadata: Any, most: int) -> list[str]:
    """The paths of the columns of texts. Raises `BadParquet` if the file says of itself that it grows beyond `most` bytes."""
    columns = [metadata.schema.column(at) for at in range(metadata.num_columns)]
    size = 0
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for chunk in map(group.column, range(group.num_columns)):
            size += max(chunk.total_uncompressed_size, BYTES_PER_VALUE * max(chunk.num_values, group.num_rows))
    _refuse(max(size, metadata.num_rows), most)
    return [column.path for column in columns if column.physical_type == "BYTE_ARRAY"]


def _refuse(size: int, most: int) -> None:
    if size > most:
        raise BadParquet(f"it would take {size:,} bytes of memory, more than {most:,} for a file of its size")


def _decoded_bytes(values: pa.Array) -> int:
    """The bytes of an array whose repeated texts are copied."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = values.type
    if pa.types.is_dictionary(kind):
        with suppress(pa.ArrowNotImplementedError):  # not texts: short values
            lengths = pc.take(pc.binary_length(values.dictionary).cast("int64"), values.indices)
            return int(pc.sum(lengths).as_py() or 0) + BYTES_PER_VALUE * len(values)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return 8 * len(values) + _decoded_bytes(values.values)
    if pa.types.is_struct(kind):
        return sum(_decoded_bytes(values.field(at)) for at in range(kind.num_fields))
    return int(values.nbytes)
