"""Back end on the cores of this machine: one process with one thread for each run, as many at a time as there are workers."""

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
# Libraries read these when they are loaded, so they are set before. Passive: a waiting thread does not spin. No GPU: one run for each core
# would fill its memory, and its results differ from those of a core.
ONE_CORE = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "passive",
    "TOKENIZERS_PARALLELISM": "false",
    "CUDA_VISIBLE_DEVICES": "",
}


def num_cores() -> int:
    """Number of cores that this process may use."""
    return len(psutil.Process().cpu_affinity()) if psutil.LINUX else os.cpu_count() or 1


def on_cores(workers: int, performing: Performing = execute) -> Backend:
    """A back end with this many runs at a time. A run that raises or whose process dies becomes a `Failure`; the others continue."""
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
        theirs.close()  # or the end of the child would not close the pipe
        return cls(run, process, ours)

    def outcome(self) -> RunResult | Failure:
        """The result that the process sent; a failure if it ended without one."""
        try:
            result: RunResult | Failure = self.ours.recv()
        except (EOFError, OSError):  # OSError: it ended while sending
            self.process.join()
            result = Failure(f"its process ended with {self.process.exitcode}; if it was killed for memory, give fewer --workers")
        self.process.join()
        self.ours.close()
        return result


def _work(ours: Connection, run: Run, performing: Performing) -> None:
    """Main function of the process of one run, which ends when its parent ends."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    threading.Thread(target=_end_with, args=(ours,), daemon=True).start()
    torch.set_num_threads(1)
    try:
        result: RunResult | Failure = performing(run)
    except Exception as error:  # noqa: BLE001 an error in one run must not stop the others
        result = Failure(f"{type(error).__name__}: {error}")
    ours.send(result)


def _end_with(connection: Connection) -> None:
    """Ends this process when the parent closes its end, so that a killed grid frees its cores. (The parent never sends anything.)"""
    try:
        connection.recv()
    except (EOFError, OSError):
        os._exit(1)


def _context() -> BaseContext:
    """A fork server that has imported what runs need, so that processes start fast; spawned processes where there is none."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([execute.__module__])
    return context


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Sets environment variables for the processes that are started in the context."""
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
