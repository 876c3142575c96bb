"""Grids of runs: each runs once, lands whole, and is not run again; what fails or is killed costs nobody else anything."""

from __future__ import annotations

import io
import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import polars as pl
import psutil
import pytest
from filelock import FileLock
from rich.console import Console
from typer.testing import CliRunner

from helpers import script_environment
from helpers.grid_runs import RECIPE, Pretended, tiny_grid, tiny_run
from theodolite.cli import app
from theodolite.commands.progress import Steps
from theodolite.models.construction.build import DecoderSize
from theodolite.models.forward import Adaptation
from theodolite.objectives.laver import LaverConfig
from theodolite.objectives.pixels import PixelsConfig
from theodolite.objectives.visual import AuxiliaryConfig
from theodolite.records.errors import BadInput
from theodolite.records.study import read_runs, write_runs
from theodolite.records.survey import BadRecord, Thresholds, read_survey
from theodolite.studies.engine.arms import Arm
from theodolite.studies.engine.cores import on_cores
from theodolite.studies.engine.costs import Costs, arithmetic, hours
from theodolite.studies.engine.execute import Run, RunResult, execute
from theodolite.studies.engine.grid import SURVEYS, RunsFailed, in_order, run_grid
from theodolite.studies.engine.kept_rows import compress_rows, kept_rows_path, read_kept_rows
from theodolite.studies.engine.rejudge import judge_rows, rejudge_runs
from theodolite.training.recipe import Recipe


@pytest.fixture(scope="module")
def one() -> RunResult:
    """One real run."""
    return execute(tiny_run())


@pytest.fixture
def ways(one: RunResult, tmp_path: Path) -> Pretended:
    (tmp_path / "outcome").write_bytes(pickle.dumps(one))
    return Pretended(tmp_path)


def begun(ways: Pretended) -> list[list[str]]:
    """Key, process and threads of every run that was begun."""
    notes = ways.folder / "notes"
    return [line.split() for line in notes.read_text().splitlines()] if notes.exists() else []


def steps() -> Steps:
    return Steps(Console(file=io.StringIO(), width=200))


def said(found: Steps) -> str:
    return found.console.file.getvalue()  # type: ignore[attr-defined]


def test_every_run_is_begun_once_in_a_process_of_one_thread_of_its_own(tmp_path: Path, ways: Pretended) -> None:
    runs = tiny_grid()
    found = run_grid(runs, tmp_path / "out", on_cores(2, ways.noted), 2, steps())
    assert list(found) == [run.key for run in runs] == list(read_runs(tmp_path / "out"))
    assert sorted(key for key, _, _ in begun(ways)) == sorted(run.key for run in runs)
    assert len({process for _, process, _ in begun(ways)}) == len(runs)
    assert {threads for _, _, threads in begun(ways)} == {"1"}
    for run in runs:
        names = {path.name for path in (tmp_path / "out" / SURVEYS / run.key).iterdir()}
        assert names == {"survey.json", "rows.parquet", "run.json", "training.json"}


def test_what_is_on_disk_is_not_run_again_and_lines_of_other_grids_stay(tmp_path: Path, ways: Pretended) -> None:
    run_grid(tiny_grid(1), tmp_path / "out", on_cores(1, ways.noted), 1, steps())
    run_grid(tiny_grid(2), tmp_path / "out", on_cores(1, ways.noted), 1, steps())
    assert len(begun(ways)) == 4
    last = steps()
    assert list(run_grid(tiny_grid(1), tmp_path / "out", on_cores(1, ways.noted), 1, last)) == [run.key for run in tiny_grid(1)]
    assert len(begun(ways)) == 4
    assert len(read_runs(tmp_path / "out")) == 4
    assert {path.stem for path in (tmp_path / "out" / "rows").iterdir()} == {run.key for run in tiny_grid(2)}
    assert "2 runs, 2 on disk" in said(last)


