"""The plan of a survey: comparisons of two answers, as rows, over a pool of pictures. Needs no model and no torch."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl
import psutil

from theodolite.asking.pictures import Pictures
from theodolite.measurement.pairs.file_pictures import FilePictures, PoolEntry
from theodolite.measurement.pairs.perturb import add_noise, plan_noise
from theodolite.measurement.pairs.rendered_pictures import RenderedPictures
from theodolite.records.errors import BadInput
from theodolite.records.rows import COLUMNS, NAMED
from theodolite.worlds.factors import Scenes
from theodolite.worlds.gallery import Gallery
from theodolite.worlds.limits import PixelLimits
from theodolite.worlds.query import Policy, Query
from theodolite.worlds.world import Pairs, World

NUM_TRAINING_SCENES = 200


@dataclass(frozen=True, eq=False)
class Plan:
    """Pictures and the comparisons of answers about them, one row each (columns: `COLUMNS`, and of given pairs those of `NAMED`).

    Kinds of rows: *intervention* (one factor changes), *nuisance* (only the nuisance seed changes), *paraphrase* (only the wording
    changes), *perturbation* (only the picture file changes, by `pairs.perturb`) and *training* (a single question on the training
    distribution; its "after" side equals its "before" side).
    """

    pictures: Pictures
    rows: pl.DataFrame
    pair_kind: str
    num_pair_pictures: int  # they come first; those of training rows (which depend on the policy) and perturbed ones follow


def plan_world(world: World, policy: Policy, num_scenes: int, seed: int, size: int) -> Plan:
    """The comparisons of a world: every pair under each query of the policy.

    Wording and order of choices are drawn by scene and equal within a pair. The pairs depend on world, number of scenes and seed only.
    """
    pairs = world.pairs(num_scenes, np.random.default_rng([seed, 0]))
    groups: dict[tuple[str, str], list[Query]] = {}
    for query in policy.queries:
        groups.setdefault((query.about, query.form), []).append(query)
    rows = [row for group in groups.values() for row in _group_rows(pairs, group, seed)]
    training, scenes = _training_rows(world, policy, len(pairs.pool), np.random.default_rng([seed, 2]))
    pool = Scenes.concatenate([pairs.pool, scenes]) if len(scenes) else pairs.pool
    frame = pl.DataFrame(rows + training, schema=dict(COLUMNS), orient="row")
    return Plan(world.render(pool, size), frame, pairs.kind, len(pairs.pool))


def _group_rows(pairs: Pairs, group: list[Query], seed: int) -> list[tuple[Any, ...]]:
    """Rows of one (factor asked, form): interventions, nuisance, and one paraphrase a scene, of its base picture."""
    truths = {query.name: query.truth(pairs.pool) for query in group}
    key = [seed, 1, zlib.crc32(f"{group[0].about} {group[0].form}".encode())]
    rows: list[tuple[Any, ...]] = []
    for number in range(len(pairs)):
        factor, scene = pairs.factor[number], int(pairs.scene_id[number])
        before, after = int(pairs.before[number]), int(pairs.after[number])
        query = _pick(group, truths, before, after, np.random.default_rng([*key, scene, zlib.crc32(factor.encode())]))
        # Within a group, wording and order depend on the scene's number only, so all rows of a scene share them.
        by_scene = np.random.default_rng([*key, scene])
        first, second = by_scene.permutation(len(query.wordings))[[0, -1]]
        wording, other = query.wordings[first], query.wordings[second]
        choices = [query.choices[k] for k in by_scene.permutation(len(query.choices))]
        truth = [query.choices[truths[query.name][at]] for at in (before, after)]
        values = [_value(pairs.pool, factor, at) for at in (before, after)]
        fixed = (query.about, query.form, query.name)
        kind = "intervention" if factor else "nuisance"
        rows.append((kind, scene, factor, *values, *fixed, wording, wording, choices, *truth, before, after))
        if not factor and other != wording:
            same = (wording, other, choices, truth[0], truth[0], before, before)
            rows.append(("paraphrase", scene, "", None, None, *fixed, *same))
    return rows


def _pick(group: list[Query], truths: Mapping[str, np.ndarray], before: int, after: int, rng: np.random.Generator) -> Query:
    """A random query of a group. If the pair changes the truth of some queries and not of others, either kind has probability 1/2."""
    moves = [query for query in group if truths[query.name][before] != truths[query.name][after]]
    stays = [query for query in group if truths[query.name][before] == truths[query.name][after]]
    either = [kind for kind in (moves, stays) if kind]
    chosen = either[int(rng.integers(len(either)))]
    return chosen[int(rng.integers(len(chosen)))]


def _value(scenes: Scenes, factor: str, index: int) -> str | None:
    return scenes.space[factor].values[scenes.of_factor(factor)[index]] if factor else None


def _training_rows(world: World, policy: Policy, offset: int, rng: np.random.Generator) -> tuple[list[tuple[Any, ...]], Scenes]:
    """Questions on the training distribution: scenes from the prior, weighted for each query by the rate at which the policy asks it."""
    scenes = world.sample(NUM_TRAINING_SCENES * 4, rng)
    rates = policy.rates(scenes, world.prior)
    rows: list[tuple[Any, ...]] = []
    drawn: list[int] = []
    for query in policy.queries:
        lines = [number for number, ask in enumerate(policy.lines) if ask.query.name == query.name]
        weight = rates[lines].sum(axis=0)
        if not weight.any():
            continue
        truth = query.truth(scenes)
        # With replacement, since scenes of high rate would run out; rows of one scene share its number, so intervals account for it.
        for index in rng.choice(len(scenes), NUM_TRAINING_SCENES, p=weight / weight.sum()):
            wording, at = str(rng.choice(query.wordings)), offset + len(drawn)
            answer = query.choices[truth[index]]
            drawn.append(int(index))
            fixed = (query.about, query.form, query.name, wording, wording, list(query.choices), answer, answer, at, at)
            rows.append(("training", int(index), "", None, None, *fixed))
    return rows, scenes.take(np.array(drawn, dtype=int))


def plan_gallery(
    gallery: Gallery, size: int, noise: Literal["perturb", "given"] = "given", limits: PixelLimits | None = None, *, scales: bool = True
) -> Plan:
    """The comparisons of a gallery, row by row, over its pictures in the order of their names.

    With `limits`, pictures of files are decoded when they are read, within these limits (`FilePictures`), and those of other galleries
    are squares of `size` pixels a side, rendered when they are taken (`RenderedPictures`); else all are in memory, such squares.

    A row with a factor is an intervention; without one, a row with two pictures is nuisance and a row with one picture under two questions
    a paraphrase. There are no training rows, since the training questions are unknown. With `noise` *perturb*, queries without noise rows
    get some (`pairs.perturb`). Raises `BadInput` if the gallery has no rows.
    """
    table = gallery.table
    if table.is_empty():
        raise BadInput(f"{gallery.name} has no rows, so there is no question to ask; give a gallery with at least one row")
    names = sorted({*table["picture_before"], *table["picture_after"]})
    number = {name: index for index, name in enumerate(names)}
    same = pl.col("picture_before") == pl.col("picture_after")
    unchanged = pl.when(same).then(pl.lit("paraphrase")).otherwise(pl.lit("nuisance"))
    rows = table.with_columns(
        path_before=pl.col("picture_before"),
        path_after=pl.col("picture_after"),
        kind=pl.when(pl.col("factor") == "").then(unchanged).otherwise(pl.lit("intervention")),
        picture_before=pl.col("picture_before").replace_strict(number, return_dtype=pl.Int64),
        picture_after=pl.col("picture_after").replace_strict(number, return_dtype=pl.Int64),
    )
    rows = rows.select(*COLUMNS, *(name for name in NAMED if name in rows.columns))
    if limits is not None:
        changes, rows = plan_noise(len(names), rows) if noise == "perturb" else ([], rows)
        entries = (*map(PoolEntry, names), *(PoolEntry(names[picture], change) for picture, change in changes))
        if gallery.files is None:
            return Plan(RenderedPictures(gallery.render, size, entries), rows, gallery.kind, len(names))
        return Plan(FilePictures(gallery.files, entries, limits, scales), rows, gallery.kind, len(names))
    _refuse_too_many(gallery.name, len(names), size)
    pictures = gallery.render(names, size)
    if noise == "perturb":
        pictures, rows = add_noise(pictures, rows)
    return Plan(pictures, rows, gallery.kind, len(names))


def _refuse_too_many(name: str, num_pictures: int, size: int) -> None:
    """Raises `BadInput` where the pictures, which are all in memory at once, would take more than half of the free memory."""
    needed, free = num_pictures * size * size * 3, psutil.virtual_memory().available
    if needed > free / 2:
        raise BadInput(
            f"{name} has {num_pictures:,} pictures, which take {needed / 2**30:.1f} GiB at {size} pixels, more than half of the "
            f"{free / 2**30:.1f} GiB that are free; survey a part of them: fewer --scenes, or a shorter manifest"
        )
