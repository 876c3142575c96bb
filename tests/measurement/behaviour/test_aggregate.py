"""Aggregating a large survey: the same numbers as row by row, and the benchmark that times it."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from collections import defaultdict

import polars as pl
import pytest

from helpers import REPOSITORY
from theodolite.measurement.behaviour.shadows import MEASURED, measure_shadows
from theodolite.records.rows import ROWS
from theodolite.records.survey import Shadows, Thresholds
from theodolite.stats.rates import exact_interval

BENCHMARK = REPOSITORY / "benchmarks" / "aggregate.py"
NUM_ROWS = 50_000


@pytest.fixture(scope="module")
def rows() -> pl.DataFrame:
    made: pl.DataFrame = runpy.run_path(str(BENCHMARK))["synthetic_rows"](NUM_ROWS)
    return made


def shadows_of(rows: pl.DataFrame) -> Shadows:
    names = rows["name"].unique(maintain_order=True).to_list()
    dependence = {name: frozenset({name.partition("=")[0]}) for name in names}
    return measure_shadows(rows, ("shape", "colour", "size", "row"), dependence, frozenset(names), Thresholds())


def one_by_one(rows: pl.DataFrame) -> dict[tuple[str, str, str, bool], dict[str, list[tuple[int, float]]]]:
    """(scene, value) of every intervention row by cell and quantity, one row after the other."""
    found: dict[tuple[str, str, str, bool], dict[str, list[tuple[int, float]]]] = defaultdict(lambda: defaultdict(list))
    for row in rows.iter_rows(named=True):
        if row["kind"] == "intervention":
            key = (row["factor"], row["query"], row["form"], row["truth_before"] != row["truth_after"])
            found[key]["moved"].append((row["scene"], float(row["answer_before"] != row["answer_after"])))
            right = row["answer_before"] == row["truth_before"] and row["answer_after"] == row["truth_after"]
            found[key]["right"].append((row["scene"], float(right)))
            found[key]["variation"].append((row["scene"], row["variation"]))
    return found


def design_size(values: list[tuple[int, float]]) -> float:
    """Effective sample size of a mean whose rows come by scene, before Student's correction: f (1 - f) over the clustered variance."""
    mean = sum(value for _, value in values) / len(values)
    totals: dict[int, float] = defaultdict(float)
    for scene, value in values:
        totals[scene] += value - mean
    number = len(totals)
    variance = sum(total**2 for total in totals.values()) * number / (number - 1) / len(values) ** 2
    return mean * (1 - mean) / variance


def test_cells_of_many_rows_are_those_of_counting_row_by_row(rows: pl.DataFrame) -> None:
    found = shadows_of(rows)
    expected = one_by_one(rows)
    assert len(rows) == NUM_ROWS and len(found.cells) == len(expected) > 30
    assert sum(cell.num_pairs for cell in found.cells) == rows.filter(pl.col("kind") == "intervention").height
    for cell in found.cells:
        values = expected[cell.factor, cell.query, cell.form, cell.truth_moves]
        assert (cell.num_pairs, cell.num_scenes) == (len(values["moved"]), len({scene for scene, _ in values["moved"]}))
        for name, mean in (("moved", cell.moved_frac), ("right", cell.right_frac), ("variation", cell.variation)):
            assert mean == pytest.approx(sum(value for _, value in values[name]) / len(values[name]))


def test_intervals_of_many_rows_are_those_of_counting_row_by_row(rows: pl.DataFrame) -> None:
    """With hundreds of scenes Student's correction is below a hundredth, so the plain binomial at the effective size is near."""
    expected = one_by_one(rows)
    for cell in [cell for cell in shadows_of(rows).cells if cell.num_scenes > 300][:6]:
        values = expected[cell.factor, cell.query, cell.form, cell.truth_moves]["moved"]
        low, high = exact_interval(cell.moved_frac, design_size(values), 0.95)
        assert cell.low is not None and cell.high is not None
        assert (cell.low, cell.high) == pytest.approx((low, high), abs=0.02 * (high - low))


def test_the_synthetic_rows_have_every_column_of_a_survey_and_rows_of_a_scene_are_alike(rows: pl.DataFrame) -> None:
    assert {name: column.dtype for name, column in ROWS.items()} == dict(rows.schema)
    assert set(rows["kind"]) == {"intervention", "nuisance", "paraphrase", "training"} and rows["scene"].n_unique() == NUM_ROWS / 20
    by_scene = rows.group_by("scene").agg(pl.col("right").mean())["right"].var()
    assert isinstance(by_scene, float) and by_scene > 2 * 0.25 / 20  # far above what independent rows would have


def test_what_is_not_measured_does_not_matter(rows: pl.DataFrame) -> None:
    part = rows.head(5_000)
    assert shadows_of(part) == shadows_of(part.select(MEASURED))


def test_the_benchmark_tells_time_memory_and_rows() -> None:
    done = subprocess.run([sys.executable, str(BENCHMARK), "--json", "--rows", "20000"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["rows"] == 20_000 and found["cells"] > 30
    assert 0 < found["measuring_s"] < found["seconds"] < 60 and 0.05 < found["peak_gib"] < 2
