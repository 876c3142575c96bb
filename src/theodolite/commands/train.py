"""Training by a named recipe: the command `theodolite train`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from inspect import signature
from pathlib import Path

from pydantic import ValidationError, validate_call
from transformers.utils import logging

from theodolite.commands.progress import Steps
from theodolite.data.drops import MAX_DAMAGED_FRAC
from theodolite.records.errors import BadInput, UnknownName
from theodolite.records.progress import Progress
from theodolite.training.recipe_data import file_recipe_data, shapes_recipe_data
from theodolite.training.recipe_file import RECIPE, refuse_other_run
from theodolite.training.recipes import RECIPES, StagedRecipe, TinyModel, WorldQuestions
from theodolite.training.smol_data import packaged_recipe_data
from theodolite.training.stage_runner import run_stages, where_next


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
    max_damaged_frac: float | None = None,
) -> Path:
    """Trains by a recipe into `out`, resuming an interrupted run, and returns the model's folder.

    `ask` (query policy) and `strength` (of the correlation, 0 to 1) are for recipes on a world; `max_damaged_frac` (0 to 1, default 0.01)
    is for recipes on given data; `settings` (NAME=VALUE) are arguments of the recipe's function. Raises `BadInput`.
    """
    if name not in RECIPES:
        raise UnknownName("recipe", name, tuple(RECIPES))
    recipe = variant(name, settings)
    sources = _sources(data)
    if max_damaged_frac is not None and (recipe.questions is not None or isinstance(recipe.model, TinyModel)):
        raise BadInput(f"{name} trains on pictures of its own; leave --max-damaged-frac out")
    if recipe.questions is not None:
        if sources or ask is not None or strength is not None:
            raise BadInput(f"{name} trains on installed packages; leave --data, --ask and --strength out")
        recipe_data = packaged_recipe_data(recipe, seed)
    elif isinstance(recipe.model, TinyModel):
        if sources:
            raise BadInput(f"{name} renders its own pictures; leave --data out")
        world = recipe.world or WorldQuestions()
        policy, rho = world.policy if ask is None else ask, world.strength if strength is None else strength
        recipe = replace(recipe, world=WorldQuestions(policy, rho))
        recipe_data = shapes_recipe_data(recipe, seed)
    elif ask is not None or strength is not None:
        raise BadInput(f"{name} trains on given data, whose questions are fixed; leave --ask and --strength out")
    else:
        recipe_data = file_recipe_data(recipe, sources, seed, MAX_DAMAGED_FRAC if max_damaged_frac is None else max_damaged_frac)
    if overwrite and out.is_dir() and any(out.iterdir()) and not (out / RECIPE).is_file():
        raise BadInput(f"{out} holds files, but no {RECIPE}, so it is no training run; give another folder")
    logging.set_verbosity_error()
    logging.disable_progress_bar()  # theodolite's own shows more
    if not overwrite and (out / RECIPE).is_file():
        refuse_other_run(recipe, seed, out)
        steps.console.print(f"{name}: {where_next(recipe, out)}", soft_wrap=True)
    with ExitStack() as stack:
        return run_stages(recipe, recipe_data, out, seed=seed, overwrite=overwrite, progress=_stage_bars(recipe, steps, stack))


def variant(name: str, settings: Sequence[str]) -> StagedRecipe:
    """The recipe with some arguments of its function set. Raises `BadInput` on an unknown argument or an invalid value."""
    arguments = {}
    for text in settings:
        key, equals, value = text.partition("=")
        if not equals:
            raise BadInput(f"--set {text!r} is not NAME=VALUE, such as laver=off")
        arguments[key] = value
    parameters = tuple(signature(RECIPES[name]).parameters)
    if unknown := [key for key in arguments if key not in parameters]:
        raise UnknownName(f"setting of {name}", unknown[0], parameters)
    try:
        return validate_call(RECIPES[name])(**arguments)
    except ValidationError as error:
        first = error.errors()[0]
        raise BadInput(f"--set {first['loc'][0]}={first['input']}: {first['msg']}") from error


def _sources(data: Sequence[str]) -> dict[str, str]:
    sources = {}
    for text in data:
        name, equals, source = text.partition("=")
        if not equals or not source:
            raise BadInput(f"--data {text!r} is not NAME=SOURCE, such as visual=stream:HuggingFaceM4/FineVision@ai2d_merged")
        if name in sources:
            raise BadInput(f"--data gives {name} twice, as {sources[name]!r} and {source!r}; give each name once")
        sources[name] = source
    return sources


def _stage_bars(recipe: StagedRecipe, steps: Steps, stack: ExitStack) -> Callable[[str], Progress]:
    """Opens a progress bar for each stage and closes that of the previous stage."""
    bar = stack.enter_context(ExitStack())

    def open_bar(stage: str) -> Progress:
        bar.close()
        if not steps.console.is_terminal:
            steps.console.print(f"{recipe.name} {stage}: making the model and the data")
        return bar.enter_context(steps.step(f"{recipe.name} {stage}"))

    return open_bar
