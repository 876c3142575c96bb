"""`theodolite train tiny-laver --out FOLDER` with a short recipe: `python short_train.py FOLDER [PLACE STAGE STEP SIGNAL [RANK]]`.

The process sends itself the signal in the middle of building a stage's model, of making its data, of a step, of the teacher's move, of
writing a checkpoint, behind the last step, of writing the stage's model, or of copying the finished one; of several processes the one with
this rank, or each if it is "all".
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from helpers.staged_run import short
from theodolite.training import recipe_data, stage_runner
from theodolite.training.loss_monitor import LossMonitor
from theodolite.training.recipes import StagedRecipe
from theodolite.training.teacher_callback import TeacherCallback
from theodolite.training.trainer import ObjectiveTrainer


def before(owner: Any, name: str, is_due: Any, number: int, times: int) -> None:
    """Sends the signal before a function does its work, the first time that it is due."""
    work = getattr(owner, name)
    sent: list[int] = []

    def signalled(*args: Any, **kwargs: Any) -> Any:
        if not sent and is_due(*args):
            sent.append(number)
            for _ in range(times):
                os.kill(os.getpid(), number)
        return work(*args, **kwargs)

    setattr(owner, name, signalled)


def alone() -> StagedRecipe:
    """The stage with LaVer only, for several processes."""
    recipe = short()
    return replace(recipe, stages=tuple(stage for stage in recipe.stages if stage.name == "laver"))


def main() -> None:
    torch.set_num_threads(1)
    folder = sys.argv[1]
    if len(sys.argv) > 2 and (len(sys.argv) < 7 or sys.argv[6] in ("all", os.environ["RANK"])):
        place, stage, step, name = sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5]
        number, times = signal.Signals[name], 2 if place == "twice" else 1

        def at_step(trainer: Any, *args: Any) -> bool:
            return f"/{stage}/" in trainer.args.output_dir and trainer.state.global_step == step

        def of_stage(model: Any, recipe: Any, which: Any, *args: Any, **options: Any) -> bool:
            return which.name == stage

        if place == "building":
            before(stage_runner, "prepare_model", of_stage, number, times)
        if place == "data":
            before(recipe_data, "stage_data", lambda examples, which, *args: which.name == stage, number, times)
        if place in ("step", "twice"):
            before(ObjectiveTrainer, "training_step", at_step, number, times)
        if place == "teacher":
            before(TeacherCallback, "follow", lambda callback, done, *args: done == step, number, times)
        if place == "checkpoint":
            before(ObjectiveTrainer, "_save", at_step, number, times)
        if place == "end":
            before(LossMonitor, "refuse_unfinished", lambda monitor: monitor.losses[-1][0] == step, number, times)
        if place == "model":
            before(ObjectiveTrainer, "write_vlm", at_step, number, times)
        if place == "copy":
            before(stage_runner.shutil, "copytree", lambda *args: True, number, times)
    # These start threads, which a fork of the server would lose.
    from theodolite import cli
    from theodolite.commands import train

    train.RECIPES["tiny-laver"] = alone if "WORLD_SIZE" in os.environ else short
    train.shapes_recipe_data = partial(recipe_data.shapes_recipe_data, num_pictures=32)
    sys.argv = ["theodolite", "train", "tiny-laver", "--out", folder]
    cli.main()


if __name__ == "__main__":
    main()
