"""Shadows from answers to counterfactual pairs: read, right, leak, noise, competence, and a verdict for each factor.

Definitions: the design of this project ("Shadows"); after the essay "The Coverage Lock" (Y. Cai), open question 3. Needs rows of answers
only, so it also works for models behind an API.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import polars as pl

from theodolite.records.part import Rate
from theodolite.records.survey import Cell, Competence, Evidence, Noise, Shadows, Thresholds, Unanswered, Verdict
from theodolite.stats.rates import clustered_rate

Bit = bool | None  # None: the interval straddles the threshold
# The columns that are used: texts and probabilities of a large survey are not copied into every group.
MEASURED = (
    "kind", "scene", "factor", "query", "form", "name", "choices", "truth_before", "truth_after", "answer_before",
    "answer_after", "moved", "right", "variation", "outside_before", "outside_after",
)  # fmt: skip


def measure_shadows(
    rows: pl.DataFrame, factors: Sequence[str], dependence: Mapping[str, frozenset[str]], asked: frozenset[str], thresholds: Thresholds
) -> Shadows:
    """All shadow quantities of a survey's rows. Unanswered rows are counted and left out of all other quantities.

    `dependence` maps each query's name to the factors that its answer depends on; `asked` holds the names that the policy supports.
    """
    unanswered = tuple(_unanswered(rows))
    rows = rows.select(MEASURED)
    competence = tuple(_competences(rows, thresholds.confidence))
    answered = rows.filter(pl.col("moved").is_not_null())
    noise_cells = tuple(_noises(answered, thresholds.confidence))
    unfit = _cannot_be_asked(competence)
    evidence = {factor: _judge(rows, factor, dependence, asked, noise_cells, unfit, thresholds) for factor in factors}
    outside = pl.concat([rows["outside_before"], rows["outside_after"]]).drop_nulls()
    return Shadows(
        thresholds=thresholds,
        cells=tuple(_cells(answered, thresholds.confidence)),
        noise=_floors(noise_cells),
        noise_cells=noise_cells,
        competence=competence,
        verdicts={factor: each.verdict for factor, each in evidence.items()},
        evidence=evidence,
        outside_mass=float(np.mean(outside.to_numpy())) if len(outside) else None,
        unanswered=unanswered,
    )


def _unanswered(rows: pl.DataFrame) -> list[Unanswered]:
    """Queries with unanswered questions. A question about a picture counts once, even if several rows contain it."""
    if not (rows["answer_before"].null_count() or rows["answer_after"].null_count()):
        return []
    sides = [
        rows.select(
            "query",
            "form",
            pl.col(f"question_{side}").alias("question"),
            pl.col(f"picture_{side}").alias("picture"),
            pl.col("choices"),
            pl.col(f"answer_{side}").is_null().alias("unanswered"),
        )
        for side in ("before", "after")
    ]
    questions = pl.concat(sides).unique(maintain_order=True)
    return [
        Unanswered(query=query, form=form, num_questions=len(group), num_unanswered=missing, frac=missing / len(group))
        for (query, form), group in questions.group_by(["query", "form"], maintain_order=True)
        if (missing := int(group["unanswered"].sum()))
    ]


def _rate(rows: pl.DataFrame, column: str, confidence: float) -> Rate:
    return clustered_rate(rows[column].cast(pl.Float64).to_numpy(), rows["scene"].to_numpy(), confidence)


def _cells(rows: pl.DataFrame, confidence: float) -> list[Cell]:
    interventions = rows.filter(pl.col("kind") == "intervention").with_columns(truth_moves=pl.col("truth_before") != pl.col("truth_after"))
    cells = []
    keys = ["factor", "query", "form", "truth_moves"]
    for (factor, query, form, truth_moves), group in interventions.group_by(keys, maintain_order=True):
        moved, right, variation = (_rate(group, column, confidence) for column in ("moved", "right", "variation"))
        cells.append(
            Cell(
                factor=factor,
                query=query,
                form=form,
                truth_moves=truth_moves,
                moved_frac=moved.frac,
                low=moved.low,
                high=moved.high,
                num_pairs=moved.num_pairs,
                num_scenes=moved.num_scenes,
                right_frac=right.frac,
                right_low=right.low,
                right_high=right.high,
                variation=variation.frac,
                variation_low=variation.low,
                variation_high=variation.high,
            )
        )
    return cells


def _noises(rows: pl.DataFrame, confidence: float) -> list[Noise]:
    # Matched pictures replace a new nuisance seed; only rows whose truth is unchanged are a noise floor.
    unchanged = rows.filter(pl.col("kind").is_in(["nuisance", "paraphrase"]) & (pl.col("truth_before") == pl.col("truth_after")))
    return [
        Noise(
            query=query,
            form=form,
            source=kind,
            rate=_rate(group, "moved", confidence),
            variation=float(np.mean(group["variation"].to_numpy())),
        )
        for (query, form, kind), group in unchanged.group_by(["query", "form", "kind"], maintain_order=True)
    ]


def _floors(noise: Sequence[Noise]) -> dict[str, float]:
    """The larger noise rate of the two sources, for each open query."""
    floors: dict[str, float] = {}
    for cell in noise:
        if cell.form == "open":
            floors[cell.query] = max(floors.get(cell.query, 0.0), cell.rate.frac)
    return floors


def _competences(rows: pl.DataFrame, confidence: float) -> list[Competence]:
    competences = []
    kinds: tuple[tuple[str, Literal["decorrelated", "training"]], ...] = (("nuisance", "decorrelated"), ("training", "training"))
    for kind, scenes in kinds:
        answered = rows.filter((pl.col("kind") == kind) & pl.col("answer_before").is_not_null())
        for (query, form), group in answered.group_by(["query", "form"], maintain_order=True):
            correct = group.with_columns(correct=pl.col("answer_before") == pl.col("truth_before"))
            # By question, since "is it red?" and "is it not red?" have different commonest answers.
            commonest = group.group_by("name").agg(top=pl.col("truth_before").value_counts().struct.field("count").max())
            # Where every scene has its own choices, no answer is common, and uniform guessing is the better rule without a picture.
            guessing = float((1 / group["choices"].list.len()).to_numpy().mean())
            competences.append(
                Competence(
                    query=query,
                    form=form,
                    scenes=scenes,
                    rate=_rate(correct, "correct", confidence),
                    chance_frac=max(float(commonest["top"].sum()) / len(group), guessing),
                )
            )
    return competences


def _cannot_be_asked(competence: Sequence[Competence]) -> frozenset[tuple[str, str]]:
    """(query, form) at chance on the training distribution, or on decorrelated scenes where there is none.

    Training rows have priority: a shadow is at chance on decorrelated scenes too, although the model understands the question.
    """
    by_key: dict[tuple[str, str], Competence] = {}
    for cell in competence:
        if (cell.query, cell.form) not in by_key or cell.scenes == "training":
            by_key[cell.query, cell.form] = cell
    return frozenset(key for key, cell in by_key.items() if cell.rate.low is not None and cell.rate.low <= cell.chance_frac)


def _judge(
    rows: pl.DataFrame,
    factor: str,
    dependence: Mapping[str, frozenset[str]],
    asked: frozenset[str],
    noise: Sequence[Noise],
    unfit: frozenset[tuple[str, str]],
    thresholds: Thresholds,
) -> Evidence:
    supported = any(factor in dependence[name] for name in asked)
    moving = rows.filter(
        (pl.col("kind") == "intervention") & (pl.col("factor") == factor) & (pl.col("form") == "open") & pl.col("name").is_in(sorted(asked))
    )
    fit = moving.filter(~pl.col("query").is_in(sorted(query for query, form in unfit if form == "open")))
    usable = fit.filter(pl.col("moved").is_not_null())
    dependent = pl.col("name").is_in(sorted(name for name in asked if factor in dependence[name]))
    # A query that depends on the factor may keep its truth in some pairs ("is it red?" of green and blue); those are not evidence of read.
    reads = usable.filter(dependent & (pl.col("truth_before") != pl.col("truth_after")))
    read = _rate(reads, "moved", thresholds.confidence) if len(reads) else None
    leaks = _leaks(usable.filter(~dependent), _floors(noise), thresholds.confidence)
    # Where every open query depends on the factor there is none to leak into. Where none was asked, or none that was asked is fit,
    # the leak is unknown.
    only_dependent = len(moving) > 0 and not len(moving.filter(~dependent))
    leaking = _any_above(leaks, thresholds.leak_above_noise_frac) if leaks else (False if only_dependent else None)
    unanswered = set(fit.filter(~dependent)["query"]) - {leak.query for leak in leaks}
    if leaking is False and unanswered:
        leaking = None  # a query that was never answered may leak
    worst = max(leaks, key=lambda leak: leak.rate.frac - leak.floor, default=None)
    no_fit_query = supported and read is None and len(moving.filter(dependent)) > 0 and not len(fit.filter(dependent))
    return Evidence(
        asked=supported,
        read=read,
        leak=worst.rate if worst else None,
        leak_query=worst.query if worst else None,
        noise_frac=worst.floor if worst else None,
        verdict="cannot_be_asked" if no_fit_query else decide(supported, _above(read, thresholds.read_frac), leaking),
    )


class _Leak(NamedTuple):
    query: str
    rate: Rate
    floor: float


def _leaks(rows: pl.DataFrame, floors: Mapping[str, float], confidence: float) -> list[_Leak]:
    """The leak into each of m queries and that query's noise; simultaneous intervals at 1 - alpha / m (Bonferroni)."""
    groups = list(rows.group_by("query", maintain_order=True))
    adjusted = 1 - (1 - confidence) / max(len(groups), 1)
    return [_Leak(str(query), _rate(group, "moved", adjusted), floors.get(str(query), 0.0)) for (query,), group in groups]


def _any_above(leaks: Sequence[_Leak], margin: float) -> Bit:
    """Whether some query's leak exceeds its own noise by more than the margin; None where the intervals do not decide."""
    bits = [_above(leak.rate, leak.floor + margin) for leak in leaks]
    if any(bits):
        return True
    return None if None in bits else False


def _above(rate: Rate | None, threshold: float) -> Bit:
    if rate is None or rate.low is None or rate.high is None:
        return None
    if rate.low > threshold:
        return True
    return False if rate.high < threshold else None


def decide(asked: bool, read: Bit, leak: Bit) -> Verdict:
    """The verdict of a factor from three bits; *undecided* where a bit that matters straddles its threshold."""
    if leak is None or (asked and read is None):
        return "undecided"
    if not asked:
        return "shadow" if leak else "inert"
    if read:
        return "entangled" if leak else "identified"
    return "shadow" if leak else "blind"
