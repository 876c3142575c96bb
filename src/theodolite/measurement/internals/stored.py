"""Results of finished measures on disk, so that an interrupted survey computes none of them twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from theodolite.records.folder import write_whole
from theodolite.records.inside import Inside


@dataclass(frozen=True)
class StoredMeasures:
    """A JSON file for each finished measure. `identity` is a hash of all that decides the results: model, answered rows, options."""

    folder: Path
    identity: str

    def read(self, measures: Sequence[str]) -> dict[str, Any]:
        """The results that are there, by measure. A file that cannot be read, or holds a number that JSON cannot, is left out."""
        results = {}
        for name in measures:
            try:
                results[name] = _adapter(name).validate_json(self._path(name).read_bytes())
            except (OSError, ValidationError):
                continue
        return results

    def write(self, name: str, result: Any) -> None:
        """Stores the result of a finished measure: the file is complete or not there. Raises `BadInput` if it cannot be written."""
        write_whole(self._path(name), _adapter(name).dump_json(result))

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}-{self.identity[:32]}.json"


def _adapter(name: str) -> TypeAdapter[Any]:
    return TypeAdapter(Inside.model_fields[name].annotation)
