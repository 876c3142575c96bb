"""Interventions as pictures: which picture became which when one factor was set to another value. Needs no model and no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from jaxtyping import Bool, Int

from theodolite.measurement.pairs.plan import Plan

TRAIN_FRAC = 0.6


@dataclass(frozen=True, eq=False)
class Labelled:
    """Pictures whose value of one factor is known: positions in the pool, levels as indices into `values`, and their scenes."""

    factor: str
    values: tuple[str, ...]
    picture: Int[np.ndarray, " sample"]
    level: Int[np.ndarray, " sample"]
    scene: Int[np.ndarray, " sample"]


@dataclass(frozen=True, eq=False)
class Interventions:
    """The interventions on one factor: pictures are positions in the survey's pool, levels are indices into `values`."""

    factor: str
    values: tuple[str, ...]
    before: Int[np.ndarray, " pair"]
    after: Int[np.ndarray, " pair"]
    level_before: Int[np.ndarray, " pair"]
    level_after: Int[np.ndarray, " pair"]
    scene: Int[np.ndarray, " pair"]

    def __len__(self) -> int:
        return len(self.scene)

    def take(self, keep: Bool[np.ndarray, " pair"]) -> Interventions:
        """Some of the pairs."""
        names = ("before", "after", "level_before", "level_after", "scene")
        return replace(self, **{name: getattr(self, name)[keep] for name in names})

    def labelled(self) -> Labelled:
        """Both sides as single pictures, each picture once, in the order of their positions."""
        pictures = np.concatenate([self.before, self.after])
        picture, first = np.unique(pictures, return_index=True)
        level = np.concatenate([self.level_before, self.level_after])[first]
        return Labelled(self.factor, self.values, picture, level, np.concatenate([self.scene, self.scene])[first])


def first_scenes(plan: Plan, rows: pl.DataFrame, num_scenes: int) -> tuple[Plan, pl.DataFrame]:
    """The interventions of the first scenes, with a pool of their pictures alone, in the same order."""
    some = rows.filter(pl.col("kind") == "intervention")
    some = some.filter(pl.col("scene").is_in(some["scene"].unique().sort().head(num_scenes).implode()))
    used = np.unique(np.concatenate([some["picture_before"].to_numpy(), some["picture_after"].to_numpy()]))
    number = pl.Series(np.searchsorted(used, np.arange(len(plan.pictures))))
    some = some.with_columns(number.gather(some[f"picture_{side}"]).alias(f"picture_{side}") for side in ("before", "after"))
    return Plan(plan.pictures[used], some.select(plan.rows.columns), plan.pair_kind, len(used)), some


def interventions_of(rows: pl.DataFrame, values: Mapping[str, Sequence[str]] | None = None) -> dict[str, Interventions]:
    """The interventions among a survey's rows by factor, each pair of pictures once.

    `values` name each factor's values in order; without them they are those that occur, sorted.
    """
    pairs = rows.filter(pl.col("kind") == "intervention").select(
        "factor", "scene", "picture_before", "picture_after", "value_before", "value_after"
    )
    pairs = pairs.unique(maintain_order=True).drop_nulls()
    found = {}
    for (name,), part in pairs.group_by(["factor"], maintain_order=True):
        factor = str(name)
        known = tuple(values[factor]) if values and factor in values else tuple(sorted({*part["value_before"], *part["value_after"]}))
        number = {value: level for level, value in enumerate(known)}
        levels = [part[f"value_{side}"].replace_strict(number, return_dtype=pl.Int64).to_numpy() for side in ("before", "after")]
        before, after = (part[f"picture_{side}"].to_numpy() for side in ("before", "after"))
        found[factor] = Interventions(factor, known, before, after, levels[0], levels[1], part["scene"].to_numpy())
    return found


def split_scenes(scenes: Int[np.ndarray, " row"], rng: np.random.Generator, train_frac: float = TRAIN_FRAC) -> Bool[np.ndarray, " row"]:
    """Whether each row is for training; whole scenes fall on one side, and each side gets one where there are two or more."""
    unique, member = np.unique(scenes, return_inverse=True)
    count = min(max(round(train_frac * len(unique)), 1), max(len(unique) - 1, 1))
    training = np.zeros(len(unique), dtype=bool)
    training[rng.permutation(len(unique))[:count]] = True
    return np.asarray(training[member])
