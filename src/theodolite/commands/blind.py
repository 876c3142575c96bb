"""Blind pairs of a picture folder: embedding, search, and a manifest to be labelled."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from theodolite.blind_pairs.embeddings import Embedder, embed
from theodolite.blind_pairs.pictures import FolderPictures, PictureFile, find_pictures, open_stored_picture, reader
from theodolite.blind_pairs.search import BlindPairs, EncoderVectors, blind_pairs, nearest_pairs, neighbour_cosines, sample_cosines
from theodolite.blind_pairs.vector_store import VectorStore
from theodolite.commands.contact_sheet import contact_sheet
from theodolite.commands.progress import Steps
from theodolite.models.device import DType, Placement
from theodolite.records.blind import BlindPair, BlindRecord, CosineQuantile, EncoderFacts
from theodolite.records.errors import BadInput
from theodolite.records.folder import cache_folder, refuse_taken, sole_writer, whole_folder
from theodolite.worlds.manifest.read import write_manifest

NUM_SAMPLES = 100_000  # random pairs, for the distribution of cosines
NUM_NEIGHBOURS = 1_000
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999, 1.0)
NEIGHBOUR_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
NUM_NEAREST = 5
NUM_ON_SHEET = 20
NUM_SHOWN = 10
SHEET = "sheet.png"


@dataclass(frozen=True)
class BlindSearch:
    """Search criteria: at most `most` pairs with a cosine of at least `high` in one encoder and at most `low` in the other."""

    high: float = 0.95
    low: float = 0.6
    most: int = 300
    per_picture: int | None = 3


def mine_blind_pairs(
    pictures: Path,
    same: str,
    different: str,
    out: Path,
    search: BlindSearch,
    *,
    device: str | None,
    dtype: DType | None,
    batch: int,
    vectors: Path | None,
    overwrite: bool,
    steps: Steps,
) -> BlindRecord:
    """Writes `manifest.jsonl` with its pictures, `sheet.png` and `blind.json`; where no pair qualifies, the last two only.

    Vectors are stored in `vectors` (default: theodolite's cache folder), so that a further search of the same pictures embeds none.
    Raises `FolderTaken`, and `BadInput` for unusable pictures and models, and if another process writes `out`. `device` and `dtype` None:
    as `models.device.Placement` chooses.
    """
    refuse_taken(out, overwrite=overwrite)
    if out.resolve().is_relative_to(pictures.resolve()):
        raise BadInput(f"{out} lies within {pictures}, so the next search would include its output; give a folder outside")
    with sole_writer(out):
        with steps.step("find") as progress:
            folder_pictures = find_pictures(pictures, progress)
        placement = Placement.of(device, dtype)
        steps.console.print(f"on {placement}")
        store = cache_folder() / "vectors" if vectors is None else vectors
        one_store, one_facts = _embed_folder(folder_pictures, same, store, placement, batch, steps)
        other_store, other_facts = _embed_folder(folder_pictures, different, store, placement, batch, steps)
        if one_store.path == other_store.path:
            raise BadInput(f"{same} and {different} are the same encoder; give two different ones")
        one, other = (_vectors(each, folder_pictures.files) for each in (one_store, other_store))
        record = _compare(folder_pictures, (one, one_facts), (other, other_facts), search, steps)
        with whole_folder(out, overwrite=overwrite) as folder:
            _write(folder, record, folder_pictures)
        return record


Encoder = tuple[EncoderVectors, EncoderFacts]


def _compare(pictures: FolderPictures, one: Encoder, other: Encoder, search: BlindSearch, steps: Steps) -> BlindRecord:
    vectors = one[0], other[0]
    limits = {"high": search.high, "low": search.low}
    with steps.step("compare") as progress:
        result = blind_pairs(*vectors, **limits, most=search.most, per_picture=search.per_picture, progress=progress)
    nearest: tuple[BlindPair, ...] = ()
    if not len(result):
        with steps.step("find nearest") as progress:
            nearest = _named(nearest_pairs(*vectors, **limits, most=NUM_NEAREST, progress=progress), pictures.files)
    return BlindRecord(
        same=one[1],
        other=other[1],
        **limits,
        most=search.most,
        per_picture=search.per_picture,
        num_pictures=len(pictures.files),
        num_copies=len(pictures.copies),
        left_out={kind: tuple(names) for kind, names in sorted(pictures.left_out.items())},
        num_zero=result.num_zero,
        num_compared=result.num_compared,
        num_same=result.num_same,
        num_qualifying=result.num_qualifying,
        random_pairs=_quantiles(*sample_cosines(*vectors, NUM_SAMPLES), QUANTILES),
        nearest_neighbours=_quantiles(*neighbour_cosines(*vectors, NUM_NEIGHBOURS), NEIGHBOUR_QUANTILES),
        pairs=_named(result, pictures.files),
        nearest=nearest,
    )


def _embed_folder(
    pictures: FolderPictures, name: str, store: Path, placement: Placement, batch: int, steps: Steps
) -> tuple[VectorStore, EncoderFacts]:
    """Store with the vectors of all readable pictures; the others are removed from `pictures.files`."""
    embedder = Embedder(name, placement.device, placement.dtype)
    facts = EncoderFacts(
        name=name,
        model_type=embedder.model_type,
        weights_sha256=embedder.weights_sha256,
        pooling=embedder.pooling,
        dim=embedder.dim,
        dtype=placement.dtype,
    )
    vectors = VectorStore(store / embedder.identity[:32], embedder.dim)
    # Rows are only appended, so other processes may use the store once these vectors are in it.
    with closing(vectors), steps.step(f"embed by {Path(name).name if Path(name).exists() else name}") as progress:
        unreadable = set(embed(embedder, vectors, {file.sha256: reader(pictures, file) for file in pictures.files}, batch, progress))
    pictures.files = [file for file in pictures.files if file.sha256 not in unreadable]
    if len(pictures.files) < 2:
        kinds = ", ".join(f"{kind} {len(names)}" for kind, names in pictures.left_out.items())
        raise BadInput(f"{len(pictures.files)} of the pictures can be used ({kinds or 'the others are copies'}); a pair needs two")
    return vectors, facts


def _vectors(store: VectorStore, files: Sequence[PictureFile]) -> EncoderVectors:
    return EncoderVectors(store.vectors(), store.rows([file.sha256 for file in files]), lambda index: files[index].name)


def _quantiles(same: np.ndarray, other: np.ndarray, fracs: Sequence[float]) -> tuple[CosineQuantile, ...]:
    if not len(same):
        return ()
    columns = [np.quantile(cosines, fracs).round(4).tolist() for cosines in (same, other)]
    return tuple(CosineQuantile(frac=frac, same_cos=a, other_cos=b) for frac, a, b in zip(fracs, *columns, strict=True))


def _named(pairs: BlindPairs, files: Sequence[PictureFile]) -> tuple[BlindPair, ...]:
    columns = (column.tolist() for column in (pairs.first, pairs.second, pairs.same_cos, pairs.other_cos))
    return tuple(
        BlindPair(scene=f"blind-{number:04d}", first=files[one].name, second=files[two].name, same_cos=same_cos, other_cos=other_cos)
        for number, (one, two, same_cos, other_cos) in enumerate(zip(*columns, strict=True), start=1)
    )


def _write(folder: Path, record: BlindRecord, pictures: FolderPictures) -> None:
    paths = {file.name: file.path for file in pictures.files}
    if record.pairs:
        (folder / "pictures").mkdir()
        names = sorted({name for pair in record.pairs for name in (pair.first, pair.second)})
        copies = {name: f"pictures/{number:05d}{paths[name].suffix.lower()}" for number, name in enumerate(names, start=1)}
        for name, copy in copies.items():
            shutil.copyfile(paths[name], folder / copy)
        write_manifest(folder / "manifest.jsonl", [_blank_row(pair, copies) for pair in record.pairs])
    shown = (record.pairs or record.nearest)[:NUM_ON_SHEET]
    if shown:
        entries = [(open_stored_picture(paths[pair.first]), open_stored_picture(paths[pair.second]), _caption(pair)) for pair in shown]
        contact_sheet(entries).save(folder / SHEET)
    (folder / "blind.json").write_text(record.to_json())


def _blank_row(pair: BlindPair, copies: dict[str, str]) -> dict[str, Any]:
    """A manifest row to be filled in, a fault until then; keys that begin with an underscore are ignored by readers."""
    return {
        "id": pair.scene,
        "scene": pair.scene,
        "kind": "matched",
        "factor": "",
        "from": "",
        "to": "",
        "picture": copies[pair.first],
        "edited": copies[pair.second],
        "question": "",
        "choices": [],
        "answer_before": "",
        "answer_after": "",
        "_same_cos": pair.same_cos,
        "_other_cos": pair.other_cos,
        "_first": pair.first,
        "_second": pair.second,
    }


def _caption(pair: BlindPair) -> str:
    return f"{pair.scene}   same {pair.same_cos:.3f}   other {pair.other_cos:.3f}"


def blind_tables(record: BlindRecord) -> list[Table]:
    """Tables of cosine quantiles and of the first pairs."""
    neighbours_title = f"Cosines to the picture nearest in {record.same.name}"
    tables = [
        _quantile_table("Cosines of random pairs", record.random_pairs, record),
        _quantile_table(neighbours_title, record.nearest_neighbours, record),
    ]
    shown = (record.pairs or record.nearest)[:NUM_SHOWN]
    if shown:
        title = f"The first {len(shown)} of {len(record.pairs):,} pairs" if record.pairs else "The pairs nearest to the thresholds"
        table = Table("pair", "first", "second", title=title)
        for name in ("same", "other"):
            table.add_column(name, justify="right")
        for pair in shown:
            table.add_row(pair.scene, pair.first, pair.second, f"{pair.same_cos:.4f}", f"{pair.other_cos:.4f}")
        tables.append(table)
    return tables


def blind_lines(record: BlindRecord) -> list[str]:
    """Lines of text: encoders, counts of pairs, and files left out."""
    lines = [
        f"same: {_encoder_line(record.same)}",
        f"different: {_encoder_line(record.other)}",
        f"{record.num_pictures:,} pictures, {record.num_compared:,} pairs: {record.num_same:,} at {record.high:g} or more in the first, "
        f"{record.num_qualifying:,} of these at {record.low:g} or less in the second",
    ]
    if record.num_copies:
        lines.append(f"{record.num_copies:,} files are copies of others and were left out")
    for kind, names in record.left_out.items():
        lines.append(f"left out, {kind}: {len(names):,} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})")
    if record.num_zero:
        lines.append(f"{record.num_zero:,} pictures have a zero vector, so no cosine, and are in no pair")
    if not record.pairs:
        lines.append("no pair qualifies; the tables show which thresholds give pairs, and the next search reuses the vectors")
    elif len(record.pairs) < record.num_qualifying:
        each = "" if record.per_picture is None else f", each picture at most {record.per_picture} times (--per-picture)"
        lines.append(f"{len(record.pairs):,} pairs are written, those with the largest difference{each}")
    return lines


def _encoder_line(facts: EncoderFacts) -> str:
    return f"{facts.name} ({facts.model_type}, {facts.pooling}, {facts.dim} numbers, {facts.dtype})"


def _quantile_table(title: str, rows: Sequence[CosineQuantile], record: BlindRecord) -> Table:
    table = Table(title=title)
    for name in ("share at most", f"same ({record.same.model_type})", f"other ({record.other.model_type})"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(f"{row.frac:.1%}", f"{row.same_cos:.4f}", f"{row.other_cos:.4f}")
    return table
