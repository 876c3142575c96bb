"""Pictures that a model is asked about: an array of pictures of one size, or a pool whose pictures are decoded when they are read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

Picture = UInt8[np.ndarray, "height width 3"]


class PicturePool(ABC):
    """Pictures of any sizes by number, none of them in memory."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def take(self, numbers: Sequence[int]) -> PicturePool:
        """The pool of these pictures, numbered from 0 in this order."""

    @abstractmethod
    def by_file(self, numbers: Iterable[int]) -> list[tuple[int, ...]]:
        """The numbers grouped by the files that hold the pictures, in the order in which they are best read."""

    @abstractmethod
    def read(self, numbers: Sequence[int]) -> list[Picture]:
        """The pictures of one file, which is decoded once. Threads call it. Raises `BadInput` if the file changed."""

    @abstractmethod
    def num_pixels(self, numbers: Sequence[int]) -> int:
        """The number of pixels of the file of these pictures, which decoding it holds in memory."""

    @abstractmethod
    def given_size(self, number: int) -> tuple[int, int]:
        """(width, height) at which a picture is given to a model's image processor or an endpoint."""

    @abstractmethod
    def note(self, number: int, pixels: int, tokens: int, tiles: int) -> None:
        """Notes what a model made of a picture: pixels and tiles that its encoder is given, vision tokens that it becomes."""

    @abstractmethod
    def identity(self) -> str:
        """SHA-256, in hex, of all that decides the pixels of the pictures in order."""

    @abstractmethod
    def detached(self) -> PicturePool:
        """The pool as it is sent to another process: without what was noted, and no larger than its own pictures need."""

    @abstractmethod
    def facts(self) -> list[dict[str, Any] | None]:
        """What became of each picture, as JSON; None for one that was not read."""

    @abstractmethod
    def restore(self, facts: Sequence[Mapping[str, Any] | None]) -> None:
        """Notes the `facts` of another process, or an earlier one, about the same pictures."""

    def __getitem__(self, at: Any) -> Any:
        """One picture (an array) by its number, or the pool of some numbers."""
        if isinstance(at, int | np.integer):
            return self.read((int(at),))[0]
        numbers = np.arange(len(self))[at]
        return self.take([int(number) for number in numbers])


Pictures = UInt8[np.ndarray, "picture height width 3"] | PicturePool
