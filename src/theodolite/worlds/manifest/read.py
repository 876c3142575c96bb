"""Manifests: JSONL or Parquet files of users' picture pairs. Each row is one question about one pair."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from theodolite.records.errors import BadInput
from theodolite.worlds.decoding import strict_pillow
from theodolite.worlds.factors import Factor
from theodolite.worlds.gallery import NAMES, TABLE, Gallery, PictureFiles
from theodolite.worlds.manifest.faults import Fault, RowFault, fault_lines, left_out
from theodolite.worlds.manifest.images import InspectedPicture, inspect, open_file, render_manifest
from theodolite.worlds.manifest.rows import KEYS, ManifestRow, identity, read_records, read_row
from theodolite.worlds.world import PairKind

__all__ = ["KEYS", "BadManifest", "Fault", "Manifest", "fault_lines", "read_manifest", "write_manifest"]

FILE = "manifest.jsonl"
MAX_LINES = 5
NUM_THREADS = 4  # that check pictures; each decodes one of at most 64 million pixels


class BadManifest(BadInput):
    """A manifest without a usable row."""


@dataclass(frozen=True, eq=False)
class Manifest:
    """The usable rows of a manifest as a gallery, and the faults of all other rows, in row order."""

    path: Path
    gallery: Gallery
    faults: tuple[Fault, ...]


def read_manifest(path: Path) -> Manifest:
    """Reads a manifest and checks all its rows and pictures (keys: `KEYS`; kinds of fault: `manifest.faults.KINDS`).

    Rows are checked independently, except that ids must be unique; faulty rows are left out. The gallery's kind is *exact* only if
    every used row is. Scenes keep their numbers if all are whole numbers, and are otherwise numbered in order. Raises `BadManifest`
    if the file is missing, unreadable or empty, or every row is faulty.
    """
    if not path.is_file():
        raise BadManifest(f"{path} is not there or is not a file; give a manifest, a .jsonl or .parquet file (docs/reference/manifest.md)")
    if path.stat().st_size == 0:
        raise BadManifest(f"{path} is empty; write one row per line (docs/reference/manifest.md)")
    rows, faults, pictures = _checked_rows(path)
    if not rows:
        if not faults:
            raise BadManifest(f"{path} holds no rows; write one row per line (docs/reference/manifest.md)")
        first = "\n".join(fault_lines(faults, MAX_LINES))
        raise BadManifest(f"none of the {len(faults):,} rows of {path} can be used:\n{first}")
    kind: PairKind = "exact" if all(row.kind == "exact" for row in rows) else "matched"
    name = path.resolve().parent.name if path.name == FILE else path.stem
    gallery = Gallery(
        name,
        kind,
        _table(rows),
        partial(render_manifest, path.parent),
        _factors(rows),
        left_out=left_out(faults),
        dependence=_dependence(rows),
        files=PictureFiles(
            partial(open_file, path.parent.resolve()),
            {name: (picture.width, picture.height) for name, picture in pictures.items()},
            {name: picture.sha256 for name, picture in pictures.items()},
        ),
        folder=path.parent.resolve(),
    )
    return Manifest(path, gallery, tuple(faults))


def write_manifest(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Writes rows (keys: `KEYS`; None is left out) as JSON lines, unchecked; returns their number."""
    number = 0
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps({key: value for key, value in row.items() if value is not None}, ensure_ascii=False) + "\n")
            number += 1
    return number


def _checked_rows(path: Path) -> tuple[list[ManifestRow], list[Fault], dict[str, InspectedPicture]]:
    """The usable rows, the faults of the others, and the usable pictures by name."""
    parsed = [(number, record, _parsed(number, record)) for number, record in read_records(path)]
    first: dict[str, int] = {}
    for at, (number, record, row) in enumerate(parsed):
        if isinstance(row, RowFault) or isinstance(record, RowFault) or record.get("id") is None:
            continue
        if first.setdefault(row.id, number) != number:
            repeated = RowFault("repeated id", f"row {first[row.id]} has the same id", "give every row a different id, or none")
            parsed[at] = (number, record, repeated)
    pictures = _inspected(path.parent, [row for _, _, row in parsed if isinstance(row, ManifestRow)])
    rows: list[ManifestRow] = []
    faults: list[Fault] = []
    for number, record, row in parsed:
        try:
            if isinstance(row, RowFault):
                raise row
            _check_pictures(row, pictures)
            rows.append(row)
        except RowFault as fault:
            faults.append(fault.of(path, number, identity(record, number)))
    return rows, faults, {name: picture for name, picture in pictures.items() if isinstance(picture, InspectedPicture)}


