"""`kill -9` at random moments: the same command goes on by itself, loses nothing that was finished, and ends with the same bytes.

Moments are changes that a command makes to its files (just before one of them, or within the time of the next few), drawn with fixed seeds.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from helpers.disturbed_commands import COMMANDS
from helpers.disturbed_runs import Undisturbed
from theodolite.records.study import read_runs

NUM_MOMENTS = 20
# Moments of one folder, one after the other.
IN_A_ROW = 4
# Those whose first folder is tried in every run of the tests; others are killed in tests/training, tests/asking and tests/studies.
OFTEN = ("survey", "fetch", "blind", "convert")
# What is killed, where it is not all processes of a command.
KINDS = {"study-parent": ("study", "parent"), "study-worker": ("study", "worker")}


def moments(name: str) -> list[object]:
    """The folders of a command, each killed `IN_A_ROW` times; one of two kills is tried in every run of the tests."""
    folders = [(number, IN_A_ROW) for number in range(NUM_MOMENTS // IN_A_ROW)]
    marked = [pytest.param(name, *folder, marks=pytest.mark.exhaustive, id=f"{name}-{folder[0]}") for folder in folders]
    return [*([pytest.param(name, len(folders), 2, id=f"{name}-often")] if name in OFTEN else []), *marked]


def kill(whole: Undisturbed, kind: str, dice: random.Random, root: Path) -> bool:
    """Starts the command in a folder with a random fault; whether that came before the end."""
    lines = read_runs(root / "out") if kind in ("parent", "worker") and (root / "out").exists() else {}
    run = whole.command.run(root, whole.fault(kind, dice))
    if kind == "worker":
        assert run.status in (0, 2) and ("its process ended with -9" in run.stderr) == (run.status == 2), run
        return run.status == 2
    assert run.status in (0, -9) or (run.status == 2 and whole.is_finished(root)), run
    if lines:
        assert lines.items() <= read_runs(root / "out").items(), "a finished run is lost"
    return run.status == -9


def go_on_to_the_end(whole: Undisturbed, root: Path) -> None:
    """The same command once more, unless all is there; a command that refuses to replace its output must have finished it."""
    run = whole.command.run(root)
    outcome = whole.command.outcome(root)
    assert run.status == 0 or (run.status == 2 and whole.is_finished(root)), run
    assert outcome.keys() == whole.outcome.keys(), run
    assert [name for name, content in outcome.items() if content != whole.outcome[name]] == [], run


@pytest.mark.parametrize(
    ("name", "number", "in_a_row"),
    [each for name in ("fetch", "convert", "blind", "report", "survey", "endpoint", "train", "train-two") for each in moments(name)]
    + [each for name in ("study", "study-parent", "study-worker") for each in moments(name)],
)
def test_a_killed_command_goes_on_to_the_same_bytes(
    name: str, number: int, in_a_row: int, undisturbed: dict[str, Undisturbed], tmp_path: Path
) -> None:
    whole, dice, killed = undisturbed[KINDS.get(name, (name,))[0]], random.Random(f"{name} {number}"), 0
    root = tmp_path / "0"
    while killed < in_a_row:
        landed = kill(whole, KINDS.get(name, (name, "kill"))[1], dice, root)
        killed += landed
        if not landed:  # the run came to its end before the moment
            go_on_to_the_end(whole, root)
            root = tmp_path / str(int(root.name) + 1)
    go_on_to_the_end(whole, root)


def test_the_moments_of_every_command_are_twenty_or_more() -> None:
    names = [*COMMANDS, "endpoint", "study-parent", "study-worker"]
    assert all(sum(each.values[2] for each in moments(name)) >= NUM_MOMENTS for name in names)  # type: ignore[attr-defined]
