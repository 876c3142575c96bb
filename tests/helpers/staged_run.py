"""A short run of the three stages of `tiny-laver`, as a process of its own: `python staged_run.py FOLDER [STAGE STEP]` dies there."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import torch

from helpers.fork_server import thread_names
from helpers.tiny_llava import TINY
from theodolite.records.progress import Progress
from theodolite.training.launch import leave_together
from theodolite.training.recipe_data import shapes_recipe_data
from theodolite.training.recipes import StagedRecipe, TinyModel, tiny_laver
from theodolite.training.stage_runner import run_stages

STEPS = 6


def short() -> StagedRecipe:
    recipe = tiny_laver()
    stages = tuple(replace(stage, steps=STEPS, batch=8, warmup_steps=2, save_every=2) for stage in recipe.stages)
    return replace(recipe, model=TinyModel(TINY), stages=stages, micro_batch=4)


def main() -> None:
    torch.set_num_threads(1)
    deadly = (sys.argv[2], int(sys.argv[3])) if len(sys.argv) > 2 else None

    def progress(stage: str) -> Progress:
        def die_where_told(done: int, total: int, note: str = "") -> None:
            if (stage, done) == deadly:
                os.kill(os.getpid(), signal.SIGKILL)

        return die_where_told

    recipe = short()
    print(run_stages(recipe, shapes_recipe_data(recipe, 0, num_pictures=32), Path(sys.argv[1]), progress=progress))
    leave_together()
    assert not [name for name in thread_names() if "gloo" in name]


if __name__ == "__main__":
    main()