def test_the_lines_alone_are_enough_to_skip_a_run(tmp_path: Path, ways: Pretended) -> None:
    run_grid(tiny_grid(1), tmp_path / "out", on_cores(1, ways.noted), 1, steps())
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "runs.jsonl").write_bytes((tmp_path / "out" / "runs.jsonl").read_bytes())
    run_grid(tiny_grid(1), tmp_path / "copy", on_cores(1, ways.noted), 1, steps())
    assert len(begun(ways)) == 2


@pytest.mark.parametrize(("performing", "why"), [("failing", "ValueError: seed 1 is odd"), ("vanishing", "its process ended with -9")])
def test_a_run_that_fails_or_vanishes_is_named_at_the_end_and_the_others_land(
    tmp_path: Path, ways: Pretended, performing: str, why: str
) -> None:
    with pytest.raises(RunsFailed, match=why):
        run_grid(tiny_grid(), tmp_path / "out", on_cores(2, getattr(ways, performing)), 2, steps())
    assert [line.setup.seed for line in read_runs(tmp_path / "out").values()] == [0, 0]
    run_grid(tiny_grid(), tmp_path / "out", on_cores(1, ways.noted), 1, steps())
    assert len(begun(ways)) == 4, "only the two that failed are begun again"


SCRIPT = """
import signal
import sys
from pathlib import Path
from rich.console import Console
from helpers import script_environment
from helpers.grid_runs import Pretended, tiny_grid
from theodolite.studies.engine.cores import on_cores
from theodolite.studies.engine.grid import run_grid
from theodolite.commands.progress import Steps
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a test that runs in the background would leave it ignored
    folder = Path(sys.argv[1])
    run_grid(tiny_grid(), folder / "out", on_cores(1, Pretended(folder).stalling), 1, Steps(Console()))
"""


@pytest.fixture
def stalled(tmp_path: Path, ways: Pretended, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[subprocess.Popen[str], str, int]]:
    """A grid in a process, the run that it is at (which never ends), and the process of that."""
    pipe = tmp_path / "begun"
    os.mkfifo(pipe)
    monkeypatch.setenv("PYTHONPATH", script_environment()["PYTHONPATH"])
    (tmp_path / "script.py").write_text(SCRIPT)
    with subprocess.Popen([sys.executable, tmp_path / "script.py", tmp_path], stderr=subprocess.PIPE, text=True) as grid:
        key, process = pipe.read_text().split()
        yield grid, key, int(process)
        grid.kill()


def ended(process: int) -> None:
    """Returns when a process that is not our child is gone."""
    try:
        psutil.Process(process).wait(timeout=60)
    except psutil.NoSuchProcess:
        return


def test_a_grid_that_is_killed_leaves_no_process_behind_and_goes_on_where_it_was(
    tmp_path: Path, ways: Pretended, stalled: tuple[subprocess.Popen[str], str, int]
) -> None:
    grid, key, process = stalled
    assert key == in_order(tiny_grid(), Costs.of(tiny_grid(), {}))[0].key
    grid.kill()
    grid.wait()
    ended(process)
    run_grid(tiny_grid(), tmp_path / "out", on_cores(1, ways.noted), 1, steps())
    assert [found for found, _, _ in begun(ways)].count(key) == 1, "the run that was cut off is begun anew"
    assert len(read_runs(tmp_path / "out")) == 4


def test_ctrl_c_stops_the_runs_too(stalled: tuple[subprocess.Popen[str], str, int]) -> None:
    grid, _, process = stalled
    grid.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in grid.communicate(timeout=60)[1]
    ended(process)


def test_two_processes_are_not_at_one_folder(tmp_path: Path, ways: Pretended) -> None:
    with FileLock(tmp_path.parent / f".{tmp_path.name}.lock"), pytest.raises(BadInput, match="another process is writing"):
        run_grid(tiny_grid(), tmp_path, on_cores(1, ways.renamed), 1, steps())


def test_a_line_that_is_no_run_is_named_by_its_number(tmp_path: Path, ways: Pretended) -> None:
    (tmp_path / "runs.jsonl").write_text('{"key": 1}\n')
    with pytest.raises(BadRecord, match=r"runs\.jsonl, line 1, is no run"):
        run_grid(tiny_grid(), tmp_path, on_cores(1, ways.renamed), 1, steps())


