"""Faults of memory and of the device in a forward pass of a survey: smaller batches, or a sentence and the same bytes afterwards."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from helpers import HELPERS
from helpers.command_line import run_warm
from helpers.tiny_llava import tiny_vlm
from theodolite.models.export import export_vlm

OWN = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "COLUMNS": "300"}
FILES = ("survey.json", "rows.parquet")
ILLEGAL = (
    "the device failed (CUDA error: an illegal memory access was encountered); if it fails again, restart the machine, or choose another"
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and an undisturbed survey of it."""
    folder = tmp_path_factory.mktemp("surveys")
    export_vlm(*tiny_vlm(), folder / "model")
    done = survey(folder, folder / "undisturbed")
    assert done.returncode == 0, done.stderr
    return folder


def survey(home: Path, out: Path, *fault: str | int) -> subprocess.CompletedProcess[str]:
    pairs = ("--world", "shapes", "--ask", "shape", "--scenes", "3", "--batch", "16", "--save-every", "40", "--measures", "likeness")
    program = ("-m", "theodolite") if not fault else (HELPERS / "faulty_survey.py", *map(str, fault))
    return run_warm(*program, "survey", home / "model", "--out", out, *pairs, environment=OWN)


PASSES = [pytest.param(number, marks=[] if number == 5 else pytest.mark.exhaustive) for number in (0, 3, 5, 8, 11)]


@pytest.mark.parametrize("number", PASSES)
@pytest.mark.parametrize("fault", ["device", pytest.param("device-text", marks=pytest.mark.exhaustive)])
def test_a_device_that_fails_in_a_pass_is_a_sentence_and_the_same_command_goes_on(
    home: Path, tmp_path: Path, fault: str, number: int
) -> None:
    out, unfinished = tmp_path / "out", tmp_path / ".out.unfinished"
    done = survey(home, out, fault, number)
    assert done.returncode == 2 and "Traceback" not in done.stderr and not out.exists(), done.stderr
    answered = {path: path.stat().st_mtime_ns for path in unfinished.glob("answers/*")}
    goes_on = f"what is finished is kept in {unfinished}, and the same command goes on from there"
    remedy = goes_on if answered else "nothing is finished yet; run the same command again"
    assert done.stderr.splitlines()[-1] == f"theodolite: {ILLEGAL} device; {remedy}"
    assert bool(answered) == (number >= 3)
    again = survey(home, out)
    assert again.returncode == 0, again.stderr
    assert ("going on with the interrupted survey" in again.stdout) == bool(answered)
    for name in FILES:
        assert (out / name).read_bytes() == (home / "undisturbed" / name).read_bytes(), name


@pytest.mark.parametrize("number", PASSES)
def test_a_batch_that_does_not_fit_is_halved_with_a_notice_and_the_answers_are_the_same(home: Path, tmp_path: Path, number: int) -> None:
    out = tmp_path / "out"
    done = survey(home, out, "memory", number)
    assert done.returncode == 0, done.stderr
    assert "rows at once did not fit into memory; going on with" in done.stdout
    assert any("did not fit into memory" in notice for notice in json.loads((out / "run.json").read_text())["notices"])
    rows, expected = (pl.read_parquet(folder / "rows.parquet") for folder in (out, home / "undisturbed"))
    numbers = [f"{name}_{side}" for name in ("probabilities", "outside", "total_logprob") for side in ("before", "after")]
    assert rows.drop(*numbers, "variation").equals(expected.drop(*numbers, "variation"))
    for name in numbers:
        mine, its = (np.array(table[name].explode().to_list(), dtype=float) for table in (rows, expected))
        assert np.allclose(mine, its, atol=1e-5), name


def test_a_single_question_that_does_not_fit_is_refused_in_a_sentence(home: Path, tmp_path: Path) -> None:
    done = survey(home, tmp_path / "out", "memory-always", 0)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "theodolite: memory is too small for a single question of" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("number", PASSES)
def test_what_is_stored_may_be_removed_during_a_survey(home: Path, tmp_path: Path, number: int) -> None:
    done = survey(home, tmp_path / "own" / "out", "removed", number)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    for name in FILES:
        assert (tmp_path / "own" / "out" / name).read_bytes() == (home / "undisturbed" / name).read_bytes(), name
