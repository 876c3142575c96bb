"""Interventions as pairs of pictures, before and after one factor is set to another value. Needs no model and no torch."""

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
    """Pictures with known values of one factor: positions in the pool, levels as indices into `values`, and scenes."""

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

    def take(self, keep: Bool[np.ndarray, " pair"] | Int[np.ndarray, " kept"]) -> Interventions:
        """The pairs of a mask or of these positions."""
        names = ("before", "after", "level_before", "level_after", "scene")
        return replace(self, **{name: getattr(self, name)[keep] for name in names})

    def labelled(self) -> Labelled:
        """Both sides as single pictures, each picture once, in the order of their positions."""
        pictures = np.concatenate([self.before, self.after])
        picture, first = np.unique(pictures, return_index=True)
        level = np.concatenate([self.level_before, self.level_after])[first]
        return Labelled(self.factor, self.values, picture, level, np.concatenate([self.scene, self.scene])[first])


def first_scenes(plan: Plan, rows: pl.DataFrame, num_scenes: int) -> tuple[Plan, pl.DataFrame]:
    """The rows of interventions and of nuisance pairs of the first scenes and their plan, with a pool of only their pictures.

    Pictures of interventions come first, in the same order, then those that only nuisance pairs have.
    """
    changed = rows.filter(pl.col("kind") == "intervention")
    scenes = changed["scene"].unique().sort().head(num_scenes)
    rows = rows.filter(pl.col("kind").is_in(["intervention", "nuisance"]) & pl.col("scene").is_in(scenes.implode()))
    used = _pictures_in(rows.filter(pl.col("kind") == "intervention"))
    used = np.concatenate([used, np.setdiff1d(_pictures_in(rows), used)])
    position = np.zeros(len(plan.pictures), dtype=np.int64)
    position[used] = np.arange(len(used))
    number = pl.Series(position)
    rows = rows.with_columns(number.gather(rows[f"picture_{side}"]).alias(f"picture_{side}") for side in ("before", "after"))
    return Plan(plan.pictures[used], rows.select(plan.rows.columns), plan.pair_kind, len(used)), rows


def _pictures_in(rows: pl.DataFrame) -> Int[np.ndarray, " picture"]:
    return np.unique(np.concatenate([rows["picture_before"].to_numpy(), rows["picture_after"].to_numpy()]))


def interventions_of(rows: pl.DataFrame, values: Mapping[str, Sequence[str]] | None = None) -> dict[str, Interventions]:
    """The interventions among a survey's rows by factor, each pair of pictures once.

    `values` are each factor's values in order; the default is the values that occur, sorted.
    """
    pairs = rows.filter(pl.col("kind") == "intervention").select(
        "factor", "scene", "picture_before", "picture_after", "value_before", "value_after"
    )
    pairs = pairs.unique(maintain_order=True).drop_nulls()
    by_factor = {}
    for (name,), group in pairs.group_by(["factor"], maintain_order=True):
        factor = str(name)
        own = tuple(values[factor]) if values and factor in values else tuple(sorted({*group["value_before"], *group["value_after"]}))
        number = {value: level for level, value in enumerate(own)}
        levels = [group[f"value_{side}"].replace_strict(number, return_dtype=pl.Int64).to_numpy() for side in ("before", "after")]
        before, after = (group[f"picture_{side}"].to_numpy() for side in ("before", "after"))
        by_factor[factor] = Interventions(factor, own, before, after, levels[0], levels[1], group["scene"].to_numpy())
    return by_factor


def known_levels(interventions: Mapping[str, Interventions], *, exact: bool) -> dict[str, Int[np.ndarray, " picture"]]:
    """By factor, its level in every picture of the pool, -1 where the interventions do not give it.

    An intervention gives both its pictures the levels of its own factor. Where pairs are `exact`, its pictures have equal levels of all
    other factors, so what is known of one is known of the other. In matched pairs other factors may differ.
    """
    number = 1 + max((int(side.max()) for each in interventions.values() for side in (each.before, each.after) if len(side)), default=-1)
    levels = {factor: np.full(number, -1, dtype=np.int64) for factor in interventions}
    for factor, each in interventions.items():
        levels[factor][each.before], levels[factor][each.after] = each.level_before, each.level_after
    changed = exact
    while changed:
        changed = False
        for factor, each in interventions.items():
            for other in (levels[name] for name in interventions if name != factor):
                for one, two in ((each.before, each.after), (each.after, each.before)):
                    new = (other[one] >= 0) & (other[two] < 0)
                    other[two[new]] = other[one[new]]
                    changed |= bool(new.any())
    return levels


def split_scenes(scenes: Int[np.ndarray, " row"], rng: np.random.Generator, train_frac: float = TRAIN_FRAC) -> Bool[np.ndarray, " row"]:
    """Whether each row is for training: a random split by scene, with at least one scene on either side where there are two or more."""
    unique, member = np.unique(scenes, return_inverse=True)
    count = min(max(round(train_frac * len(unique)), 1), max(len(unique) - 1, 1))
    training = np.zeros(len(unique), dtype=bool)
    training[rng.permutation(len(unique))[:count]] = True
    return np.asarray(training[member])
