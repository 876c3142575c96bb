"""Noise of given pairs that bring none: changes of a picture that no question is about, and other wordings of a question."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from io import BytesIO

import numpy as np
import polars as pl
from jaxtyping import UInt8
from PIL import Image

Picture = UInt8[np.ndarray, "height width 3"]
JPEG_QUALITY = 90
BRIGHTER = 1.02


def saved_again(picture: Picture) -> Picture:
    """The picture after JPEG compression at quality 90."""
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return np.asarray(Image.open(buffer).convert("RGB"))


def shifted(picture: Picture) -> Picture:
    """The picture moved right by one pixel; the first column is repeated."""
    return np.concatenate([picture[:, :1], picture[:, :-1]], axis=1)


def brighter(picture: Picture) -> Picture:
    """The picture 2 % brighter, cut at white."""
    return np.clip(np.rint(picture.astype(np.float64) * BRIGHTER), 0, 255).astype(np.uint8)


CHANGES: tuple[Callable[[Picture], Picture], ...] = (saved_again, shifted, brighter)
# Wordings that mean the same, by the pattern of a question.
REWORDINGS: Mapping[str, str] = {
    r"(?i)^what (colou?r|shape|size|texture|material) is (.+)\?$": r"What is the \1 of \2?",
    r"(?i)^is there (.+)\?$": r"Can you see \1?",
    r"(?i)^are there (.+)\?$": r"Can you see \1?",
    r"(?i)^how many (.+) are there\?$": r"What is the number of \1?",
}


def reworded(question: str) -> str | None:
    """Another wording of a question, where it follows one of `REWORDINGS`; else None."""
    for pattern, other in REWORDINGS.items():
        if re.match(pattern, question):
            return re.sub(pattern, other, question)
    return None


def add_noise(
    pictures: UInt8[np.ndarray, "picture height width 3"], rows: pl.DataFrame
) -> tuple[UInt8[np.ndarray, "more height width 3"], pl.DataFrame]:
    """Pictures and rows with noise, as `plan_noise` plans it."""
    changes, rows = plan_noise(len(pictures), rows)
    changed = [CHANGES[change](pictures[picture]) for picture, change in changes]
    return np.concatenate([pictures, np.stack(changed)]) if changed else pictures, rows


def plan_noise(num_pictures: int, rows: pl.DataFrame) -> tuple[list[tuple[int, int]], pl.DataFrame]:
    """Rows (columns: `records.rows.COLUMNS`) with noise rows for the queries that have none, and the changed pictures that these need.

    Of each scene the first picture that such a query is asked about is changed in one way: saved again, moved by one pixel, or 2 %
    brighter, in turn by scene. Every question of that query about it is asked of the changed picture too (kind *perturbation*), and in
    another wording where there is one (kind *paraphrase*). Changed pictures are (picture, position in `CHANGES`); their numbers follow
    the others'.
    """
    bases = rows.filter(pl.col("kind") == "intervention").unique(
        ["scene", "query", "form", "name", "question_before", "choices"], keep="first", maintain_order=True
    )
    unchanged = rows.filter(pl.col("truth_before") == pl.col("truth_after"))
    of_pictures = _without(bases, unchanged.filter(pl.col("kind") == "nuisance"))
    of_wordings = _without(bases, unchanged.filter(pl.col("kind") == "paraphrase"))
    scenes = {scene: number for number, scene in enumerate(bases["scene"].unique(maintain_order=True))}
    changed = {
        (scene, picture): (picture, scenes[scene] % len(CHANGES))
        for scene, picture in of_pictures.select("scene", "picture_before").unique(maintain_order=True).iter_rows()
    }
    number = {key: num_pictures + index for index, key in enumerate(changed)}
    after = pl.Series([number[key] for key in of_pictures.select("scene", "picture_before").iter_rows()], dtype=pl.Int64)
    perturbed = of_pictures.with_columns(kind=pl.lit("perturbation"), picture_after=after)
    wordings = pl.Series([reworded(question) for question in of_wordings["question_before"]], dtype=pl.String)
    paraphrased = of_wordings.with_columns(kind=pl.lit("paraphrase"), question_after=wordings, picture_after="picture_before")
    noise = pl.concat([perturbed, paraphrased.drop_nulls("question_after")]).with_columns(
        factor=pl.lit(""), value_before=pl.lit(None, pl.String), value_after=pl.lit(None, pl.String), truth_after="truth_before"
    )
    if "path_before" in noise.columns:
        noise = noise.with_columns(path_after="path_before")
    return list(changed.values()), pl.concat([rows, noise.select(rows.columns)])


def _without(rows: pl.DataFrame, noise: pl.DataFrame) -> pl.DataFrame:
    """The rows of queries and forms that have no noise rows."""
    return rows.join(noise.select("query", "form").unique(), on=["query", "form"], how="anti", maintain_order="left")
