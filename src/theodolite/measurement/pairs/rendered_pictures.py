"""The pictures of a gallery that draws them at any size as a pool: rendered when they are taken, squares of one size."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8

from theodolite.asking.pictures import Picture, PicturePool
from theodolite.measurement.pairs.file_pictures import PoolEntry
from theodolite.measurement.pairs.perturb import CHANGES
from theodolite.worlds.gallery import Render

NUM_HASHED = 16  # pictures in memory at a time while all are hashed


@dataclass(frozen=True, eq=False)
class RenderedPictures(PicturePool):
    """Pictures that `render` draws by name, `size` pixels a side.

    Some of them are taken as an array, unlike those of files: they have one size, so a model is given them in batches. Whatever takes only
    a part at a time holds only that part in memory.
    """

    render: Render
    size: int
    entries: tuple[PoolEntry, ...]

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, at: Any) -> Any:
        """One picture by its number, or the array of some numbers."""
        if isinstance(at, int | np.integer):
            return self._rendered([self.entries[at]])[0]
        return self._rendered([self.entries[number] for number in np.arange(len(self))[at]])

    def _rendered(self, entries: Sequence[PoolEntry]) -> UInt8[np.ndarray, "picture size size 3"]:
        pictures = self.render([entry.name for entry in entries], self.size)
        for number, entry in enumerate(entries):
            if entry.change is not None:
                pictures[number] = CHANGES[entry.change](pictures[number])
        return pictures

    def take(self, numbers: Sequence[int]) -> RenderedPictures:
        return RenderedPictures(self.render, self.size, tuple(self.entries[number] for number in numbers))

    def by_file(self, numbers: Iterable[int]) -> list[tuple[int, ...]]:
        return [(number,) for number in numbers]

    def read(self, numbers: Sequence[int]) -> list[Picture]:
        return list(self[list(numbers)])

    def num_pixels(self, numbers: Sequence[int]) -> int:
        return len(numbers) * self.size**2

    def given_size(self, number: int) -> tuple[int, int]:
        return self.size, self.size

    def note(self, number: int, pixels: int, tokens: int, tiles: int) -> None:
        """Nothing is noted: all pictures are alike in this."""

    def identity(self) -> str:
        return self.pixel_hash(len(self))

    def detached(self) -> RenderedPictures:
        return self

    def facts(self) -> list[dict[str, Any] | None]:
        return [None] * len(self)

    def restore(self, facts: Sequence[Mapping[str, Any] | None]) -> None:
        """Nothing was noted."""

    def pixel_hash(self, number: int) -> str:
        """`worlds.world.picture_hash` of the first pictures, of which few are in memory at a time."""
        digest = hashlib.sha256(repr((number, self.size, self.size, 3)).encode())
        for start in range(0, number, NUM_HASHED):
            digest.update(np.ascontiguousarray(self[start : min(start + NUM_HASHED, number)]).data)
        return digest.hexdigest()
