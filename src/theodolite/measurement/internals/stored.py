"""Results of finished measures on disk, so that an interrupted survey computes none of them twice."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from theodolite.records.folder import write_whole
from theodolite.records.inside import Inside

Shown = dict[str, np.ndarray]


@dataclass(frozen=True)
class StoredMeasures:
    """A JSON file for each finished measure, and beside it the pictures that it shows, by name.

    `identity` is a hash of all that decides the results: model, answered rows, options.
    """

    folder: Path
    identity: str

    def read(self, measures: Sequence[str]) -> dict[str, tuple[Any, Shown]]:
        """Result and pictures of the measures that are there. One whose files cannot be read, or hold a number that JSON cannot, is not."""
        results = {}
        for name in measures:
            path = self._path(name)
            try:
                result = _adapter(name).validate_json(path.read_bytes())
                # From bytes: numpy leaves a file open that it cannot read.
                with np.load(io.BytesIO(path.with_suffix(".npz").read_bytes()), allow_pickle=False) as file:
                    results[name] = (result, {picture: file[picture] for picture in file.files})
            except (OSError, EOFError, ValueError, zipfile.BadZipFile, ValidationError):
                continue
        return results

    def write(self, name: str, result: Any, shown: Mapping[str, np.ndarray]) -> None:
        """Stores a finished measure: each file is complete or not there. Raises `BadInput` if they cannot be written."""
        pictures = io.BytesIO()
        np.savez_compressed(pictures, allow_pickle=False, **shown)
        write_whole(self._path(name).with_suffix(".npz"), pictures.getvalue())
        write_whole(self._path(name), _adapter(name).dump_json(result))

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}-{self.identity[:32]}.json"


def _adapter(name: str) -> Any:
    kind: Any = Inside.model_fields[name].annotation
    return TypeAdapter(kind)
