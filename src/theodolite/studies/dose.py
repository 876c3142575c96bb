"""Study dose: how many counterexamples break a shadow? Shape is asked of agreeing scenes and of a share (the dose) of the others.

Every arm asks as many questions about shape as every other, so that only the kind of scenes differs. Statements and rules were written
before any run of this study.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import numpy as np

from theodolite.records.study import Claim, Figure, GridRun, Point
from theodolite.stats.claims import Rule, Statement, difference_over_seeds, judge_claim, over_seeds
from theodolite.stats.forecast import fit_rates
from theodolite.studies.engine.arms import Arm
from theodolite.studies.engine.execute import Run
from theodolite.studies.engine.study import FinishedRuns, Study, Value, answered, claim_level, difference, point
from theodolite.studies.flip_setup import (
    ANSWERS,
    DIFFER,
    ESSAY,
    FILLER,
    LEAK,
    MAIN,
    NUM_PICTURES,
    NUM_SCENES,
    PROXY,
    QUICK_STEPS,
    STEPS,
    TARGET,
    TRIED_TEXT,
    policies,
    study_recipe,
)
from theodolite.worlds.registry import world_named
from theodolite.worlds.shapes.world import Shapes

DOSES = tuple(Fraction(1, number) for number in (1000, 300, 100, 30, 10, 3))
ALL_DOSES = (Fraction(0), *DOSES)
QUICK_DOSES = (Fraction(0), Fraction(1, 30), Fraction(1, 3))
# Doses that are run with eight times the steps too, and doses that are concentrated in few contexts too.
LONG_DOSES, LONGER = (Fraction(1, 100), Fraction(1, 30)), 8
CONTEXT_DOSES = (Fraction(1, 100), Fraction(1, 30), Fraction(1, 10))
# Factors of three values each, correlated with nothing; a context fixes the first few of them.
CONTEXTS = ("ground", "texture", "sheen", "size")
BROKEN = 0.5
# The trial of one seed before these rules had a dose of 0.03.
TRIED = Fraction(1, 30)


def odd_frac() -> float:
    """Share of scenes in which target and proxy do not go together, 0 to 1."""
    prior = world_named(Shapes.name, MAIN).prior
    names = (TARGET, PROXY)
    return float((prior.table(names) * ~prior.agreement(names)).sum())


def dose_policy(dose: Fraction) -> str:
    """Asks the target in agreeing scenes and, at this rate, in odd ones; the filler makes it two questions a picture.

    The rate in agreeing scenes falls as the dose rises, so that the expected number of target questions a picture is that of dose 0.
    """
    if dose == 0:
        return policies()["agree"]
    asked, rest = _agreeing(dose)
    return f"{asked},{TARGET}:odd*{float(dose)!r},{FILLER}:odd*{1 - float(dose)!r},{rest},{FILLER}"


def context_policy(dose: Fraction) -> str:
    """As `dose_policy`, with the same number of target questions about odd scenes, all of them in one context.

    A context fixes factors of three values each, as many as leave a rate of at most 1 there. Proxy bits are those of the dose; coverage
    and pressure are smaller, since fewer scenes are distinguished.
    """
    number = next(count for count in range(len(CONTEXTS), -1, -1) if dose * 3**count <= 1)
    values = [Shapes().space[name].values for name in CONTEXTS[:number]]
    fixed = [f"{name}={levels[0]}" for name, levels in zip(CONTEXTS, values, strict=False)]
    inside, rate = "&".join(["odd", *fixed]), float(dose * 3**number)
    # Odd scenes outside the context, as a partition: equal to it in the first factors, and another value in the next.
    outside = [
        f"{FILLER}:{'&'.join(['odd', *fixed[:place], f'{CONTEXTS[place]}={other}'])}"
        for place, levels in enumerate(values)
        for other in levels[1:]
    ]
    kept = [f"{FILLER}:{inside}*{1 - rate!r}"] if rate < 1 else []
    asked, rest = _agreeing(dose)
    return ",".join([asked, f"{TARGET}:{inside}*{rate!r}", *kept, *outside, rest, FILLER])


def _agreeing(dose: Fraction) -> tuple[str, str]:
    """Target and filler of agreeing scenes: their target questions less those that the dose adds elsewhere."""
    odd = odd_frac()
    rate = 1 - odd * float(dose) / (1 - odd)
    return f"{TARGET}:agree*{rate!r}", f"{FILLER}:agree*{1 - rate!r}"


def words(dose: Fraction) -> str:
    """A dose as part of a name: "0", "1in30"."""
    return "0" if dose == 0 else f"1in{dose.denominator}"


def dose_arm(dose: Fraction, kind: str = "dose") -> str:
    """Name of an arm; `kind` is dose, context, or long (eight times the steps)."""
    return f"{kind}-{words(dose)}"


def dose_grid(seeds: Sequence[int], quick: bool = False) -> tuple[Run, ...]:
    """All doses, two of them with eight times the steps, three of them within one context; quick: three doses."""
    recipe = study_recipe(QUICK_STEPS if quick else STEPS)
    long = replace(recipe, steps=LONGER * STEPS)
    arms = [Arm(dose_arm(dose), dose_policy(dose), recipe, MAIN, NUM_PICTURES) for dose in (QUICK_DOSES if quick else ALL_DOSES)]
    if not quick:
        arms += [Arm(dose_arm(dose, "long"), dose_policy(dose), long, MAIN, NUM_PICTURES) for dose in LONG_DOSES]
        arms += [Arm(dose_arm(dose, "context"), context_policy(dose), recipe, MAIN, NUM_PICTURES) for dose in CONTEXT_DOSES]
    measures = () if quick else ("gap",)
    return tuple(
        Run(Shapes.name, arm, seed, NUM_SCENES, measures=measures, official=False, survey_seed=seed) for seed in seeds for arm in arms
    )


ANSWER = f"do({PROXY}) -> {TARGET} answer"
STANDS = Statement(
    "dose 0", "Asked about shape in agreeing scenes alone, colour is a shadow.", "flip", Rule("above", BROKEN),
    f"{ANSWER} at dose 0: share of pairs", 3, known=True,
)  # fmt: skip
BREAK = Statement(
    "break", "Few counterexamples suffice: the dose that breaks the shadow (leak 0.5) is less than one odd scene in ten.",
    ESSAY, Rule("below", 0.1), "smallest dose at which the leak, interpolated between doses, is 0.5; 1 if nowhere: share of odd scenes", 3,
)  # fmt: skip
GRADED = Statement(
    "graded", "Over doses, a forecast from graded pressure is nearer to the leak than one from coverage, which has two values here.",
    ESSAY, Rule("below", 0.0), "mean absolute error of the forecast from pressure less that from coverage, each seed forecast from the "
    "others", 2,
)  # fmt: skip
CONTEXT = Statement(
    "context", "Coverage counts beside the number of counterexamples: as many from one context leave more leak than from all contexts.",
    ESSAY, Rule("above", 0.1), f"{ANSWER}, one context less all contexts, mean over three doses: {DIFFER}", 2,
)  # fmt: skip


def _broken(dose: Fraction) -> Statement:
    asked = f"Asked about shape in one odd scene in {dose.denominator} as well"
    text = f"{asked}, answers about shape follow colour in less than half of the pairs."
    known = dose == TRIED
    source = TRIED_TEXT if known else ESSAY
    return Statement(f"broken at {words(dose)}", text, source, Rule("below", BROKEN), f"{ANSWER}: share of pairs", 3, known)


def _scale(dose: Fraction) -> Statement:
    text = f"Scale moves the break: at a dose of one odd scene in {dose.denominator}, eight times the steps lower the leak."
    return Statement(
        f"steps at {words(dose)}", text, ESSAY, Rule("below", -0.1), f"{ANSWER}, eight times the steps less one time: {DIFFER}", 2
    )


def judge_dose(runs: FinishedRuns) -> tuple[Claim, ...]:
    """The claims that the runs of the grid can decide."""
    claims = [claim_level(STANDS, runs.arm(dose_arm(ALL_DOSES[0])), LEAK)]
    graded = [dose for dose in DOSES if runs.arm(dose_arm(dose)).runs]
    claims += [claim_level(_broken(dose), runs.arm(dose_arm(dose)), LEAK) for dose in graded]
    if len(graded) < len(DOSES):  # quick
        return tuple(claims)
    claims.append(_break(runs))
    claims += [difference(_scale(dose), runs.arm(dose_arm(dose, "long")), runs.arm(dose_arm(dose)), LEAK) for dose in LONG_DOSES]
    return (*claims, _graded(runs), _context(runs))


def _plain(runs: FinishedRuns) -> FinishedRuns:
    names = {dose_arm(dose) for dose in ALL_DOSES}
    return runs.where(lambda run: run.arm.name in names)


def _by_dose(runs: FinishedRuns, kinds: Mapping[Fraction, str], value: Value) -> dict[int, dict[Fraction, float]]:
    """The value at every dose by seed; seeds that lack one of the doses are left out."""
    numbers = {dose: runs.arm(dose_arm(dose, kind)).by_seed(value) for dose, kind in kinds.items()}
    seeds = sorted(set.intersection(*(set(each) for each in numbers.values())))
    return {seed: {dose: each[seed] for dose, each in numbers.items()} for seed in seeds}


def _over_doses(runs: FinishedRuns, value: Value) -> dict[int, dict[Fraction, float]]:
    return _by_dose(runs, dict.fromkeys(ALL_DOSES, "dose"), value)


def _break(runs: FinishedRuns) -> Claim:
    by_seed = {seed: break_of(each) for seed, each in _over_doses(runs, LEAK).items()}
    return judge_claim(BREAK, over_seeds(by_seed) if by_seed else None, by_seed, len(_plain(runs).pairs))


def break_of(leaks: Mapping[Fraction, float]) -> float:
    """Smallest dose, 0 to 1, at which the leak, interpolated between doses, is `BROKEN`; 0 if it is lower at dose 0, 1 if nowhere.

    Interpolated, since the doses themselves are few: seeds that agree in one to the digit would leave no interval.
    """
    doses = sorted(leaks)
    if leaks[doses[0]] < BROKEN:
        return 0.0
    for before, after in pairwise(doses):
        if leaks[after] < BROKEN:
            share = (leaks[before] - BROKEN) / (leaks[before] - leaks[after])
            return float(before) + share * float(after - before)
    return 1.0


def pressure(line: GridRun) -> float:
    """Pressure of a run's questions on the target, bits."""
    return line.foretold.pressure_bits.get(TARGET, 0.0)


