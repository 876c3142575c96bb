"""Study geometry: is the boundary of coverage visible inside the model, as a shape of a factor's directions?

Policies drawn under a fixed seed ask about four or five factors, each in all scenes, in a third or a ninth of them, or in agreeing ones
alone, so that coverage is graded from 0 to 1. Rows are asked factors of runs; policies are the unit of independence. Statements and rules
were written before any run of this study.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from theodolite.records.study import Claim, Figure, GridRun, Point
from theodolite.stats.claims import Rule, Statement, judge_claim
from theodolite.stats.forecast import error_difference, over_policies, policy_weights, predict_rates
from theodolite.stats.partial_ranks import partial_rank_correlation
from theodolite.studies.dose import CONTEXTS
from theodolite.studies.engine.arms import Arm
from theodolite.studies.engine.execute import Run
from theodolite.studies.engine.study import FinishedRuns, Study, if_competent, moved_frac_of, point_of
from theodolite.studies.flip_setup import ESSAY, MAIN, NUM_PICTURES, NUM_SCENES, QUICK_STEPS, study_recipe
from theodolite.studies.forecast import FACTORS
from theodolite.worlds.shapes.world import Shapes

NUM_POLICIES, NUM_FITTED, QUICK_POLICIES = 35, 25, 2
DRAWN_BY = 2027
SCENES_INSIDE = 100
LAST, ANSWER = "layer.4", "answer"
LINE = 0.1
REGIONS, CHANCES = ("agree", "ninth", "third", "all"), (0.4, 0.2, 0.2, 0.2)


@dataclass(frozen=True)
class Measure:
    """A number inside the model by factor: its sign, such that more of it is expected where coverage is above 0, and that in words."""

    sign: int
    words: str


MEASURES: Mapping[str, Measure] = {
    "consistency": Measure(1, "the differences that a change of the factor makes are more alike"),
    "overlap": Measure(-1, "the factor's directions overlap less with those of other factors"),
    "regularity": Measure(1, "the factor's values lie on a more regular simplex"),
    "energy": Measure(1, "the answers' Fisher information is larger along the factor's direction"),
    "gradient": Measure(1, "the gradient of the loss is larger along the factor's direction"),
    "step": Measure(-1, "less of the factor is lost between the last vision tokens and the position of the answer"),
}


@dataclass(frozen=True)
class GradedPolicy:
    """One drawn policy and the correlation of its world."""

    correlation: tuple[str, str]
    policy: str


def graded_policies(number: int) -> list[GradedPolicy]:
    """Policies drawn under a fixed seed: the first ones are the same for any number.

    The cause of the correlation is asked about in a region (in agreeing scenes with probability 0.4, where its coverage is 0); the effect
    in agreeing scenes or not at all; two others each in a third, a ninth or all scenes; another in all, so that every picture has a
    question.
    """
    rng = np.random.default_rng(DRAWN_BY)
    policies = []
    for _ in range(number):
        cause, effect, *others, filler = (str(name) for name in rng.choice(FACTORS, 5, replace=False))
        free = [name for name in CONTEXTS if name not in {cause, effect, *others, filler}]
        asked = [_ask(cause, str(rng.choice(REGIONS, p=CHANCES)), free)]
        if rng.random() < 0.5:
            asked.append(_ask(effect, "agree", free))
        asked += [_ask(name, str(rng.choice(REGIONS[1:])), free) for name in others]
        policies.append(GradedPolicy((cause, effect), ",".join([*asked, filler])))
    return policies


def _ask(name: str, region: str, free: Sequence[str]) -> str:
    """A line of a policy; contexts fix one or two factors of three values each that the policy neither asks about nor correlates."""
    if region in ("agree", "all"):
        return f"{name}:agree" if region == "agree" else name
    fixed = free[: 2 if region == "ninth" else 1]
    return f"{name}:{'&'.join(f'{context}={Shapes().space[context].values[0]}' for context in fixed)}"


def geometry_grid(seeds: Sequence[int], quick: bool = False) -> tuple[Run, ...]:
    """Every drawn policy, looked at inside; quick: two of them, not looked at inside."""
    recipe = study_recipe(QUICK_STEPS) if quick else study_recipe()
    measures = () if quick else ("ladder", "geometry", "fisher")
    return tuple(
        Run(
            Shapes.name,
            Arm(f"graded {number}", drawn.policy, recipe, MAIN, NUM_PICTURES, among=f"graded {number}"),
            seed,
            NUM_SCENES,
            correlation=drawn.correlation,
            measures=measures,
            inside_scenes=SCENES_INSIDE,
            official=False,
            survey_seed=seed,
        )
        for seed in seeds
        for number, drawn in enumerate(graded_policies(QUICK_POLICIES if quick else NUM_POLICIES))
    )


SCHEMA = {
    "policy": pl.String, "run": pl.String, "factor": pl.String, "measured": pl.Float64, "coverage": pl.Float64, "covered": pl.Float64,
    **dict.fromkeys(MEASURES, pl.Float64),
}  # fmt: skip


def factors_table(lines: Iterable[GridRun]) -> pl.DataFrame:
    """A row for each run and factor that it was asked about: read (`measured`), coverage, whether that is above 0, and all measures.

    Factors whose questions are answered at chance even on scenes like those of training are left out.
    """
    rows = []
    for line in lines:
        for factor in line.foretold.asked_frac:
            read = if_competent(moved_frac_of(factor, factor, truth_moves=True), factor)(line)
            if read is None:
                continue
            coverage = line.foretold.coverage.get(factor, 0.0)
            numbers = [_number(line, name, factor) for name in MEASURES]
            rows.append((line.facts.arm, line.key, factor, read, coverage, float(coverage > 0), *numbers))
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def _number(line: GridRun, measure: str, factor: str) -> float | None:
    if measure != "step":
        return line.inside.get(measure, {}).get(factor)
    rungs = line.decoded.get(factor, {})
    return rungs[LAST] - rungs[ANSWER] if {LAST, ANSWER} <= rungs.keys() else None


BOUNDARY = "Spearman's partial rho of {name} with whether coverage is above 0, given read; over factors, interval by policy"
NEARER = "mean absolute error of the forecast of read from {name} less that of its mean, on {unseen} policies not fitted on"


def _boundary(name: str) -> Statement:
    measure = MEASURES[name]
    text = f"Where coverage is above 0, {measure.words} than where it is 0, beyond what read tells."
    rule = Rule("above", LINE) if measure.sign > 0 else Rule("below", -LINE)
    return Statement(f"{name} at the boundary", text, ESSAY, rule, BOUNDARY.format(name=name), 1)


def _forecast(name: str) -> Statement:
    text = f"On policies that it was not fitted on, {name} predicts how far a factor is read better than the mean does."
    unit = NEARER.format(name=name, unseen=NUM_POLICIES - NUM_FITTED)
    return Statement(f"{name} predicts read", text, ESSAY, Rule("below", 0.0), unit, 1)


def judge_geometry(runs: FinishedRuns) -> tuple[Claim, ...]:
    """The claims that the runs can decide: none in a quick grid, whose models are not looked at inside."""
    table = factors_table(line for _, line in runs.pairs)
    if all(table[name].null_count() == len(table) for name in MEASURES):
        return ()
    fitted = table.filter(pl.col("policy").is_in([f"graded {number}" for number in range(NUM_FITTED)]))
    unseen = table.filter(~pl.col("policy").is_in(fitted["policy"].unique().to_list()))
    claims = []
    for name in MEASURES:
        rows = table.drop_nulls(name)
        rho = partial_rank_correlation(table, name, "covered", "measured")
        claims.append(judge_claim(_boundary(name), rho, {}, rows["run"].n_unique(), "policy"))
    for name in (*MEASURES, "coverage"):
        known, new = fitted.drop_nulls(name), unseen.drop_nulls(name)
        error = (
            error_difference(new, predict_rates(known, new, (name,)), predict_rates(known, new, ())) if len(known) and len(new) else None
        )
        claims.append(judge_claim(_forecast(name), error, {}, new["run"].n_unique(), "policy"))
    return tuple(claims)


# Ends of coverage of the points of the figure, and their names.
STEPS = {"0": (-1.0, 0.0), "to 0.2": (0.0, 0.2), "to 0.6": (0.2, 0.6), "to 1": (0.6, 1.0)}


def draw_geometry(runs: FinishedRuns) -> tuple[Figure, ...]:
    """Read and each measure by steps of coverage."""
    table = factors_table(line for _, line in runs.pairs)

    def points() -> Iterator[Point]:
        for panel in ("measured", *MEASURES):
            for step, (above, up_to) in STEPS.items():
                rows = table.drop_nulls(panel).filter(pl.col("coverage") > above, pl.col("coverage") <= up_to)
                if len(rows):
                    mean = over_policies(_mean, (rows[panel].to_numpy(), policy_weights(rows)), rows)
                    yield point_of("read" if panel == "measured" else panel, "asked factors", step, mean, {})

    return (
        Figure(
            name="geometry",
            title="Inside the model, by coverage",
            caption="Means over asked factors of all runs, policies weighted equally; bars are 95 % intervals by policy, of six or more.",
            x_title="coverage",
            y_title="value of the measure",
            y_range=None,
            joined=False,
            points=tuple(points()),
        ),
    )


def _mean(values: np.ndarray, weights: np.ndarray) -> float:
    return float(np.average(values, weights=weights))


GEOMETRY = Study(
    name="geometry",
    question="Is the boundary of coverage visible inside the model, as a shape of a factor's directions?",
    grid=geometry_grid,
    judge=judge_geometry,
    draw=draw_geometry,
    notes=(
        "Arms ask different numbers of questions about different factors, and are not compared with each other: what is said is about "
        "factors over policies.",
        "Consistency, overlap and regularity are of the mean over vision tokens at the last layer; energy and gradient of the connector.",
    ),
)
