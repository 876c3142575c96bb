"""The tour: the whole way once. One world, the same pictures, several query policies; train, survey, report."""

from __future__ import annotations

import shutil
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from theodolite.commands.progress import Steps
from theodolite.measurement.survey.options import SurveyOptions
from theodolite.models.export import export_vlm
from theodolite.models.load import load_vlm
from theodolite.records.errors import UnknownName
from theodolite.records.folder import FolderTaken, sole_writer, whole_folder, write_whole
from theodolite.records.progress import Progress
from theodolite.records.survey import SurveyRecord, read_survey
from theodolite.records.training import NAME, read_training
from theodolite.records.writing import write_survey
from theodolite.report.survey.page import write_report
from theodolite.studies.engine.arms import TOURS, Arm
from theodolite.studies.engine.execute import Run, survey_run, surveyed_as, train_run

NUM_SCENES = 200


@dataclass(frozen=True)
class Tour:
    """Everything that decides what a tour does."""

    world: str
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...] = (0,)
    num_scenes: int = NUM_SCENES


@dataclass(frozen=True)
class TourRun:
    """One run, and where its record lies: `out/<arm>` for the first seed, `out/seed-<n>/<arm>` for others."""

    run: Run
    folder: Path
    label: str

    @property
    def model(self) -> Path:
        return self.folder / "model"


def tour_runs(tour: Tour, out: Path) -> list[TourRun]:
    """All arms under all seeds, in the order in which they run."""
    runs = []
    for number, seed in enumerate(tour.seeds):
        for arm in tour.arms:
            folder = out / arm.name if number == 0 else out / f"seed-{seed}" / arm.name
            run = Run(tour.world, arm, seed, tour.num_scenes)
            runs.append(TourRun(run, folder, arm.name if len(tour.seeds) == 1 else f"{arm.name}, seed {seed}"))
    return runs


def run_tour(tour: Tour, out: Path, *, overwrite: bool, steps: Steps) -> list[SurveyRecord]:
    """Runs a tour into `out` and returns its surveys; what an earlier run of the same tour left there is kept.

    Raises `FolderTaken` if `out` holds anything that this tour would not make, `BadInput` if another process runs one there.
    """
    runs = tour_runs(tour, out)
    with sole_writer(out):
        _refuse_other(runs, out, overwrite=overwrite)
        for tour_run in runs:
            _run_arm(tour_run, steps)
        folders = [tour_run.folder for tour_run in runs]
        write_report(folders, out / "report.html")
    return [read_survey(folder) for folder in folders]


def _refuse_other(runs: list[TourRun], out: Path, *, overwrite: bool) -> None:
    """Raises `FolderTaken` on anything in `out` that this tour would not make. Overwriting removes only what it would make."""
    if out.exists() and not out.is_dir():
        raise FolderTaken(f"{out} is a file; give a folder")
    if not out.exists():
        return
    known = {out / "report.html"}.union(*({tour_run.folder, tour_run.folder.parent} for tour_run in runs))
    for path in sorted(out.iterdir()):
        if path not in known and not path.name.startswith("."):
            raise FolderTaken(f"{out} holds {path.name}, which this tour does not make; give another --out, or move it away")
    for tour_run in runs:
        record = None if overwrite else read_training(tour_run.model)
        if record is not None and record.setup != tour_run.run.setup:
            raise FolderTaken(f"{tour_run.model} was trained in another way; give another --out, or --overwrite to train it again")
    for tour_run in runs if overwrite else ():
        shutil.rmtree(tour_run.folder, ignore_errors=True)


def _run_arm(tour_run: TourRun, steps: Steps) -> None:
    """Trains and surveys one arm, each unless its outcome exists."""
    before = time.monotonic()
    if read_training(tour_run.model) is None:
        _train(tour_run, steps)
    else:
        steps.reuse(f"train {tour_run.label}")
    between = time.monotonic()
    training = read_training(tour_run.model)
    if (tour_run.folder / "survey.json").is_file() and surveyed_as(tour_run.run, read_survey(tour_run.folder), training):
        steps.reuse(f"survey {tour_run.label}")
        return
    model = load_vlm(tour_run.model)  # as it lies on disk, so that anyone can repeat the survey from there

    def survey_step(label: str, cost: str) -> AbstractContextManager[Progress]:
        return steps.step(f"survey {tour_run.label}: {label}")

    result = survey_run(tour_run.run, model, training, SurveyOptions(), survey_step)
    seconds = {"training": between - before, "survey": time.monotonic() - between}
    result = result.with_run("tour", seconds)
    write_survey(tour_run.folder, result.record, result.rows, result.pictures, result.run, thumbnails=result.thumbnails)


def _train(tour_run: TourRun, steps: Steps) -> None:
    with steps.step(f"train {tour_run.label}") as progress:
        trained = train_run(tour_run.run, progress)
    (tour_run.folder / "survey.json").unlink(missing_ok=True)
    with whole_folder(tour_run.model, overwrite=True) as folder:
        export_vlm(trained.model, trained.processor, folder)
        write_whole(folder / NAME, trained.record.to_json())


def tour_named(name: str, num_seeds: int = 1, *, short: bool = False) -> Tour:
    """The tour of a world. A short one runs the whole way with too little of everything to show an effect. Raises `UnknownName`."""
    if name not in TOURS:
        raise UnknownName("world", name, tuple(TOURS))
    arms = TOURS[name]()
    if short:
        arms = tuple(
            replace(arm, recipe=replace(arm.recipe, name=f"{arm.recipe.name}-short", steps=10), num_pictures=min(arm.num_pictures, 640))
            for arm in arms
        )
    return Tour(name, arms, tuple(range(num_seeds)), num_scenes=20 if short else NUM_SCENES)
