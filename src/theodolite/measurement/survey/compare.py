"""Comparison of two surveys on the same pairs: differences of their rates, with paired intervals clustered by scene.

Needs only the records and rows of two surveys, no model. Differences are paired, so the difficulty of a pair cancels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import polars as pl
from jaxtyping import Float, Int

from theodolite.measurement.survey.result import SurveyResult
from theodolite.records.comparison import CellChange, Change, Compared, Comparison, Finding, Measure, Overall, RightCounts, VerdictChange
from theodolite.records.errors import BadInput
from theodolite.records.survey import SurveyRecord, Verdict, read_survey
from theodolite.report.stored import read_rows
from theodolite.stats.jackknife import DIGITS
from theodolite.stats.power import detectable_difference
from theodolite.stats.rates import benjamini_hochberg, difference_p, paired_difference

POWER = 0.8
MEASURES: tuple[Measure, ...] = get_args(Measure)
# The key of a comparison. It includes `choices`, since another order is another question.
KEYS = ("scene", "factor", "query", "form", "name", "question_before", "question_after", "choices", "picture_before", "picture_after")
CELL = ("factor", "query", "form", "truth_moves")
COLUMNS = ("kind", *KEYS, "truth_before", "truth_after", *MEASURES)
# Further columns of rows that are shown; names are those of pairs from a manifest.
SHOWN = ("value_before", "value_after", "answer_before", "answer_after", "scene_name", "row")
ORDINAL = "ordinal"
# How good a verdict is; one that leaves it open stands in the middle.
QUALITY: dict[Verdict, int] = {
    "identified": 4, "entangled": 3, "inert": 2, "undecided": 2, "cannot_be_asked": 2, "not_measured": 2, "blind": 1, "shadow": 0,
}  # fmt: skip


def compare(one: SurveyResult | str | Path, other: SurveyResult | str | Path, confidence: float = 0.95) -> Comparison:
    """How `other` differs from `one` on the same pairs; each is a survey's result or its folder.

    Raises `BadRecord` for a folder without a complete survey, `BadInput` for surveys of different pairs, asked differently, or without a
    common question.
    """
    surveys = [
        (each.record, each.rows) if isinstance(each, SurveyResult) else (read_survey(Path(each)), read_rows(Path(each), COLUMNS))
        for each in (one, other)
    ]
    return compare_records(*surveys[0], *surveys[1], confidence)


def compare_records(
    one: SurveyRecord, one_rows: pl.DataFrame, other: SurveyRecord, other_rows: pl.DataFrame, confidence: float = 0.95
) -> Comparison:
    """Paired differences, second minus first, in every cell of interventions that both surveys asked.

    Queries whose rates either survey withholds have no cells: their answers are mostly none of the choices (`Shadows.withheld`).
    `grew` and `shrank` have a false discovery rate of 1 - `confidence`, by Benjamini-Hochberg across the cells of each of the three
    quantities. Raises `BadInput` if the pairs, the prompts or the scores of choices differ, or if no question is common to both.
    """
    if one.pictures_sha256 != other.pictures_sha256:
        raise BadInput(
            f"the two surveys show different pairs: the pictures of {one.title} have the hash {one.pictures_sha256[:12]}, those of "
            f"{other.title} {other.pictures_sha256[:12]}; survey both with the same world, number of scenes, seed and picture size, "
            "or with the same file of pairs"
        )
    _refuse_other_asking(one, other)
    first, second = _interventions(one_rows), _interventions(other_rows)
    both = match_rows(first, second)
    if both.is_empty():
        raise BadInput(
            f"{one.title} and {other.title} share their pictures, but none of {len(first):,} and {len(second):,} rows: they were asked "
            "different questions; survey both with one policy (--ask)"
        )
    alone = [len(rows) - len(both) for rows in (first, second)]
    both = _not_withheld(both, one, other)
    cells = _cells(both, confidence)
    level = round(1 - confidence, 12)
    findings = [finding for cell in cells for finding in _findings(cell, level)]
    return Comparison(
        one=_compared(one, alone[0]),
        other=_compared(other, alone[1]),
        pictures_sha256=one.pictures_sha256,
        confidence=confidence,
        false_discovery_frac=level,
        power=POWER,
        num_rows=len(both),
        verdicts=_verdict_changes(one, other),
        overall=_overall(both, confidence),
        cells=tuple(cells),
        grew=tuple(sorted((item for item in findings if item.difference > 0), key=lambda item: -item.difference)),
        shrank=tuple(sorted((item for item in findings if item.difference < 0), key=lambda item: item.difference)),
    )


def _verdict_changes(one: SurveyRecord, other: SurveyRecord) -> tuple[VerdictChange, ...]:
    """The verdicts that differ on factors of both surveys, the largest loss of quality first."""
    after = other.shadows.verdicts
    changes = [
        VerdictChange(factor=factor, one=verdict, other=after[factor])
        for factor, verdict in one.shadows.verdicts.items()
        if factor in after and after[factor] != verdict
    ]
    return tuple(sorted(changes, key=lambda change: (QUALITY[change.other] - QUALITY[change.one], change.factor)))


def _refuse_other_asking(one: SurveyRecord, other: SurveyRecord) -> None:
    """Raises `BadInput` if the models were asked in other words, or their choices scored otherwise: both alone change answers."""
    if one.model.prompt_sha256 != other.model.prompt_sha256:
        raise BadInput(
            f"the two surveys write their questions differently: the prompts of {one.title} are of style {one.model.prompt} (hash "
            f"{one.model.prompt_sha256[:12]}), those of {other.title} of style {other.model.prompt} ({other.model.prompt_sha256[:12]}); "
            "survey both with the same --prompt"
        )
    scores = [record.model.score for record in (one, other)]
    if None not in scores and scores[0] != scores[1]:  # None: an endpoint, which scores no whole choices
        raise BadInput(
            f"the two surveys score choices differently: {one.title} by {scores[0]}, {other.title} by {scores[1]}; survey both with the "
            "same --score"
        )


def _compared(record: SurveyRecord, alone: int) -> Compared:
    return Compared(
        title=record.title,
        policy=record.policy,
        weights_sha256=record.model.weights_sha256,
        rows_sha256=record.rows_sha256,
        num_rows_alone=alone,
        withheld=record.shadows.withheld,
    )


def compared_rows(one: SurveyRecord, one_rows: pl.DataFrame, other: SurveyRecord, other_rows: pl.DataFrame) -> pl.DataFrame:
    """The rows of the cells of `compare_records`: those of the first survey with all columns, the second's with the suffix `_other`.

    `right_by` is the field of `RightCounts` that counts the row.
    """
    first, second = (_interventions(rows, [name for name in SHOWN if name in rows.columns]) for rows in (one_rows, other_rows))
    return _not_withheld(match_rows(first, second), one, other)


def _not_withheld(both: pl.DataFrame, one: SurveyRecord, other: SurveyRecord) -> pl.DataFrame:
    """The matched rows of queries that neither survey withholds, with the column `right_by`."""
    first, second = pl.col("right_one") > 0, pl.col("right_other") > 0
    right_by = pl.when(first & second).then(pl.lit("both")).when(first).then(pl.lit("only_one")).when(second).then(pl.lit("only_other"))
    query = pl.format("{} ({})", "query", "form")  # as `Shadows.withheld` names it
    compared = both.filter(~query.is_in([*one.shadows.withheld, *other.shadows.withheld]))
    return compared.with_columns(right_by=right_by.otherwise(pl.lit("neither")))


def _interventions(rows: pl.DataFrame, more: Sequence[str] = ()) -> pl.DataFrame:
    answered = (pl.col("kind") == "intervention") & pl.col("moved").is_not_null()
    return rows.lazy().filter(answered).select(*KEYS, "truth_before", "truth_after", *MEASURES, *more).collect()


def match_rows(one: pl.DataFrame, other: pl.DataFrame) -> pl.DataFrame:
    """The rows of both surveys, matched by `KEYS`, never by position; each measure has two columns, *_one and *_other.

    A row that occurs k times in one and m times in the other is matched min(k, m) times. Raises `BadInput` where the two disagree
    about a true answer.
    """
    left, right = _keyed(one), _keyed(other)
    both = left.join(right, on=[*KEYS, ORDINAL], how="inner", suffix="_other", validate="1:1")
    # A join has no defined order, and sums of floats depend on it in the last digit; sorting makes a comparison reproducible to the byte.
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


class _Unadjusted(NamedTuple):
    """A cell before its p-values are adjusted."""

    key: tuple[Any, ...]
    num_pairs: int
    num_scenes: int
    changes: dict[Measure, Change]
    counts: RightCounts


def _cells(both: pl.DataFrame, confidence: float) -> list[CellChange]:
    groups = both.with_columns(truth_moves=pl.col("truth_before") != pl.col("truth_after")).partition_by(*CELL, as_dict=True)
    unadjusted = [_unadjusted(key, groups[key], confidence) for key in sorted(groups)]
    adjusted = {measure: adjust([cell.changes[measure].p for cell in unadjusted]) for measure in MEASURES}
    return [
        CellChange(
            **dict(zip(CELL, cell.key, strict=True)),
            num_pairs=cell.num_pairs,
            num_scenes=cell.num_scenes,
            moved=_adjusted(cell, "moved", adjusted["moved"][at]),
            right=_adjusted(cell, "right", adjusted["right"][at]),
            variation=_adjusted(cell, "variation", adjusted["variation"][at]),
            counts=cell.counts,
        )
        for at, cell in enumerate(unadjusted)
    ]


def _adjusted(cell: _Unadjusted, measure: Measure, p: float | None) -> Change:
    return cell.changes[measure].model_copy(update={"p_adjusted": p})


def _unadjusted(key: tuple[Any, ...], rows: pl.DataFrame, confidence: float) -> _Unadjusted:
    scenes = rows["scene"].to_numpy()
    changes = {
        name: change_between(rows[f"{name}_one"].to_numpy(), rows[f"{name}_other"].to_numpy(), scenes, confidence) for name in MEASURES
    }
    return _Unadjusted(key, len(rows), rows["scene"].n_unique(), changes, _right_counts(rows))


def _right_counts(rows: pl.DataFrame) -> RightCounts:
    counts = {name: rows.filter(pl.col("right_by") == name).height for name in RightCounts.model_fields}
    return RightCounts(**counts)


def _overall(both: pl.DataFrame, confidence: float) -> Overall | None:
    if both.is_empty():
        return None
    truth_moves = pl.col("truth_before") != pl.col("truth_after")
    parts = {"right": (both, "right"), "read": (both.filter(truth_moves), "moved"), "leak": (both.filter(~truth_moves), "moved")}
    changes = {
        name: change_between(rows[f"{of}_one"].to_numpy(), rows[f"{of}_other"].to_numpy(), rows["scene"].to_numpy(), confidence)
        for name, (rows, of) in parts.items()
        if rows.height
    }
    return Overall(right=changes["right"], read=changes.get("read"), leak=changes.get("leak"))


def change_between(
    one: Float[np.ndarray, " row"], other: Float[np.ndarray, " row"], scenes: Int[np.ndarray, " row"], confidence: float
) -> Change:
    """Both means of a quantity in 0 to 1, and their paired difference, with an unadjusted p-value and what these scenes can detect."""
    detectable = detectable_difference(other - one, scenes, confidence, POWER)
    return Change(
        one=float(one.mean()),
        other=float(other.mean()),
        difference=paired_difference(one, other, scenes, confidence, (-1.0, 1.0)),
        p=difference_p(other - one, scenes),
        p_adjusted=None,
        detectable=None if detectable is None or detectable > 1 else round(detectable, DIGITS),
    )


def adjust(p: Sequence[float | None]) -> list[float | None]:
    """P-values adjusted by Benjamini-Hochberg; missing ones (None) stay None and do not count."""
    adjusted = iter(benjamini_hochberg(np.array([each for each in p if each is not None], dtype=float)).tolist())
    return [None if each is None else next(adjusted) for each in p]


def _findings(cell: CellChange, level: float) -> list[Finding]:
    """The quantities of a cell whose adjusted p-value is at most the level."""
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
