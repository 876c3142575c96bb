"""A world on disk: pictures as PNG; scenes, questions and pairs as Parquet. Needs no model and no torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

from theodolite.data.examples import ask_world
from theodolite.measurement.plan import PAIR_FILE_COLUMNS, plan_world
from theodolite.records.folder import whole_folder
from theodolite.worlds.world import World


def write_world(
    world: World,
    out: Path,
    ask: str | None,
    *,
    num_pictures: int,
    num_scenes: int,
    size: int,
    seed: int,
    overwrite: bool,
) -> str:
    """Writes `scenes.parquet`, `questions.parquet`, `pairs.parquet` and their pictures; returns their counts in words.

    The scenes follow the prior and are asked what the policy says; the pairs follow the independent prior. Raises `FolderTaken`.
    """
    policy = world.policy(ask or ",".join(query.name for query in world.queries if query.form == "open"))
    scenes = world.sample(num_pictures, np.random.default_rng([seed, 0]))
    plan = plan_world(world, policy, num_scenes, seed, size)
    pairs = plan.rows.filter(pl.col("kind").is_in(["intervention", "nuisance"]))
    with whole_folder(out, overwrite=overwrite) as folder:
        names = [f"pictures/{index:06d}.png" for index in range(len(scenes))]
        _write_pictures(folder, names, world.render(scenes, size))
        columns = {factor.name: [factor.values[level] for level in scenes.of_factor(factor.name)] for factor in world.space.factors}
        pl.DataFrame({"picture": names, **columns, "nuisance": scenes.nuisance}).write_parquet(folder / "scenes.parquet")
        asked = [
            (name, item.question, item.answer)
            for name, items in zip(names, ask_world(world, scenes, policy, seed), strict=True)
            for item in items
        ]
        schema = {"picture": pl.String, "question": pl.String, "answer": pl.String}
        pl.DataFrame(asked, schema=schema, orient="row").write_parquet(folder / "questions.parquet")
        used = sorted({*pairs["picture_before"], *pairs["picture_after"]})
        files = {index: f"pairs/{index:06d}.png" for index in used}
        _write_pictures(folder, list(files.values()), plan.pictures[used])
        table = pairs.with_columns(
            question=pl.col("question_before"),
            pair_kind=pl.lit(plan.pair_kind),
            picture_before=pl.col("picture_before").replace_strict(files, return_dtype=pl.String),
            picture_after=pl.col("picture_after").replace_strict(files, return_dtype=pl.String),
        ).select(*PAIR_FILE_COLUMNS, "name", "pair_kind")
        table.write_parquet(folder / "pairs.parquet")
    return f"{len(scenes):,} pictures, {len(asked):,} questions, {len(table):,} rows of pairs ({plan.pair_kind})"


def _write_pictures(folder: Path, names: list[str], pictures: np.ndarray) -> None:
    for name, picture in zip(names, pictures, strict=True):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(target)
