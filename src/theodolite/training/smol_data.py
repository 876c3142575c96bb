"""Model and data of the recipe smol: captions of OpenMoji and easy-VQA, then easy-VQA's training questions, from installed packages."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from torch import nn

from theodolite.data.examples import ExampleSet, QuestionAnswer, official_examples
from theodolite.models.cached_features import DiskFeatureCache
from theodolite.models.construction.frontends import picture_size
from theodolite.models.construction.join import join_vlm, with_pictures
from theodolite.records.errors import BadInput
from theodolite.records.folder import cache_folder
from theodolite.training.recipes import JoinedModel, Stage, StagedRecipe
from theodolite.training.stage_data import RecipeData, StageData, refuse_pairs, stage_data
from theodolite.worlds.openmoji.data import captioned_emoji, draw_emoji
from theodolite.worlds.registry import world_named
from theodolite.worlds.world import World

# SmolLM2's role markers without its default system message, which would cost 20 tokens a picture.
CHAT = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
DESCRIBE = "What is in the image?"
GROUNDS = ((255, 255, 255), (240, 240, 240), (250, 246, 236), (236, 244, 250))


def packaged_recipe_data(recipe: StagedRecipe, seed: int) -> RecipeData:
    """A joined model of installed weights, and data from installed packages. Raises `BadInput` that names a missing package."""
    model, name = recipe.model, recipe.questions
    if not isinstance(model, JoinedModel) or name is None:
        raise BadInput(f"{recipe.name} is no recipe of packaged data; use file_recipe_data or shapes_recipe_data")
    refuse_pairs(recipe.stages, "captions and official questions")
    world = world_named(name)

    @cache
    def examples(data: str, size: int) -> ExampleSet:
        if data == "captions":
            return _concatenated(emoji_captions(size, seed), world_captions(world, size))
        return official_examples(world, size, len(world.official_split("train").scenes))

    def start() -> tuple[nn.Module, Any]:
        vlm, processor = join_vlm(model.tower, model.language_model, recipe.encoder_attention, seed)
        processor.chat_template = with_pictures(CHAT)
        return vlm, processor

    def for_stage(stage: Stage, vlm: nn.Module, processor: Any) -> StageData:
        data = examples(stage.data, picture_size(processor.image_processor))
        features = DiskFeatureCache(cache_folder() / "features.sqlite") if recipe.remembers_features else None
        return stage_data(data, stage, vlm, processor, seed, features)

    return RecipeData(start, for_stage)


def emoji_captions(size: int, seed: int) -> ExampleSet:
    """OpenMoji's pictures with their names as captions, each on a light background drawn from the seed."""
    emoji = captioned_emoji()
    backgrounds = np.random.default_rng([seed, 4]).integers(len(GROUNDS), size=len(emoji))
    pictures = draw_emoji([code for code, _ in emoji], size, [GROUNDS[number] for number in backgrounds])
    return ExampleSet(pictures, tuple((QuestionAnswer(DESCRIBE, text),) for _, text in emoji))


def world_captions(world: World, size: int) -> ExampleSet:
    """A world's official training pictures, with captions of colour and shape."""
    scenes = world.official_split("train").scenes
    words = [[world.space[name].values[level] for level in scenes.of_factor(name)] for name in ("colour", "shape")]
    return ExampleSet(
        world.render(scenes, size), tuple((QuestionAnswer(DESCRIBE, f"a {' '.join(pair)}"),) for pair in zip(*words, strict=True))
    )


def _concatenated(*parts: ExampleSet) -> ExampleSet:
    return ExampleSet(np.concatenate([part.pictures for part in parts]), tuple(items for part in parts for items in part.questions))
