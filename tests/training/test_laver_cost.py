"""The benchmarks of LaVer's cost: the table of a tiny model on a CPU, and one line for what is missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import theodolite

BENCHMARK = Path(theodolite.__file__).parents[2] / "benchmarks" / "gpu" / "laver_cost.py"
FIGURES = {"attention", "step_s", "peak_gib", "floor", "ratio", "over_floor", "over_plain_gib", "copies", "host_syncs"}


def run(*options: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""} if "--tiny" not in options else None
    return subprocess.run([sys.executable, str(BENCHMARK), *options], capture_output=True, text=True, check=False, env=environment)


def test_the_table_of_a_tiny_model() -> None:
    done = run("--tiny", "--json", "--steps", "2", "--warmup", "1")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert {"device", "versions", "dtype", "floor", "host_syncs_counted_by", "steps"} <= record.keys() and record["failures"] == []
    (model,) = record["models"]
    arms = model["arms"]
    assert list(arms) == ["plain", "mixed", "joint", "separate"]
    for row in arms.values():
        assert row.keys() >= FIGURES and min(row["step_s"], row["ratio"], row["over_floor"], row["peak_gib"]) > 0
    assert arms["plain"]["ratio"] == arms["plain"]["floor"] == 1
    floors = [row["floor"] for row in arms.values()]
    assert floors == sorted(floors) and floors[-1] > 1.5
    waits = {arm: row["host_syncs"] for arm, row in arms.items()}
    assert max(waits.values()) <= 12, waits


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what is missing where there is no GPU")
def test_without_a_gpu_it_ends_with_one_line() -> None:
    done = run("--json")
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.strip() == "laver_cost: no CUDA device; run it on a GPU, or give --tiny for a tiny model on a CPU"
