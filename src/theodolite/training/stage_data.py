"""The data of a stage: data set, collator, and the cache of the frozen encoder's features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from theodolite.data.collate import Collator
from theodolite.data.drops import MAX_DAMAGED_FRAC
from theodolite.data.epochs import FixedOrder
from theodolite.data.examples import ExampleSet, training_order
from theodolite.models.cached_features import FeatureCache
from theodolite.models.construction.frontends import Pixels
from theodolite.models.conversation_tokenizer import QuestionTokenizer
from theodolite.records.errors import BadInput
from theodolite.training.recipes import Stage


@dataclass(frozen=True)
class StageData:
    """A data set, its collator, and the allowed fraction of damaged examples; without `features` a frozen encoder runs in every step."""

    dataset: Any
    collator: Callable[[Any], Any]
    features: FeatureCache | None = None
    max_damaged_frac: float = MAX_DAMAGED_FRAC


@dataclass(frozen=True)
class RecipeData:
    """`start` returns the initial model and its processor, `for_stage` the data of a stage for them."""

    start: Callable[[], tuple[nn.Module, Any]]
    for_stage: Callable[[Stage, nn.Module, Any], StageData]


def refuse_pairs(stages: Sequence[Stage], data: str) -> None:
    """Raises `BadInput` if one of the stages needs partners of its pictures, where its data has none."""
    if needing := [stage.name for stage in stages if stage.pair_frac]:
        raise BadInput(
            f"stage {needing[0]} has interventional, which needs pairs of pictures that differ in one factor; {data} have none: train on "
            "a world's questions, or leave it out"
        )


def stage_data(examples: ExampleSet, stage: Stage, vlm: Any, processor: Any, seed: int, features: FeatureCache | None = None) -> StageData:
    """Examples in the order of a seed, all questions about a picture in one row."""
    order = training_order(len(examples), stage.steps * stage.batch, seed)
    tokenizer = QuestionTokenizer(processor, num_picture_tokens=vlm.config.image_seq_length)
    return StageData(FixedOrder(order), Collator(examples, tokenizer, Pixels(processor.image_processor), seed), features)
