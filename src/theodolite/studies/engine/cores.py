"""Runs on the cores of this machine: a process with one thread for each, as many at a time as there are workers."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess

import psutil

from theodolite.records.errors import BadInput
from theodolite.studies.engine.execute import Run, RunResult, execute
from theodolite.studies.engine.grid import Backend, Failure, Outcome

Performing = Callable[[Run], RunResult]
# Libraries read these when they are loaded, so they must stand before. Passive: a thread that waits leaves its core alone. No GPU: as many
# runs at once as there are cores would fill it, and its numbers are others.
ONE_CORE = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "passive",
    "TOKENIZERS_PARALLELISM": "false",
    "CUDA_VISIBLE_DEVICES": "",
}


def num_cores() -> int:
    """The cores that this process may use."""
    return len(psutil.Process().cpu_affinity()) if psutil.LINUX else os.cpu_count() or 1


def on_cores(workers: int, performing: Performing = execute) -> Backend:
    """Performs so many runs at a time. A run that raises, or whose process vanishes, is a failure of its own; the others go on."""
    if workers < 1:
        raise BadInput(f"--workers is {workers}; give 1 or more")

    def backend(runs: Sequence[Run]) -> Iterator[Outcome]:
        waiting, alive = list(runs), dict[Connection, _Child]()
        with _environment(ONE_CORE):
            context = _context()
            try:
                while waiting or alive:
                    while waiting and len(alive) < workers:
                        child = _Child.start(context, waiting.pop(0), performing)
                        alive[child.ours] = child
                    for ready in wait(list(alive)):
                        child = alive.pop(ready)  # type: ignore[call-overload]
                        yield child.run, child.outcome()
            finally:
                for child in alive.values():
                    child.process.kill()
                    child.process.join()

    return backend


@dataclass(frozen=True, eq=False)
class _Child:
    run: Run
    process: BaseProcess
    ours: Connection

    @classmethod
    def start(cls, context: BaseContext, run: Run, performing: Performing) -> _Child:
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, run, performing), daemon=True)  # type: ignore[attr-defined]
        process.start()
        theirs.close()  # or a child that vanished would never be missed
        return cls(run, process, ours)

    def outcome(self) -> RunResult | Failure:
        """What it sent; a failure where it went without a word."""
        try:
            found: RunResult | Failure = self.ours.recv()
        except (EOFError, OSError):  # the latter in the middle of what it sent
            self.process.join()
            found = Failure(f"its process ended with {self.process.exitcode}; if it was killed, is memory short? give fewer --workers")
        self.process.join()
        self.ours.close()
        return found


def _work(ours: Connection, run: Run, performing: Performing) -> None:
    """One run in a process of its own, which ends when the process that started it does."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started it
    threading.Thread(target=_end_with, args=(ours,), daemon=True).start()
    torch.set_num_threads(1)
    try:
        found: RunResult | Failure = performing(run)
    except Exception as error:  # noqa: BLE001 whatever is wrong with one run, the others go on
        found = Failure(f"{type(error).__name__}: {error}")
    ours.send(found)


def _end_with(connection: Connection) -> None:
    """Ends this process when the other end is gone: a grid that was killed must not keep the cores. (Nothing is ever sent this way.)"""
    try:
        connection.recv()
    except (EOFError, OSError):
        os._exit(1)


def _context() -> BaseContext:
    """A server that has imported all there is to import, and forks a fresh process for each run; else processes that begin anew."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([execute.__module__])
    return context


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Sets environment variables for processes that are started within."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
