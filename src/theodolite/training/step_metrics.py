"""Training metrics for the log: mean loss terms, seconds per part of a step, and the log as JSON lines."""

from __future__ import annotations

import json
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from theodolite.objectives.terms import Terms
from theodolite.records.folder import write_whole
from theodolite.records.machine_faults import naming_disk_faults
from theodolite.records.reading import BadJson, numbered_lines, parse_json


class StepMetrics:
    """Loss terms and seconds, accumulated since the last log entry."""

    def __init__(self) -> None:
        self.counts: Mapping[str, int] = {}
        self._reset()

    def _reset(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._weights: dict[str, float | None] = {}
        self._steps: dict[str, int] = defaultdict(int)
        self._num_steps = 0
        self._seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Adds the wall-clock seconds of the block to a part. On an accelerator these are kernel-launch times, not run times."""
        started = time.perf_counter()
        yield
        self._seconds[part] += time.perf_counter() - started

    def begin_step(self, counts: Mapping[str, int]) -> None:
        """Begins a step whose terms have these global counts."""
        self.counts = counts
        self._num_steps += 1
        for name, count in counts.items():
            self._steps[name] += count > 0

    def add(self, terms: Terms) -> None:
        """Adds a micro-batch's terms, each divided by the step's global count."""
        for name, term in terms.items():
            share = term.total.detach().float() / max(self.counts[name], 1)
            self._sums[name] = self._sums[name] + share if name in self._sums else share
            self._weights[name] = term.weight

    def entry(self, over_processes: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Each term's mean over steps where its count is above 0 (`loss/...` if it has a weight), and seconds a step; then resets."""
        entry: dict[str, float] = {}
        names = sorted(self._sums)
        sums = over_processes(torch.stack([self._sums[name] for name in names])) if names else torch.zeros(0)
        for name, value in zip(names, sums.tolist(), strict=True):
            if self._steps[name]:
                entry[name if self._weights[name] is None else f"loss/{name}"] = value / self._steps[name]
        seconds = dict(self._seconds)
        # The time of a micro-batch includes that of its student and teacher passes.
        forward = seconds.get("student", 0.0) + seconds.get("teacher", 0.0)
        if "forward_backward" in seconds:
            seconds["backward"] = seconds.pop("forward_backward") - forward
        entry |= {f"time/{part}_s": value / max(self._num_steps, 1) for part, value in seconds.items()}
        self._reset()
        return entry


class JsonLinesLog(TrainerCallback):
    """Writes the log as one JSON object per line, with the step; JSON has no NaN, so numbers that are not finite are null.

    A resumed run drops entries after its checkpoint, and lines that are not entries.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if not state.is_world_process_zero:
            return
        lines: list[bytes] = []
        if self.path.is_file():
            # A killed run may have logged past its last checkpoint, and may have left a partial line.
            lines = [line for _, line in numbered_lines(self.path) if line and _step_of(line) <= state.global_step]
        write_whole(self.path, b"".join(lines))

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Mapping[str, float] | None = None, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero and logs and "loss" in logs:
            entry = {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in logs.items()}
            with naming_disk_faults(self.path), self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": state.global_step, **entry}, allow_nan=False) + "\n")


def _step_of(line: bytes) -> float:
    """The step of a line of the log; infinite for a line that is cut off or is no entry."""
    try:
        entry = parse_json(line) if line.endswith(b"\n") else None
    except BadJson:
        entry = None
    step = entry.get("step") if isinstance(entry, dict) else None
    return float(step) if isinstance(step, int | float) else math.inf
