"""Back end on many machines through Ray. They share only this package; results return to the process that started the grid."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from theodolite.asking.ray_workers import connect_ray
from theodolite.studies.engine.cores import ONE_CORE
from theodolite.studies.engine.execute import Run, RunResult, execute
from theodolite.studies.engine.grid import Backend, Failure, Outcome

# How many times Ray restarts a run whose machine was lost.
RETRIES = 2


def on_ray(performing: Callable[[Run], RunResult] = execute) -> tuple[Backend, int]:
    """A back end on the Ray cluster that RAY_ADDRESS names, else on a local one, and its number of cores.

    Each run takes one core. This package is sent to the machines; they need its dependencies. Raises `BadInput` if Ray is not installed.
    """
    ray = connect_ray()
    remote = ray.remote(num_cpus=1, max_retries=RETRIES, runtime_env={"env_vars": ONE_CORE})(_guarded)

    def backend(runs: Sequence[Run]) -> Iterator[Outcome]:
        running = {remote.remote(run, performing): run for run in runs}
        while running:
            (done,), _ = ray.wait(list(running), num_returns=1)
            run = running.pop(done)
            try:
                yield run, ray.get(done)
            except ray.exceptions.RayError as error:
                yield run, Failure(f"Ray lost the run: {str(error).splitlines()[0]}")

    return backend, int(ray.cluster_resources().get("CPU", 1))


def _guarded(run: Run, performing: Callable[[Run], RunResult]) -> RunResult | Failure:
    """One run on a machine of the cluster, its exception turned into a `Failure`."""
    import torch

    torch.set_num_threads(1)
    try:
        return performing(run)
    except Exception as error:  # noqa: BLE001 an error in one run must not stop the others
        return Failure(f"{type(error).__name__}: {error}")
