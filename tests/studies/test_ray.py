"""A grid through Ray: on a local cluster of two nodes, each run on one core of one of them, its records sent back."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import HELPERS, script_environment
from helpers.grid_runs import tiny_grid, tiny_run
from helpers.requirements import require
from theodolite.records.study import read_runs
from theodolite.studies.engine.execute import execute

SCRIPT = HELPERS / "ray_grid.py"


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, object], Path]:
    """What the grid in a process of its own said, and its folder."""
    require("ray")
    out = tmp_path_factory.mktemp("ray")
    environment = script_environment()
    ran = subprocess.run([sys.executable, SCRIPT, out], capture_output=True, text=True, env=environment, timeout=500)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1]), out


def test_runs_are_spread_over_the_nodes_with_one_thread_each_and_a_failure_is_its_own(told: tuple[dict[str, object], Path]) -> None:
    found, _ = told
    assert found["cores"] == 2
    outcomes = dict(found["told"])  # type: ignore[call-overload]
    assert set(outcomes) == {run.key for run in tiny_grid(3)}
    words = [why.split() for why in outcomes.values()]
    assert {word[0] for word in words} == {"RuntimeError:"}
    assert len({word[1] for word in words}) == 2, "both nodes have worked"
    assert {(word[2], word[3]) for word in words} == {("1", "1")}


def test_a_run_on_a_cluster_is_the_run_that_is_made_here(told: tuple[dict[str, object], Path]) -> None:
    _, out = told
    (line,) = read_runs(out).values()
    # What is sent to the cluster is no checkout.
    assert line.model_copy(update={"revision": None}) == execute(tiny_run()).line.model_copy(update={"revision": None})
    assert (out / "surveys" / line.key / "rows.parquet").is_file()
