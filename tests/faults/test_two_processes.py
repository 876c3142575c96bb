"""Two processes in one output folder: the first goes on to the bytes of an undisturbed run, the second says so in one sentence and ends."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.disturbed_commands import COMMANDS, endpoint
from helpers.disturbed_runs import Fault, Run, Undisturbed
from helpers.endpoint_server import Server, by_pixels, serving

OFTEN = ("convert", "fetch")
NAMES = ("convert", "fetch", "report", "blind", "survey", "endpoint", "train", "train-two", "study")
# At which parts of the changes that the first makes the second starts.
PARTS = (0.6, 0.7)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving(by_pixels) as running:
        yield running


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in OFTEN else [pytest.mark.exhaustive]) for name in NAMES])
def test_the_second_process_is_refused_and_the_first_ends_whole(name: str, server: Server, tmp_path: Path) -> None:
    command = endpoint(tmp_path, server.url) if name == "endpoint" else COMMANDS[name](tmp_path)
    whole = Undisturbed.of(command, tmp_path / "whole")
    for part in PARTS:
        root, runs = tmp_path / f"at {part}", list[Run]()
        reached, go = (str(tmp_path / f"{pipe}-{part}") for pipe in ("reached", "go"))
        os.mkfifo(reached)
        os.mkfifo(go)
        fault = Fault("wait", int(part * whole.run.num_changes), pipes={"reached": reached, "go": go})
        first = threading.Thread(target=lambda root=root, fault=fault, runs=runs: runs.append(command.run(root, fault)))  # type: ignore[misc]
        first.start()
        Path(reached).read_text()  # waits for the first to be there
        second = command.run_cold(root) if name in OFTEN else command.run(root, place=1)
        Path(go).write_text("go on")
        first.join()
        sentence = second.stderr.splitlines()
        assert second.status == 2 and "another process is writing" in second.stderr, second
        assert len(sentence) == (command.launched or 1) and all(line.startswith("theodolite: ") for line in sentence), second
        assert runs[0].status == 0 and whole.is_finished(root), runs[0]


@pytest.mark.parametrize("name", ["convert", pytest.param("survey", marks=pytest.mark.exhaustive)])
def test_what_ended_while_the_second_started_is_not_replaced(name: str, tmp_path: Path) -> None:
    """The second has seen an empty folder, and the first has filled it before the second locks it."""
    whole = Undisturbed.of(COMMANDS[name](tmp_path), tmp_path / "whole")
    root, runs = tmp_path / "root", list[Run]()
    reached, go = (str(tmp_path / pipe) for pipe in ("reached", "go"))
    os.mkfifo(reached)
    os.mkfifo(go)
    fault = Fault("wait", 1, pipes={"reached": reached, "go": go})  # the lock
    late = threading.Thread(target=lambda: runs.append(whole.command.run(root, fault)))
    root.mkdir()
    late.start()
    Path(reached).read_text()
    early = whole.command.run_cold(root)
    Path(go).write_text("go on")
    late.join()
    assert early.status == 0 and whole.is_finished(root), early
    assert runs[0].status == 2 and "already holds files" in runs[0].stderr, runs[0]
