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

from theodolite.asking.local import LocalAsker
from theodolite.asking.parts import StoredAnswers
from theodolite.measurement.internals.stored import StoredMeasures
from theodolite.records.errors import BadInput
from theodolite.records.folder import write_whole
from theodolite.records.machine_faults import machine_fault
from theodolite.records.survey import ModelConfig, SurveyRecord

# Holds the SHA-256 of the finished `survey.json`.
DONE = "done"
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

    def note_done(self, record: SurveyRecord) -> None:
        """Notes which record comes of this: the folder is of no use once that is in its place (`remove_if_done`)."""
        write_whole(self.folder / DONE, _digest(record.to_json().encode()))

    @property
    def is_begun(self) -> bool:
        """Whether something is stored."""
        return any(self.folder.glob("*/*"))


def remove_if_done(out: Path) -> None:
    """Removes what a kill behind the writing of the record in `out` has left beside it."""
    folder, record = _folder_beside(out), out / "survey.json"
    if record.is_file() and (folder / DONE).is_file() and (folder / DONE).read_text() == _digest(record.read_bytes()):
        shutil.rmtree(folder, ignore_errors=True)


def _folder_beside(out: Path) -> Path:
    return out.resolve().parent / f".{out.name}.unfinished"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@contextmanager
def unfinished_beside(out: Path) -> Iterator[Unfinished]:
    """The unfinished survey of an output folder, removed when the block ends without an error, or with one before anything is stored.

    The caller holds `sole_writer` of the output folder. Raises `BadInput` if it cannot be made, and for an error within the block that
    the machine causes.
    """
    folder = _folder_beside(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"{folder} cannot be written ({error.strerror or error}); give a path that can be written") from error
    unfinished, is_done = Unfinished(folder), False
    try:
        yield unfinished
        is_done = True
    except Exception as error:
        sentence = None if isinstance(error, BadInput) else machine_fault(error)
        if sentence is None:
            raise
        stored = (
            f"what is finished is kept in {folder}, and the same command goes on from there"
            if unfinished.is_begun
            else "nothing is finished yet; run the same command again"
        )
        raise BadInput(f"{sentence}; {stored}") from error
    finally:
        if is_done or not unfinished.is_begun:
            shutil.rmtree(folder, ignore_errors=True)


def identity_of(asker: LocalAsker, description: ModelConfig, batch: int | None) -> str:
    """SHA-256, in hex, of all of a model that decides its answers: weights, settings, processor, prompt, precision, batches, versions."""
    config = {name: value for name, value in asker.base.config.to_dict().items() if name != "_name_or_path"}
    processor = asker.processor.image_processor.to_dict()
    versions = [importlib.metadata.version(name) for name in PACKAGES]
    parts = [description.model_dump(mode="json"), config, processor, asker.base.device.type, batch, versions]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
