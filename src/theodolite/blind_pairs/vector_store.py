"""One vector a picture, kept on disk by content: what was embedded once is not embedded again, and what was cut off goes on."""

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

    Rows are only ever added, whole batches at a time: vectors first, then names, then the length. Whatever is cut off between these is
    dropped when the store is opened again. One process at a time: raises `BadInput` if another one has it open, if the vectors there are
    of another width, or if the folder cannot be used.
    """

    def __init__(self, folder: Path, dim: int) -> None:
        self.path, self.names, self.dim = folder / "vectors.npy", folder / "pictures.txt", dim
        self._lock = FileLock(folder / "lock")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
            self._row = self._mend()
        except Timeout as error:
            raise BadInput(f"another run writes its vectors into {folder}; wait for it, or give another folder with --vectors") from error
        except OSError as error:
            raise BadInput(f"vectors cannot be kept in {folder} ({error.strerror or error}); give another folder with --vectors") from error

    def __len__(self) -> int:
        return len(self._row)

    def __contains__(self, key: str) -> bool:
        return key in self._row

    def close(self) -> None:
        """Lets other processes have it."""
        self._lock.release()

    def add(self, keys: Sequence[str], vectors: Float[np.ndarray, "picture dim"]) -> None:
        """Keeps the vectors of pictures that are not there yet; on disk when this returns. Raises `BadInput` where the disk is full."""
        try:
            with self.path.open("r+b") as file:
                file.seek(HEADER + 4 * self.dim * len(self))
                file.write(np.ascontiguousarray(vectors, dtype="<f4").tobytes())
                file.flush()
                os.fsync(file.fileno())
                with self.names.open("ab") as names:
                    names.write("".join(f"{key}\n" for key in keys).encode())
                self._row |= {key: len(self) + at for at, key in enumerate(keys)}
                file.seek(0)
                file.write(_header(len(self), self.dim))
        except OSError as error:
            raise BadInput(f"vectors cannot be written to {self.path} ({error.strerror or error}); make room, and run it again") from error

    def rows(self, keys: Sequence[str]) -> Int[np.ndarray, " picture"]:
        """The rows of these pictures. Raises `KeyError`."""
        return np.array([self._row[key] for key in keys], dtype=np.int64)

    def vectors(self) -> Float[np.ndarray, "row dim"]:
        """All rows so far, memory-mapped."""
        if not len(self):
            return np.empty((0, self.dim), dtype=np.float32)
        found: Float[np.ndarray, "row dim"] = np.load(self.path, mmap_mode="r")
        return found

    def _mend(self) -> dict[str, int]:
        """Drops what is not whole, and gives the row of each picture. Makes an empty store where there is none."""
        if not self.path.exists() or not self.names.exists() or self.path.stat().st_size < HEADER:
            self.path.write_bytes(_header(0, self.dim))
            self.names.write_bytes(b"")
        with self.path.open("rb") as file:
            head = file.read(HEADER)
        if not head.startswith(_header(0, self.dim).split(b"(")[0]) or f", {self.dim})".encode() not in head:
            raise BadInput(f"{self.path} does not hold vectors of {self.dim} numbers; remove {self.path.parent}, and they are made anew")
        whole = self.names.read_bytes().split(b"\n")[:-1]
        number = min(len(whole), (self.path.stat().st_size - HEADER) // (4 * self.dim))
        keys = [line.decode("ascii", "replace") for line in whole[:number]]
        with self.path.open("r+b") as file:
            file.truncate(HEADER + 4 * self.dim * number)
            file.write(_header(number, self.dim))
        with self.names.open("r+b") as names:
            names.truncate(sum(len(key) + 1 for key in keys))
        return {key: at for at, key in enumerate(keys)}


def _header(num_rows: int, dim: int) -> bytes:
    target = io.BytesIO()
    np.lib.format.write_array_header_1_0(target, {"descr": "<f4", "fortran_order": False, "shape": (num_rows, dim)})
    found = target.getvalue()
    if len(found) != HEADER:
        raise ValueError(f"this numpy writes .npy headers of {len(found)} bytes; {HEADER} were expected")
    return found
