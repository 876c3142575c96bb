"""Time and memory of aggregating a large survey with intervals: `python benchmarks/aggregate.py [--json] [--rows 1000000]`.

Synthetic answers are written as a Parquet file by one process; another reads it, measures every shadow quantity and hashes the rows, as a
survey does. Seconds and the peak of the resident set are those of the second, the interpreter and all imports included in the peak.
Linux and macOS: the kernel keeps the peak.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from theodolite.records.rows import NAMED

VALUES = {
    "shape": ("round", "square", "triangular", "crossed"),
    "colour": ("red", "yellow", "blue", "green"),
    "size": ("small", "medium", "large"),
    "row": ("top", "upper", "lower", "bottom"),
}
KINDS = ("nuisance", "paraphrase", "training")


def synthetic_rows(num_rows: int, seed: int = 0) -> pl.DataFrame:
    """Answered rows with the columns of a survey, 20 a scene: two interventions on every factor, whose question and form are drawn, and
    of each other kind an open question about every factor.

    Scenes differ in how often they are answered right, so rows of one scene are alike.
    """
    rng = np.random.default_rng(seed)
    per_scene = pl.DataFrame(
        [("intervention", factor, None) for factor in VALUES for _ in range(2)] + [(kind, "", query) for kind in KINDS for query in VALUES],
        schema={"kind": pl.String, "factor": pl.String, "query": pl.String},
        orient="row",
    )
    num_scenes = -(-num_rows // len(per_scene))
    scenes = pl.DataFrame({"scene": np.arange(num_scenes), "skill": rng.beta(4, 1, num_scenes)})
    rows = scenes.join(per_scene, how="cross", maintain_order="left_right").head(num_rows)
    drawn = pl.Series(np.array(list(VALUES))[rng.integers(0, len(VALUES), num_rows)])
    yes_no = pl.Series(rng.random(num_rows) < 0.3) & (pl.col("kind") == "intervention")
    rows = rows.with_columns(query=pl.coalesce("query", drawn), form=pl.when(yes_no).then(pl.lit("yes_no")).otherwise(pl.lit("open")))
    return _answered(_worded(rows, rng), rng)


def _worded(rows: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """Names, wordings, choices, pictures and true answers."""
    yes_no = pl.col("form") == "yes_no"
    choices = pl.col("query").replace_strict({name: list(values) for name, values in VALUES.items()}, return_dtype=pl.List(pl.String))
    rows = rows.with_columns(
        name=pl.when(yes_no).then(pl.format("{}=first", "query")).otherwise("query"),
        choices=pl.when(yes_no).then(pl.lit(["yes", "no"], dtype=pl.List(pl.String))).otherwise(choices),
        question_before=pl.format("What about the {} of the shape in this picture?", "query"),
        picture_before=2 * pl.int_range(pl.len()),
    )
    moving = (pl.col("factor") == pl.col("query")) & (~yes_no | pl.Series(rng.random(len(rows)) < 0.5))
    turn = pl.Series(rng.integers(1, 10, len(rows)))
    number = pl.col("choices").list.len()
    before = pl.Series(rng.integers(0, 12, len(rows))) % number
    after = pl.when(moving).then((before + 1 + turn % (number - 1)) % number).otherwise(before)
    return rows.with_columns(
        question_after=pl.when(kind("paraphrase")).then(pl.format("Say the {} of it.", "query")).otherwise("question_before"),
        picture_after=pl.col("picture_before") + (kind("intervention") | kind("nuisance")).cast(pl.Int64),
        truth_before=pl.col("choices").list.get(before),
        truth_after=pl.col("choices").list.get(after),
        value_before=pl.when(kind("intervention")).then(pl.lit("one")),
        value_after=pl.when(kind("intervention")).then(pl.lit("another")),
        **{name: pl.lit(None, dtype=column.dtype) for name, column in NAMED.items()},
    )


def kind(name: str) -> pl.Expr:
    return pl.col("kind") == name


def _answered(rows: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """Answers, probabilities and what a survey makes of them."""
    for side in ("before", "after"):
        lucky = pl.Series(rng.random(len(rows))) < pl.col("skill")
        other = pl.col("choices").list.get(pl.Series(rng.integers(0, 12, len(rows))) % pl.col("choices").list.len())
        top = pl.Series(0.5 + rng.random(len(rows)) / 2)
        number = pl.col("choices").list.len()
        rest = (1 - top) / (number - 1)
        rows = rows.with_columns(
            pl.when(lucky).then(f"truth_{side}").otherwise(other).alias(f"answer_{side}"),
            pl.concat_list(top, rest, rest, rest).list.head(number).alias(f"probabilities_{side}"),
            pl.Series(f"outside_{side}", rng.random(len(rows)) / 100),
            pl.concat_list(top, rest, rest, rest).list.head(number).list.eval(pl.element().log()).alias(f"total_logprob_{side}"),
            pl.concat_list(*[pl.lit(2, pl.Int64)] * 4).list.head(number).alias(f"num_tokens_{side}"),
        )
    return rows.drop("skill").with_columns(
        moved=pl.col("answer_before") != pl.col("answer_after"),
        right=(pl.col("answer_before") == pl.col("truth_before")) & (pl.col("answer_after") == pl.col("truth_after")),
        variation=(pl.col("probabilities_before").list.get(0) - pl.col("probabilities_after").list.get(0)).abs(),
    )


def aggregate(path: Path) -> dict[str, float]:
    """Seconds and peak GiB of reading, measuring and hashing the rows of a file, in this process."""
    from theodolite.measurement.behaviour.shadows import measure_shadows
    from theodolite.measurement.survey.describe import rows_hash
    from theodolite.records.survey import Thresholds

    started = time.perf_counter()
    rows = pl.read_parquet(path)
    read = time.perf_counter()
    names = rows["name"].unique(maintain_order=True).to_list()
    dependence = {name: frozenset({name.partition("=")[0]}) for name in names}
    found = measure_shadows(rows, tuple(VALUES), dependence, frozenset(names), Thresholds())
    measured = time.perf_counter()
    if len(rows_hash(rows)) != 64 or any(cell.low is None for cell in found.cells):
        raise RuntimeError("a cell has no interval")
    ended = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {
        "rows": len(rows),
        "seconds": ended - started,
        "reading_s": read - started,
        "measuring_s": measured - read,
        "hashing_s": ended - measured,
        "peak_gib": peak / 2**30,
        "cells": len(found.cells),
    }


def apart(num_rows: int) -> dict[str, float]:
    """Makes the rows in one fresh process and aggregates them in another."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.parquet"
        subprocess.run([sys.executable, __file__, "--rows", str(num_rows), "--make", str(path)], check=True)
        done = subprocess.run([sys.executable, __file__, "--aggregate", str(path)], check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--make", type=Path, help="only write the synthetic rows to this file")
    parser.add_argument("--aggregate", type=Path, help="only aggregate this file, in this process, and print JSON")
    options = parser.parse_args()
    if options.make:
        synthetic_rows(options.rows).write_parquet(options.make)
        return
    if options.aggregate:
        print(json.dumps(aggregate(options.aggregate)))
        return
    found = apart(options.rows)
    if options.json:
        print(json.dumps(found))
        return
    print(
        f"{found['rows']:,} rows, {found['cells']} cells: {found['seconds']:.1f} s (reading {found['reading_s']:.1f}, measuring "
        f"{found['measuring_s']:.1f}, hashing {found['hashing_s']:.1f}), peak {found['peak_gib']:.2f} GiB"
    )


if __name__ == "__main__":
    main()
