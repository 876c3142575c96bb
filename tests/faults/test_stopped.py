"""Ctrl-C and SIGTERM at random moments: one sentence, status 130 and 143, nothing half-written, and the same command goes on."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from helpers.disturbed_commands import endpoint
from helpers.disturbed_runs import Undisturbed
from helpers.endpoint_server import Asked, Reply, by_pixels, serving

NUM_MOMENTS = 10  # of each signal
OFTEN = ("convert",)
NAMES = ("fetch", "convert", "blind", "report", "survey", "endpoint", "study", "train")


def unfinished_files(root: Path) -> list[str]:
    """Hidden files and folders of processes that write; what a survey stores to go on from is not one of them."""
    return [path.name for path in root.rglob(".*") if ".part-" in path.name or ".old-" in path.name or path.name.endswith(".lock")]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        pytest.param(name, kind, marks=[] if name in OFTEN else [pytest.mark.exhaustive], id=f"{name}-{kind}")
        for name in NAMES
        for kind in ("SIGINT", "SIGTERM")
    ],
)
def test_a_stopped_command_says_so_in_one_sentence_and_goes_on(
    name: str, kind: str, undisturbed: dict[str, Undisturbed], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    whole, dice, stopped = undisturbed[name], random.Random(f"{name} {kind}"), 0
    root, moments = tmp_path / "0", NUM_MOMENTS if request.config.getoption("--exhaustive") else 2
    for _ in range(3 * NUM_MOMENTS):
        if stopped == moments:
            break
        run = whole.command.run(root, whole.fault(kind, dice))
        if run.status in (0, 2):  # it had come to its end, or the former one had
            assert whole.is_finished(root) and "Traceback" not in run.stderr, run
            root = tmp_path / str(int(root.name) + 1)
            continue
        stopped += 1
        assert run.status == 128 + signal.Signals[kind], run
        *notices, sentence = run.stderr.splitlines()
        assert sentence.startswith(f"theodolite: stopped by {kind}; "), run
        assert not notices or (name == "train" and len(notices) == 1 and "the step under way ends" in notices[0]), run
        assert unfinished_files(root) == [], run
    assert stopped == moments
    last = whole.command.run(root)
    assert (last.status == 0 or last.status == 2) and whole.is_finished(root), last


@pytest.mark.exhaustive
def test_a_second_ctrl_c_does_not_wait_for_an_endpoint_that_is_silent(tmp_path: Path) -> None:
    """The first one waits for answers that are on their way and may have to be paid for, up to their time limit of two minutes."""

    def reply(asked: Asked) -> Reply:
        return Reply(stall=True) if len(server.asked) > 30 else by_pixels(asked)

    with serving(reply) as server:
        command = [sys.executable, *map(str, endpoint(tmp_path, server.url).arguments(tmp_path))]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            while len(server.asked) <= 30 and process.poll() is None:
                pass
            for _ in range(100):
                process.send_signal(signal.SIGINT)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=0.2)
                    break
            process.kill()
            server.going.set()
            errors = process.communicate()[1]
    assert process.returncode == 130 and errors == "theodolite: stopped by SIGINT; no record was left half-written\n"


AT_THE_START = """
import os, signal, sys
class Signals:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.{name})
sys.meta_path.insert(0, Signals())
sys.argv = ["theodolite", "coverage", "shapes", "--ask", "shape"]
import runpy
runpy.run_module("theodolite", run_name="__main__")
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("module", ["typer", "theodolite.cli.app", "theodolite.questions.coverage"])
def test_a_signal_while_a_module_is_loaded_ends_any_command_with_the_sentence(module: str, name: str) -> None:
    script = AT_THE_START.format(module=module, name=name)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 128 + signal.Signals[name], done.stderr
    assert done.stderr == f"theodolite: stopped by {name}; no record was left half-written\n"


DROPPED = """
import os, signal, sys
from theodolite.records.stopping import STOPPING
STOPPING.handle()
class Finalized:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(1000):
            pass
Finalized()
print("went on")
"""


def test_a_signal_whose_exception_python_drops_ends_the_command_too() -> None:
    done = subprocess.run([sys.executable, "-c", DROPPED], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (143, "")
    assert done.stderr == "theodolite: stopped by SIGTERM; no record was left half-written\n"
