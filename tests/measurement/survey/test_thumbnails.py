"""Small pictures of pairs: those of the severest failures, whole pairs, within their limits, and stored with the survey."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from helpers.colour_pairs import write_colour_manifest
from helpers.pair_rows import answered_rows
from theodolite.measurement.pairs.plan import Plan, plan_gallery
from theodolite.measurement.survey.thumbnails import MOST_BYTES, SIDE, thumbnails_of, webp_bytes
from theodolite.records.rows import ROWS
from theodolite.records.survey import BadRecord
from theodolite.report.stored import read_thumbnails, thumbnails_by_number
from theodolite.report.survey.outcomes import with_outcomes
from theodolite.worlds.limits import PixelLimits
from theodolite.worlds.manifest.read import read_manifest


def plan_of(rows: pl.DataFrame, side: int = 32) -> Plan:
    """Pictures whose colours are their numbers, for rows made by hand."""
    numbers = np.arange(rows["picture_after"].max() + 1, dtype=np.uint8)
    pictures = np.broadcast_to(numbers[:, None, None, None], (len(numbers), side, side, 3)).copy()
    return Plan(pictures, rows, "exact", len(numbers))


def decoded(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def test_the_severest_pairs_have_theirs_and_small_pictures_lose_nothing() -> None:
    rows = answered_rows(20)
    table = thumbnails_of(plan_of(rows), rows)
    worst = with_outcomes(rows).filter(pl.col("kind") == "intervention").sort("severity", descending=True, maintain_order=True)
    assert table["picture"][:2].to_list() == [worst["picture_before"][0], worst["picture_after"][0]]
    assert table["picture"].is_unique().all() and table.height == 60
    for number, data in table.iter_rows():
        assert (decoded(data) == number).all()


def test_number_and_size_are_limited_by_whole_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = answered_rows(20)
    monkeypatch.setattr("theodolite.measurement.survey.thumbnails.MOST_PICTURES", 5)
    assert thumbnails_of(plan_of(rows), rows).height == 4
    one = len(webp_bytes(Image.new("RGB", (32, 32))))
    monkeypatch.setattr("theodolite.measurement.survey.thumbnails.MOST_BYTES", 3 * one)
    assert thumbnails_of(plan_of(rows), rows).height == 2
    assert MOST_BYTES < 1_000_000
    large = thumbnails_of(plan_of(rows, side=500), rows)
    assert {max(decoded(data).shape) for data in large["webp"]} <= {SIDE}


def test_pictures_of_files_keep_their_aspect_ratio(tmp_path: Path) -> None:
    manifest = write_colour_manifest(tmp_path / "pairs", num_scenes=2)
    for path in (tmp_path / "pairs" / "own").iterdir():
        Image.open(path).resize((400, 200), Image.Resampling.NEAREST).save(path)
    plan = plan_gallery(read_manifest(manifest).gallery, 32, limits=PixelLimits())
    unanswered = plan.rows.with_columns(pl.lit(None, dtype=ROWS[name].dtype).alias(name) for name in ROWS if name not in plan.rows.columns)
    table = thumbnails_of(plan, unanswered)
    assert table.height == 6 and {decoded(data).shape for data in table["webp"]} == {(SIDE // 2, SIDE, 3)}


def test_what_is_no_webp_is_not_shown_and_a_broken_file_is_refused(tmp_path: Path) -> None:
    good = webp_bytes(Image.new("RGB", (4, 4)))
    table = pl.DataFrame({"picture": [1, 2], "webp": [b"<svg onload='alert()'>", good]})
    table.write_parquet(tmp_path / "thumbnails.parquet")
    assert thumbnails_by_number(read_thumbnails(tmp_path)) == {2: good}
    (tmp_path / "thumbnails.parquet").write_text("no table")
    with pytest.raises(BadRecord, match="cannot be read as thumbnails"):
        read_thumbnails(tmp_path)
