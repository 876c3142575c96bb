"""Runs of one script, each in processes of its own, that share the seconds its imports take: a server that has made them forks for each.

A run starts with fresh modules' state, as the server never does anything but import. What the runs do share is the seed of Python's hashes:
where that could matter (a run that goes on from one that was killed) start a process without this. A run of several processes finds in
its environment what torchrun puts there.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

MOST_S = 900


class Forked:
    """A server for the runs of a script with a function `main` that reads `sys.argv`.

    With `grouped` the processes of a run are a process group of their own, so that a signal can reach them all and nothing else.
    """

    def __init__(self, script: Path, environment: Mapping[str, str], *, grouped: bool = False) -> None:
        self.script = script
        command = [sys.executable, __file__, str(script), *(["grouped"] if grouped else [])]
        self.server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(environment))

    def run(self, said: Path, *arguments: str, launched: int | None = None) -> subprocess.CompletedProcess[str]:
        """One run; all that it prints goes to the file `said`, and comes back as its stderr.

        With `launched` it is one of so many processes, as torchrun starts them; the code of the first that failed is the run's.
        """
        assert self.server.stdin is not None and self.server.stdout is not None
        print(json.dumps([str(said), launched, *arguments]), file=self.server.stdin, flush=True)
        code = self.server.stdout.readline()
        if not code:
            raise RuntimeError(f"the server of {self.script} ended with {self.server.wait()}")
        return subprocess.CompletedProcess([str(self.script), *arguments], int(code), "", said.read_text())

    def close(self) -> None:
        self.server.communicate()


def arguments_of_a_run(*, grouped: bool) -> list[str] | None:
    """Serves run after run, and comes back in each child with its arguments; in the server at the end, with None."""
    for line in sys.stdin:
        said, launched, *arguments = json.loads(line)
        port, children = str(free_port()), []
        Path(said).write_text("")
        for rank in range(launched or 1):
            child = os.fork()
            if grouped:
                join_group(child, children[0] if children else child)
            if child == 0:
                if launched is not None:
                    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": launched, "LOCAL_WORLD_SIZE": launched}
                    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, **{key: str(value) for key, value in numbers.items()}}
                out, nothing = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND), os.open(os.devnull, os.O_RDONLY)
                for taken, place in ((nothing, 0), (out, 1), (out, 2)):
                    os.dup2(taken, place)
                signal.alarm(MOST_S)
                return list(arguments)
            children.append(child)
        print(first_failure(children), flush=True)
    return None


def join_group(process: int, leader: int) -> None:
    """Puts a process (0: this one) into the group of the leader. Parent and child both do it, as either may be first."""
    with suppress(OSError):  # the other one has done it
        os.setpgid(process, leader)


def first_failure(children: list[int]) -> int:
    """Waits for all; the code of the first that failed, else 0. The others then end too, when gloo misses it."""
    codes = [os.waitstatus_to_exitcode(os.wait()[1]) for _ in children]
    return next((code for code in codes if code), 0)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def thread_names() -> list[str]:
    """Of this process, where the system tells."""
    return [(task / "comm").read_text().strip() for task in Path("/proc/self/task").glob("*")]


def main() -> None:
    script = Path(sys.argv[1])
    module = importlib.import_module(f"helpers.{script.stem}")
    others = [name for name in thread_names() if name != "jemalloc_bg_thd"]  # which sees to forks itself
    assert len(others) <= 1, f"these threads run after the imports, and a fork would lose all but one: {', '.join(others)}"
    # A child's collector would otherwise walk all that was imported, and so copy its memory: seconds at each child's end.
    gc.collect()
    gc.freeze()
    arguments = arguments_of_a_run(grouped=sys.argv[2:] == ["grouped"])
    if arguments is not None:
        sys.argv = [str(script), *arguments]
        module.main()


if __name__ == "__main__":
    main()
