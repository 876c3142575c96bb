"""Small runs of a grid, and ways to perform them, for tests that start processes: they must be importable there."""

from __future__ import annotations

import os
import pickle
import signal
from dataclasses import dataclass, replace
from pathlib import Path

from theodolite.models.construction.build import DecoderSize
from theodolite.studies.engine.arms import Arm
from theodolite.studies.engine.execute import Run, RunResult
from theodolite.training.recipe import Recipe

RECIPE = Recipe("tiny", steps=2, batch=4, decoder=DecoderSize(num_layers=1, width=16, num_heads=2))
AGREE, ALL = "shape:agree,row:odd,row", "shape,row"


def tiny_run(name: str = "all", seed: int = 0, strength: float = 0.8, **changes: object) -> Run:
    """A real run of a second or two."""
    arm = Arm(name, {"agree": AGREE, "all": ALL}[name], replace(RECIPE, **changes), strength, num_pictures=8)
    return Run("shapes", arm, seed, num_scenes=3)


def tiny_grid(seeds: int = 2) -> tuple[Run, ...]:
    return tuple(tiny_run(name, seed) for seed in range(seeds) for name in ("agree", "all"))


@dataclass(frozen=True)
class Pretended:
    """Ways to perform that give one real outcome, kept in a folder, as that of any run: for tests of what is done with outcomes.

    A process that is forked has the environment of the server, not of the test: so the folder travels with the task.
    """

    folder: Path

    def renamed(self, run: Run) -> RunResult:
        """The outcome under the run's name."""
        done: RunResult = pickle.loads((self.folder / "outcome").read_bytes())
        facts = done.line.facts.model_copy(update={"seed": run.seed, "arm": run.arm.name})
        return replace(done, line=done.line.model_copy(update={"key": run.key, "setup": run.setup, "facts": facts}))

    def noted(self, run: Run) -> RunResult:
        """As `renamed`, and leaves a line by which a test counts what was begun."""
        with (self.folder / "notes").open("a") as file:
            file.write(f"{run.key} {os.getpid()} {os.environ.get('OMP_NUM_THREADS')}\n")
        return self.renamed(run)

    def failing(self, run: Run) -> RunResult:
        """Raises on odd seeds."""
        if run.seed % 2:
            raise ValueError(f"seed {run.seed} is odd")
        return self.noted(run)

    def vanishing(self, run: Run) -> RunResult:
        """Is killed on odd seeds, as by a machine that is short of memory."""
        if run.seed % 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.noted(run)

    def stalling(self, run: Run) -> RunResult:
        """Never ends; says to the pipe `begun` that it has begun."""
        with (self.folder / "begun").open("w") as pipe:
            pipe.write(f"{run.key} {os.getpid()}\n")
        signal.pause()
        raise AssertionError("a signal that is handled ended the pause")


def where(run: Run) -> RunResult:
    """Fails with the node that it ran on, its process, and what of the cluster it was told."""
    import ray
    import torch

    context = ray.get_runtime_context()
    raise RuntimeError(f"{context.get_node_id()} {torch.get_num_threads()} {os.environ['OMP_NUM_THREADS']}")