def test_a_run_repeats_and_its_line_is_taken_from_its_survey(tmp_path: Path, one: RunResult) -> None:
    done, again = one, execute(tiny_run())
    # Files of the checkout may change meanwhile.
    assert again.line.model_copy(update={"revision": None}) == done.line.model_copy(update={"revision": None})
    for name in ("survey.json", "training.json"):
        assert again.files[name] == done.files[name]
    for name, data in done.files.items():
        (tmp_path / name).write_bytes(data)
    survey = read_survey(tmp_path)
    assert {(cell.factor, cell.query): round(cell.moved_frac, 5) for cell in survey.shadows.cells} == {
        (cell.factor, cell.query): cell.moved_frac for cell in done.line.cells
    }
    assert survey.coverage is not None
    assert {name: value for name, value in done.line.foretold.coverage.items() if value} == {
        name: round(value, 5) for name, value in survey.coverage.coverage.items() if value > 0
    }
    assert done.line.foretold.asked_frac == {"shape": 0.5, "row": 0.5}
    assert pl.read_parquet(tmp_path / "rows.parquet")["scene"].n_unique() >= 3
    assert json.loads(done.files["run.json"])["host"]["torch_threads"] >= 1


def test_the_kept_rows_of_a_run_judge_as_the_whole_rows_do(tmp_path: Path, one: RunResult) -> None:
    whole = pl.read_parquet(io.BytesIO(one.files["rows.parquet"]))
    path = kept_rows_path(tmp_path, "run")
    path.parent.mkdir()
    path.write_bytes(compress_rows(whole))
    kept = read_kept_rows(tmp_path, "run")
    assert kept is not None and kept.schema == whole.schema
    exact = [
        "kind",
        "scene",
        "factor",
        "query",
        "form",
        "name",
        "choices",
        "truth_before",
        "answer_after",
        "moved",
        "right",
        "picture_after",
    ]
    assert kept.select(exact).equals(whole.select(exact))
    assert float((kept["variation"] - whole["variation"]).abs().max()) < 1e-4  # type: ignore[arg-type]
    for thresholds in (Thresholds(), Thresholds(read_frac=0.01, confidence=0.6)):
        assert judge_rows(tiny_run(), kept, thresholds) == judge_rows(tiny_run(), whole, thresholds)
    assert path.stat().st_size < len(one.files["rows.parquet"]) / 2
    assert read_kept_rows(tmp_path, "another") is None
    whole.select("kind").write_parquet(path)
    with pytest.raises(BadRecord, match="lacks factor"):
        read_kept_rows(tmp_path, "run")


def test_unanswered_rows_stay_unanswered(tmp_path: Path, one: RunResult) -> None:
    whole = pl.read_parquet(io.BytesIO(one.files["rows.parquet"])).with_columns(answer_after=pl.lit(None, pl.String()))
    path = kept_rows_path(tmp_path, "run")
    path.parent.mkdir()
    path.write_bytes(compress_rows(whole))
    kept = read_kept_rows(tmp_path, "run")
    assert kept is not None and kept["moved"].null_count() == kept["right"].null_count() == len(whole)


def test_verdicts_are_judged_again_and_runs_without_rows_are_counted(tmp_path: Path, one: RunResult) -> None:
    runs = tiny_grid()
    verdicts = judge_rows(tiny_run(), pl.read_parquet(io.BytesIO(one.files["rows.parquet"])), Thresholds())
    kept = compress_rows(pl.read_parquet(io.BytesIO(one.files["rows.parquet"])))
    lines = [one.line.model_copy(update={"key": run.key, "setup": run.setup, "verdicts": {**verdicts, "size": "blind"}}) for run in runs]
    write_runs(tmp_path, lines[:3])
    (tmp_path / "rows").mkdir()
    for run in runs[1:3]:
        kept_rows_path(tmp_path, run.key).write_bytes(kept)
    again = rejudge_runs(runs, tmp_path, Thresholds())
    assert (again.num_judged, again.num_without_rows, again.num_missing) == (2, 1, 1)
    assert {(each.key, each.before) for each in again.changed if each.factor == "size"} == {(run.key, "blind") for run in runs[1:3]}
    assert not [each for each in again.changed if "-all-" in each.key and each.factor != "size"], "the rows are those of the arm all"
    assert "1 finished run without kept rows" in " ".join(again.lines()) and again.table().row_count == len(again.changed)
    with pytest.raises(BadInput, match="nothing to judge again"):
        rejudge_runs(runs, tmp_path / "none", Thresholds())


