"""Faults of memory, a device or a loader's process in a training step, and losses that are no numbers: a sentence, and the way on."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from helpers import HELPERS
from helpers.command_line import run_warm
from helpers.faulty_train import STEPS
from theodolite.training.checkpoint import newest_finite, newest_whole, step_of

OWN = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "COLUMNS": "200"}


def train(folder: Path, *fault: str | int) -> subprocess.CompletedProcess[str]:
    return run_warm(HELPERS / "faulty_train.py", folder, *map(str, fault), environment=OWN)


def model_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "model").iterdir()}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("training") / "run"
    done = train(folder)
    assert done.returncode == 0, done.stderr
    return model_bytes(folder)


SENTENCES = {
    "memory": r"memory ran out \(CUDA out of memory\. .*\); a recipe with a smaller micro_batch needs less and learns the same",
    "cpu-memory": r"memory ran out \(.*can't allocate memory: 9 bytes\); a recipe with a smaller micro_batch .*",
    "device": r"the device failed \(CUDA error: an illegal memory access was encountered\); if it fails again, .*",
    "worker": r"a process that reads the training data died \(DataLoader worker \(pid.*\); most often it was killed because memory ran out",
}
# Of each fault the steps at which it is tried; CI tries the first.
STEPS_TRIED = [(fault, step) for fault in SENTENCES for step in (3, 0, 1, STEPS - 1)]


@pytest.mark.parametrize(
    ("fault", "step"), [pytest.param(*case, marks=[] if case[1] == 3 else pytest.mark.exhaustive) for case in STEPS_TRIED]
)
def test_a_fault_in_a_step_is_one_sentence_and_the_same_command_goes_on(
    undisturbed: dict[str, bytes], tmp_path: Path, fault: str, step: int
) -> None:
    folder = tmp_path / "run"
    done = train(folder, fault, step)
    assert done.returncode == 2, (done.returncode, done.stderr)
    last = done.stderr.splitlines()[-1]
    newest = newest_whole(folder / "instruct" / "checkpoints")
    place = "at its start" if newest is None else f"after step {step_of(newest)} of {STEPS}"
    goes_on = re.escape(f"; the same command goes on in {folder} with stage instruct, {place}")
    assert re.fullmatch(f"theodolite: {SENTENCES[fault]}{goes_on}", last), done.stderr
    assert "Traceback" not in done.stderr
    # A loader's process may die while the main one is at any step up to that.
    assert (newest is None) == (step == 0) if fault != "worker" else True
    again = train(folder)
    assert again.returncode == 0, again.stderr
    assert model_bytes(folder) == undisturbed


@pytest.mark.parametrize("step", [2, *(pytest.param(step, marks=pytest.mark.exhaustive) for step in (0, 1, 3, 4, 5))])
def test_a_folder_that_is_removed_during_a_run_is_named_and_the_same_command_starts_again(
    undisturbed: dict[str, bytes], tmp_path: Path, step: int
) -> None:
    folder = tmp_path / "run"
    done = train(folder, "removed", step)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    sentence = done.stderr.splitlines()[-1]
    assert sentence.startswith(f"theodolite: {folder}") and "(No such file or directory)" in sentence, done.stderr
    again = train(folder)
    assert again.returncode == 0, again.stderr
    assert model_bytes(folder) == undisturbed


@pytest.mark.parametrize("step", [3, pytest.param(0, marks=pytest.mark.exhaustive), pytest.param(1, marks=pytest.mark.exhaustive)])
def test_three_losses_that_are_no_numbers_stop_the_run_and_name_the_last_good_checkpoint(tmp_path: Path, step: int) -> None:
    folder = tmp_path / "run"
    done = train(folder, "nan", step)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    checkpoints = folder / "instruct" / "checkpoints"
    good = "no checkpoint was written before" if step == 0 else f"the last good checkpoint is {checkpoints / f'checkpoint-{step}'}"
    last = done.stderr.splitlines()[-1]
    assert last == f"theodolite: the loss was nan at step {step + 3}, the third time in a row; {good}; lower the learning rate"
    # No checkpoint was written with the weights that such a loss leaves, which would have taken the place of the good ones.
    assert newest_finite(checkpoints) == newest_whole(checkpoints) == (checkpoints / f"checkpoint-{step}" if step else None)
    log = [json.loads(line) for line in (folder / "instruct" / "log.jsonl").read_text().splitlines()]
    assert [entry["loss"] is None for entry in log] == [number >= step for number in range(step + 3)]
