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
from theodolite.records.errors import Interrupted
from theodolite.training.checkpoint import newest_whole, step_of
from theodolite.training.interrupts import StopSignals

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


# (place, stage, step of the signal, signal) of one start after the other, with the stage and the step after which the run goes on.
STARTS: tuple[tuple[tuple[str, str, int, str], tuple[str, int]], ...] = (
    (("building", "align", 0, "SIGINT"), ("align", 0)),
    (("data", "align", 0, "SIGTERM"), ("align", 0)),
    (("step", "align", 0, "SIGTERM"), ("align", 1)),
    (("checkpoint", "align", 2, "SIGINT"), ("align", 2)),
    (("model", "align", STEPS, "SIGINT"), ("laver", 0)),
    (("building", "laver", 0, "SIGTERM"), ("laver", 0)),
    (("step", "laver", 2, "SIGINT"), ("laver", 3)),  # between two checkpoints
    (("teacher", "laver", 5, "SIGINT"), ("laver", 5)),
    (("checkpoint", "laver", STEPS, "SIGTERM"), ("laver", STEPS)),
    (("model", "laver", STEPS, "SIGTERM"), ("instruct", 0)),
    (("twice", "instruct", 3, "SIGINT"), ("instruct", 2)),
    (("end", "instruct", STEPS, "SIGINT"), ("model", 0)),
    (("copy", "instruct", 0, "SIGINT"), ("model", 0)),
)


def test_a_run_that_is_stopped_again_and_again_says_where_it_goes_on_and_ends_as_if_undisturbed(
    whole: Path, server: Forked, tmp_path: Path
) -> None:
    folder, before = tmp_path / "run", ""
    for number, (case, (stage, step)) in enumerate(STARTS):
        printed = server.run(tmp_path / f"{number}.txt", str(folder), *map(str, case))
        assert printed.returncode == 128 + signal.Signals[case[3]], (case, printed.stderr[-3000:])
        place = f"goes on in {folder} with stage {stage}, " + (f"after step {step} of {STEPS}" if step else "at its start")
        if stage == "model":
            place = f"goes on in {folder} behind its last stage, and writes {folder / 'model'}"
        assert f"theodolite: stopped by {case[3]}; the same command {place}\n" in printed.stderr, case
        assert (f"tiny-laver: {before}\n" in printed.stderr) == bool(before), case
        assert "Traceback" not in printed.stderr and not list(folder.rglob(".*.part-*")), case
        before = place
    last = server.run(tmp_path / "last.txt", str(folder))
    assert last.returncode == 0 and f"tiny-laver: {before}\n" in last.stderr, last.stderr[-3000:]
    assert as_ended(folder) == as_ended(whole)
    mine, straight = (load_file(path / "model" / "model.safetensors") for path in (folder, whole))
    assert all(torch.equal(value, straight[name]) for name, value in mine.items())
    done = server.run(tmp_path / "done.txt", str(folder))
    assert done.returncode == 0 and f"tiny-laver: has nothing left to do in {folder}\n" in done.stderr


def as_ended(folder: Path) -> dict[str, list[float]]:
    """The files of a run's folder, and the losses of each stage by step."""
    files: dict[str, list[float]] = {str(path.relative_to(folder)): [] for path in folder.rglob("*") if "tensorboard" not in path.parts}
    for stage in ("align", "laver", "instruct"):
        log = [json.loads(line) for line in (folder / stage / "log.jsonl").read_text().splitlines()]
        assert [entry["step"] for entry in log] == list(range(1, STEPS + 1))
        files[f"{stage}/log.jsonl"] = [entry["loss"] for entry in log]
    return files


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


def test_a_signal_whose_exception_python_drops_is_noted() -> None:
    """What is raised within a finalizer does not come through; a run must not go on to its end after Ctrl-C."""

    class Finalized:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    signals, dropped, before = StopSignals(), [], signal.getsignal(signal.SIGINT)
    with pytest.MonkeyPatch.context() as patch, signals.watching():
        patch.setattr(sys, "unraisablehook", lambda raised: dropped.append(raised.exc_type))
        Finalized()
        assert dropped == [Interrupted]
        with signals.held(), pytest.raises(Interrupted):
            signals.leave()
        with pytest.raises(Interrupted):
            signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_signal_is_held_up_to_the_end_of_the_outer_block() -> None:
    signals = StopSignals()
    with signals.watching(), signals.held():
        with signals.held():
            pass
        try:
            signal.raise_signal(signal.SIGTERM)
        except Interrupted:  # which would end pytest
            pytest.fail("the signal is not held behind the inner block")
        assert signals.agreed()
        with pytest.raises(Interrupted):  # the second one
            signal.raise_signal(signal.SIGTERM)


LOADING = """
import os, signal, sys
sys.modules["torch"] = None  # whatever comes first of what takes seconds
class Signals:
    def find_spec(self, name, path=None, target=None):
        if name == "theodolite.commands.train":
            os.kill(os.getpid(), signal.{name})
sys.meta_path.insert(0, Signals())
sys.argv = ["theodolite", "train", "tiny-laver", "--out", sys.argv[1]]
from theodolite.cli import main
main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_libraries_are_loaded_ends_the_command_with_a_line(number: signal.Signals, tmp_path: Path) -> None:
    script = LOADING.format(name=number.name)
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "run")], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 128 + number
    assert done.stderr == f"theodolite: stopped by {number.name}; no record was left half-written\n"
    assert done.stdout.startswith("tiny-laver: training into ") and not list(tmp_path.iterdir())


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
