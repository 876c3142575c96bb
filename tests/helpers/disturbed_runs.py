"""Commands that are killed, signalled or held at the nth change that they make to their files, and what they leave."""

from __future__ import annotations

import atexit
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from pathlib import Path

from helpers import HELPERS, script_environment
from helpers.fork_server import Forked

OWN = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "COLUMNS": "200"}


@cache
def server(number: int = 0) -> Forked:
    """A server that the disturbed runs fork from; a second one for what runs beside them."""
    forked = Forked(HELPERS / "disturbed_program.py", script_environment(OWN), grouped=True)
    atexit.register(forked.close)
    return forked


@dataclass(frozen=True)
class Fault:
    """What happens at which change of a run (`disturbed_program`); number 0: nothing."""

    kind: str = "kill"
    number: int = 0
    delay: float = 0.0
    pipes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Command:
    """A command line (`python ...`) that writes below a folder, and what of that the same command always leaves the same.

    `launched` is the number of processes that torchrun would start.
    """

    arguments: Callable[[Path], Sequence[str | Path]]
    outcome: Callable[[Path], Mapping[str, object]]
    environment: Mapping[str, str] = field(default_factory=dict)
    launched: int | None = None

    def run(self, root: Path, fault: Fault | None = None, place: int = 0) -> Run:
        """One run in a folder, on the server with this number; what it prints goes beside the folder."""
        fault = fault or Fault()
        root.mkdir(exist_ok=True)
        beside = next(path for number in count() if not (path := root.parent / f"{root.name}-{place}-{number}").exists())
        beside.mkdir()
        request = {
            "arguments": [str(each) for each in self.arguments(root)],
            "cwd": str(root.parent),
            "environment": {**os.environ, **OWN, **self.environment},
            "stderr": str(beside / "stderr"),
            "disturbance": {
                "folder": str(root), "kind": fault.kind, "number": fault.number, "delay": fault.delay, "changes": str(beside / "changes"),
                **fault.pipes,
            },
        }  # fmt: skip
        before = time.monotonic()
        done = server(place).run(beside / "stdout", json.dumps(request), launched=self.launched)
        seconds = time.monotonic() - before
        printed = {name: (beside / name).read_text() if (beside / name).exists() else "" for name in ("stdout", "stderr", "changes")}
        return Run(done.returncode, printed["stdout"], printed["stderr"], len(printed["changes"]), seconds)

    def run_cold(self, root: Path) -> Run:
        """One run in a process that starts from nothing: for commands that load little."""
        command = [sys.executable, *map(str, self.arguments(root))]
        before = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **OWN, **self.environment})
        return Run(done.returncode, done.stdout, done.stderr, 0, time.monotonic() - before)


@dataclass(frozen=True)
class Run:
    """How a run ended: its status, what it printed, the changes that it made, and its seconds."""

    status: int
    stdout: str
    stderr: str
    num_changes: int
    seconds: float

    def __str__(self) -> str:
        return f"status {self.status} after {self.num_changes} changes\n{self.stdout[-2000:]}\n{self.stderr[-3000:]}"


@dataclass(frozen=True)
class Undisturbed:
    """An undisturbed run of a command, its folder, and its outcome."""

    command: Command
    root: Path
    run: Run
    outcome: Mapping[str, object]

    @classmethod
    def of(cls, command: Command, root: Path) -> Undisturbed:
        run = command.run(root)
        assert run.status == 0, run
        return cls(command, root, run, command.outcome(root))

    def fault(self, kind: str, dice: random.Random) -> Fault:
        """A random moment: at a change, or within the time of the next ones."""
        number = dice.randint(1, self.run.num_changes)
        return Fault(kind, number, dice.choice([0.0, dice.uniform(0, 3 * self.run.seconds / self.run.num_changes)]))

    def is_finished(self, root: Path) -> bool:
        """Whether a folder holds all of the outcome."""
        return self.command.outcome(root) == self.outcome


def files_below(root: Path, *left_out: str) -> dict[str, bytes]:
    """The bytes of all files below a folder by name, but of files and folders of these names, and of locks.

    The empty file of a lock stays where a kill comes behind the last change, and the next start has nothing to do.
    """
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.suffix != ".lock" and not set(left_out) & set(path.relative_to(root).parts)
    }
