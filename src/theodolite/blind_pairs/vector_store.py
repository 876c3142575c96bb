"""Disk cache of picture vectors, keyed by picture content. Interrupted runs resume."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from jaxtyping import Float, Int

from theodolite.records.errors import BadInput

HEADER = 128  # bytes of a .npy header of two axes, with room for the first to grow


class VectorStore:
    """Vectors of one encoder in a folder: `vectors.npy` (row, dim) in float32, and `pictures.txt` with the SHA-256 of each row's picture.

    Rows are only appended, a batch at a time: vectors first, then hashes, then the row count. A partly written batch is dropped when
    the store is opened again. One process at a time: raises `BadInput` if another one has the store open, if stored vectors have
    another width, or if the folder cannot be used.
    """

    def __init__(self, folder: Path, dim: int) -> None:
        self.path, self.names, self.dim = folder / "vectors.npy", folder / "pictures.txt", dim
        self._lock = FileLock(folder / "lock")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
            self._row = self._recover()
        except Timeout as error:
            raise BadInput(f"another run is writing vectors to {folder}; wait for it, or give another folder with --vectors") from error
        except OSError as error:
            raise BadInput(
                f"vectors cannot be stored in {folder} ({error.strerror or error}); give another folder with --vectors"
            ) from error

    def __len__(self) -> int:
        return len(self._row)

    def __contains__(self, key: str) -> bool:
        return key in self._row

    def close(self) -> None:
        """Releases the store to other processes."""
        self._lock.release()

    def add(self, keys: Sequence[str], vectors: Float[np.ndarray, "picture dim"]) -> None:
        """Appends the vectors of new pictures, synced to disk on return. Raises `BadInput` if writing fails."""
        try:
            with self.path.open("r+b") as file:
                file.seek(HEADER + 4 * self.dim * len(self))
                file.write(np.ascontiguousarray(vectors, dtype="<f4").tobytes())
                file.flush()
                os.fsync(file.fileno())
                with self.names.open("ab") as names:
                    names.write("".join(f"{key}\n" for key in keys).encode())
                self._row |= {key: row for row, key in enumerate(keys, start=len(self))}
                file.seek(0)
                file.write(_header(len(self), self.dim))
        except OSError as error:
            raise BadInput(
                f"vectors cannot be written to {self.path} ({error.strerror or error}); free some disk space and run again"
            ) from error

    def rows(self, keys: Sequence[str]) -> Int[np.ndarray, " picture"]:
        """Row numbers of these pictures. Raises `KeyError`."""
        return np.array([self._row[key] for key in keys], dtype=np.int64)

    def vectors(self) -> Float[np.ndarray, "row dim"]:
        """All stored rows, memory-mapped."""
        if not len(self):
            return np.empty((0, self.dim), dtype=np.float32)
        stored: Float[np.ndarray, "row dim"] = np.load(self.path, mmap_mode="r", allow_pickle=False)
        return stored

    def _recover(self) -> dict[str, int]:
        """The row of each picture, after dropping incomplete rows; creates an empty store where there is none."""
        if not self.path.exists() or not self.names.exists() or self.path.stat().st_size < HEADER:
            self.path.write_bytes(_header(0, self.dim))
            self.names.write_bytes(b"")
        with self.path.open("rb") as file:
            head = file.read(HEADER)
        if not head.startswith(_header(0, self.dim).split(b"(")[0]) or f", {self.dim})".encode() not in head:
            raise BadInput(
                f"{self.path} does not hold vectors of {self.dim} numbers; remove {self.path.parent}, so that they are computed again"
            )
        lines = self.names.read_bytes().split(b"\n")[:-1]
        number = min(len(lines), (self.path.stat().st_size - HEADER) // (4 * self.dim))
        keys = [line.decode("ascii", "replace") for line in lines[:number]]
        with self.path.open("r+b") as file:
            file.truncate(HEADER + 4 * self.dim * number)
            file.write(_header(number, self.dim))
        with self.names.open("r+b") as names:
            names.truncate(sum(len(key) + 1 for key in keys))
        return {key: row for row, key in enumerate(keys)}


def _header(num_rows: int, dim: int) -> bytes:
    target = io.BytesIO()
    np.lib.format.write_array_header_1_0(target, {"descr": "<f4", "fortran_order": False, "shape": (num_rows, dim)})
    header = target.getvalue()
    if len(header) != HEADER:
        raise ValueError(f"this numpy writes .npy headers of {len(header)} bytes; expected {HEADER}")
    return header
