"""A grid of runs: what is on disk is skipped, the rest runs on all cores or on many machines, and every finished run lands at once."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import ValidationError

from theodolite.commands.progress import Steps
from theodolite.records.errors import BadInput
from theodolite.records.folder import write_whole
from theodolite.records.study import GridRun, read_runs, write_runs
from theodolite.records.survey import BadRecord, RunRecord
from theodolite.records.writing import run_record
from theodolite.studies.engine.costs import Costs, hours
from theodolite.studies.engine.execute import Run, RunResult

SURVEYS, TIMES, LOCK = "surveys", "run.json", ".lock"


@dataclass(frozen=True)
class Failure:
    """A run that came to no end, and why."""

    why: str


Outcome = tuple[Run, RunResult | Failure]
# Performs runs in any order, and gives each when it is done.
Backend = Callable[[Sequence[Run]], Iterator[Outcome]]


class RunsFailed(BadInput):
    """Some runs of a grid came to no end; the others are on disk."""


@dataclass
class Ledger:
    """The finished runs in a study's folder, and the seconds that each took."""

    folder: Path
    lines: dict[str, GridRun]
    seconds: dict[str, float]
    started: datetime = field(default_factory=lambda: datetime.now(UTC))

    @classmethod
    def of(cls, folder: Path) -> Ledger:
        """What is on disk. Raises `BadRecord` on lines that are no runs."""
        times = folder / TIMES
        try:
            known = RunRecord.model_validate_json(times.read_bytes()).seconds_by_part if times.is_file() else {}
        except ValidationError as error:
            raise BadRecord(f"{times} cannot be read; delete it (it holds times only)") from error
        return cls(folder, read_runs(folder), dict(known))

    def land(self, run: Run, done: RunResult, order: Mapping[str, int]) -> None:
        """Writes a finished run: its survey, then its line. Lines stand in the order of the grid, those of other grids behind."""
        whole = self.folder / SURVEYS / run.key
        shutil.rmtree(whole, ignore_errors=True)
        for name, data in done.files.items():
            write_whole(whole / name, data)
        self.lines[run.key], self.seconds[run.key] = done.line, round(done.seconds, 1)
        write_runs(self.folder, sorted(self.lines.values(), key=lambda line: (order.get(line.key, len(order)), line.key)))
        self.write_times()

    def write_times(self) -> None:
        """run.json: this start, this machine, and the seconds of every run that is known."""
        record = run_record("study", self.started, self.seconds)
        write_whole(self.folder / TIMES, record.model_dump_json(indent=1) + "\n")


def run_grid(runs: Sequence[Run], folder: Path, backend: Backend, workers: int, steps: Steps) -> dict[str, GridRun]:
    """Performs the runs of a grid that the folder does not hold yet, and returns the lines of all of them by key.

    Raises `RunsFailed` at the end if some came to none, `BadInput` if another process is at the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / LOCK, timeout=0):
            return _run_grid(runs, Ledger.of(folder), backend, workers, steps)
    except Timeout:
        raise BadInput(f"another process is running a study in {folder}; wait for it, or give another --out") from None


def _run_grid(runs: Sequence[Run], ledger: Ledger, backend: Backend, workers: int, steps: Steps) -> dict[str, GridRun]:
    if len({run.key for run in runs}) < len(runs):
        raise ValueError("two runs of the grid are the same; name each once")
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
    """Lands every run as it comes; returns those that failed."""
    failures: list[tuple[Run, Failure]] = []
    waiting, before = {run.key: run for run in todo}, time.monotonic()
    with steps.step("runs") as tell:
        tell(0, len(todo), f"about {hours(costs.total(todo) / workers)} left")
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
            tell(number, len(todo), f"about {hours(left)} left")
    return failures


def in_order(runs: Sequence[Run], costs: Costs) -> list[Run]:
    """Seed after seed, so that a grid that is cut off holds whole seeds; in a seed the longest first, so that no core waits at the end."""
    return sorted(runs, key=lambda run: (run.seed, -costs.seconds(run)))
