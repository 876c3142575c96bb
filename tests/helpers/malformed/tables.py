"""Targets: manifests, annotated data and policies."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st
from PIL import Image

from helpers.malformed.byte_cases import damaged
from helpers.malformed.guard import CANARY
from helpers.malformed.json_cases import PATHS, json_lines, repeated_key
from helpers.malformed.target import Prepare, Ready
from theodolite.questions.annotated import read_table
from theodolite.questions.coverage import measure_coverage
from theodolite.questions.matched_pairs import measure_data_coverage
from theodolite.worlds.manifest.faults import fault_lines
from theodolite.worlds.manifest.read import read_manifest
from theodolite.worlds.registry import world_named

ROW: Mapping[str, Any] = {
    "scene": 1, "factor": "colour", "from": "red", "to": "blue", "picture": "a.png", "edited": "b.png", "question": "What colour is it?",
    "choices": ["red", "blue", "green"], "answer_before": "red", "answer_after": "blue",
}  # fmt: skip
FULL = {
    **ROW,
    "id": "x",
    "query": "colour",
    "form": "open",
    "name": "colour",
    "depends_on": ["colour"],
    "kind": "matched",
    "_note": {"a": [1]},
}
REWORDED = {**{key: value for key, value in ROW.items() if key not in ("from", "to", "edited")}, "factor": "", "answer_after": "red"}
ROWS: list[dict[str, Any]] = [dict(ROW), FULL, {**REWORDED, "question_after": "Which colour?"}, {**ROW, "scene": "2", "id": 7}]
ANNOTATED: list[dict[str, Any]] = [
    {"example": at // 2, "query": ("shape", "colour")[at % 2], "answer": (shape, colour)[at % 2], "shape": shape, "colour": colour}
    for at in range(24)
    for shape, colour in [(("round", "square")[at // 2 % 2], ("red", "blue", "green")[at // 2 % 3])]
]
# Values of one column of other types, as many as there are rows.
COLUMNS: Sequence[Any] = (
    pa.scalar(1), pa.scalar(2**63 - 1), pa.scalar(1.5), pa.scalar(float("nan")), pa.scalar(True), pa.scalar(b"\xff\0"), pa.scalar("a\0b"),
    pa.scalar(date(1, 1, 1)), pa.scalar(timedelta(days=1)), pa.scalar(Decimal("1.10")), pa.scalar(["a", "b"]), pa.scalar([["a"], None]),
    pa.scalar([1, 2]), pa.scalar({"a": 1}), pa.scalar([{"a": None}]), pa.scalar(None), pa.scalar("x" * 70_000), pa.scalar(""),
    pa.scalar(None, pa.string()), pa.scalar(None, pa.list_(pa.string())), pa.scalar(1, pa.uint8()), pa.scalar(2**64 - 1, pa.uint64()),
    pa.scalar(1, pa.timestamp("ns")), pa.scalar(1, pa.time64("ns")), pa.scalar([], pa.list_(pa.null())), pa.scalar(b"abcd", pa.binary(4)),
    pa.scalar([("a", 1)], pa.map_(pa.string(), pa.int64())), *map(pa.scalar, PATHS),
)  # fmt: skip


def parquet(table: pa.Table, compression: str = "zstd") -> bytes:
    target = io.BytesIO()
    pq.write_table(table, target, compression=compression)
    return target.getvalue()


@st.composite
def retyped(draw: st.DrawFn, table: pa.Table) -> bytes:
    """The table with one to three columns of another type, gone, renamed, repeated or mixed; or with no row, or thousands."""
    for _ in range(draw(st.integers(1, 3))):
        if not table.num_columns:
            break
        at = draw(st.integers(0, table.num_columns - 1))
        name, how = table.column_names[at], draw(st.integers(0, 7))
        if how == 0:
            table = table.remove_column(at)
        elif how == 1:
            table = table.rename_columns(
                [draw(st.sampled_from(("", "id", "picture", "\0", name.upper()))) if n == name else n for n in table.column_names]
            )
        elif how == 2:
            table = table.slice(0, draw(st.sampled_from((0, 1))))
        elif how == 3:
            table = pa.concat_tables([table] * draw(st.sampled_from((2, 40))))
        elif how == 4:
            table = table.set_column(at, name, table.column(draw(st.integers(0, table.num_columns - 1))))
        else:
            value = draw(st.sampled_from(COLUMNS))
            table = table.set_column(at, name, pa.array([value.as_py()] * table.num_rows, type=value.type))
    return parquet(table, draw(st.sampled_from(("zstd", "none", "gzip"))))


def picture_folder(folder: Path) -> None:
    """Three pictures, a link to one outside, and a pipe."""
    for number, name in enumerate(("a.png", "b.png", "c.jpg")):
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (24, 32, 3), dtype=np.uint8)).save(folder / name)
    (folder.parent / CANARY).write_bytes((folder / "a.png").read_bytes())
    (folder / "link.png").symlink_to(folder.parent / CANARY)
    os.mkfifo(folder / "pipe")


def read_pairs(path: Path) -> None:
    """As `theodolite manifest check` does, and the first pictures as a survey renders them."""
    manifest = read_manifest(path)
    assert fault_lines(manifest.faults) is not None
    names = manifest.gallery.table["picture_before"].to_list()[:2]
    assert manifest.gallery.render(names, 8).shape == (len(names), 8, 8, 3)


def manifest_lines(folder: Path) -> Ready:
    picture_folder(folder)
    path = folder / "manifest.jsonl"

    def consume(payload: bytes) -> None:
        path.write_bytes(payload)
        read_pairs(path)

    whole = json_lines([ROWS, ROWS[:1], [FULL, *ROWS]], most=4)
    return Ready(st.one_of(whole, whole, whole, whole.map(repeated_key)), consume)


def manifest_parquet(folder: Path) -> Ready:
    picture_folder(folder)
    path = folder / "manifest.parquet"
    table = pa.Table.from_pylist([{**ROWS[1], "_note": "x", "id": str(at)} for at in range(3)])

    def consume(payload: bytes) -> None:
        path.write_bytes(payload)
        read_pairs(path)

    return Ready(st.one_of(retyped(table), retyped(table), damaged([parquet(table), parquet(table, "none")])), consume)


def annotated(folder: Path) -> Ready:
    path = folder / "data.parquet"
    table = pa.Table.from_pylist(ANNOTATED)

    def consume(payload: bytes) -> None:
        path.write_bytes(payload)
        measure_data_coverage(read_table(path), None, np.random.default_rng(0), 0.95)

    return Ready(st.one_of(retyped(table), damaged([parquet(table), parquet(table, "none")])), consume)


WORDS = (
    "shape", "colour", "row", "column", "size", "shape=round", "shape!=round", "shape&colour", "agree", "odd", "all", "round", "red",
    "yes", "no",
    ":", "*", ",", "&", "=", "!", " ", "0", "-1", "1e308", "1e-308", "nan", "inf", "2", "0.3333", "\0", "\ud800", "é", "1_0", "%", "(",
    "[", "shape:agree",
    "shape:odd*2", "shape:colour=red", "sheen", "x" * 3000, ":" * 3000, "shape," * 40,
)  # fmt: skip


def policy(folder: Path) -> Ready:
    worlds = [world_named("shapes", strength) for strength in (0.0, 0.9, 1.0)]

    def consume(payload: bytes) -> None:
        text = payload.decode(errors="surrogateescape")
        world = worlds[len(payload) % 3]
        parsed = world.policy(text)
        assert world.policy(str(parsed)) is not None
        measure_coverage(world.prior, parsed)
        rng = np.random.default_rng(0)
        parsed.draw(world.sample_asked(2, parsed, rng), world.prior, rng)

    lists = st.lists(st.sampled_from(WORDS), max_size=7).map("".join)
    likely = st.lists(
        st.sampled_from(("shape", "colour:agree", "row:odd&shape=round", "shape:odd*2", "size*0.5", "shape&colour")), min_size=1, max_size=4
    )
    mixed = st.tuples(likely.map(",".join), lists).map("".join)
    texts = st.one_of(lists, mixed, mixed, likely.map(",".join), st.text(max_size=20))
    return Ready(texts.map(lambda text: text.encode(errors="surrogatepass")), consume)


TARGETS: Mapping[str, Prepare] = {
    "manifest JSONL": manifest_lines, "manifest Parquet": manifest_parquet, "annotated Parquet": annotated, "policy": policy,
}  # fmt: skip
