"""What a survey will ask: comparisons of two answers, as rows, over a pool of pictures. Needs no model and no torch."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import polars as pl
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from theodolite.records.errors import BadInput
from theodolite.records.rows import COLUMNS
from theodolite.worlds.factors import Scenes
from theodolite.worlds.query import Form, Policy, Query
from theodolite.worlds.world import PairKind, Pairs, World

NUM_TRAINING_SCENES = 200


@dataclass(frozen=True, eq=False)
class Plan:
    """Pictures and the comparisons to make of the answers about them, one row each (columns: `COLUMNS`).

    Kinds of rows: *intervention* (one factor changes), *nuisance* (nothing but the nuisance seed does), *paraphrase* (only the wording
    does) and *training* (a single question on the training distribution: its "after" side repeats its "before").
    """

    pictures: UInt8[np.ndarray, "picture height width 3"]
    rows: pl.DataFrame
    pair_kind: str
    num_pair_pictures: int  # they come first; the pictures of training rows, which depend on the policy, follow


class BadPairs(BadInput):
    """A file of pairs that cannot be surveyed; the message says which row and why."""


def plan_world(world: World, policy: Policy, num_scenes: int, seed: int, size: int) -> Plan:
    """The comparisons of a world: every pair, asked each query of the policy, in a wording and with an
    order of choices drawn per scene and kept within a pair. The pairs depend on world, number and seed only."""
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
    """Rows of one (factor asked, form): interventions, nuisance, and one paraphrase a scene of its base picture."""
    truths = {query.name: query.truth(pairs.pool) for query in group}
    key = [seed, 1, zlib.crc32(f"{group[0].about} {group[0].form}".encode())]
    rows: list[tuple[Any, ...]] = []
    for number in range(len(pairs)):
        factor, scene = pairs.factor[number], int(pairs.scene_id[number])
        before, after = int(pairs.before[number]), int(pairs.after[number])
        query = _pick(group, truths, before, after, np.random.default_rng([*key, scene, zlib.crc32(factor.encode())]))
        # Wording and order belong to the scene: drawn from its number, whatever row asks.
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
    """One query of a group. Where some would see the truth move and some would not, either kind is picked half of the time."""
    moves = [query for query in group if truths[query.name][before] != truths[query.name][after]]
    stays = [query for query in group if truths[query.name][before] == truths[query.name][after]]
    either = [kind for kind in (moves, stays) if kind]
    chosen = either[int(rng.integers(len(either)))]
    return chosen[int(rng.integers(len(chosen)))]


def _value(scenes: Scenes, factor: str, index: int) -> str | None:
    return scenes.space[factor].values[scenes.of_factor(factor)[index]] if factor else None


def _training_rows(world: World, policy: Policy, offset: int, rng: np.random.Generator) -> tuple[list[tuple[Any, ...]], Scenes]:
    """Questions as training asked them: scenes from the prior, each query where the policy asks it, as often as it does."""
    scenes = world.sample(NUM_TRAINING_SCENES * 4, rng)
    rates = policy.rates(scenes, world.prior)
    rows: list[tuple[Any, ...]] = []
    kept: list[int] = []
    for query in policy.queries:
        lines = [number for number, ask in enumerate(policy.asks) if ask.query.name == query.name]
        weight = rates[lines].sum(axis=0)
        if not weight.any():
            continue
        truth = query.truth(scenes)
        # With replacement, or heavy regions would run out; rows of one scene share its number, so intervals know.
        for index in rng.choice(len(scenes), NUM_TRAINING_SCENES, p=weight / weight.sum()):
            wording, at = str(rng.choice(query.wordings)), offset + len(kept)
            answer = query.choices[truth[index]]
            kept.append(int(index))
            fixed = (query.about, query.form, query.name, wording, wording, list(query.choices), answer, answer, at, at)
            rows.append(("training", int(index), "", None, None, *fixed))
    return rows, scenes.take(np.array(kept, dtype=int))


PAIR_FILE_COLUMNS = (
    "scene", "factor", "value_before", "value_after", "query", "form", "question", "choices",
    "truth_before", "truth_after", "picture_before", "picture_after",
)  # fmt: skip


def plan_pairs(path: Path, size: int) -> Plan:
    """The comparisons of a Parquet file of pairs, one question a row; pictures are files named relative to it.

    Columns are `PAIR_FILE_COLUMNS` (`theodolite world` writes such a file); a row whose factor is "" is nuisance only. Raises `BadPairs`.
    """
    return plan_table(read_pairs(path), path.parent, size)


def read_pairs(path: Path) -> pl.DataFrame:
    """The table of a file of pairs, checked; its pictures are there, but not yet read. Raises `BadPairs`."""
    try:
        table = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise BadPairs(f"{path} cannot be read as Parquet ({error}); give the pairs.parquet that `theodolite world` writes") from error
    table = _checked(path, table)
    for name in _picture_names(table):
        if not (path.parent / name).is_file():
            raise BadPairs(f"{path} names the picture {name}, which is not there; every pair needs both of its pictures")
    return table


def plan_table(table: pl.DataFrame, folder: Path, size: int) -> Plan:
    """The comparisons of a table from `read_pairs`, with its pictures from files named relative to `folder`. Raises `BadPairs`."""
    names = _picture_names(table)
    number = {name: index for index, name in enumerate(names)}
    pictures = np.stack([_read_picture(folder / name, size) for name in names])
    rows = table.with_columns(
        kind=pl.when(pl.col("factor") == "").then(pl.lit("nuisance")).otherwise(pl.lit("intervention")),
        name=pl.col("query") if "name" not in table.columns else pl.col("name"),
        question_before="question",
        question_after="question",
        picture_before=pl.col("picture_before").replace_strict(number, return_dtype=pl.Int64),
        picture_after=pl.col("picture_after").replace_strict(number, return_dtype=pl.Int64),
    )
    pair_kind = table["pair_kind"][0] if "pair_kind" in table.columns else "matched"
    return Plan(pictures, rows.select(list(COLUMNS)), pair_kind, len(pictures))


def _picture_names(table: pl.DataFrame) -> list[str]:
    return sorted({*table["picture_before"], *table["picture_after"]})


def _checked(path: Path, table: pl.DataFrame) -> pl.DataFrame:
    """The table with the types of `COLUMNS`. Raises `BadPairs` that names the column or the row that is not as it should be."""
    missing = [name for name in PAIR_FILE_COLUMNS if name not in table.columns]
    if missing:
        raise BadPairs(f"{path} lacks the columns {', '.join(missing)}; it has {', '.join(table.columns)}")
    if table.is_empty():
        raise BadPairs(f"{path} holds no rows; there is nothing to ask")
    for name in PAIR_FILE_COLUMNS:
        wanted = pl.String if name.startswith("picture_") else COLUMNS.get(name, pl.String)
        try:
            table = table.with_columns(pl.col(name).cast(wanted))
        except pl.exceptions.PolarsError as error:
            raise BadPairs(f"{path}: column {name} is {table[name].dtype}, expected {wanted}") from error
        if not name.startswith("value_") and table[name].null_count():
            raise BadPairs(f"{path}: column {name} is empty in {table[name].null_count()} rows; fill it")
    _check_words(path, table, "form", get_args(Form))
    if "pair_kind" in table.columns:
        _check_words(path, table, "pair_kind", get_args(PairKind))
    _check_choices(path, table.with_row_index("row"))
    return table


def _check_choices(path: Path, table: pl.DataFrame) -> None:
    """Every row needs two choices or more, all of them different, and both truths among them."""
    different = pl.col("choices").list.drop_nulls().list.n_unique()
    for row in table.filter((different < 2) | (different < pl.col("choices").list.len())).head(1).iter_rows(named=True):
        raise BadPairs(f"{path}, row {row['row']}: choices are {row['choices']}; give two or more, each of them once and none empty")
    for side in ("truth_before", "truth_after"):
        for row in table.filter(~pl.col("choices").list.contains(pl.col(side))).head(1).iter_rows(named=True):
            raise BadPairs(f"{path}, row {row['row']}: {side} is {row[side]!r}, which is none of its choices {row['choices']}")


def _check_words(path: Path, table: pl.DataFrame, column: str, known: tuple[str, ...]) -> None:
    other = sorted(str(word) for word in set(table[column]) - set(known))
    if other:
        raise BadPairs(f"{path}: column {column} holds {other[0]!r}; it may hold {', '.join(known)}")


def _read_picture(path: Path, size: int) -> UInt8[np.ndarray, "size size 3"]:
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC))
    except (OSError, UnidentifiedImageError) as error:
        raise BadPairs(f"picture {path} cannot be read ({error}); every pair needs both of its pictures") from error
