"""Models and data of the named recipes: the shapes world for tiny-laver, LLaVA-format files and Hugging Face data sets for others."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from theodolite.data.drops import MAX_DAMAGED_FRAC
from theodolite.data.examples import ExampleSet, QuestionAnswer, draw_questions, question_rng
from theodolite.data.packing import PackingCollator
from theodolite.data.partners import draw_partners
from theodolite.data.sources import LlavaJson
from theodolite.data.tables import from_datasets
from theodolite.models.construction.build import build_vlm
from theodolite.models.construction.join import join_vlm
from theodolite.models.load import load_vlm
from theodolite.records.errors import BadInput
from theodolite.training.recipes import JoinedModel, Stage, StagedRecipe, TinyModel, WholeModel
from theodolite.training.stage_data import RecipeData, StageData, refuse_pairs, stage_data
from theodolite.worlds.shapes.world import Shapes
from theodolite.worlds.world import World

NUM_PICTURES = 12_000
# Examples in the shuffle buffer of a stream.
SHUFFLE_BUFFER = 10_000
EXPECTED = (
    "FILE.json:PICTURES or FILE.jsonl:PICTURES (LLaVA format and the folder to which its image paths are relative), "
    "the name or folder of a Hugging Face data set, or stream:NAME"
)
# A file of LLaVA's format at the end of a text or before a colon, also packed, which cannot be read.
_LLAVA_FILE = re.compile(r"\.jsonl?(\.(?:gz|bz2|xz|zst|zip))?(?=:|$)", re.IGNORECASE)
DESCRIBE = "describe the picture."


def shapes_recipe_data(recipe: StagedRecipe, seed: int, num_pictures: int = NUM_PICTURES) -> RecipeData:
    """A small LLaVA from scratch on the tour's shapes world (shape and colour correlated): captions that name every factor, then the
    recipe's questions. Pictures without questions are left out. Raises `BadInput`."""
    refuse_pairs([stage for stage in recipe.stages if stage.data == "captions"], "captions")
    model = recipe.model
    if not isinstance(model, TinyModel) or recipe.world is None:
        raise BadInput(f"{recipe.name} is no recipe of a tiny model on the shapes world; use file_recipe_data or packaged_recipe_data")
    world = Shapes().correlate("shape", "colour", recipe.world.strength)
    policy = world.policy(recipe.world.policy)

    @cache
    def examples(data: str, pair_frac: float) -> ExampleSet:
        scenes = world.sample(num_pictures, np.random.default_rng([seed, 0]))
        questions = factor_captions(world, scenes) if data == "captions" else draw_questions(world, scenes, policy, seed)
        asked = np.array([bool(items) for items in questions])
        if not asked.any():
            raise BadInput(f"{policy} asks nothing of any of {num_pictures:,} pictures; raise its rates")
        queries = [items for items in policy.draw(scenes, world.prior, question_rng(seed)) if items]
        scenes = scenes.take(asked)
        partners = draw_partners(world, scenes, queries, seed, pair_frac)
        return ExampleSet(world.render(scenes), tuple(items for items in questions if items), partners=partners)

    def start() -> tuple[nn.Module, Any]:
        return build_vlm([*world.texts, DESCRIBE, *_every_caption(world)], seed, decoder=model.decoder, frontend=model.frontend)

    def for_stage(stage: Stage, vlm: nn.Module, processor: Any) -> StageData:
        return stage_data(examples(stage.data, stage.pair_frac), stage, vlm, processor, seed)

    return RecipeData(start, for_stage)


def factor_captions(world: World, scenes: Any) -> tuple[tuple[QuestionAnswer, ...], ...]:
    """One caption per scene, which names the value of every nameable factor."""
    factors = [factor for factor in world.space.factors if factor.nameable]
    names = [[factor.values[level] for level in scenes.of_factor(factor.name)] for factor in factors]
    return tuple((QuestionAnswer(DESCRIBE, " ".join(values)),) for values in zip(*names, strict=True))


def _every_caption(world: World) -> list[str]:
    return [" ".join(factor.values) for factor in world.space.factors if factor.nameable]


