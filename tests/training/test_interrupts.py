"""Ctrl-C and SIGTERM during `theodolite train`: at most the step under way is lost, and the next start says where it goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from helpers import HELPERS, script_environment
from helpers.fork_server import Forked
from helpers.staged_run import STEPS
from theodolite.training.checkpoint import newest_whole, step_of

SCRIPT = HELPERS / "short_train.py"
OWN = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "COLUMNS": "200"}


@pytest.fixture(scope="module")
def server() -> Iterator[Forked]:
    forked = Forked(SCRIPT, script_environment(OWN))
    yield forked
    forked.close()


@pytest.fixture(scope="module")
def whole(server: Forked, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("interrupted") / "whole"
    done = server.run(folder.parent / "whole.txt", str(folder))
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


# (place, stage, step of the signal, signal): the stage and the step after which the run goes on.
CASES = {
    ("building", "align", 0, "SIGINT"): ("align", 0),
    ("building", "laver", 0, "SIGTERM"): ("laver", 0),
    ("step", "align", 0, "SIGTERM"): ("align", 1),
    ("step", "laver", 2, "SIGINT"): ("laver", 3),  # between two checkpoints
    ("checkpoint", "laver", 4, "SIGINT"): ("laver", 4),
    ("checkpoint", "instruct", STEPS, "SIGTERM"): ("instruct", STEPS),
    ("model", "align", STEPS, "SIGINT"): ("laver", 0),
    ("twice", "laver", 3, "SIGINT"): ("laver", 2),
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_a_stopped_run_says_where_it_goes_on_and_ends_with_the_same_weights(
    case: tuple[str, str, int, str], whole: Path, server: Forked, tmp_path: Path
) -> None:
    stage, step = CASES[case]
    folder = tmp_path / "run"
    stopped = server.run(tmp_path / "stopped.txt", str(folder), *map(str, case))
    printed = stopped.stdout + stopped.stderr
    assert stopped.returncode == 128 + signal.Signals[case[3]], printed[-3000:]
    place = f"with stage {stage}, " + (f"after step {step} of {STEPS}" if step else "at its start")
    assert f"theodolite: stopped by {case[3]}; the same command goes on in {folder} {place}" in printed
    assert not list(folder.rglob(".*.part-*"))
    again = server.run(tmp_path / "again.txt", str(folder))
    printed = again.stdout + again.stderr
    assert again.returncode == 0, printed[-3000:]
    assert f"tiny-laver: goes on in {folder} {place}" in printed
    mine, straight = (load_file(path / "model" / "model.safetensors") for path in (folder, whole))
    assert mine.keys() == straight.keys()
    assert all(torch.equal(value, straight[name]) for name, value in mine.items())
    log = (folder / stage / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in log] == list(range(1, STEPS + 1))


# (place, stage, step of the signal, signal, rank that gets it) of two processes: the step after which the run goes on.
OF_TWO = {
    ("step", "laver", 2, "SIGTERM", "1"): 3,
    ("step", "laver", STEPS - 1, "SIGINT", "all"): STEPS,
    ("checkpoint", "laver", 4, "SIGTERM", "0"): 4,
}


@pytest.fixture(scope="module")
def whole_of_two(server: Forked, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The undisturbed run of two processes."""
    folder = tmp_path_factory.mktemp("interrupted") / "whole"
    done = server.run(folder.parent / "whole.txt", str(folder), launched=2)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.parametrize("case", OF_TWO, ids=lambda case: "-".join(map(str, case)))
def test_two_processes_stop_together_though_one_gets_the_signal(
    case: tuple[str, str, int, str, str], whole_of_two: Path, server: Forked, tmp_path: Path
) -> None:
    """One whole checkpoint of both, at the same step, from which the next start goes on to the same weights."""
    step, folder = OF_TWO[case], tmp_path / "run"
    stopped = server.run(tmp_path / "stopped.txt", str(folder), *map(str, case), launched=2)
    assert stopped.returncode == 128 + signal.Signals[case[3]], stopped.stderr[-3000:]
    place = f"the same command goes on in {folder} with stage laver, after step {step} of {STEPS}"
    assert stopped.stderr.count(f"theodolite: stopped by {case[3]}; {place}") == 2, stopped.stderr[-3000:]
    checkpoint = newest_whole(folder / "laver" / "checkpoints")
    assert checkpoint is not None and step_of(checkpoint) == step
    assert sorted(path.name for path in checkpoint.glob("rng_state_*")) == ["rng_state_0.pth", "rng_state_1.pth"]
    again = server.run(tmp_path / "again.txt", str(folder), launched=2)
    assert again.returncode == 0, again.stderr[-3000:]
    mine, straight = (load_file(path / "model" / "model.safetensors") for path in (folder, whole_of_two))
    assert all(torch.equal(value, straight[name]) for name, value in mine.items())


@pytest.mark.parametrize(("line", "number"), [("tiny-laver align: making", signal.SIGTERM), ("tiny-laver align: 3 of", signal.SIGINT)])
def test_a_signal_from_outside_stops_a_piped_run(line: str, number: signal.Signals, tmp_path: Path) -> None:
    """Its lines come as they are printed, not when the process ends; the first one before PyTorch is loaded."""
    environment = script_environment(OWN)
    command = [sys.executable, str(SCRIPT), str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None and process.stderr is not None
        for printed in process.stdout:
            if printed.startswith(line):
                break
        else:
            raise AssertionError(process.stderr.read()[-3000:])
        process.send_signal(number)
        _, errors = process.communicate(timeout=200)
    assert process.returncode == 128 + number, errors[-3000:]
    assert f"stopped by {number.name}; the same command goes on in" in errors


FIRST = """
import sys
from rich.console import Console
printed = Console.print
def print_first(self, *args, **options):
    printed(self, *args, **options)
    sys.exit(f"heavy: {sorted({'torch', 'transformers'} & set(sys.modules))}")
Console.print = print_first
sys.argv = ["theodolite", "train", "tiny-laver", "--out", sys.argv[1]]
from theodolite.cli import main
main()
"""


def test_the_first_line_is_printed_before_anything_heavy_is_loaded(tmp_path: Path) -> None:
    """Loading PyTorch and transformers takes longer than anyone should wait for a first sign; here it is seen that neither is loaded."""
    done = subprocess.run([sys.executable, "-c", FIRST, str(tmp_path / "run")], capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr.strip().endswith("heavy: []"), done.stderr
    assert done.stdout.startswith("tiny-laver: training into ")
