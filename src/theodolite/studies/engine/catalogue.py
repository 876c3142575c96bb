"""The studies by name, and how one is made: its grid is run, its claims are judged, its page is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from rich.table import Table

from theodolite.commands.progress import Steps
from theodolite.records.errors import BadInput, UnknownName
from theodolite.records.folder import write_whole
from theodolite.records.study import STUDY, GridRun, StudyRecord, read_runs
from theodolite.report.study.charts import write_study_pictures
from theodolite.report.study.page import write_study_page
from theodolite.studies.engine.cores import num_cores, on_cores
from theodolite.studies.engine.costs import Costs
from theodolite.studies.engine.grid import Backend, Ledger, RunsFailed, run_grid
from theodolite.studies.engine.ray_cluster import on_ray
from theodolite.studies.engine.study import Study, conclude
from theodolite.studies.flip import FLIP
from theodolite.studies.forecast import FORECAST
from theodolite.studies.lock import LOCK

STUDIES: Mapping[str, Study] = {study.name: study for study in (FLIP, LOCK, FORECAST)}
Place = Literal["cores", "ray"]


def study_named(name: str) -> Study:
    """A study. Raises `UnknownName`."""
    if name not in STUDIES:
        raise UnknownName("study", name, tuple(STUDIES))
    return STUDIES[name]


def make_study(
    name: str, seeds: Sequence[int], out: Path, steps: Steps, *, quick: bool = False, on: Place = "cores", workers: int | None = None
) -> StudyRecord:
    """Runs what the folder lacks of a study's grid, then judges and draws all that it holds.

    The folder holds `runs.jsonl` (a line for each finished run), `study.json`, `index.html`, a picture for each figure, `run.json`, and in
    `surveys/` the whole record of each run. Runs that failed are told at the end, and what is said rests on the others: raises
    `RunsFailed` then. Raises `BadInput` for a study that reads others which are not there.
    """
    study = study_named(name)
    # What it reads must be there before hours of runs, not after them.
    read_beside(study, seeds, out)
    backend, workers = _backend(on, workers)
    failed: RunsFailed | None = None
    try:
        run_grid(study.grid(seeds, quick), out, backend, workers, steps)
    except RunsFailed as error:
        failed = error
    try:
        return judge_study(name, seeds, out, quick=quick)
    finally:
        if failed is not None:
            raise failed


def judge_study(name: str, seeds: Sequence[int], out: Path, *, quick: bool = False) -> StudyRecord:
    """Judges and draws the runs of a study's grid that the folder holds, and runs none; the notes say how many are missing.

    Writes all that `make_study` writes but runs and their times. Raises `BadInput` where the folder holds no run of this grid, and for a
    study that reads others which are not there.
    """
    study = study_named(name)
    runs, lines = study.grid(seeds, quick), read_runs(out)
    if not any(run.key in lines for run in runs):
        raise BadInput(f"{out} holds no run of the grid of {command_of(name, seeds, quick)}; run it first")
    others, absent = read_beside(study, seeds, out)
    record = conclude(study, runs, lines, others, command=command_of(name, seeds, quick), quick=quick)
    record = record.model_copy(update={"notes": (*record.notes, *absent)})
    write_whole(out / STUDY, record.to_json())
    write_study_page(out)
    write_study_pictures(out)
    return record


def plan_study(name: str, seeds: Sequence[int], out: Path, *, quick: bool = False, workers: int | None = None) -> Table:
    """What a study's grid will cost, with what the folder holds of it; nothing is run."""
    runs, ledger = study_named(name).grid(seeds, quick), Ledger.of(out)
    return Costs.of(runs, ledger.seconds).table(runs, set(ledger.lines), workers or num_cores())


def read_beside(study: Study, seeds: Sequence[int], out: Path) -> tuple[list[GridRun], list[str]]:
    """The finished runs of the studies that one reads, of the same seeds, from the folders beside its own; and in words, what is missing.

    Raises `BadInput` where there are none.
    """
    found: list[GridRun] = []
    absent = []
    for other in study.reads:
        lines, wanted = read_runs(out.parent / other), [run.key for run in STUDIES[other].grid(seeds, False)]
        there = [lines[key] for key in wanted if key in lines]
        if not there:
            where = out.parent / other
            raise BadInput(f"{study.name} reads the runs of {other}, and {where} holds none; run `theodolite study {other}` first")
        if len(there) < len(wanted):
            absent.append(f"of the runs of {other} that are read, {len(wanted) - len(there)} of {len(wanted)} are missing")
        found.extend(there)
    return found, absent


def command_of(name: str, seeds: Sequence[int], quick: bool) -> str:
    """The command that makes a study."""
    return f"theodolite study {name} --quick" if quick else f"theodolite study {name} --seeds {len(seeds)}"


def _backend(on: Place, workers: int | None) -> tuple[Backend, int]:
    if on == "ray":
        if workers is not None:
            raise BadInput("--workers is for the cores of this machine; Ray uses all that its cluster has, so leave it out")
        return on_ray()
    number = num_cores() if workers is None else workers
    return on_cores(number), number
