"""Training by a named recipe, as the command line runs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from transformers.utils import logging

from theodolite.records.errors import BadInput, UnknownName
from theodolite.studies.progress import Steps
from theodolite.training.material import file_material, shapes_material
from theodolite.training.staged import RECIPE, run_stages
from theodolite.training.stages import RECIPES, StagedRecipe, TinyModel, WorldQuestions


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
) -> Path:
    """Trains by a recipe into `out`, going on where a run was cut off, and returns the model's folder.

    `ask` and `strength` are the policy of the questions and that of the correlation, for recipes on a world. Raises `BadInput`.
    """
    if name not in RECIPES:
        raise UnknownName("recipe", name, tuple(RECIPES))
    recipe = RECIPES[name]()
    sources = _sources(data)
    if isinstance(recipe.model, TinyModel):
        if sources:
            raise BadInput(f"{name} renders its own pictures; leave --data out")
        asked = WorldQuestions() if recipe.world is None else recipe.world
        policy, rho = asked.policy if ask is None else ask, asked.strength if strength is None else strength
        recipe = replace(recipe, world=WorldQuestions(policy, rho))
        material = shapes_material(recipe, seed)
    elif ask is not None or strength is not None:
        raise BadInput(f"{name} trains on data of its own, whose questions are what they are; leave --ask and --strength out")
    else:
        material = file_material(recipe, sources, seed)
    if overwrite and out.is_dir() and any(out.iterdir()) and not (out / RECIPE).is_file():
        raise BadInput(f"{out} holds files, but no {RECIPE}, so it is no training run; give another folder")
    logging.set_verbosity_error()
    logging.disable_progress_bar()  # ours says more
    with ExitStack() as stack:
        return run_stages(recipe, material, out, seed=seed, overwrite=overwrite, tell=_teller(recipe, steps, stack))


def _sources(data: Sequence[str]) -> dict[str, str]:
    found = {}
    for text in data:
        name, equals, source = text.partition("=")
        if not equals or not source:
            raise BadInput(f"--data {text!r} is not NAME=SOURCE, such as visual=stream:HuggingFaceM4/FineVision@ai2d_merged")
        found[name] = source
    return found


def _teller(recipe: StagedRecipe, steps: Steps, stack: ExitStack) -> Callable[[str, int, int, str], None]:
    """A bar for each stage, opened when the stage first tells of itself, and closed when the next one does."""
    inner = ExitStack()
    stack.enter_context(inner)
    bars: dict[str, Callable[..., None]] = {}

    def tell(stage: str, done: int, total: int, note: str) -> None:
        if stage not in bars:
            inner.close()
            bars[stage] = inner.enter_context(steps.step(f"{recipe.name} {stage}"))
        bars[stage](done, total, note)

    return tell
