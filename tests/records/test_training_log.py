"""Logs of training runs: what this package writes and what transformers writes are read alike."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from theodolite.records.errors import BadInput
from theodolite.records.training_log import WARNINGS, read_training_log

ENTRIES = [
    {"step": 2, "loss": 3.0, "loss/gram": None, "note": "text", "flag": True},
    {"step": 1, "loss": 4.0},
    {"loss": 9.0},
    {"step": 2, "loss": 2.5, "eval_loss": 2},
]
SERIES = {"loss": ((1, 4.0), (2, 2.5)), "eval_loss": ((2, 2.0),)}


def test_numbers_by_step_from_lines_and_from_a_trainer_s_state(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in ENTRIES))
    (tmp_path / "trainer_state.json").write_text(json.dumps({"log_history": ENTRIES}))
    for name in ("log.jsonl", "trainer_state.json"):
        log = read_training_log(tmp_path / name)
        assert log.series == SERIES and log.warnings == ()
    (tmp_path / WARNINGS).write_text('["targets are uniform"]')
    assert read_training_log(tmp_path / "log.jsonl").warnings == ("targets are uniform",)


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("log.jsonl", '{"step": 1, "loss": 2}\n{"step": 2, "lo', "line 2, is not JSON"),
        ("log.jsonl", "[1]\n", "holds no step with a number"),
        ("state.json", "{}", "has no list log_history"),
        ("state.json", '{"log_history": 3}', "has no list log_history"),
    ],
)
def test_what_is_no_log_is_refused(tmp_path: Path, name: str, text: str, reason: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(BadInput, match=reason):
        read_training_log(tmp_path / name)
    with pytest.raises(BadInput):
        read_training_log(tmp_path / "missing.jsonl")


def test_warnings_that_are_no_texts_are_refused(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": 2}\n')
    (tmp_path / WARNINGS).write_text("[1]")
    with pytest.raises(BadInput, match=f"{WARNINGS} is no list of texts"):
        read_training_log(tmp_path / "log.jsonl")