def coverage(line: GridRun) -> float:
    """Coverage of the target by a run's questions, 0 to 1."""
    return line.foretold.coverage.get(TARGET, 0.0)


def _graded(runs: FinishedRuns) -> Claim:
    errors = {name: forecast_errors(runs, value) for name, value in (("pressure", pressure), ("coverage", coverage))}
    estimate, by_seed = difference_over_seeds(errors["pressure"], errors["coverage"])
    return judge_claim(GRADED, estimate, by_seed, len(_plain(runs).pairs))


def forecast_errors(runs: FinishedRuns, value: Value) -> dict[int, float]:
    """Mean absolute error, 0 to 1, by seed, of the leak over doses as forecast from `value`; each seed by a fit on the other seeds."""
    leaks, inputs = _over_doses(runs, LEAK), _over_doses(runs, value)
    errors = {}
    for seed in leaks:
        others = [other for other in leaks if other != seed]
        if not others:
            continue
        fitted = np.array([[number] for other in others for number in inputs[other].values()])
        rates = np.array([leak for other in others for leak in leaks[other].values()])
        forecast = fit_rates(fitted, rates, np.ones(len(rates)))(np.array([[number] for number in inputs[seed].values()]))
        errors[seed] = float(np.abs(forecast - np.array(list(leaks[seed].values()))).mean())
    return errors


