"""`warm_program` with a fault: at the nth change that the program makes below a folder it is killed, gets a signal, or waits.

The request has the `disturbance` too: the `folder`, the `number` of the change (from 1), the seconds of `delay` after it, what happens
(`kind`), and the file `changes` that grows by a byte for each change. Kinds: *kill* (SIGKILL of the process group), *parent* (of this
process alone), *worker* (of one of its processes), the name of a signal, and *wait*, which writes to the pipe `reached` and goes on when
something can be read from the pipe `go`. Of several processes the first is the one that counts.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil

# What else takes seconds to import, and starts no threads.
from helpers import staged_run, warm_program  # noqa: F401

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree", "shutil.copyfile", "sqlite3.connect"}
LAUNCHED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class Disturbance:
    """An audit hook: it counts the changes below a folder before they are made."""

    def __init__(self, folder: str, kind: str, number: int, delay: float, changes: str, **pipes: str) -> None:
        self.folder, self.kind, self.number, self.delay, self.pipes = folder, kind, number, delay, pipes
        self.process, self.count = os.getpid(), 0
        self.changes = os.open(changes, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._is_change(event, arguments):
            return
        os.write(self.changes, b".")
        self.count += 1
        if self.count != self.number or os.getpid() != self.process:
            return
        if self.delay:
            threading.Thread(target=self._strike_later, daemon=True).start()
        else:
            self._strike()

    def _is_change(self, event: str, arguments: tuple[Any, ...]) -> bool:
        if event not in CHANGES and not (event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING):
            return False
        path = arguments[0]
        return isinstance(path, str | bytes | os.PathLike) and os.path.abspath(os.fsdecode(path)).startswith(self.folder)

    def _strike_later(self) -> None:
        time.sleep(self.delay)
        self._strike()

    def _strike(self) -> None:
        if self.kind == "kill":
            os.killpg(0, signal.SIGKILL)
        elif self.kind == "parent":
            os.kill(self.process, signal.SIGKILL)
        elif self.kind == "worker":
            workers = [each for child in psutil.Process().children() for each in child.children()]  # of the fork server
            if workers:
                random.Random(self.number).choice(workers).kill()
        elif self.kind == "wait":
            Path(self.pipes["reached"]).write_text("here")
            Path(self.pipes["go"]).read_text()
        else:
            os.kill(self.process, signal.Signals[self.kind])


def main() -> None:
    request = json.loads(sys.argv[1])
    request["environment"] |= {name: os.environ[name] for name in LAUNCHED if "WORLD_SIZE" in os.environ}
    if os.environ.get("RANK", "0") == "0":
        sys.addaudithook(Disturbance(**request.pop("disturbance")))
    sys.argv[1] = json.dumps(request)
    warm_program.main()
