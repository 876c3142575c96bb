"""Models and data of the named recipes: the shapes world for tiny-laver, LLaVA-format files and Hugging Face data sets for others."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from theodolite.data.examples import ExampleSet, QuestionAnswer, draw_questions
from theodolite.data.packing import PackingCollator
from theodolite.data.sources import LlavaJson
from theodolite.data.tables import from_datasets
from theodolite.models.construction.build import build_vlm
from theodolite.models.construction.join import join_vlm
from theodolite.models.load import load_vlm
from theodolite.records.errors import BadInput
from theodolite.training.recipes import JoinedModel, Stage, StagedRecipe, TinyModel, WholeModel
from theodolite.training.stage_data import RecipeData, StageData, stage_data
from theodolite.worlds.shapes.world import Shapes
from theodolite.worlds.world import World

NUM_PICTURES = 12_000
# Examples in the shuffle buffer of a stream.
SHUFFLE_BUFFER = 10_000
DESCRIBE = "describe the picture."


def shapes_recipe_data(recipe: StagedRecipe, seed: int, num_pictures: int = NUM_PICTURES) -> RecipeData:
    """A small LLaVA from scratch on the tour's shapes world (shape and colour correlated): captions that name every factor, then the
    recipe's questions. Pictures without questions are left out. Raises `BadInput`."""
    model = recipe.model
    if not isinstance(model, TinyModel) or recipe.world is None:
        raise BadInput(f"{recipe.name} is no recipe of a tiny model on the shapes world; use file_recipe_data or packaged_recipe_data")
    world = Shapes().correlate("shape", "colour", recipe.world.strength)
    policy = world.policy(recipe.world.policy)

    @cache
    def examples(data: str) -> ExampleSet:
        scenes = world.sample(num_pictures, np.random.default_rng([seed, 0]))
        questions = factor_captions(world, scenes) if data == "captions" else draw_questions(world, scenes, policy, seed)
        asked = np.array([bool(items) for items in questions])
        if not asked.any():
            raise BadInput(f"{policy} asks nothing of any of {num_pictures:,} pictures; raise its rates")
        return ExampleSet(world.render(scenes.take(asked)), tuple(items for items in questions if items))

    def start() -> tuple[nn.Module, Any]:
        return build_vlm([*world.texts, DESCRIBE, *_every_caption(world)], seed, decoder=model.decoder, frontend=model.frontend)

    def for_stage(stage: Stage, vlm: nn.Module, processor: Any) -> StageData:
        return stage_data(examples(stage.data), stage, vlm, processor, seed)

    return RecipeData(start, for_stage)


def factor_captions(world: World, scenes: Any) -> tuple[tuple[QuestionAnswer, ...], ...]:
    """One caption per scene, which names the value of every nameable factor."""
    factors = [factor for factor in world.space.factors if factor.nameable]
    names = [[factor.values[level] for level in scenes.of_factor(factor.name)] for factor in factors]
    return tuple((QuestionAnswer(DESCRIBE, " ".join(values)),) for values in zip(*names, strict=True))


def _every_caption(world: World) -> list[str]:
    return [" ".join(factor.values) for factor in world.space.factors if factor.nameable]


def file_recipe_data(recipe: StagedRecipe, sources: Mapping[str, str], seed: int) -> RecipeData:
    """A recipe's pretrained model, and the data of its stages by name: `FILE.json:PICTURES` or a Hugging Face data set.

    Raises `BadInput` if the data of a stage is missing, or if no stage uses a name.
    """
    expected = tuple(dict.fromkeys(stage.data for stage in recipe.stages))
    if missing := [name for name in expected if name not in sources]:
        raise BadInput(f"{recipe.name} needs data named {', '.join(missing)}; give --data {missing[0]}=FILE.json:PICTURES or =DATASET")
    if extra := [name for name in sources if name not in expected]:
        raise BadInput(f"no stage of {recipe.name} trains on data named {extra[0]!r}; its stages train on {', '.join(expected)}")

    def start() -> tuple[nn.Module, Any]:
        if isinstance(recipe.model, WholeModel):
            return load_vlm(recipe.model.name, attention=recipe.attention)
        if isinstance(recipe.model, JoinedModel):
            return join_vlm(recipe.model.tower, recipe.model.language_model, recipe.attention, seed)
        raise BadInput(f"{recipe.name} is the recipe of a tiny model, which renders its own data; use shapes_recipe_data")

    def for_stage(stage: Stage, vlm: nn.Module, processor: Any) -> StageData:
        collator = PackingCollator.of_processor(processor, vlm.config, max_length=stage.max_length, row_length=stage.row_length, seed=seed)
        return StageData(source_named(sources[stage.data], seed), collator)

    return RecipeData(start, for_stage)


def source_named(text: str, seed: int) -> Any:
    """The examples of `FILE.json:PICTURES` (LLaVA format), or of a Hugging Face data set by name or folder.

    `stream:NAME` streams it, shuffled within a buffer; `NAME@CONFIG` chooses a configuration. The split is `train`.
    """
    path, _, folder = text.rpartition(":")
    if path.endswith((".json", ".jsonl")):
        return LlavaJson(path, folder)
    import datasets

    streaming = text.startswith("stream:")
    name, _, configuration = text.removeprefix("stream:").partition("@")
    try:
        if Path(name).is_dir() and (Path(name) / "dataset_info.json").is_file():
            dataset = datasets.load_from_disk(name)
        else:
            dataset = datasets.load_dataset(name, configuration or None, split="train", streaming=streaming)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise BadInput(f"no data set can be loaded from {text!r}: {str(error).splitlines()[0]}") from error
    # The sampler shuffles data sets in memory; streams are shuffled only here.
    return from_datasets(dataset.shuffle(seed=seed, buffer_size=SHUFFLE_BUFFER) if streaming else dataset)
