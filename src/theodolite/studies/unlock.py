"""Study unlock: does an objective make a shadow cheaper to break?

The doses of dose, beside next-token prediction with mixed attention, LaVer and interventional pairs. Next-token prediction alone is read
from the runs of dose, dose 0 of the others from those of rivals. Statements and rules were written before any run of this study; the
doses were chosen when two seeds of dose had shown where next-token prediction breaks: between one odd scene in thirty and one in ten.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np

from theodolite.records.study import Claim, Figure, Point
from theodolite.stats.claims import Rule, Statement, judge_claim, over_seeds
from theodolite.studies.dose import break_of, dose_arm, dose_figure, dose_policy, words
from theodolite.studies.engine.arms import Arm
from theodolite.studies.engine.execute import Run
from theodolite.studies.engine.study import FinishedRuns, Study, Value, paired_claim, point_of
from theodolite.studies.flip_setup import ANSWERS, ESSAY, INERT, LEAK, MAIN, NUM_PICTURES, NUM_SCENES, PROXY, TARGET
from theodolite.studies.rivals import CONTROL, LAST, LAVER, MORE, PAIRS, PAPER, PLAIN, TRIED_PAIRS, residue, rival_recipe
from theodolite.worlds.shapes.world import Shapes

OBJECTIVES = (CONTROL, LAVER, PAIRS)
NONE, GRADED = Fraction(0), (Fraction(1, 100), Fraction(1, 30), Fraction(1, 10))
DOSES = (NONE, *GRADED)
QUICK_OBJECTIVES, QUICK_DOSES = (CONTROL, PAIRS), (Fraction(1, 30),)
STAYS, CHEAPER = 0.9, 0.1


def unlock_arm(objective: str, dose: Fraction) -> str:
    """Name of an arm of this study, or of the study that it is read from."""
    if objective == PLAIN:
        return dose_arm(dose)
    return f"{objective}-{words(dose)}" if dose else objective


def unlock_grid(seeds: Sequence[int], quick: bool = False) -> tuple[Run, ...]:
    """Every objective at every dose above 0; quick: two objectives at one dose."""
    objectives, doses = (QUICK_OBJECTIVES, QUICK_DOSES) if quick else (OBJECTIVES, GRADED)
    arms = [
        Arm(unlock_arm(name, dose), dose_policy(dose), rival_recipe(name, quick), MAIN, NUM_PICTURES)
        for name in objectives
        for dose in doses
    ]
    return tuple(Run(Shapes.name, arm, seed, NUM_SCENES, official=False, survey_seed=seed) for seed in seeds for arm in arms)


def by_seed(runs: FinishedRuns, objective: str, dose: Fraction, value: Value) -> dict[int, float]:
    """The value of an objective at a dose by seed, of this study's runs or of those that it reads."""
    name = unlock_arm(objective, dose)
    return runs.arm(name).by_seed(value) if objective in OBJECTIVES and dose else runs.of_others(name, value)


def over_doses(runs: FinishedRuns, objective: str, doses: Sequence[Fraction]) -> dict[int, dict[Fraction, float]]:
    """The leak at each of the doses by seed; seeds that lack one are left out."""
    leaks = {dose: by_seed(runs, objective, dose, LEAK) for dose in doses}
    seeds = sorted(set.intersection(*(set(each) for each in leaks.values())))
    return {seed: {dose: each[seed] for dose, each in leaks.items()} for seed in seeds}


def broken_at(runs: FinishedRuns, objective: str) -> dict[int, float]:
    """Smallest dose at which the leak, interpolated, is 0.5, by seed; the largest dose where it is above at all of them."""
    return {seed: min(break_of(leaks), float(max(leaks))) for seed, leaks in over_doses(runs, objective, DOSES).items()}


def mean_leak(runs: FinishedRuns, objective: str) -> dict[int, float]:
    """Mean leak over the doses above 0, 0 to 1, by seed."""
    return {seed: float(np.mean(list(leaks.values()))) for seed, leaks in over_doses(runs, objective, GRADED).items()}


