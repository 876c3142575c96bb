"""Two surveys on the same pairs: what moved in one and not in the other, with paired intervals clustered by scene.

Works on the records and rows of two surveys alone, so it needs no model. A pair that both were asked is its own control: what makes it
easy or hard drops out of the difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, get_args

import numpy as np
import polars as pl
from jaxtyping import Float, Int

from theodolite.records.comparison import CellChange, Change, Compared, Comparison, Finding, Measure
from theodolite.records.errors import BadInput
from theodolite.records.survey import SurveyRecord
from theodolite.stats.rates import benjamini_hochberg, difference_p, paired_difference, scenes_needed

POWER = 0.8
MEASURES: tuple[Measure, ...] = get_args(Measure)
# What makes two rows the same comparison. `choices` too: another order is another question.
KEYS = ("scene", "factor", "query", "form", "name", "question_before", "question_after", "choices", "picture_before", "picture_after")
CELL = ("factor", "query", "form", "truth_moves")
COLUMNS = ("kind", *KEYS, "truth_before", "truth_after", *MEASURES)
ORDINAL = "ordinal"


def compare_records(
    one: SurveyRecord, one_rows: pl.DataFrame, other: SurveyRecord, other_rows: pl.DataFrame, confidence: float = 0.95
) -> Comparison:
    """Paired differences, second less first, in every cell of interventions that both surveys asked.

    What grew and what shrank is told at a false discovery rate of 1 - `confidence`, by Benjamini-Hochberg across the cells of each of the
    three quantities. Raises `BadInput` if the pairs differ, or if the two asked nothing in common.
    """
    if one.pictures_sha256 != other.pictures_sha256:
        raise BadInput(
            f"the two surveys show different pairs: the pictures of {one.title} have the hash {one.pictures_sha256[:12]}, those of "
            f"{other.title} {other.pictures_sha256[:12]}; survey both with the same world, number of scenes, seed and picture size, "
            "or with the same file of pairs"
        )
    first, second = _interventions(one_rows), _interventions(other_rows)
    both = match_rows(first, second)
    if both.is_empty():
        raise BadInput(
            f"{one.title} and {other.title} share their pictures, but none of {len(first):,} and {len(second):,} rows: they were asked "
            "different questions; survey both with one policy (--ask)"
        )
    cells = _cells(both, confidence)
    level = round(1 - confidence, 12)
    found = [finding for cell in cells for finding in _findings(cell, level)]
    return Comparison(
        one=_compared(one, len(first) - len(both)),
        other=_compared(other, len(second) - len(both)),
        pictures_sha256=one.pictures_sha256,
        confidence=confidence,
        false_discovery_frac=level,
        power=POWER,
        num_rows=len(both),
        cells=tuple(cells),
        grew=tuple(sorted((item for item in found if item.difference > 0), key=lambda item: -item.difference)),
        shrank=tuple(sorted((item for item in found if item.difference < 0), key=lambda item: item.difference)),
    )


def _compared(record: SurveyRecord, alone: int) -> Compared:
    return Compared(
        title=record.title,
        policy=record.policy,
        weights_sha256=record.model.weights_sha256,
        rows_sha256=record.rows_sha256,
        num_rows_alone=alone,
    )


def _interventions(rows: pl.DataFrame) -> pl.DataFrame:
    answered = (pl.col("kind") == "intervention") & pl.col("moved").is_not_null()
    return rows.lazy().filter(answered).select(*KEYS, "truth_before", "truth_after", *MEASURES).collect()


def match_rows(one: pl.DataFrame, other: pl.DataFrame) -> pl.DataFrame:
    """The rows that both hold, matched by `KEYS`, never by position; each measure stands there twice, as *_one and *_other.

    A row that stands k times in one and m times in the other is matched min(k, m) times. Raises `BadInput` where the two disagree
    about a true answer.
    """
    left, right = _keyed(one), _keyed(other)
    both = left.join(right, on=[*KEYS, ORDINAL], how="inner", suffix="_other", validate="1:1")
    # A join keeps no order, and sums of floats depend on it to the last digit: sorted, a comparison repeats to the byte.
    both = both.sort([*KEYS, ORDINAL]).rename({name: f"{name}_one" for name in MEASURES})
    truth = (pl.col("truth_before") != pl.col("truth_before_other")) | (pl.col("truth_after") != pl.col("truth_after_other"))
    for row in both.filter(truth).head(1).iter_rows(named=True):
        raise BadInput(
            f"the two surveys disagree about the truth: scene {row['scene']}, {row['question_before']!r}: {row['truth_before']}, then "
            f"{row['truth_after']}, in one, {row['truth_before_other']}, then {row['truth_after_other']}, in the other; survey both again"
        )
    return both


def _keyed(rows: pl.DataFrame) -> pl.DataFrame:
    keyed = rows.with_columns(pl.col("choices").list.join("\x1f"), *(pl.col(name).cast(pl.Float64) for name in MEASURES))
    return keyed.with_columns(pl.int_range(pl.len()).over(KEYS).alias(ORDINAL))


class _Raw(NamedTuple):
    """A cell before its p are adjusted."""

    key: tuple[Any, ...]
    num_pairs: int
    num_scenes: int
    changes: dict[Measure, Change]


def _cells(both: pl.DataFrame, confidence: float) -> list[CellChange]:
    parted = both.with_columns(truth_moves=pl.col("truth_before") != pl.col("truth_after")).partition_by(*CELL, as_dict=True)
    raw = [_raw(key, parted[key], confidence) for key in sorted(parted)]
    adjusted = {measure: adjust([cell.changes[measure].p for cell in raw]) for measure in MEASURES}
    return [
        CellChange(
            **dict(zip(CELL, cell.key, strict=True)),
            num_pairs=cell.num_pairs,
            num_scenes=cell.num_scenes,
            moved=_adjusted(cell, "moved", adjusted["moved"][at]),
            right=_adjusted(cell, "right", adjusted["right"][at]),
            variation=_adjusted(cell, "variation", adjusted["variation"][at]),
        )
        for at, cell in enumerate(raw)
    ]


def _adjusted(cell: _Raw, measure: Measure, p: float | None) -> Change:
    return cell.changes[measure].model_copy(update={"p_adjusted": p})


def _raw(key: tuple[Any, ...], part: pl.DataFrame, confidence: float) -> _Raw:
    scenes = part["scene"].to_numpy()
    changes = {
        name: change_between(part[f"{name}_one"].to_numpy(), part[f"{name}_other"].to_numpy(), scenes, confidence) for name in MEASURES
    }
    return _Raw(key, len(part), part["scene"].n_unique(), changes)


def change_between(
    one: Float[np.ndarray, " row"], other: Float[np.ndarray, " row"], scenes: Int[np.ndarray, " row"], confidence: float
) -> Change:
    """Both means of a quantity in 0 to 1, and their paired difference; its p is not adjusted yet."""
    return Change(
        one=float(one.mean()),
        other=float(other.mean()),
        difference=paired_difference(one, other, scenes, confidence, (-1.0, 1.0)),
        p=difference_p(other - one, scenes),
        p_adjusted=None,
        scenes_needed=scenes_needed(other - one, scenes, confidence, POWER),
    )


def adjust(p: Sequence[float | None]) -> list[float | None]:
    """Benjamini-Hochberg over those that are there; what is missing stays missing and counts for nothing."""
    found = iter(benjamini_hochberg(np.array([each for each in p if each is not None], dtype=float)).tolist())
    return [None if each is None else next(found) for each in p]


def _findings(cell: CellChange, level: float) -> list[Finding]:
    """The quantities of a cell whose adjusted p is at or below the level."""
    changes: dict[Measure, Change] = {"moved": cell.moved, "right": cell.right, "variation": cell.variation}
    return [
        Finding(
            measure=name,
            factor=cell.factor,
            query=cell.query,
            form=cell.form,
            truth_moves=cell.truth_moves,
            difference=change.difference.value,
        )
        for name, change in changes.items()
        if change.p_adjusted is not None and change.p_adjusted <= level
    ]