def _context(runs: FinishedRuns) -> Claim:
    """The claim about counterexamples from one context, seed by seed over the three doses."""
    means = [
        {seed: float(np.mean(list(each.values()))) for seed, each in _by_dose(runs, dict.fromkeys(CONTEXT_DOSES, kind), LEAK).items()}
        for kind in ("context", "dose")
    ]
    arms = [runs.arm(dose_arm(dose, kind)) for kind in ("context", "dose") for dose in CONTEXT_DOSES]
    estimate, by_seed = difference_over_seeds(means[0], means[1], min(arm.num_scenes for arm in arms))
    return judge_claim(CONTEXT, estimate, by_seed, sum(len(arm.pairs) for arm in arms))


PANELS: tuple[tuple[str, Value], ...] = (*ANSWERS, (f"{TARGET} answered right, as in training", answered(TARGET)))
SERIES = {"dose": "odd scenes of all contexts", "long": "the same, eight times the steps", "context": "odd scenes of one context"}


def draw_dose(runs: FinishedRuns) -> tuple[Figure, ...]:
    """Leak, read and accuracy by dose."""

    def points() -> Iterator[Point]:
        for panel, value in PANELS:
            for kind, series in SERIES.items():
                for dose in ALL_DOSES:
                    yield from point(panel, series, round(float(dose), 4), runs.arm(dose_arm(dose, kind)), value)

    return (dose_figure("dose", "Counterexamples among the questions", tuple(points())),)


def dose_figure(name: str, title: str, points: tuple[Point, ...]) -> Figure:
    """Shares of pairs by dose, in panels."""
    return Figure(
        name=name,
        title=title,
        caption=f"Dose: share of the scenes in which {TARGET} and {PROXY} do not go together that are asked for {TARGET}. All arms ask "
        f"as many questions about {TARGET}, of the same {NUM_PICTURES:,} pictures. Points are seeds, bars 95 % intervals over seeds.",
        x_title="dose",
        y_title="share",
        y_range=(0.0, 1.0),
        joined=True,
        points=points,
    )


DOSE = Study(
    name="dose",
    question="How many counterexamples break a shadow?",
    grid=dose_grid,
    judge=judge_dose,
    draw=draw_dose,
    notes=(
        "Coverage counts the scenes in which a question is asked at all, not how often: it is 0 at dose 0 and the same at every other dose "
        "that is spread over all contexts. Pressure and proxy bits rise and fall with the dose.",
        "Arms of eight times the steps see the same pictures more often, on purpose.",
    ),
)
