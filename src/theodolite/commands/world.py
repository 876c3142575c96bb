"""Export of a world: pictures as PNG, scenes and questions as Parquet, pairs as a manifest. No model, no torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import UInt8
from PIL import Image

from theodolite.data.examples import draw_questions
from theodolite.measurement.pairs.plan import Plan, plan_world
from theodolite.records.folder import whole_folder
from theodolite.worlds.manifest.read import FILE, write_manifest
from theodolite.worlds.query import Policy
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
    pairs_only: bool = False,
) -> str:
    """Writes the manifest of the pairs, `scenes.parquet`, `questions.parquet`, and all pictures; returns their counts in words.

    Scenes follow the prior, and their questions the policy; base scenes of pairs follow the independent prior. `pairs_only` writes only
    the manifest and its pictures. Raises `FolderTaken`.
    """
    policy = world.policy(ask or world.open_policy)
    counts = []
    with whole_folder(out, overwrite=overwrite) as folder:
        if not pairs_only:
            counts.append(_write_scenes(folder, world, policy, num_pictures, size, seed))
        counts.append(_write_pairs(folder, plan_world(world, policy, num_scenes, seed, size)))
    return ", ".join(counts)


def _write_scenes(folder: Path, world: World, policy: Policy, num_pictures: int, size: int, seed: int) -> str:
    scenes = world.sample(num_pictures, np.random.default_rng([seed, 0]))
    names = [f"pictures/{index:06d}.png" for index in range(len(scenes))]
    _write_pictures(folder, names, world.render(scenes, size))
    columns = {factor.name: [factor.values[level] for level in scenes.of_factor(factor.name)] for factor in world.space.factors}
    pl.DataFrame({"picture": names, **columns, "nuisance": scenes.nuisance}).write_parquet(folder / "scenes.parquet")
    questions = [
        (name, item.question, item.answer)
        for name, items in zip(names, draw_questions(world, scenes, policy, seed), strict=True)
        for item in items
    ]
    schema = {"picture": pl.String, "question": pl.String, "answer": pl.String}
    pl.DataFrame(questions, schema=schema, orient="row").write_parquet(folder / "questions.parquet")
    return f"{len(scenes):,} pictures, {len(questions):,} questions"


def _write_pairs(folder: Path, plan: Plan) -> str:
    rows = plan.rows.filter(pl.col("kind") != "training")
    indices = sorted({*rows["picture_before"], *rows["picture_after"]})
    names = {index: f"pairs/{index:06d}.png" for index in indices}
    _write_pictures(folder, list(names.values()), plan.pictures[indices])
    number = write_manifest(folder / FILE, _manifest_rows(rows, names, plan.pair_kind))
    return f"{number:,} rows of pairs ({plan.pair_kind})"


def _manifest_rows(rows: pl.DataFrame, names: dict[int, str], pair_kind: str) -> Iterator[dict[str, Any]]:
    for row in rows.iter_rows(named=True):
        paraphrase = row["kind"] == "paraphrase"
        yield {
            "scene": row["scene"],
            "factor": row["factor"],
            "from": row["value_before"],
            "to": row["value_after"],
            "picture": names[row["picture_before"]],
            "edited": None if paraphrase else names[row["picture_after"]],
            "question": row["question_before"],
            "question_after": row["question_after"] if paraphrase else None,
            "choices": row["choices"],
            "answer_before": row["truth_before"],
            "answer_after": row["truth_after"],
            "query": row["query"],
            "form": row["form"],
            "name": row["name"],
            "kind": pair_kind,
        }


def _write_pictures(folder: Path, names: list[str], pictures: UInt8[np.ndarray, "picture height width 3"]) -> None:
    for name, picture in zip(names, pictures, strict=True):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(target)