def file_recipe_data(recipe: StagedRecipe, sources: Mapping[str, str], seed: int, max_damaged_frac: float = MAX_DAMAGED_FRAC) -> RecipeData:
    """A recipe's pretrained model, and the data of its stages by name: `FILE.json:PICTURES` or a Hugging Face data set.

    At most `max_damaged_frac` (0 to 1) of the examples may be unreadable or malformed. Raises `BadInput` if the data of a stage is missing,
    or if no stage uses a name.
    """
    refuse_pairs(recipe.stages, "files and data sets")
    expected = tuple(dict.fromkeys(stage.data for stage in recipe.stages))
    if missing := [name for name in expected if name not in sources]:
        raise BadInput(f"{recipe.name} needs data named {', '.join(missing)}; give --data {missing[0]}=FILE.json:PICTURES or =DATASET")
    if extra := [name for name in sources if name not in expected]:
        raise BadInput(f"no stage of {recipe.name} trains on data named {extra[0]!r}; its stages train on {', '.join(expected)}")
    for text in sources.values():
        if _names_llava_file(text):
            _file_and_folder(text)  # before an earlier stage is trained

    def start() -> tuple[nn.Module, Any]:
        if isinstance(recipe.model, WholeModel):
            return load_vlm(recipe.model.name, attention=recipe.encoder_attention)
        if isinstance(recipe.model, JoinedModel):
            return join_vlm(recipe.model.tower, recipe.model.language_model, recipe.encoder_attention, seed)
        raise BadInput(f"{recipe.name} is the recipe of a tiny model, which renders its own data; use shapes_recipe_data")

    def for_stage(stage: Stage, vlm: nn.Module, processor: Any) -> StageData:
        collator = PackingCollator.of_processor(processor, vlm.config, max_length=stage.max_length, row_length=stage.row_length, seed=seed)
        return StageData(source_named(sources[stage.data], seed), collator, max_damaged_frac=max_damaged_frac)

    return RecipeData(start, for_stage)


def source_named(text: str, seed: int) -> Any:
    """The examples of `FILE.json:PICTURES` (LLaVA format), or of a Hugging Face data set by name or folder.

    `stream:NAME` streams it, shuffled within a buffer; `NAME@CONFIG` chooses a configuration. The split is `train`. Both paths may hold
    colons. Raises `BadInput`, with the expected forms.
    """
    if _names_llava_file(text):
        return LlavaJson(*_file_and_folder(text))
    import datasets

    streaming = text.startswith("stream:")
    name, _, configuration = text.removeprefix("stream:").partition("@")
    try:
        if Path(name).is_dir() and (Path(name) / "dataset_info.json").is_file():
            dataset = datasets.load_from_disk(name)
        else:
            dataset = datasets.load_dataset(name, configuration or None, split="train", streaming=streaming)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise BadInput(f"no data set can be loaded from {text!r}: {str(error).splitlines()[0]}; expected {EXPECTED}") from error
    # The sampler shuffles data sets in memory; streams are shuffled only here.
    return from_datasets(dataset.shuffle(seed=seed, buffer_size=SHUFFLE_BUFFER) if streaming else dataset)


def _names_llava_file(text: str) -> bool:
    return _LLAVA_FILE.search(text) is not None and not Path(text).is_dir()


def _file_and_folder(text: str) -> tuple[str, str]:
    """The file and the folder of `FILE.json:PICTURES`. Where several colons may part them, the first whose two sides exist does."""
    places = list(_LLAVA_FILE.finditer(text))
    pairs = [(text[: place.end()], text[place.end() + 1 :]) for place in places]
    file, folder = next((pair for pair in pairs if Path(pair[0]).is_file() and pair[1] and Path(pair[1]).is_dir()), pairs[0])
    if packed := next((place.group(1) for place in places if place.end() == len(file) and place.group(1)), None):
        raise BadInput(f"{file} is packed ({packed}); unpack it, and give FILE.jsonl:PICTURES")
    if not folder:
        raise BadInput(f"{text!r} names no folder of pictures; expected {EXPECTED}. Without pictures any folder will do")
    return file, folder
