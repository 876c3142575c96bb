"""Manifests: anybody's rows, each judged alone; whatever is wrong is told by row with its mend, and the rest is planned."""

from __future__ import annotations

import json
import re
import resource
import struct
import zlib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image, ImageFile, PngImagePlugin

from helpers import REPOSITORY
from theodolite.commands.world import write_world
from theodolite.measurement.pairs.plan import plan_gallery, plan_world
from theodolite.records.errors import BadInput
from theodolite.records.rows import NAMED
from theodolite.worlds.manifest.faults import KINDS
from theodolite.worlds.manifest.read import KEYS, BadManifest, fault_lines, read_manifest, write_manifest
from theodolite.worlds.shapes.world import Shapes

Record = dict[str, Any]
SIDE = 32
NUM_ROWS = 200
DOCS = REPOSITORY / "docs" / "reference" / "manifest.md"


def written(path: Path) -> list[Record]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of 200 good rows about pictures of the shapes world."""
    folder = tmp_path_factory.mktemp("clean") / "w"
    write_world(Shapes(), folder, "shape", num_pictures=0, num_scenes=18, size=SIDE, seed=0, overwrite=False, pairs_only=True)
    rows = [row | {"id": f"pair-{number}"} for number, row in enumerate(written(folder / "manifest.jsonl")[:NUM_ROWS])]
    assert write_manifest(folder / "manifest.jsonl", rows) == NUM_ROWS
    return folder


# How to spoil a row: a new row or a raw line, from a row and the folder that new pictures may be put into.

Spoil = Callable[[Record, Path], Record | bytes]


def chunk(kind: bytes, data: bytes, length: int | None = None) -> bytes:
    return struct.pack(">I", len(data) if length is None else length) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, data: bytes, *more: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + chunk(b"IDAT", zlib.compress(data, 9)) + chunk(b"IEND", b"")


def plain_png(*more: bytes) -> bytes:
    return png(SIDE, SIDE, bytes(SIDE * (1 + 3 * SIDE)), *more)


def picture(content: bytes, name: str) -> Spoil:
    """The edited picture is a file of that content."""

    def spoil(row: Record, folder: Path) -> Record:
        (folder / name).write_bytes(content)
        return row | {"edited": name}

    return spoil


def having(**changes: object) -> Spoil:
    return lambda row, _: row | changes


def lacking(key: str) -> Spoil:
    return lambda row, _: {name: value for name, value in row.items() if name != key}


def cut(row: Record, folder: Path) -> Record:
    (folder / "cut.png").write_bytes((folder / row["edited"]).read_bytes()[:-300])
    return row | {"edited": "cut.png"}


def cut_jpeg(row: Record, folder: Path) -> Record:
    noise = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "whole.jpg")
    (folder / "cut.jpg").write_bytes((folder / "whole.jpg").read_bytes()[:-400])
    return row | {"edited": "cut.jpg"}


def damaged(row: Record, folder: Path) -> Record:
    content = bytearray((folder / row["edited"]).read_bytes())
    content[60] ^= 255
    (folder / "damaged.png").write_bytes(content)
    return row | {"edited": "damaged.png"}


def linked_out(row: Record, folder: Path) -> Record:
    (folder.parent / "secret.png").write_bytes(plain_png())
    (folder / "link.png").symlink_to(folder.parent / "secret.png")
    return row | {"edited": "link.png"}


def wide(row: Record, folder: Path) -> Record:
    Image.new("RGB", (SIDE * 2, SIDE)).save(folder / "wide.png")
    return row | {"edited": "wide.png"}


def copied(row: Record, folder: Path) -> Record:
    (folder / "copy.png").write_bytes((folder / row["picture"]).read_bytes())
    return row | {"edited": "copy.png"}


def deep(row: Record, folder: Path) -> Record:
    Image.fromarray(np.full((SIDE, SIDE), 300, dtype=np.float32)).save(folder / "deep.tif")
    return row | {"edited": "deep.tif"}


def not_utf8(row: Record, _: Path) -> bytes:
    return json.dumps(row | {"question": "quel café ?"}, ensure_ascii=False).encode("latin-1")


# 200 MB of nothing in 200 kB, behind a header of 32 x 32; and a profile that says little and inflates to 64 MB.
BOMB = png(SIDE, SIDE, bytes(200_000_000))
PROFILE = chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(64_000_000), 9))
SVG = b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>'
ROW_OF = "scene factor picture edited question choices answer_before answer_after"

# What is done to a row, the kind of fault that it is, and the words that tell how to mend it.
SPOILED: dict[str, tuple[Spoil, str, str]] = {
    "no file": (having(edited="none.png"), "missing picture", "add the file, or correct the path"),
    "windows path": (having(edited="pairs\\1.png"), "missing picture", "write / for"),
    "cut PNG": (cut, "truncated picture", "copy it again"),
    "cut JPEG": (cut_jpeg, "truncated picture", "copy it again"),
    "damaged PNG": (damaged, "broken picture", "save it again"),
    "text as picture": (picture(b"no picture at all", "text.png"), "not a picture", "give a file of one of PNG, JPEG"),
    "empty file": (picture(b"", "empty.png"), "empty picture", "copy it again"),
    "folder": (having(edited="pairs"), "not a file", "give the path of a picture file"),
    "SVG": (picture(SVG, "drawing.svg"), "unsupported format", "convert it to one of PNG"),
    "PDF": (picture(b"%PDF-1.7\n", "page.pdf"), "unsupported format", "convert it to one of PNG"),
    "floats": (deep, "unsupported format", "save it with 8 bits a channel"),
    "20,000 pixels": (picture(png(20_000, 20_000, b""), "huge.png"), "large picture", "scale it down until no side is longer than"),
    "many pixels": (picture(png(16_000, 16_000, b""), "many.png"), "too many pixels", "scale it down to at most 64,000,000"),
    "bomb": (picture(BOMB, "bomb.png"), "picture bomb", "save it again from its source"),
    "inflating profile": (picture(plain_png(PROFILE), "profile.png"), "giant chunk", "save it without texts and profiles"),
    "long text": (picture(plain_png(chunk(b"tEXt", b"a\0" + bytes(2_000_000))), "text.png2"), "giant chunk", "without texts"),
    "upwards": (having(edited="../secret.png"), "path outside the folder", "copy the file there"),
    "absolute": (having(edited="/etc/passwd"), "path outside the folder", "copy the file there"),
    "link": (linked_out, "path outside the folder", "copy the file there"),
    "same bytes": (copied, "identical pictures", "give the edited picture"),
    "same file": (lambda row, _: row | {"edited": row["picture"]}, "identical pictures", "give the path of the edited picture"),
    "other size": (wide, "different sizes", "save both at one size, or set kind to matched"),
    "answer": (having(answer_after="hexagon"), "answer not a choice", "add it to the choices, or correct it"),
    "near answer": (having(answer_after="Round"), "answer not a choice", "did you mean 'round'?"),
    "one choice": (having(choices=["round"], answer_before="round"), "too few choices", "give two or more"),
    "choice twice": (having(choices=["round", "square", "round "]), "repeated choice", "give every choice once"),
    "blank choice": (having(choices=["round", " "]), "blank choice", "fill it with"),
    "blank question": (having(question="  "), "blank question", "fill it with text: what is asked"),
    "blank scene": (having(scene=""), "blank text", "fill it with text or whole number"),
    "id twice": (having(id="pair-0"), "repeated id", "give every row a different id"),
    "NaN": (having(question=float("nan")), "NaN", "fill it with text: what is asked"),
    "NaN choices": (having(choices=float("nan")), "NaN", "fill it with a list"),
    "no question": (lacking("question"), "missing key", "give question, text: what is asked"),
    "no edited": (lacking("edited"), "missing key", "give edited"),
    "typo": (having(pciture="a.png"), "unknown key", "did you mean picture?"),
    "other spelling": (having(truth_before="round"), "unknown key", "did you mean answer_before?"),
    "text for list": (having(choices="round, square"), "wrong type", "write a list of texts"),
    "number for text": (having(question=7), "wrong type", "write it as text, in quotes"),
    "fraction for scene": (having(scene=3.0), "wrong type", "write a whole number: 3"),
    "half a character": (having(question="what \ud800?"), "bad text", "write it again as UTF-8"),
    "latin": (not_utf8, "text not UTF-8", "save the file as UTF-8"),
    "no JSON": (lambda row, _: b"{'scene': 1}", "no JSON", "in double quotes"),
    "nested": (lambda row, _: b"[" * 100_000, "no JSON", "write one object with plain values"),
    "list": (lambda row, _: b"[1, 2]", "no object", "write an object"),
    "key twice": (lambda row, _: b'{"scene": 1, "scene": 2}', "repeated key", "keep one of them"),
    "long line": (lambda row, _: b'{"question": "' + b"a" * 1_500_000 + b'"}', "long line", "write one row per line"),
    "form": (having(form="essay"), "unknown form", "write one of open, yes_no, conjunction"),
    "kind": (having(kind="edited"), "unknown kind", "write one of exact, matched"),
    "no change": (lambda row, _: row | {"to": row["from"]}, "from equals to", 'make factor ""'),
    "no value": (lacking("from"), "value missing", "give the values of"),
    "no factor": (having(factor=""), "value without factor", "name the factor, or omit both"),
    "two changes": (having(question_after="and now?"), "two changes", "omit question_after"),
    "nothing": (
        lambda row, _: {key: row[key] for key in ROW_OF.split()} | {"factor": "", "edited": row["picture"]},
        "nothing changes",
        "give another picture, or question_after",
    ),
    "answers alone": (
        lambda row, _: {key: row[key] for key in ROW_OF.split()} | {"factor": "", "answer_after": other_choice(row)},
        "answer without factor",
        "name what was changed",
    ),
}


def other_choice(row: Record) -> str:
    return next(str(choice) for choice in row["choices"] if choice != row["answer_before"])


def spoiled(clean: Path, target: Path, *names: str, num_rows: int = 20) -> tuple[Path, dict[int, str]]:
    """The first rows of the clean manifest with one spoiled for each name; and which row (from 1) holds which fault."""
    rows = written(clean / "manifest.jsonl")[:num_rows]
    (target / "pairs").mkdir(parents=True)
    for name in {row[key] for row in rows for key in ("picture", "edited") if key in row}:
        (target / name).hardlink_to(clean / name)
    changed = [index for index, row in enumerate(rows) if row["factor"] and index][1::3][: len(names)]
    where = {index + 1: name for index, name in zip(changed, names, strict=True)}
    lines = []
    for number, row in enumerate(rows, start=1):
        made = SPOILED[where[number]][0](row, target) if number in where else row
        lines.append(made if isinstance(made, bytes) else json.dumps(made).encode())
    (target / "manifest.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    return target / "manifest.jsonl", where


def test_two_hundred_pairs_with_every_kind_of_fault_get_as_many_messages_and_the_rest_is_planned(clean: Path, tmp_path: Path) -> None:
    path, where = spoiled(clean, tmp_path / "w", *SPOILED, num_rows=NUM_ROWS)
    found = read_manifest(path)
    assert {fault.row: fault.kind for fault in found.faults} == {row: SPOILED[name][1] for row, name in where.items()}
    # Told apart by their words, not by the row, the id or the name of a file.
    words = {re.sub(r"^.*?\): ", "", fault.message) for fault in found.faults}
    assert len(words) == len(SPOILED) > 50
    assert len(set(found.gallery.left_out)) > 35
    assert sum(found.gallery.left_out.values()) == len(SPOILED)
    good = plan_gallery(read_manifest(clean / "manifest.jsonl").gallery, SIDE)
    rest = plan_gallery(found.gallery, SIDE)
    kept = good.rows.with_row_index(offset=1).filter(~pl.col("index").is_in(list(where))).drop("index")
    pictures = ["picture_before", "picture_after"]
    assert len(kept) == NUM_ROWS - len(SPOILED)
    assert rest.rows.drop(pictures).equals(kept.drop(pictures))
    for side in pictures:
        assert (rest.pictures[rest.rows[side].to_numpy()] == good.pictures[kept[side].to_numpy()]).all()


@pytest.mark.parametrize("name", SPOILED)
def test_a_message_names_file_row_and_mend(clean: Path, tmp_path: Path, name: str) -> None:
    path, where = spoiled(clean, tmp_path / "w", name, num_rows=6)
    (row,) = where
    (fault,) = read_manifest(path).faults
    _, kind, mend = SPOILED[name]
    assert (fault.row, fault.kind) == (row, kind)
    assert fault.message.startswith(f"{path}, row {row} (id ")
    assert mend in fault.message.split("; ", 1)[1]


def test_every_kind_of_fault_is_described_and_tried() -> None:
    assert {kind for _, kind, _ in SPOILED.values()} == set(KINDS) - {"large file", "unreadable picture"}
    text = DOCS.read_text()
    assert all(f"| {kind} |" in text for kind in KINDS)
    assert all(f"| `{key}` |" in text for key in KEYS)


def test_bombs_are_refused_in_little_memory(clean: Path, tmp_path: Path) -> None:
    path, _ = spoiled(clean, tmp_path / "w", "bomb", "inflating profile", "20,000 pixels", "many pixels")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert len(read_manifest(path).faults) == 4
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB; any of the four would take more


def test_a_cut_picture_is_a_fault_whatever_the_process_asks_of_pillow(clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    path, _ = spoiled(clean, tmp_path / "w", "cut JPEG")
    assert [fault.kind for fault in read_manifest(path).faults] == ["truncated picture"]
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_lines_tell_every_kind_before_any_twice_and_count_the_rest(clean: Path, tmp_path: Path) -> None:
    path, _ = spoiled(clean, tmp_path / "w", "no file", "upwards", "absolute", "link", "answer")
    faults = read_manifest(path).faults
    assert fault_lines(faults) == tuple(fault.message for fault in faults)
    lines = fault_lines(faults, 3)
    assert lines[:3] == tuple(faults[place].message for place in (0, 1, 4))
    assert lines[3:] == ("and 2 more: path outside the folder 2",)


def test_a_manifest_of_faults_alone_is_refused_with_the_first_of_them(clean: Path, tmp_path: Path) -> None:
    rows = [row | {"answer_before": "hexagon"} for row in written(clean / "manifest.jsonl")]
    write_manifest(tmp_path / "m.jsonl", rows)
    with pytest.raises(BadManifest, match=r"(?s)none of the 200 rows of .*m\.jsonl can be used:\n.*row 1 .*and 195 more: answer not"):
        read_manifest(tmp_path / "m.jsonl")


FILES: dict[str, tuple[str, bytes | None, str]] = {
    "no file": ("none.jsonl", None, "is not there"),
    "empty": ("m.jsonl", b"", "is empty"),
    "blank lines": ("m.jsonl", b"\n\n", "holds no rows"),
    "another ending": ("m.csv", b"scene,factor", "ends in .csv; a manifest is a .jsonl or a .parquet file"),
    "no Parquet": ("m.parquet", b"not a table", "cannot be read as Parquet"),
}


@pytest.mark.parametrize("what", FILES)
def test_files_that_are_no_manifest_say_why(tmp_path: Path, what: str) -> None:
    name, content, message = FILES[what]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match=re.escape(message)):
        read_manifest(tmp_path / name)


# What a manifest says


def test_a_manifest_of_a_world_reads_back_equal(tmp_path: Path) -> None:
    world, ask = Shapes(), "shape,colour=red,row=top&tilt=upright"
    write_world(world, tmp_path / "w", ask, num_pictures=0, num_scenes=5, size=SIDE, seed=3, overwrite=False, pairs_only=True)
    assert {path.name for path in (tmp_path / "w").iterdir()} == {"manifest.jsonl", "pairs"}
    plan = plan_world(world, world.policy(ask), 5, 3, SIDE)
    found = plan_gallery(read_manifest(tmp_path / "w" / "manifest.jsonl").gallery, SIDE)
    assert found.rows.drop(NAMED).equals(plan.rows.filter(pl.col("kind") != "training"))
    assert set(found.rows["kind"]) == {"intervention", "nuisance", "paraphrase"}
    assert np.array_equal(found.pictures, plan.pictures[: plan.num_pair_pictures])
    assert found.pair_kind == plan.pair_kind == "exact"


def test_parquet_says_the_same_as_json_lines(clean: Path) -> None:
    pl.DataFrame(written(clean / "manifest.jsonl"), infer_schema_length=None).write_parquet(clean / "rows.parquet")
    lines, parquet = read_manifest(clean / "manifest.jsonl"), read_manifest(clean / "rows.parquet")
    assert parquet.gallery.table.equals(lines.gallery.table)
    assert not parquet.faults
    assert (lines.gallery.name, parquet.gallery.name) == ("w", "rows")


def small(folder: Path, **changes: object) -> Record:
    """A row that says only what it must, with its two pictures."""
    for name, colour in (("red.png", "red"), ("blue.png", "blue")):
        Image.new("RGB", (SIDE, SIDE), colour).save(folder / name)
    row = {"scene": "kitchen", "factor": "colour", "from": "red", "to": "blue", "picture": "red.png", "edited": "blue.png"}
    asked = {"question": "Which colour?", "choices": ["red", "blue"], "answer_before": "red", "answer_after": "blue"}
    return row | asked | changes


def test_what_is_left_out_has_its_default(tmp_path: Path) -> None:
    still = {"question": "Is it night?", "choices": ["yes", "no"], "answer_before": "no", "answer_after": "no"}
    rows = [small(tmp_path), small(tmp_path, scene=7, _note="mine"), small(tmp_path, **still), small(tmp_path, scene="7", **still)]
    write_manifest(tmp_path / "m.jsonl", rows)
    gallery = read_manifest(tmp_path / "m.jsonl").gallery
    assert gallery.kind == "exact"
    assert gallery.table["scene"].to_list() == [0, 1, 0, 1]
    assert gallery.table["query"].to_list() == gallery.table["name"].to_list() == ["colour", "colour", "other", "other"]
    assert set(gallery.table["form"]) == {"open"}
    assert [(factor.name, factor.values) for factor in gallery.factors] == [("colour", ("red", "blue"))]


def test_one_matched_row_makes_the_pairs_matched_and_may_differ_in_size(tmp_path: Path) -> None:
    Image.new("RGB", (SIDE, 2 * SIDE), "blue").save(tmp_path / "high.png")
    write_manifest(tmp_path / "m.jsonl", [small(tmp_path), small(tmp_path, edited="high.png", kind="matched")])
    found = read_manifest(tmp_path / "m.jsonl")
    assert not found.faults
    assert found.gallery.kind == "matched"


def test_pictures_are_shown_upright_and_whole(tmp_path: Path) -> None:
    """A photograph stored on its side, half red and half blue; and one with a hole in it."""
    stored = Image.new("RGB", (40, 20), "red")
    stored.paste("blue", (20, 0, 40, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees to the right
    stored.save(tmp_path / "photo.png", exif=exif)
    Image.new("RGBA", (20, 20), (255, 0, 0, 0)).save(tmp_path / "hole.png")
    write_manifest(tmp_path / "m.jsonl", [small(tmp_path, picture="photo.png", edited="hole.png", kind="matched")])
    photo, hole = read_manifest(tmp_path / "m.jsonl").gallery.render(["photo.png", "hole.png"], 40)
    assert [tuple(photo[row, 20]) for row in (2, 37)] == [(255, 0, 0), (0, 0, 255)]
    assert tuple(photo[20, 2]) == (128, 128, 128)
    assert (hole == 255).all()


def test_a_picture_with_exif_data_that_cannot_be_written_back_is_turned_all_the_same(tmp_path: Path) -> None:
    # Two entries: the width as text, which is a number by the standard, and the orientation.
    width, turned = struct.pack("<HHI4s", 0x0100, 2, 4, b"abc\0"), struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + width + turned + struct.pack("<I", 0)
    stored = Image.new("RGB", (40, 20), "red")
    stored.paste("blue", (20, 0, 40, 20))
    stored.save(tmp_path / "odd.jpg", exif=exif, quality=95)
    write_manifest(tmp_path / "m.jsonl", [small(tmp_path, picture="odd.jpg", kind="matched")])
    (odd,) = read_manifest(tmp_path / "m.jsonl").gallery.render(["odd.jpg"], 40)
    assert odd[4, 20, 0] > 200 > 60 > odd[35, 20, 0]


def test_a_picture_that_changes_after_it_was_checked_is_refused(tmp_path: Path) -> None:
    write_manifest(tmp_path / "m.jsonl", [small(tmp_path)])
    gallery = read_manifest(tmp_path / "m.jsonl").gallery
    (tmp_path / "red.png").write_bytes(b"gone")
    with pytest.raises(BadInput, match=r"red\.png can no longer be read .*changed since it was checked"):
        plan_gallery(gallery, SIDE)


def test_harmless_pictures_pass(tmp_path: Path) -> None:
    """Text in a PNG, a grey one, one of a palette, a CMYK JPEG, a still GIF, a bitmap, an odd name: none of it is a fault."""
    text = PngImagePlugin.PngInfo()
    text.add_itxt("what", "a note", zip=True)
    noise = np.random.default_rng(0).integers(0, 255, (1, 5, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png", pnginfo=text, compress_level=0)
    Image.new("RGB", (5, 1), "red").convert("CMYK").save(tmp_path / "ink.jpg")
    Image.new("L", (5, 1), 9).save(tmp_path / "grey one.png")
    Image.new("P", (5, 1)).save(tmp_path / "still.gif")
    Image.new("1", (5, 1)).save(tmp_path / "Ä.bmp")
    names = ["noise.png", "ink.jpg", "grey one.png", "still.gif", "Ä.bmp"]
    rows = [small(tmp_path, picture=one, edited=other) for one, other in pairwise(names)]
    write_manifest(tmp_path / "m.jsonl", rows)
    found = read_manifest(tmp_path / "m.jsonl")
    assert not found.faults, fault_lines(found.faults)
    assert plan_gallery(found.gallery, 8).pictures.shape == (5, 8, 8, 3)


def test_what_an_answer_depends_on_is_declared_by_row(clean: Path) -> None:
    rows = written(clean / "manifest.jsonl")[:6]
    names = [row.get("name") or row.get("query") or "other" for row in rows]
    path = clean / "declared.jsonl"
    write_manifest(path, [row | {"depends_on": ["colour"]} if number == 0 else row for number, row in enumerate(rows)])
    manifest = read_manifest(path)
    assert not manifest.faults and manifest.gallery.dependence == {names[0]: {"colour"}}
    write_manifest(path, [row | {"depends_on": "colour" if number == 0 else []} for number, row in enumerate(rows)])
    manifest = read_manifest(path)
    assert [fault.kind for fault in manifest.faults] == ["wrong type"] and set(manifest.gallery.dependence.values()) == {frozenset()}