def _parsed(number: int, record: Any) -> ManifestRow | RowFault:
    if isinstance(record, RowFault):
        return record
    try:
        return read_row(record, number)
    except RowFault as fault:
        return _without_frames(fault)


def _inspected(folder: Path, rows: Sequence[ManifestRow]) -> dict[str, InspectedPicture | RowFault]:
    """The check of every picture of the rows, once each, several at a time."""
    names = dict.fromkeys(name for row in rows for name in (row.picture, row.edited))

    def check(name: str) -> InspectedPicture | RowFault:
        try:
            return inspect(folder, name)
        except RowFault as fault:
            return _without_frames(fault)

    with strict_pillow(), ThreadPoolExecutor(NUM_THREADS) as threads:
        return dict(zip(names, threads.map(check, names), strict=True))


def _without_frames(fault: RowFault) -> RowFault:
    """A fault without its traceback, which keeps frames alive."""
    return RowFault(fault.kind, fault.problem, fault.fix)


def _check_pictures(row: ManifestRow, pictures: Mapping[str, InspectedPicture | RowFault]) -> None:
    """Raises `RowFault`."""
    before, after = pictures[row.picture], pictures[row.edited]
    if isinstance(before, RowFault):
        raise before
    if isinstance(after, RowFault):
        raise after
    if row.picture != row.edited and before.sha256 == after.sha256:
        problem = f"{row.picture} and {row.edited} have the same bytes, but {row.factor or 'something'} changes"
        raise RowFault("identical pictures", problem, "give the edited picture")
    if row.kind == "exact" and (before.width, before.height) != (after.width, after.height):
        sizes = f"{row.picture} has {before.width} x {before.height} pixels, {row.edited} {after.width} x {after.height}"
        fix = "an edit keeps the size: save both at one size, or set kind to matched if they are two separate pictures"
        raise RowFault("different sizes", sizes, fix)


def _table(rows: Sequence[ManifestRow]) -> pl.DataFrame:
    scenes = _scene_numbers(rows)
    columns = {
        "scene": [scenes[row.scene] for row in rows],
        "factor": [row.factor for row in rows],
        "value_before": [row.value_before for row in rows],
        "value_after": [row.value_after for row in rows],
        "query": [row.query for row in rows],
        "form": [row.form for row in rows],
        "name": [row.name for row in rows],
        "question_before": [row.question for row in rows],
        "question_after": [row.question_after for row in rows],
        "choices": [list(row.choices) for row in rows],
        "truth_before": [row.answer_before for row in rows],
        "truth_after": [row.answer_after for row in rows],
        "picture_before": [row.picture for row in rows],
        "picture_after": [row.edited for row in rows],
        "scene_name": [str(row.scene) for row in rows],
        "row": [row.id for row in rows],
    }
    return pl.DataFrame(columns, schema={**TABLE, **NAMES})


def _scene_numbers(rows: Sequence[ManifestRow]) -> dict[int | str, int]:
    scenes = list(dict.fromkeys(row.scene for row in rows))
    numbers: dict[int | str, int] = {scene: scene for scene in scenes if isinstance(scene, int) and abs(scene) < 2**63}
    if len(numbers) == len(scenes):
        return numbers
    by_text = {text: number for number, text in enumerate(dict.fromkeys(str(scene) for scene in scenes))}  # 7 and "7" are one scene
    return {scene: by_text[str(scene)] for scene in scenes}


def _dependence(rows: Sequence[ManifestRow]) -> dict[str, frozenset[str]]:
    """The declared factors of each query by its name; rows of one query add up."""
    declared: dict[str, frozenset[str]] = {}
    for row in rows:
        if row.depends_on is not None:
            declared[row.name] = declared.get(row.name, frozenset()) | row.depends_on
    return declared


def _factors(rows: Sequence[ManifestRow]) -> tuple[Factor, ...]:
    values: dict[str, dict[str, None]] = {}
    for row in rows:
        if row.factor:
            values.setdefault(row.factor, {}).update({str(row.value_before): None, str(row.value_after): None})
    return tuple(Factor(name, tuple(levels)) for name, levels in values.items())
