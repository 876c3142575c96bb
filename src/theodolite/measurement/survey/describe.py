"""The parts of a survey's record that describe its world, pictures and model, and its example pairs."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import UInt8
from torch import nn

from theodolite.asking.prompts import prompt_hash
from theodolite.measurement.pairs.file_pictures import FilePictures
from theodolite.measurement.pairs.plan import Plan
from theodolite.models.families import family_of
from theodolite.models.fingerprint import weights_hash
from theodolite.models.image_processor import settings_hash
from theodolite.records.asking import ChoiceScore, PromptStyle
from theodolite.records.rows import NAMED
from theodolite.records.survey import Example, ModelConfig, WorldConfig
from theodolite.worlds.gallery import Gallery
from theodolite.worlds.world import World

NUM_EXAMPLES = 2
MOST_PIXELS_SHOWN = 512 * 512
Picture = UInt8[np.ndarray, "height width 3"]
# Example pairs of a record, and their pictures by file name.
Examples = tuple[tuple[Example, ...], dict[str, Picture]]


def rows_hash(rows: pl.DataFrame) -> str:
    """SHA-256, in hex, of the rows as JSON lines, without the columns of names.

    It is computed in slices, since the text of a large survey exceeds its rows in memory.
    """
    digest = hashlib.sha256()
    for part in rows.drop(NAMED, strict=False).iter_slices(20_000):
        digest.update(part.write_ndjson().encode())
    return digest.hexdigest()


def describe_world(world: World, pair_kind: str) -> WorldConfig:
    """The record's description of a world."""
    return WorldConfig.model_validate(
        {
            "name": world.name,
            "pair_kind": pair_kind,
            "factors": {factor.name: factor.values for factor in world.space.factors},
            "groups": {factor.name: dict(factor.groups) for factor in world.space.factors if factor.groups},
            "unnameable": tuple(name for name in world.space.names if name not in world.space.nameable),
            "correlations": tuple(
                {"cause": link.cause, "effect": link.effect, "strength": link.strength, "map": link.describe(world.space)}
                for link in world.prior.correlations
            ),
        }
    )


def describe_gallery(gallery: Gallery) -> WorldConfig:
    """The record's description of a gallery of annotated pictures."""
    return WorldConfig(
        name=gallery.name,
        pair_kind=gallery.kind,
        factors={factor.name: factor.values for factor in gallery.factors},
        groups={factor.name: dict(factor.groups) for factor in gallery.factors if factor.groups},
        unnameable=tuple(factor.name for factor in gallery.factors if not factor.nameable),
        correlations=(),
        known_prior=False,
        attribution=gallery.attribution,
    )


def describe_model(model: nn.Module, image_processor: Any, prompt: PromptStyle, score: ChoiceScore) -> ModelConfig:
    """The record's description of a model, of its image processor, and of how it was asked."""
    return ModelConfig(
        family=family_of(model.config).name,
        weights_sha256=weights_hash(model),
        num_parameters=sum(weight.numel() for weight in model.parameters()),
        dtype=str(model.dtype).removeprefix("torch."),
        prompt=prompt,
        prompt_sha256=prompt_hash(prompt),
        score=score,
        image_processor=type(image_processor).__name__,
        image_processor_sha256=settings_hash(image_processor),
    )


def example_pairs_of(plan: Plan, rows: pl.DataFrame) -> Examples:
    """The first pairs by scene of every factor and query; the choice does not depend on answers."""
    shown = rows.filter((pl.col("kind") == "intervention") & (pl.col("form") == "open"))
    first = shown.sort("scene", maintain_order=True).group_by(["query", "factor"], maintain_order=True).head(NUM_EXAMPLES)
    examples, pictures = [], {}
    for row in first.iter_rows(named=True):
        names = {}
        for side in ("before", "after"):
            names[side] = f"pictures/{row[f'picture_{side}']:06d}.png"
            pictures[names[side]] = _shown(plan, row[f"picture_{side}"])
        keys = ("factor", "value_before", "value_after", "truth_before", "truth_after", "answer_before", "answer_after")
        examples.append(
            Example(
                scene_id=row["scene"],
                scene_name=row.get("scene_name"),
                row=row.get("row"),
                question=row["question_before"],
                picture_before=names["before"],
                picture_after=names["after"],
                **{key: row[key] for key in keys},
            )
        )
    return tuple(examples), pictures


def _shown(plan: Plan, number: int) -> Picture:
    """A picture as an example shows it: as the model was given it, a large one of a file scaled down."""
    if isinstance(plan.pictures, FilePictures):
        return plan.pictures.thumbnail(number, MOST_PIXELS_SHOWN)
    return np.asarray(plan.pictures[number])
