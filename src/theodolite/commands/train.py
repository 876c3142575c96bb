"""Training by a named recipe, as the command line runs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from inspect import signature
from pathlib import Path

from pydantic import ValidationError, validate_call
from transformers.utils import logging

from theodolite.commands.progress import Steps
from theodolite.records.errors import BadInput, UnknownName
from theodolite.records.progress import Progress
from theodolite.training.recipe_data import file_recipe_data, shapes_recipe_data
from theodolite.training.recipes import RECIPES, StagedRecipe, TinyModel, WorldQuestions
from theodolite.training.smol_data import packaged_recipe_data
from theodolite.training.stage_runner import RECIPE, run_stages


def train_recipe(
    name: str,
    out: Path,
    data: Sequence[str],
    *,
    seed: int,
    overwrite: bool,
    steps: Steps,
    ask: str | None = None,
    strength: float | None = None,
    settings: Sequence[str] = (),
) -> Path:
    """Trains by a recipe into `out`, going on where a run was cut off, and returns the model's folder.

    `ask` and `strength` are the policy of the questions and that of the correlation, for recipes on a world; `settings` (NAME=VALUE) are
    those of the recipe's function. Raises `BadInput`.
    """
    if name not in RECIPES:
        raise UnknownName("recipe", name, tuple(RECIPES))
    recipe = variant(name, settings)
    sources = _sources(data)
    if recipe.questions is not None:
        if sources or ask is not None or strength is not None:
            raise BadInput(f"{name} trains on installed packages; leave --data, --ask and --strength out")
        recipe_data = packaged_recipe_data(recipe, seed)
    elif isinstance(recipe.model, TinyModel):
        if sources:
            raise BadInput(f"{name} renders its own pictures; leave --data out")
        asked = WorldQuestions() if recipe.world is None else recipe.world
        policy, rho = asked.policy if ask is None else ask, asked.strength if strength is None else strength
        recipe = replace(recipe, world=WorldQuestions(policy, rho))
        recipe_data = shapes_recipe_data(recipe, seed)
    elif ask is not None or strength is not None:
        raise BadInput(f"{name} trains on data of its own, whose questions are what they are; leave --ask and --strength out")
    else:
        recipe_data = file_recipe_data(recipe, sources, seed)
    if overwrite and out.is_dir() and any(out.iterdir()) and not (out / RECIPE).is_file():
        raise BadInput(f"{out} holds files, but no {RECIPE}, so it is no training run; give another folder")
    logging.set_verbosity_error()
    logging.disable_progress_bar()  # ours says more
    with ExitStack() as stack:
        return run_stages(recipe, recipe_data, out, seed=seed, overwrite=overwrite, progress=_stage_bars(recipe, steps, stack))


def variant(name: str, settings: Sequence[str]) -> StagedRecipe:
    """The recipe with some of its function's arguments set. Raises `BadInput` on one that it does not have, or a value of another kind."""
    given = {}
    for text in settings:
        key, equals, value = text.partition("=")
        if not equals:
            raise BadInput(f"--set {text!r} is not NAME=VALUE, such as laver=off")
        given[key] = value
    known = tuple(signature(RECIPES[name]).parameters)
    if unknown := [key for key in given if key not in known]:
        raise UnknownName(f"setting of {name}", unknown[0], known or ("none",))
    try:
        return validate_call(RECIPES[name])(**given)
    except ValidationError as error:
        first = error.errors()[0]
        raise BadInput(f"--set {first['loc'][0]}={first['input']}: {first['msg']}") from error


def _sources(data: Sequence[str]) -> dict[str, str]:
    found = {}
    for text in data:
        name, equals, source = text.partition("=")
        if not equals or not source:
            raise BadInput(f"--data {text!r} is not NAME=SOURCE, such as visual=stream:HuggingFaceM4/FineVision@ai2d_merged")
        found[name] = source
    return found


def _stage_bars(recipe: StagedRecipe, steps: Steps, stack: ExitStack) -> Callable[[str], Progress]:
    """A progress bar for each stage, opened when the stage begins and closed when the next one does."""
    bar = stack.enter_context(ExitStack())

    def open_bar(stage: str) -> Progress:
        bar.close()
        return bar.enter_context(steps.step(f"{recipe.name} {stage}"))

    return open_bar
