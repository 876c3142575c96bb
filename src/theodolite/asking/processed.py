"""Processed pictures of a pool, in windows of bounded memory, and those of one token grid, which can stand in one batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from theodolite.asking.model_inputs import GridInputs
from theodolite.models.pictures import ProcessedPicture

# A window's pictures are grouped by token grid, so that batches are uniform.
WINDOW_BYTES = 512 * 2**20
WINDOW_PICTURES = 512


@dataclass(frozen=True, eq=False)
class ProcessedPictures:
    """Processed pictures of one token grid, by their numbers in a pool."""

    grid: GridInputs
    by_number: Mapping[int, ProcessedPicture]
    numbers: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, numbers: Int[np.ndarray, " picture"]) -> ProcessedPictures:
        """The pictures of these numbers of the pool, in this order."""
        return ProcessedPictures(self.grid, self.by_number, tuple(numbers.tolist()))


def windows(processed: Iterable[tuple[int, ProcessedPicture]]) -> Iterator[dict[int, ProcessedPicture]]:
    """The pictures in parts of at most `WINDOW_BYTES` of pixel inputs, or one picture, and at most `WINDOW_PICTURES`."""
    window: dict[int, ProcessedPicture] = {}
    num_bytes = 0
    for number, picture in processed:
        more = sum(value.nbytes for value in picture.inputs.values())
        if window and (num_bytes + more > WINDOW_BYTES or len(window) == WINDOW_PICTURES):
            yield window
            window, num_bytes = {}, 0
        window[number] = picture
        num_bytes += more
    if window:
        yield window
