"""Conversion of published pair benchmarks, in their authors' layouts on disk, into manifests."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from theodolite.records.errors import BadInput, UnknownName
from theodolite.records.folder import whole_folder
from theodolite.records.reading import has_lone_surrogate, printable
from theodolite.worlds.benchmarks.captions import read_coco_counterfactuals, read_whatsup
from theodolite.worlds.benchmarks.pairs import Content, Records, SkippedRecord
from theodolite.worlds.benchmarks.questions import read_mmvp, read_naturalbench
from theodolite.worlds.manifest.read import FILE, write_manifest

LAYOUTS: Mapping[str, Callable[[Path], Records]] = {
    "mmvp": read_mmvp,
    "naturalbench": read_naturalbench,
    "coco_counterfactuals": read_coco_counterfactuals,
    "whatsup": read_whatsup,
}
MAX_LINES = 20
MAX_MESSAGE = 500


@dataclass(frozen=True)
class ConvertedBenchmark:
    """A benchmark converted into a manifest: its path, its number of rows, and a message for each record that gave no row."""

    manifest: Path
    num_rows: int
    skipped: tuple[str, ...]

    def lines(self, most: int = MAX_LINES) -> tuple[str, ...]:
        """The first `most` messages about skipped records, and a line with the number of the others."""
        more = len(self.skipped) - most
        return (*self.skipped[:most], *([f"and {more:,} more"] if more > 0 else []))


def convert_benchmark(layout: str, source: Path, out: Path, *, overwrite: bool = False) -> ConvertedBenchmark:
    """Writes `out`/manifest.jsonl and copies of its pictures from the folder of a benchmark.

    A missing picture is reported by `read_manifest`, which checks all pictures. Raises `UnknownName`, `FolderTaken`, and `BadInput` if
    the folder has another layout or gives no row.
    """
    if layout not in LAYOUTS:
        raise UnknownName("layout", layout, tuple(LAYOUTS))
    skipped: list[str] = []
    with whole_folder(out, overwrite=overwrite) as folder:
        number = write_manifest(folder / FILE, _rows(LAYOUTS[layout](source), folder, skipped))
        if not number:
            raise BadInput("\n".join([f"{source} gave no pair in the layout {layout}", *skipped[:MAX_LINES]]))
    return ConvertedBenchmark(out / FILE, number, tuple(skipped))


def _rows(records: Records, folder: Path, skipped: list[str]) -> Iterator[Mapping[str, Any]]:
    for record in records:
        if isinstance(record, SkippedRecord):
            skipped.append(printable(record.why, MAX_MESSAGE))
            continue
        if has_lone_surrogate(record.row):
            skipped.append(f"row {printable(record.row['id'])}: a text has an unpaired surrogate")
            continue
        for name, content in record.pictures.items():
            _write(folder / name, content)
        yield record.row


def _write(target: Path, content: Content) -> None:
    try:
        if target.exists() or (isinstance(content, Path) and not content.is_file()):
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            target.write_bytes(content)
        else:
            shutil.copyfile(content, target)
    except OSError as error:
        # A name that no file can have is of a missing picture; anything else, such as a full disk, is not the picture's fault.
        if error.errno != errno.ENAMETOOLONG:
            raise BadInput(f"{printable(target, 300)} cannot be written ({error.strerror}); give a folder that can be written") from error
