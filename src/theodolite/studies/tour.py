"""The tour: the whole way once. One world, the same pictures, several query policies; train, survey, report."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import torch

from theodolite.commands.progress import Steps
from theodolite.measurement.survey.session import SurveyOptions
from theodolite.models.export import export_vlm
from theodolite.models.load import load_vlm
from theodolite.records.errors import UnknownName
from theodolite.records.folder import FolderTaken, whole_folder, write_whole
from theodolite.records.survey import SurveyRecord, read_survey
from theodolite.records.training import NAME, read_training
from theodolite.records.writing import run_record, write_survey
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
    stops = []
    for number, seed in enumerate(tour.seeds):
        for arm in tour.arms:
            folder = out / arm.name if number == 0 else out / f"seed-{seed}" / arm.name
            run = Run(tour.world, arm, seed, tour.num_scenes)
            stops.append(TourRun(run, folder, arm.name if len(tour.seeds) == 1 else f"{arm.name}, seed {seed}"))
    return stops


def run_tour(tour: Tour, out: Path, *, overwrite: bool, steps: Steps) -> list[SurveyRecord]:
    """Runs a tour into `out` and returns its surveys; what an earlier run of the same tour left there is kept.

    Raises `FolderTaken` if `out` holds anything that this tour would not make.
    """
    stops = tour_runs(tour, out)
    _refuse_other(stops, out, overwrite=overwrite)
    for stop in stops:
        _take_stop(stop, steps)
    folders = [stop.folder for stop in stops]
    write_report(folders, out / "report.html")
    return [read_survey(folder) for folder in folders]


def _refuse_other(stops: list[TourRun], out: Path, *, overwrite: bool) -> None:
    """Raises `FolderTaken` on anything in `out` that this tour would not make. Overwriting removes only what it would make."""
    if out.exists() and not out.is_dir():
        raise FolderTaken(f"{out} is a file; give a folder")
    if not out.exists():
        return
    known = {out / "report.html"}.union(*({stop.folder, stop.folder.parent} for stop in stops))
    for found in sorted(out.iterdir()):
        if found not in known and not found.name.startswith("."):
            raise FolderTaken(f"{out} holds {found.name}, which this tour does not make; give another --out, or move it away")
    for stop in stops:
        record = None if overwrite else read_training(stop.model)
        if record is not None and record.setup != stop.run.setup:
            raise FolderTaken(f"{stop.model} was trained in another way; give another --out, or --overwrite to train it anew")
    for stop in stops if overwrite else ():
        shutil.rmtree(stop.folder, ignore_errors=True)


def _take_stop(stop: TourRun, steps: Steps) -> None:
    """Trains and surveys one arm, each unless its outcome is there."""
    started, before = datetime.now(UTC), time.monotonic()
    if read_training(stop.model) is None:
        _train(stop, steps)
    else:
        steps.reuse(f"train {stop.label}")
    between = time.monotonic()
    trained = read_training(stop.model)
    if (stop.folder / "survey.json").is_file() and surveyed_as(stop.run, read_survey(stop.folder), trained):
        steps.reuse(f"survey {stop.label}")
        return
    model, processor = load_vlm(stop.model)  # as it lies on disk, so that anyone can repeat the survey from there
    way = SurveyOptions(stage=lambda label, cost: steps.step(f"survey {stop.label}: {label}"))
    survey = survey_run(stop.run, model, processor, trained, way)
    seconds = {"training": between - before, "survey": time.monotonic() - between}
    attention, device = model.config._attn_implementation, str(model.device)
    run = run_record("tour", started, seconds, attention, device, threads=torch.get_num_threads())
    write_survey(stop.folder, survey.record, survey.rows, survey.pictures, run)


def _train(stop: TourRun, steps: Steps) -> None:
    with steps.step(f"train {stop.label}") as tell:
        trained = train_run(stop.run, tell)
    (stop.folder / "survey.json").unlink(missing_ok=True)
    with whole_folder(stop.model, overwrite=True) as folder:
        export_vlm(trained.model, trained.processor, folder)
        write_whole(folder / NAME, trained.record.to_json())


def tour_named(name: str, num_seeds: int = 1, *, short: bool = False) -> Tour:
    """The tour of a world. A short one runs the whole way with too little of everything to show an effect. Raises `UnknownName`."""
    if name not in TOURS:
        raise UnknownName("world", name, tuple(TOURS))
    arms = TOURS[name]()
    if short:
        arms = tuple(
            replace(
                arm,
                recipe=replace(arm.recipe, name=f"{arm.recipe.name}-short", steps=10),
                num_pictures=min(arm.num_pictures, 640),
            )
            for arm in arms
        )
    return Tour(name, arms, tuple(range(num_seeds)), num_scenes=20 if short else NUM_SCENES)