LEAKS = f"do({PROXY}) -> {TARGET} answer: share of pairs"
GROWS = Statement(
    "the map grows", "LaVer keeps more than mixed attention does of what no question is about.", PAPER, Rule("above", MORE),
    f"normalised accuracy of probes at {LAST}, mean over {len(INERT)} factors that are not asked about, {LAVER} less {CONTROL}, dose 0", 4,
)  # fmt: skip


def _route_stays(name: str) -> Statement:
    text = f"The route stays: without counterexamples answers about shape follow colour with {name} too."
    return Statement(f"the route stays, {name}", text, ESSAY, Rule("above", STAYS), f"{LEAKS}, dose 0, {name}", 4)


def _breaks_earlier(name: str, other: str) -> Statement:
    text = f"A smaller dose of counterexamples breaks the shadow with {name} than with {other}."
    known = name == PAIRS
    return Statement(
        f"{name} breaks earlier", text, TRIED_PAIRS if known else ESSAY, Rule("below", 0.0),
        f"smallest dose at which the leak is 0.5, {float(max(DOSES)):g} if nowhere: {name} less {other}, share of odd scenes", 4, known,
    )  # fmt: skip


def _less_leak(name: str) -> Statement:
    text = f"At the same doses {name} leaves less leak than mixed attention alone."
    known = name == PAIRS
    return Statement(
        f"{name} leaks less", text, TRIED_PAIRS if known else ESSAY, Rule("below", -CHEAPER),
        f"{LEAKS}, mean over {len(GRADED)} doses, {name} less {CONTROL}", 4, known,
    )  # fmt: skip


def judge_unlock(runs: FinishedRuns) -> tuple[Claim, ...]:
    """The claims that the runs can decide: none in a quick grid, whose one dose has no break."""
    if not runs.arm(unlock_arm(LAVER, GRADED[0])).runs:  # quick
        return ()
    claims = [paired_claim(GROWS, by_seed(runs, LAVER, NONE, residue), by_seed(runs, CONTROL, NONE, residue))]
    for name in (CONTROL, LAVER):
        leaks = by_seed(runs, name, NONE, LEAK)
        claims.append(judge_claim(_route_stays(name), over_seeds(leaks, NUM_SCENES * len(leaks)) if leaks else None, leaks, len(leaks)))
    pairs = ((CONTROL, PLAIN), (LAVER, CONTROL), (PAIRS, CONTROL))
    claims += [paired_claim(_breaks_earlier(*each), *(broken_at(runs, name) for name in each)) for each in pairs]
    claims += [paired_claim(_less_leak(name), mean_leak(runs, name), mean_leak(runs, CONTROL)) for name in (LAVER, PAIRS)]
    return tuple(claims)


def draw_unlock(runs: FinishedRuns) -> tuple[Figure, ...]:
    """Leak and read by dose, a line for each objective."""

    def points() -> Iterator[Point]:
        for panel, value in ANSWERS:
            for name in (PLAIN, *OBJECTIVES):
                for dose in DOSES:
                    numbers = by_seed(runs, name, dose, value)
                    if numbers:
                        yield point_of(panel, name, round(float(dose), 4), over_seeds(numbers, NUM_SCENES * len(numbers)), numbers)

    return (dose_figure("unlock", "Counterexamples beside objectives", tuple(points())),)


UNLOCK = Study(
    name="unlock",
    question="Does an objective make a shadow cheaper to break?",
    grid=unlock_grid,
    judge=judge_unlock,
    draw=draw_unlock,
    reads=("dose", "rivals"),
    notes=(
        f"{PLAIN} is read from the runs of dose; dose 0 of the others from those of rivals, whose models were looked at inside too.",
        "Steps are the same, their cost is not: docs/reference/objectives.md. No question is about partners of pairs.",
    ),
)
