"""The log of a run as JSON lines: what a resumed run keeps of it, and numbers that JSON does not have."""

from __future__ import annotations

import json
import math
from pathlib import Path

from transformers import TrainerControl, TrainerState, TrainingArguments

from theodolite.training.step_metrics import JsonLinesLog


def log_at(path: Path) -> tuple[JsonLinesLog, TrainingArguments, TrainerControl]:
    return JsonLinesLog(path), TrainingArguments(use_cpu=True), TrainerControl()


def test_a_resumed_run_keeps_whole_entries_up_to_its_step_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    entries = [json.dumps({"step": step, "loss": 1.0, "note": "a\u2028b"}, ensure_ascii=False) for step in (1, 2, 3)]
    odd = ['{"loss": 1.0}', "[1]", "[" * 100_000, "\0\0\0", '{"step": "2"}']  # as a full disk or another program may leave
    path.write_text("\n".join([*entries, *odd, '{"step": 2, "lo']), encoding="utf-8")
    log, arguments, control = log_at(path)
    log.on_train_begin(arguments, TrainerState(global_step=2), control)
    assert path.read_bytes() == "".join(f"{entry}\n" for entry in entries[:2]).encode()
    log.on_log(arguments, TrainerState(global_step=3), control, logs={"loss": 0.5})
    assert [json.loads(line)["step"] for line in path.read_bytes().split(b"\n")[:-1]] == [1, 2, 3]


def test_numbers_that_are_not_finite_are_null(tmp_path: Path) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(name)

    path = tmp_path / "log.jsonl"
    log, arguments, control = log_at(path)
    log.on_log(arguments, TrainerState(global_step=1), control, logs={"loss": math.nan, "grad_norm": math.inf, "learning_rate": 0.1})
    entry = json.loads(path.read_text(), parse_constant=refuse)
    assert entry == {"step": 1, "loss": None, "grad_norm": None, "learning_rate": 0.1}
