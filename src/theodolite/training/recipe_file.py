"""`recipe.json`: identifies the run of a folder, so that it goes on with the recipe and the seed with which it was started."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from theodolite.records.errors import BadInput
from theodolite.records.folder import LOCK, delete, discard, write_whole
from theodolite.records.reading import BadJson, parse_json
from theodolite.training.recipes import BETA2, StagedRecipe

RECIPE = "recipe.json"
# Fields that older versions did not have, with the value that does what those did: their runs must still resume.
LATER_FIELDS: Mapping[str, Any] = {
    "beta2": BETA2,
    "head_learning_rate": None,
    "head_init": "default",
    "decay_end": None,
    "auxiliary": None,
    "interventional": None,
}


def claim(recipe: StagedRecipe, seed: int, out: Path, *, overwrite: bool) -> None:
    """Writes the recipe into the folder and deletes partial files. Raises `BadInput` on another run's folder, unless `overwrite`."""
    if overwrite and ((out / RECIPE).is_file() or not out.exists()):
        discard(out)
    refuse_other_run(recipe, seed, out)
    if int(os.environ.get("RANK", "0")) == 0:
        write_whole(out / RECIPE, recipe_json(recipe, seed))
        for partial in out.rglob(".*.part-*"):
            delete(partial)


def refuse_other_run(recipe: StagedRecipe, seed: int, out: Path) -> None:
    """Raises `BadInput` if the folder holds a run of another recipe or seed, or files that are no run."""
    if (out / RECIPE).is_file():
        if difference := first_difference(_saved(out / RECIPE), _without_later_fields(_settings(recipe, seed))):
            raise BadInput(f"{out} holds a run of another recipe or seed ({difference}); give another folder, or --overwrite to start over")
    elif out.is_dir() and any(not _of_this_start(path.name) for path in out.iterdir()):
        raise BadInput(f"{out} holds files that are no training run; give another folder")


def _of_this_start(name: str) -> bool:
    """Whether a file is there before the recipe is: the lock, or a part of the recipe that a killed process has left."""
    return name.endswith(LOCK) or name.startswith(f".{RECIPE}.part-")


def recipe_json(recipe: StagedRecipe, seed: int) -> str:
    """Every field of a recipe, and the seed of its run, as JSON."""
    return json.dumps(_settings(recipe, seed), indent=1) + "\n"


def first_difference(saved: Any, new: Any, place: str = "") -> str | None:
    """Place and both values of the first difference between two JSON values, None if they are equal."""
    if isinstance(saved, dict) and isinstance(new, dict):
        pairs = [(key, saved.get(key, "nothing"), new.get(key, "nothing")) for key in {**new, **saved}]
    elif isinstance(saved, list) and isinstance(new, list) and len(saved) == len(new):
        pairs = [(str(at), *both) for at, both in enumerate(zip(saved, new, strict=True))]
    else:
        return None if saved == new else f"{place or 'the whole'} is {json.dumps(saved)} in {RECIPE} and {json.dumps(new)} now"
    differences = (first_difference(one, other, f"{place}.{key}".lstrip(".")) for key, one, other in pairs)
    return next(filter(None, differences), None)


def _settings(recipe: StagedRecipe, seed: int) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads(json.dumps({"seed": seed, "model_kind": type(recipe.model).__name__, **asdict(recipe)}))
    return settings


def _saved(path: Path) -> Any:
    try:
        return _without_later_fields(parse_json(path.read_bytes()))
    except (OSError, BadJson, RecursionError) as error:
        raise BadInput(f"{path} cannot be read ({error}); give another folder, or --overwrite to start over") from error


def _without_later_fields(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_later_fields(inner) for key, inner in value.items() if key not in LATER_FIELDS or inner != LATER_FIELDS[key]}
    return [_without_later_fields(inner) for inner in value] if isinstance(value, list) else value
