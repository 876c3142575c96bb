"""Studies by name, and the functions that make one: run its grid, judge its claims, draw its page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from rich.table import Table

from theodolite.commands.progress import Steps
from theodolite.records.errors import BadInput, UnknownName
from theodolite.records.folder import sole_writer, write_whole
from theodolite.records.study import STUDY, GridRun, StudyRecord, read_runs
from theodolite.records.survey import Thresholds
from theodolite.report.study.charts import write_study_pictures
from theodolite.report.study.page import write_study_page
from theodolite.studies.advice import ADVICE
from theodolite.studies.dose import DOSE
from theodolite.studies.engine.cores import num_cores, on_cores
from theodolite.studies.engine.costs import Costs
from theodolite.studies.engine.grid import Backend, Ledger, RunsFailed, run_grid
from theodolite.studies.engine.ray_cluster import on_ray
from theodolite.studies.engine.rejudge import Rejudged, rejudge_runs
from theodolite.studies.engine.study import Study, conclude
from theodolite.studies.flip import FLIP
from theodolite.studies.forecast import FORECAST
from theodolite.studies.frontier import FRONTIER
from theodolite.studies.geometry import GEOMETRY
from theodolite.studies.gram import GRAM
from theodolite.studies.laver import LAVER
from theodolite.studies.lock import LOCK
from theodolite.studies.rivals import RIVALS
from theodolite.studies.unlock import UNLOCK

_ALL = (FLIP, LOCK, DOSE, LAVER, RIVALS, FRONTIER, UNLOCK, ADVICE, GEOMETRY, GRAM, FORECAST)
STUDIES: Mapping[str, Study] = {study.name: study for study in _ALL}
Place = Literal["cores", "ray"]


def study_named(name: str) -> Study:
    """The study of this name. Raises `UnknownName`."""
    if name not in STUDIES:
        raise UnknownName("study", name, tuple(STUDIES))
    return STUDIES[name]


def make_study(
    name: str, seeds: Sequence[int], out: Path, steps: Steps, *, quick: bool = False, on: Place = "cores", workers: int | None = None
) -> StudyRecord:
    """Runs the part of a study's grid that the folder lacks, then judges and draws the finished runs of the grid.

    The folder holds `runs.jsonl` (a line for each finished run), `study.json`, `index.html`, a picture for each figure, `run.json`, in
    `rows/` the rows of each run that judging needs, and in `surveys/` the whole record of each run. If runs fail, the others are judged
    and `RunsFailed` is raised at the end. Raises `BadInput` if the runs of another study that this one reads are missing, or if another
    process runs a study in the folder.
    """
    study = study_named(name)
    # Fails before hours of runs, not after them.
    read_beside(study, seeds, out)
    backend, workers = _backend(on, workers)
    failed: RunsFailed | None = None
    with sole_writer(out):
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
    """Judges and draws the finished runs of a study's grid in the folder, and starts none; the notes say how many are missing.

    Writes what `make_study` writes except runs and their times. Raises `BadInput` if the folder holds no run of this grid, or if the runs
    of another study that this one reads are missing.
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
    """Table of the expected cost of a study's grid, less the finished runs in the folder. Starts no run."""
    runs, ledger = study_named(name).grid(seeds, quick), Ledger.of(out)
    return Costs.of(runs, ledger.seconds).table(runs, set(ledger.lines), workers or num_cores())


def rejudge_study(name: str, seeds: Sequence[int], out: Path, thresholds: Thresholds, *, quick: bool = False) -> Rejudged:
    """Judges the verdicts of a study's finished runs again, under other thresholds, from the rows that its folder keeps; starts no run."""
    return rejudge_runs(study_named(name).grid(seeds, quick), out, thresholds)


def read_beside(study: Study, seeds: Sequence[int], out: Path) -> tuple[list[GridRun], list[str]]:
    """Finished runs of the studies that a study reads, under the same seeds, from the sibling folders of `out`; and notes on missing ones.

    Raises `BadInput` if one of these studies has no finished run.
    """
    others: list[GridRun] = []
    notes = []
    for other in study.reads:
        read = STUDIES[other].shared or STUDIES[other].grid
        lines, wanted = read_runs(out.parent / other), [run.key for run in read(seeds, False)]
        finished = [lines[key] for key in wanted if key in lines]
        if not finished:
            folder = out.parent / other
            raise BadInput(f"{study.name} reads the runs of {other}, and {folder} holds none; run `theodolite study {other}` first")
        if len(finished) < len(wanted):
            notes.append(f"of the runs of {other} that are read, {len(wanted) - len(finished)} of {len(wanted)} are missing")
        others.extend(finished)
    return others, notes


def command_of(name: str, seeds: Sequence[int], quick: bool) -> str:
    """The command line that makes a study, as recorded in study.json."""
    return f"theodolite study {name} --quick" if quick else f"theodolite study {name} --seeds {len(seeds)}"


def _backend(on: Place, workers: int | None) -> tuple[Backend, int]:
    if on == "ray":
        if workers is not None:
            raise BadInput("--workers is for the cores of this machine; Ray uses all cores of its cluster, so leave it out")
        return on_ray()
    number = num_cores() if workers is None else workers
    return on_cores(number), number
