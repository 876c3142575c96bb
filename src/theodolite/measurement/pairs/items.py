"""The questions of a plan of picture files, each about one picture, with the key by which other tools' answers come back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from theodolite.measurement.pairs.file_pictures import FilePictures, PoolEntry
from theodolite.measurement.pairs.perturb import CHANGES
from theodolite.measurement.pairs.plan import Plan

ID_DIGITS = 20


@dataclass(frozen=True)
class PairItem:
    """One question about one picture (a number in the plan's pool), with its choices and right answer. `id`: see `item_id`."""

    id: str
    picture: int
    question: str
    choices: tuple[str, ...]
    truth: str


def item_id(pictures: FilePictures, picture: int, question: str, choices: Sequence[str]) -> str:
    """The first 20 hex digits of the SHA-256 of the picture's bytes, its change, the question, and the choices in order."""
    entry = pictures.entries[picture]
    content = json.dumps([pictures.files.sha256[entry.name], change_of(entry), question, list(choices)], ensure_ascii=False)
    return hashlib.sha256(content.encode()).hexdigest()[:ID_DIGITS]


def change_of(entry: PoolEntry) -> str | None:
    """Name of what was done to a picture for the noise; None for nothing."""
    return None if entry.change is None else CHANGES[entry.change].__name__


def picture_name(entry: PoolEntry) -> str:
    """The picture's path in the manifest; of a changed one with the change, `mug.png#shifted`, so that it is not taken for the file."""
    return entry.name if entry.change is None else f"{entry.name}#{change_of(entry)}"


def items_of(plan: Plan) -> list[PairItem]:
    """All questions of a plan of files, each once, in the order of the rows, before first."""
    pictures = plan.pictures
    assert isinstance(pictures, FilePictures)
    items: dict[str, PairItem] = {}
    for row in plan.rows.iter_rows(named=True):
        for side in ("before", "after"):
            number, question, choices = row[f"picture_{side}"], row[f"question_{side}"], tuple(row["choices"])
            identity = item_id(pictures, number, question, choices)
            items.setdefault(identity, PairItem(identity, number, question, choices, row[f"truth_{side}"]))
    return list(items.values())
