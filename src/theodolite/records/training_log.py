"""The log of a training run as it was written: numbers by step, and the warnings of the run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from theodolite.records.errors import BadInput
from theodolite.records.reading import read_json, read_json_lines

# Beside the log of a stage: a JSON list of the warnings that its objective gave. No file: none.
WARNINGS = "warnings.json"


@dataclass(frozen=True)
class TrainingLog:
    """(step, value) of every number in a log by its name, in the order of steps; and warnings."""

    series: Mapping[str, tuple[tuple[int, float], ...]]
    warnings: tuple[str, ...] = ()


def read_training_log(path: Path) -> TrainingLog:
    """The log in a `log.jsonl` (an object a line) or a checkpoint's `trainer_state.json` of transformers. Raises `BadInput`.

    Entries without a step, and values that are not finite numbers, are left out; of a step that was logged twice, the last.
    """
    series: dict[str, dict[int, float]] = {}
    for entry in _history(path) if path.suffix == ".json" else (value for _, value in read_json_lines(path)):
        step = entry.get("step") if isinstance(entry, dict) else None
        if not isinstance(step, int) or isinstance(step, bool):
            continue
        for name, value in entry.items():
            if name != "step" and isinstance(value, int | float) and not isinstance(value, bool):
                with suppress(OverflowError):  # a whole number of hundreds of digits
                    if math.isfinite(value):
                        series.setdefault(name, {})[step] = float(value)
    if not series:
        raise BadInput(f"{path} holds no step with a number; give the log.jsonl of a run, or a checkpoint's trainer_state.json")
    return TrainingLog({name: tuple(sorted(values.items())) for name, values in series.items()}, _warnings(path.with_name(WARNINGS)))


def _history(path: Path) -> Iterable[Any]:
    state = read_json(path)
    history = state.get("log_history") if isinstance(state, dict) else None
    if not isinstance(history, list):
        raise BadInput(f"{path} has no list log_history; give the trainer_state.json of a checkpoint")
    return history


def _warnings(path: Path) -> tuple[str, ...]:
    warnings = read_json(path) if path.is_file() else []
    if not isinstance(warnings, list) or not all(isinstance(each, str) for each in warnings):
        raise BadInput(f"{path} is no list of texts; remove it, or train again")
    return tuple(warnings)
