"""Files of benchmarks as downloads and spreadsheets leave them: marks, line ends within texts, cut-off ends, columns that are missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from theodolite.records.errors import BadInput
from theodolite.worlds.benchmarks.formats import ConvertedBenchmark, convert_benchmark
from theodolite.worlds.manifest.read import read_manifest

HEADER = "Index,Question,Options,Correct Answer"
ROWS = ('1,"Is it, open\nor closed?","(a) Open\n(b) Closed",(a)', '2,"Is it, open or closed?",(a) Open (b) Closed,(b)')


def put(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(path)


def mmvp(folder: Path, content: bytes) -> ConvertedBenchmark:
    for number in (1, 2):
        put(folder / "source" / "MMVP Images" / f"{number}.jpg", number)
    (folder / "source" / "Questions.csv").write_bytes(content)
    return convert_benchmark("mmvp", folder / "source", folder / "out", overwrite=True)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_cells_of_a_table_may_hold_line_ends_and_a_mark_is_no_part_of_a_name(tmp_path: Path, encoding: str, end: str) -> None:
    done = mmvp(tmp_path, end.join([HEADER, *ROWS]).replace("\n", end).replace("\r\r", "\r").encode(encoding))
    assert done.skipped == () and done.num_rows == 1
    row = read_manifest(done.manifest).gallery.table.row(0, named=True)
    assert row["question_before"] == "Is it, open or closed?" and row["choices"] == ["Open", "Closed"]


def test_a_table_that_cannot_be_read_says_where_and_why(tmp_path: Path) -> None:
    whole = "\n".join([HEADER, *ROWS])
    for content, message in (
        (whole.replace("Correct Answer", "Answer").encode(), r"lacks the columns Correct Answer; it has Index, Question, Options, Answer"),
        (b"", "lacks the columns Index, .*; it has none"),
        ((whole + '\n3,"Is it').encode(), "line 5, is not CSV"),
        (whole.encode("utf-16"), "is UTF-16, not UTF-8"),
        (whole.replace("closed?", "closed\xe9?", 1).encode("latin-1"), r"Questions\.csv is not UTF-8 \(byte \d+\)"),
    ):
        with pytest.raises(BadInput, match=message):
            mmvp(tmp_path, content)
    odd = [f"{'9' * 5000},a,b,c", "\u0663,a,b,c", "x", "4"]
    done = mmvp(tmp_path, "\n".join([HEADER, *ROWS, *odd]).encode())
    assert done.num_rows == 1 and ["not a number" in line for line in done.skipped] == [True, True, True, False]


EXAMPLE = {"id": "1_0", "caption_0": "a\u2028cat", "caption_1": "a\u2028dog", "image_0": "one", "image_1": "two"}


def coco(folder: Path, content: bytes) -> ConvertedBenchmark:
    for number, name in enumerate(("one", "two")):
        put(folder / "source" / "images" / f"{name}.jpg", number)
    (folder / "source" / "examples.jsonl").write_bytes(content)
    return convert_benchmark("coco_counterfactuals", folder / "source", folder / "out", overwrite=True)


def test_examples_are_lines_whatever_their_texts_hold_and_a_bad_one_costs_itself_alone(tmp_path: Path) -> None:
    good = json.dumps(EXAMPLE, ensure_ascii=False)
    bad = ["[" * 100_000, json.dumps({**EXAMPLE, "caption_0": "\ud800"}), json.dumps({**EXAMPLE, "id": float("nan")}), good[:30]]
    done = coco(tmp_path, "\r\n".join([good, *bad]).encode("utf-8-sig"))
    assert done.num_rows == 1
    assert set(read_manifest(done.manifest).gallery.table["choices"].to_list()[0]) == {"a\u2028cat", "a\u2028dog"}
    parts = ("line 2: the line is nested too", "surrogate", "lacks id", "line 5: the line is not")
    for line, part in zip(done.skipped, parts, strict=True):
        assert part in line


GROUP: dict[str, Any] = {
    "Index": 1, "Question_0": "Is it wet?", "Question_1": "Is it dry?", "Question_Type": "yes_no", "Image_0": "0.png", "Image_1": "1.png",
    "Image_0_Question_0": "Yes", "Image_1_Question_0": "No", "Image_0_Question_1": "No", "Image_1_Question_1": "Yes",
}  # fmt: skip


def naturalbench(folder: Path, content: bytes) -> ConvertedBenchmark:
    for number in (0, 1):
        put(folder / "source" / f"{number}.png", number)
    (folder / "source" / "groups.json").write_bytes(content)
    return convert_benchmark("naturalbench", folder / "source", folder / "out", overwrite=True)


def test_groups_with_values_that_fit_nowhere_cost_themselves_alone(tmp_path: Path) -> None:
    odd: list[dict[str, Any]] = [
        {"Question_Type": ["yes_no"]},
        {"Image_0": "a\0.png"},
        {"Image_0": "x" * 5000 + ".png"},
        {"Question_0": "\ud800"},
        {"Question_1": float("nan")},
    ]
    groups = [GROUP, *({**GROUP, "Index": number, **changes} for number, changes in enumerate(odd, start=2))]
    done = naturalbench(tmp_path, json.dumps(groups).encode("utf-8-sig"))
    for line, part in zip(done.skipped, ("Question_Type is", "neither a picture", "surrogate"), strict=True):
        assert part in line
    manifest = read_manifest(done.manifest)
    kinds = sorted(fault.kind for fault in manifest.faults)
    assert len(manifest.gallery.table) == 4 and kinds == ["NaN", "missing picture", "missing picture"]


LISTS = ((b"[" * 100_000, "nested too deeply"), (b'[{"a"', r"groups\.json is not JSON"), (b"[3]", "not a list of objects"))


@pytest.mark.parametrize(("content", "message"), LISTS)
def test_a_list_that_cannot_be_read_is_refused_with_its_name(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        naturalbench(tmp_path, content)
