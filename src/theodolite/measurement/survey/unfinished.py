"""What an interrupted survey leaves beside its output folder, so that the same command goes on from there."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from theodolite.asking.local import LocalAsker
from theodolite.asking.parts import StoredAnswers
from theodolite.measurement.internals.stored import StoredMeasures
from theodolite.records.errors import BadInput
from theodolite.records.survey import ModelConfig

# Another version of these may give other numbers.
PACKAGES = ("theodolite", "torch", "transformers")


@dataclass(frozen=True)
class Unfinished:
    """A folder with the answers and measures of an unfinished survey. Each is found by a hash of all that decides it."""

    folder: Path

    def answers(self, model: str) -> StoredAnswers:
        """The stored answers of a model; `model` is its `identity_of`."""
        return StoredAnswers(self.folder / "answers", model)

    def measures(self, model: str, *decisive: Any) -> StoredMeasures:
        """The stored measures of a model; `decisive` is what else decides them, as JSON."""
        digest = hashlib.sha256(json.dumps([model, *decisive]).encode())
        return StoredMeasures(self.folder / "inside", digest.hexdigest())

    @property
    def is_begun(self) -> bool:
        """Whether something is stored."""
        return any(self.folder.glob("*/*"))


@contextmanager
def unfinished_beside(out: Path) -> Iterator[Unfinished]:
    """The unfinished survey of an output folder, removed when the block ends without an error, or with one before anything is stored.

    Raises `BadInput` if it is in use.
    """
    folder = out.resolve().parent / f".{out.name}.unfinished"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"{folder} cannot be written ({error.strerror or error}); give a path that can be written") from error
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        with lock:
            unfinished, is_done = Unfinished(folder), False
            try:
                yield unfinished
                is_done = True
            finally:
                if is_done or not unfinished.is_begun:
                    shutil.rmtree(folder, ignore_errors=True)
    except Timeout:
        raise BadInput(f"another process is writing a survey to {out}; wait for it, or give another --out") from None


def identity_of(asker: LocalAsker, description: ModelConfig, batch: int | None) -> str:
    """SHA-256, in hex, of all of a model that decides its answers: weights, settings, processor, prompt, precision, batches, versions."""
    config = {name: value for name, value in asker.base.config.to_dict().items() if name != "_name_or_path"}
    processor = asker.processor.image_processor.to_dict()
    versions = [importlib.metadata.version(name) for name in PACKAGES]
    parts = [description.model_dump(mode="json"), config, processor, asker.base.device.type, batch, versions]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
