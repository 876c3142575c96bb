"""A grid of runs: runs on disk are skipped, the others go to a back end, and each is written as soon as it is finished."""

from __future__ import annotations

import io
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
from pydantic import ValidationError

from theodolite.commands.progress import Steps
from theodolite.records.errors import BadInput
from theodolite.records.folder import delete, sole_writer, write_whole
from theodolite.records.study import GridRun, read_runs, write_runs
from theodolite.records.survey import BadRecord, RunRecord
from theodolite.records.writing import run_record
from theodolite.studies.engine.costs import Costs, hours
from theodolite.studies.engine.execute import Run, RunResult
from theodolite.studies.engine.kept_rows import SURVEY_ROWS, compress_rows, kept_rows_path

SURVEYS, TIMES = "surveys", "run.json"


@dataclass(frozen=True)
class Failure:
    """The outcome of a run that failed, with the reason."""

    why: str


Outcome = tuple[Run, RunResult | Failure]
# Executes runs in any order, and yields each when it is finished.
Backend = Callable[[Sequence[Run]], Iterator[Outcome]]


class RunsFailed(BadInput):
    """Some runs of a grid failed; the others are on disk."""


@dataclass
class Ledger:
    """The finished runs in a study's folder and the seconds of each, both by key."""

    folder: Path
    lines: dict[str, GridRun]
    seconds: dict[str, float]
    started: datetime = field(default_factory=lambda: datetime.now(UTC))

    @classmethod
    def of(cls, folder: Path) -> Ledger:
        """The ledger of a folder. Raises `BadRecord` on files that cannot be read."""
        times = folder / TIMES
        try:
            seconds = RunRecord.model_validate_json(times.read_bytes()).seconds_by_part if times.is_file() else {}
        except ValidationError as error:
            raise BadRecord(f"{times} cannot be read; delete it (it holds times only)") from error
        return cls(folder, read_runs(folder), dict(seconds))

    def land(self, run: Run, done: RunResult, order: Mapping[str, int]) -> None:
        """Writes a finished run: its survey, its kept rows, its line. Lines are in the order of the grid, those of others last."""
        survey = self.folder / SURVEYS / run.key
        shutil.rmtree(survey, ignore_errors=True)
        for name, data in done.files.items():
            write_whole(survey / name, data)
        rows = pl.read_parquet(io.BytesIO(done.files[SURVEY_ROWS]))
        write_whole(kept_rows_path(self.folder, run.key), compress_rows(rows))
        self.lines[run.key], self.seconds[run.key] = done.line, round(done.seconds, 1)
        write_runs(self.folder, sorted(self.lines.values(), key=lambda line: (order.get(line.key, len(order)), line.key)))
        self.write_times()

    def write_times(self) -> None:
        """Writes run.json: the time of this start, the machine, and the seconds of every finished run."""
        record = run_record("study", self.started, self.seconds)
        write_whole(self.folder / TIMES, record.model_dump_json(indent=1) + "\n")


def run_grid(runs: Sequence[Run], folder: Path, backend: Backend, workers: int, steps: Steps) -> dict[str, GridRun]:
    """Executes the runs of a grid that are not finished in the folder, and returns the lines of the whole grid by key.

    Raises `RunsFailed` at the end if some failed, `BadInput` if another process uses the folder.
    """
    with sole_writer(folder):
        for partial in folder.rglob(".*.part-*"):
            delete(partial)
        folder.mkdir(exist_ok=True)
        return _run_grid(runs, Ledger.of(folder), backend, workers, steps)


def _run_grid(runs: Sequence[Run], ledger: Ledger, backend: Backend, workers: int, steps: Steps) -> dict[str, GridRun]:
    if len({run.key for run in runs}) < len(runs):
        raise ValueError("the grid holds the same run twice; list each run once")
    costs = Costs.of(runs, ledger.seconds)
    order = {run.key: index for index, run in enumerate(runs)}
    todo = in_order([run for run in runs if run.key not in ledger.lines], costs)
    steps.console.print(costs.table(runs, set(ledger.lines), workers))
    if todo:
        failures = _perform_all(todo, ledger, order, backend, costs, workers, steps)
        if failures:
            raise RunsFailed("; ".join(f"{run.key}: {failure.why}" for run, failure in failures))
    return {run.key: ledger.lines[run.key] for run in runs}


def _perform_all(
    todo: Sequence[Run], ledger: Ledger, order: Mapping[str, int], backend: Backend, costs: Costs, workers: int, steps: Steps
) -> list[tuple[Run, Failure]]:
    """Writes every run when it finishes; returns those that failed."""
    failures: list[tuple[Run, Failure]] = []
    waiting, before = {run.key: run for run in todo}, time.monotonic()
    with steps.step("runs") as progress:
        progress(0, len(todo), f"about {hours(costs.total(todo) / workers)} left")
        for number, (run, outcome) in enumerate(backend(todo), 1):
            del waiting[run.key]
            if isinstance(outcome, Failure):
                failures.append((run, outcome))
                steps.console.print(f"{run.key} failed: {outcome.why}")
            else:
                ledger.land(run, outcome, order)
                steps.console.print(f"{run.key}: {outcome.seconds:.0f} s")
            done = costs.total(todo) - costs.total(list(waiting.values()))
            left = (time.monotonic() - before) * costs.total(list(waiting.values())) / done if done else 0.0
            progress(number, len(todo), f"about {hours(left)} left")
    return failures


def in_order(runs: Sequence[Run], costs: Costs) -> list[Run]:
    """Runs by seed, so that an interrupted grid holds complete seeds; within a seed the longest first, so that no core idles at the end."""
    return sorted(runs, key=lambda run: (run.seed, -costs.seconds(run)))
