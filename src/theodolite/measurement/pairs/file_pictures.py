"""The pictures of a gallery's files as a pool: decoded when they are read, at their own size, and what became of each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field
from typing import Any

import numpy as np
import polars as pl
from PIL import Image

from theodolite.asking.pictures import Picture, PicturePool
from theodolite.measurement.pairs.perturb import CHANGES
from theodolite.records.pictures import COLUMNS, NumberRange, PicturesRecord
from theodolite.worlds.decoding import strict_pillow
from theodolite.worlds.gallery import PictureFiles
from theodolite.worlds.limits import PixelLimits
from theodolite.worlds.manifest.images import square


@dataclass(frozen=True)
class PoolEntry:
    """One picture of a pool: its name in the gallery, and the number of its change (`perturb.CHANGES`), None as it is."""

    name: str
    change: int | None = None


@dataclass
class PictureUse:
    """What became of a picture; None where it is not known, such as tokens behind an endpoint."""

    given_width: int
    given_height: int
    notes: tuple[str, ...]
    pixels: int | None = None
    tokens: int | None = None
    tiles: int | None = None


@dataclass(frozen=True, eq=False)
class FilePictures(PicturePool):
    """Pictures in a gallery's files. With a `limits.side` they become squares of that side, the rest grey.

    `scales` tells whether the limits of pixels are applied here; else the model's own image processor has them. `uses` is filled while
    pictures are read.
    """

    files: PictureFiles
    entries: tuple[PoolEntry, ...]
    limits: PixelLimits = field(default_factory=PixelLimits)
    scales: bool = True
    uses: dict[PoolEntry, PictureUse] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.entries)

    def take(self, numbers: Sequence[int]) -> FilePictures:
        return FilePictures(self.files, tuple(self.entries[number] for number in numbers), self.limits, self.scales, self.uses)

    def by_file(self, numbers: Iterable[int]) -> list[tuple[int, ...]]:
        by_name: dict[str, list[int]] = {}
        for number in numbers:
            by_name.setdefault(self.entries[number].name, []).append(number)
        return [tuple(own) for own in by_name.values()]

    def num_pixels(self, numbers: Sequence[int]) -> int:
        width, height = self.files.sizes[self.entries[numbers[0]].name]
        return width * height * len(numbers)

    def given_size(self, number: int) -> tuple[int, int]:
        size = self.files.sizes[self.entries[number].name]
        if self.limits.side is not None:
            return self.limits.side, self.limits.side
        return self.limits.size_within(*size) if self.scales else size

    def read(self, numbers: Sequence[int]) -> list[Picture]:
        with strict_pillow():
            base, notes = self._decoded(self.entries[numbers[0]].name)
        pictures = []
        for number in numbers:
            entry = self.entries[number]
            picture = base if entry.change is None else CHANGES[entry.change](base)
            self.uses.setdefault(entry, PictureUse(picture.shape[1], picture.shape[0], notes))
            pictures.append(picture)
        return pictures

    def _decoded(self, name: str) -> tuple[Picture, tuple[str, ...]]:
        limits, (width, height) = self.limits, self.files.sizes[name]
        if limits.side is not None:
            decoded = self.files.open(name, (limits.side, limits.side))
            return square(decoded.image, limits.side), decoded.facts.notes
        if not (self.scales and limits.ranged):
            decoded = self.files.open(name, None)
            return np.asarray(decoded.image), decoded.facts.notes
        decoded = self.files.open(name, limits.size_within(width, height))
        return np.asarray(limits.scaled(decoded.image, width, height)), decoded.facts.notes

    def note(self, number: int, pixels: int, tokens: int, tiles: int) -> None:
        use = self.uses[self.entries[number]]
        use.pixels, use.tokens, use.tiles = pixels, tokens, tiles

    def identity(self) -> str:
        entries = [(self.files.sha256[entry.name], entry.change) for entry in self.entries]
        limits = (*astuple(self.limits), self.scales)
        return hashlib.sha256(json.dumps([entries, limits]).encode()).hexdigest()

    def detached(self) -> FilePictures:
        names = {entry.name for entry in self.entries}
        files = self.files
        own = PictureFiles(files.open, {name: files.sizes[name] for name in names}, {name: files.sha256[name] for name in names})
        return FilePictures(own, self.entries, self.limits, self.scales)

    def facts(self) -> list[dict[str, Any] | None]:
        return [asdict(self.uses[entry]) if entry in self.uses else None for entry in self.entries]

    def restore(self, facts: Sequence[Mapping[str, Any] | None]) -> None:
        for entry, use in zip(self.entries, facts, strict=True):
            if use is not None:
                self.uses[entry] = PictureUse(**{**use, "notes": tuple(use["notes"])})

    def thumbnail(self, number: int, most_pixels: int) -> Picture:
        """A picture to show, of at most so many pixels."""
        (picture,) = self.read((number,))
        limits = PixelLimits(max_pixels=most_pixels)
        return np.asarray(limits.scaled(Image.fromarray(picture), picture.shape[1], picture.shape[0]))

    def sha256(self) -> str:
        """SHA-256, in hex, over the bytes of the pictures' files in order."""
        return hashlib.sha256("".join(self.files.sha256[entry.name] for entry in self.entries).encode()).hexdigest()

    def table(self) -> pl.DataFrame:
        """One row for each picture that was read (columns: `records.pictures.COLUMNS`)."""
        rows = []
        for number, entry in enumerate(self.entries):
            if (use := self.uses.get(entry)) is not None:
                change = None if entry.change is None else CHANGES[entry.change].__name__
                given = (use.given_width, use.given_height, use.pixels, use.tokens, use.tiles, list(use.notes))
                rows.append((number, entry.name, change, *self.files.sizes[entry.name], *given))
        return pl.DataFrame(rows, schema=dict(COLUMNS), orient="row")

    def record(self) -> PicturesRecord:
        """The summary of `table`."""
        table = self.table()
        notes = table.select(pl.col("notes").explode()).drop_nulls()["notes"].value_counts(sort=True)
        return PicturesRecord(
            num_pictures=len(table),
            min_pixels=self.limits.min_pixels,
            max_pixels=self.limits.max_pixels,
            picture_size=self.limits.side,
            given=NumberRange.of((table["given_width"] * table["given_height"]).to_list()),
            pixels=NumberRange.of(table["pixels"].drop_nulls().to_list()),
            tokens=NumberRange.of(table["tokens"].drop_nulls().to_list()),
            tiles=NumberRange.of(table["tiles"].drop_nulls().to_list()),
            notes={note: int(count) for note, count in sorted(notes.iter_rows())},
        )
