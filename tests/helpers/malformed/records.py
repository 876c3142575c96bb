"""Targets: records of surveys, studies and trainings, the rows of surveys, and recipes of runs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow.parquet as pq
from hypothesis import strategies as st

from helpers import study_records, survey_records
from helpers.inside_records import MEASURES, inside
from helpers.malformed.byte_cases import damaged
from helpers.malformed.json_cases import json_files, json_lines
from helpers.malformed.tables import parquet, retyped
from helpers.malformed.target import Prepare, Ready
from helpers.pair_rows import answered_rows
from theodolite.measurement.survey.result import load_survey
from theodolite.records.study import STUDY, read_runs, read_study
from theodolite.records.training import TrainingRecord, read_training
from theodolite.records.training_log import read_training_log
from theodolite.report.stored import StoredSurvey, read_stored
from theodolite.report.study.page import build_study_page as study_page
from theodolite.report.survey.page import build_page
from theodolite.report.view.row_table import RowFilter, RowTable
from theodolite.training.recipe_file import RECIPE, recipe_json, refuse_other_run
from theodolite.training.recipes import tiny_laver

HALVES = (MEASURES[:5], MEASURES[5:])
PAGES_EVERY = 40  # a page takes a thousand times as long as the reading of its record


def survey_json(folder: Path) -> Ready:
    one, other, third = survey_records.three_records()
    # The measures of the inside in halves: a page with all of them takes seconds.
    halves = [dict.fromkeys(HALVES[1 - half]) | {"measures": HALVES[half]} for half in (0, 1)]
    one, other = (each.model_copy(update={"inside": inside(side=2, **half)}) for each, half in zip((one, other), halves, strict=True))
    home = survey_records.write(folder / "a", one)
    documents = [json.loads((home / "survey.json").read_text()), *(json.loads(each.model_dump_json()) for each in (other, third))]
    run = json.loads((home / "run.json").read_text())
    path, number = home / "survey.json", 0
    build_page([read_stored(home)])  # loads what pages need, which no case has to pay for

    def consume(payload: bytes) -> None:
        nonlocal number
        number += 1
        is_run = payload.startswith(b'{"started"') or b'"seconds"' in payload[:300]
        (home / "run.json" if is_run else path).write_bytes(payload)
        try:
            stored = read_stored(home)
            if number % PAGES_EVERY == 0:
                page(stored)
        finally:
            if is_run:
                (home / "run.json").write_text(json.dumps(run))
                path.write_text(json.dumps(documents[0]))

    def page(stored: StoredSurvey) -> None:
        html = build_page([stored])
        assert "<script>alert(1)" not in html

    of_survey = json_files(documents)
    return Ready(st.one_of(of_survey, of_survey, of_survey, of_survey, json_files([run])), consume)


def study_json(folder: Path) -> Ready:
    runs = study_records.grid_runs((0, 1))[:6]
    home = study_records.write(folder / "study", study_records.study(), runs)
    study, path = json.loads((home / STUDY).read_text()), home / STUDY
    lines = [json.loads(run.model_dump_json()) for run in runs[:2]]
    whole, number = path.read_bytes(), 0
    study_page(study_records.study(), runs)

    def consume(payload: bytes) -> None:
        nonlocal number
        number += 1
        is_line = payload.startswith(b'{"version": 1, "kind": "grid-run"')
        (home / "runs.jsonl").write_bytes(payload if is_line else b"")
        path.write_bytes(whole if is_line else payload)
        record, read = read_study(home), read_runs(home)
        if number % PAGES_EVERY == 0:
            assert "<script>alert(1)" not in study_page(record, list(read.values()))

    return Ready(st.one_of(json_files([study]), json_lines([lines])), consume)


def rows(folder: Path) -> Ready:
    home = survey_records.write(folder / "a", survey_records.three_records()[1])
    answered_rows(6).write_parquet(home / "rows.parquet")
    table, path = pq.read_table(home / "rows.parquet"), home / "rows.parquet"

    number = 0
    build_page([read_stored(home)])

    def consume(payload: bytes) -> None:
        nonlocal number
        number += 1
        path.write_bytes(payload)
        result = load_survey(home)
        if number % PAGES_EVERY == 0:
            build_page([StoredSurvey(result.record, result.run, {}, result.rows)])
        shown = RowTable(path)
        shown.page(RowFilter(text="a"))
        shown.row(0)

    return Ready(st.one_of(retyped(table), damaged([parquet(table), parquet(table, "none")])), consume)


def recipe(folder: Path) -> Ready:
    out = folder / "run"
    out.mkdir()
    document = json.loads(recipe_json(tiny_laver(), 0))

    def consume(payload: bytes) -> None:
        (out / RECIPE).write_bytes(payload)
        refuse_other_run(tiny_laver(), 0, out)

    return Ready(json_files([document]), consume)


def training_records(folder: Path) -> Ready:
    """`training.json` of a model's folder, and the log that `--training-log` names."""
    model, log = folder / "model", folder / "log.jsonl"
    shutil.rmtree(model, ignore_errors=True)
    model.mkdir()
    made = study_records.grid_runs((0,))[0]
    record = TrainingRecord(setup=made.setup, facts=made.facts, weights_sha256="0" * 64, losses=((1, 2.5), (2, 2.0)))
    document = json.loads(record.to_json())
    lines = [
        {"step": 1, "loss": 2.5, "grad_norm": 1.0, "learning_rate": 1e-3, "epoch": 0.1},
        {"step": 2, "loss": 2.0},
        {"train_runtime": 2.0, "step": 2},
    ]
    readers: list[Callable[[], object]] = [lambda: read_training(model), lambda: read_training_log(log)]

    def consume(payload: bytes) -> None:
        is_log = payload.startswith(b'{"step"')
        (log if is_log else model / "training.json").write_bytes(payload)
        readers[is_log]()

    return Ready(st.one_of(json_files([document]), json_lines([lines])), consume)


TARGETS: Mapping[str, Prepare] = {
    "survey.json": survey_json, "study.json": study_json, "rows.parquet": rows, "recipe.json": recipe, "training records": training_records,
}  # fmt: skip
