"""`theodolite train tiny-laver --out FOLDER` of one short stage, with a checkpoint a step: `python faulty_train.py FOLDER [FAULT STEP]`.

The fault is put in where a step begins: `memory`, `cpu-memory`, `device`, `nan` (from then on), `worker` (a loader's process is killed),
`removed` (the run's folder is deleted).
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from dataclasses import replace
from functools import partial
from typing import Any

import psutil
import torch

from helpers.staged_run import short
from theodolite.objectives.language import Language
from theodolite.training import recipe_data, stage_runner
from theodolite.training.recipes import StagedRecipe
from theodolite.training.trainer import ObjectiveTrainer

STEPS = 6


def one_stage() -> StagedRecipe:
    """The last stage alone."""
    recipe = short()
    return replace(recipe, stages=tuple(replace(stage, save_every=1, steps=STEPS) for stage in recipe.stages if stage.name == "instruct"))


def kill_a_loader() -> None:
    """Kills a worker process of the loader, as the system does when memory runs out."""
    children = psutil.Process().children(recursive=True)
    os.kill(min(child.pid for child in children), signal.SIGKILL)


def fail(fault: str) -> None:
    if fault == "memory":
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    if fault == "cpu-memory":
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:114] err == 0. DefaultCPUAllocator: can't allocate memory: 9 bytes")
    if fault == "device":
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be reported later")
    if fault == "worker":
        kill_a_loader()
    if fault == "removed":
        shutil.rmtree(sys.argv[-1])


def put_in(fault: str, step: int) -> None:
    """Puts a fault into a step."""
    training_step, forward = ObjectiveTrainer.training_step, Language.forward

    def faulty_step(trainer: Any, *args: Any, **options: Any) -> Any:
        if trainer.state.global_step == step:
            fail(fault)
        return training_step(trainer, *args, **options)

    def faulty_forward(objective: Any, model: Any, batch: Any, at: int) -> Any:
        terms = forward(objective, model, batch, at)
        return {name: replace(term, total=term.total * float("nan")) for name, term in terms.items()} if at >= step else terms

    ObjectiveTrainer.training_step = faulty_step  # type: ignore[method-assign]
    if fault == "nan":
        Language.forward = faulty_forward  # type: ignore[method-assign]
    if fault == "worker":
        arguments = stage_runner.training_arguments

        def with_workers(*args: Any, **options: Any) -> Any:
            made = arguments(*args, **options)
            made.dataloader_num_workers = 2
            return made

        stage_runner.training_arguments = with_workers


def main() -> None:
    torch.set_num_threads(1)
    folder = sys.argv[1]
    if len(sys.argv) > 2:
        put_in(sys.argv[2], int(sys.argv[3]))
    from theodolite import cli
    from theodolite.commands import train

    train.RECIPES["tiny-laver"] = one_stage
    train.shapes_recipe_data = partial(recipe_data.shapes_recipe_data, num_pictures=32)
    sys.argv = ["theodolite", "train", "tiny-laver", "--out", folder]
    cli.main()


if __name__ == "__main__":
    main()
