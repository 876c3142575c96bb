"""What ends a row of a manifest of JSON lines, and what is told of a line that is none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from theodolite.worlds.manifest.read import read_manifest

ROW = {
    "scene": 1, "factor": "colour", "from": "red", "to": "blue", "picture": "a.png", "edited": "b.png", "question": "Which\u2028colour?",
    "choices": ["red", "blue"], "answer_before": "red", "answer_after": "blue",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, name in enumerate(("a.png", "b.png")):
        Image.fromarray(np.full((8, 8, 3), 100 * number, dtype=np.uint8)).save(tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("sign", ["\u2028", "\u2029", "\u0085"])
def test_separators_within_a_text_a_mark_and_windows_line_ends_are_no_fault(folder: Path, sign: str) -> None:
    lines = [json.dumps({**ROW, "scene": scene, "question": f"a{sign}b"}, ensure_ascii=False) for scene in (1, 2)]
    (folder / "m.jsonl").write_bytes("\r\n".join(["", *lines]).encode("utf-8-sig"))
    manifest = read_manifest(folder / "m.jsonl")
    assert not manifest.faults and manifest.gallery.table["question_before"].to_list() == [f"a{sign}b"] * 2


def test_half_a_last_line_is_a_fault_with_its_number_and_the_rest_is_used(folder: Path) -> None:
    line = json.dumps(ROW)
    (folder / "m.jsonl").write_text("\n".join([line, "", "[" * 100_000, "{,}", line[:50]]))
    manifest = read_manifest(folder / "m.jsonl")
    assert [(fault.row, fault.kind, "cut off" in fault.message) for fault in manifest.faults] == [
        (3, "no JSON", False),
        (4, "no JSON", False),
        (5, "no JSON", True),
    ]
    assert "row 5" in manifest.faults[2].message and "nested too deeply" in manifest.faults[0].message
    assert len(manifest.gallery.table) == 1