def test_thresholds_without_rejudge_are_refused(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["study", "flip", "--read-frac", "0.4", "--out", str(tmp_path)])
    assert isinstance(done.exception, BadInput) and "--rejudge" in str(done.exception)


def test_noise_is_that_of_nuisance_cells_of_open_queries(tmp_path: Path, one: RunResult) -> None:
    (tmp_path / "survey.json").write_bytes(one.files["survey.json"])
    cells = [cell for cell in read_survey(tmp_path).shadows.noise_cells if cell.form == "open" and cell.source == "nuisance"]
    assert {cell.query: round(cell.rate.frac, 5) for cell in cells} == one.line.noise


OTHERWISE: dict[type, dict[str, object]] = {
    Run: {"world": "easy_vqa", "seed": 1, "num_scenes": 4, "correlation": ("row", "colour"), "measures": ("gap",), "inside_scenes": 7,
          "official": False, "survey_seed": 1},
    Arm: {"name": "other", "policy": "row", "strength": 0.5, "num_pictures": 9, "source": "official", "among": "others"},
    Recipe: {"name": "other", "steps": 3, "batch": 5, "learning_rate": 2e-3, "warmup_frac": 0.2, "beta2": 0.9, "weight_decay": 0.1,
             "clip_norm": 2.0, "precision": "fp32", "attention": "sdpa", "decoder": DecoderSize(), "frontend": "patches",
             "connector": "linear", "tower": "trained", "laver": LaverConfig(branch="joint"),
             "auxiliary": AuxiliaryConfig(pixels=PixelsConfig()), "adaptation": Adaptation("mixed", "2d")},
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, field.name) for kind in OTHERWISE for field in fields(kind) if field.type not in ("Arm", "Recipe")]
)
def test_whatever_decides_the_outcome_is_in_a_runs_key(kind: type, name: str) -> None:
    run = replace(tiny_run(), measures=("ladder",))
    change = {name: OTHERWISE[kind][name]}
    if kind is Run:
        other = replace(run, **change)
    elif kind is Arm:
        other = replace(run, arm=replace(run.arm, **change))
    else:
        other = replace(run, arm=replace(run.arm, recipe=replace(run.arm.recipe, **change)))
    assert other.key != run.key
    assert replace(run).key == run.key


def test_costs_are_arithmetic_until_a_run_was_timed_and_then_follow_it() -> None:
    runs = [tiny_run(), tiny_run(steps=2000, batch=64), tiny_run("agree")]
    plain = Costs.of(runs, {})
    assert plain.seconds(runs[0]) == plain.seconds(runs[2]) < plain.seconds(runs[1])
    timed = Costs.of(runs, {runs[0].key: 3 * plain.seconds(runs[0])})
    assert timed.seconds(runs[1]) == pytest.approx(3 * plain.seconds(runs[1]))
    # Four times the width is sixteen times the weights; attention grows by four only.
    wide = tiny_run(decoder=RECIPE.decoder.__class__(num_layers=1, width=64, num_heads=2))
    assert 4 < arithmetic(wide) / arithmetic(runs[0]) < 16


def test_a_cut_off_grid_holds_whole_seeds_and_long_runs_go_first() -> None:
    runs = [tiny_run(seed=1), tiny_run(), tiny_run("agree", steps=500)]
    assert [(run.seed, run.arm.recipe.steps) for run in in_order(runs, Costs.of(runs, {}))] == [(0, 500), (0, 2), (1, 2)]


@pytest.mark.parametrize(("seconds", "words"), [(45.0, "45 s"), (720.0, "12 min"), (9000.0, "2.5 h")])
def test_costs_are_told_in_words(seconds: float, words: str) -> None:
    assert hours(seconds) == words
