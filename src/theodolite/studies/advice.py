"""Study advice: do advised questions break a shadow with fewer questions than balanced or random ones?

Shape is asked of agreeing scenes alone; then further questions take the place of some about the filler, so that every arm asks two a
picture. *advised* are those that `theodolite advise` names for the sake of shape; *balanced* ask about shape in every scene alike; *random*
ask about any factor in any scene. Statements and rules were written before any run of this study.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from theodolite.commands.advise import advise
from theodolite.records.study import Claim, Figure, Point
from theodolite.stats.claims import Rule, Statement
from theodolite.studies.dose import odd_frac
from theodolite.studies.engine.arms import Arm
from theodolite.studies.engine.execute import Run
from theodolite.studies.engine.study import FinishedRuns, Study, claim_level, paired_claim, point
from theodolite.studies.flip_setup import (
    ANSWERS,
    ESSAY,
    FILLER,
    LEAK,
    MAIN,
    NUM_PICTURES,
    NUM_SCENES,
    PROXY,
    QUICK_STEPS,
    TARGET,
    policies,
    study_recipe,
)
from theodolite.worlds.registry import world_named
from theodolite.worlds.shapes.world import Shapes

BROKEN = 0.1
# Numbers of further questions by way of choosing them. There are 1,800 odd scenes among the pictures, each of which is asked about shape
# at most once; random questions are wanted where a tenth of them is about shape.
BUDGETS: Mapping[str, tuple[int, ...]] = {"advised": (60, 180, 600, 1800), "balanced": (400, 1200, 4000, 12_000), "random": (4000, 12_000)}
QUICK_BUDGETS: Mapping[str, tuple[int, ...]] = {"advised": (1800,), "balanced": (1800,)}
# A factor of two.
CLOSE = math.log10(2)


def further_questions(way: str, budget: int) -> list[str]:
    """Lines of a policy that ask about as many further questions of the pictures as the budget says."""
    rate = budget / NUM_PICTURES
    if way == "balanced":
        return [f"{TARGET}*{rate!r}"]
    world = world_named(Shapes.name, MAIN)
    if way == "random":
        names = world.space.nameable
        return [f"{name}*{rate / len(names)!r}" for name in names]
    advice = advise(world, policies()["agree"], budget=budget, about=(TARGET,), num_pictures=NUM_PICTURES)
    return [line for query in advice.queries for line in query.lines]


def advice_policy(way: str, budget: int) -> str:
    """The policy of agreeing scenes alone with so many questions about the filler replaced: two questions a picture."""
    further = further_questions(way, budget)
    asked = policies()["agree"].removesuffix(f",{FILLER}")
    rest = 1 - budget / NUM_PICTURES
    return ",".join([asked, *further, *([f"{FILLER}*{rest!r}"] if rest > 0 else [])])


def advice_arm(way: str, budget: int) -> str:
    """Name of an arm, "advised-600" for example."""
    return f"{way}-{budget}"


def advice_grid(seeds: Sequence[int], quick: bool = False) -> tuple[Run, ...]:
    """Every way at every of its numbers of questions; quick: two ways at one."""
    recipe = study_recipe(QUICK_STEPS) if quick else study_recipe()
    arms = [
        Arm(advice_arm(way, budget), advice_policy(way, budget), recipe, MAIN, NUM_PICTURES)
        for way, budgets in (QUICK_BUDGETS if quick else BUDGETS).items()
        for budget in budgets
    ]
    return tuple(Run(Shapes.name, arm, seed, NUM_SCENES, official=False, survey_seed=seed) for seed in seeds for arm in arms)


def needed(leaks: Mapping[int, float]) -> float:
    """Logarithm (base 10) of the number of questions at which the leak, interpolated over logarithms, is `BROKEN`.

    The smallest number that was asked where the leak is below it there already, the largest where it is above it everywhere.
    """
    numbers = sorted(leaks)
    if leaks[numbers[0]] <= BROKEN:
        return math.log10(numbers[0])
    for before, after in pairwise(numbers):
        if leaks[after] <= BROKEN:
            share = (leaks[before] - BROKEN) / (leaks[before] - leaks[after])
            return math.log10(before) + share * math.log10(after / before)
    return math.log10(numbers[-1])


def needed_by_seed(runs: FinishedRuns, way: str) -> dict[int, float]:
    """`needed` of a way by seed; seeds that lack one of its runs are left out."""
    leaks = {budget: runs.arm(advice_arm(way, budget)).by_seed(LEAK) for budget in BUDGETS[way]}
    seeds = sorted(set.intersection(*(set(each) for each in leaks.values())))
    return {seed: needed({budget: each[seed] for budget, each in leaks.items()}) for seed in seeds}


UNIT = f"log10 of the number of further questions at which the leak is {BROKEN:g} (the largest asked where it is nowhere)"
BREAKS = Statement(
    "advised breaks", "Asked as advised, about shape once in every odd scene, answers no longer follow colour.", ESSAY,
    Rule("below", BROKEN), f"do({PROXY}) -> {TARGET} answer, {BUDGETS['advised'][-1]:,} advised questions: share of pairs", 2,
)  # fmt: skip
ADVISED = Statement(
    "advised before balanced", "Advised questions break the shadow with fewer questions than balanced ones.", ESSAY, Rule("below", 0.0),
    f"{UNIT}, advised less balanced", 2,
)  # fmt: skip
BALANCED = Statement(
    "balanced before random", "Balanced questions break it with fewer than random ones.", ESSAY, Rule("below", 0.0),
    f"{UNIT}, balanced less random", 2,
)  # fmt: skip
COUNTED = Statement(
    "only counterexamples count", "How many more balanced questions are needed follows from their share of counterexamples.", ESSAY,
    Rule("within", CLOSE), f"{UNIT}: balanced less advised, less log10 of one over the share of odd scenes", 2,
)  # fmt: skip


def judge_advice(runs: FinishedRuns) -> tuple[Claim, ...]:
    """The claims that the runs can decide: none in a quick grid, which has one number of questions."""
    last = runs.arm(advice_arm("advised", BUDGETS["advised"][-1]))
    if not runs.arm(advice_arm("random", BUDGETS["random"][0])).runs:  # quick
        return ()
    numbers = {way: needed_by_seed(runs, way) for way in BUDGETS}
    expected = {seed: number - math.log10(odd_frac()) for seed, number in numbers["advised"].items()}
    return (
        claim_level(BREAKS, last, LEAK),
        paired_claim(ADVISED, numbers["advised"], numbers["balanced"]),
        paired_claim(BALANCED, numbers["balanced"], numbers["random"]),
        paired_claim(COUNTED, numbers["balanced"], expected),
    )


def draw_advice(runs: FinishedRuns) -> tuple[Figure, ...]:
    """Leak and read by number of further questions, a line for each way of choosing them."""

    def points() -> Iterator[Point]:
        for panel, value in ANSWERS:
            for way, budgets in BUDGETS.items():
                for budget in budgets:
                    yield from point(panel, way, budget, runs.arm(advice_arm(way, budget)), value)

    return (
        Figure(
            name="advice",
            title="Further questions, chosen in three ways",
            caption=f"Further questions beside those about {TARGET} of agreeing scenes, in place of others about {FILLER}: all arms ask "
            f"two questions a picture, of the same {NUM_PICTURES:,} pictures. Points are seeds, bars 95 % intervals over seeds.",
            x_title="further questions",
            y_title="share",
            y_range=(0.0, 1.0),
            joined=True,
            points=tuple(points()),
        ),
    )


ADVICE = Study(
    name="advice",
    question="Do advised questions break a shadow with fewer questions than balanced or random ones?",
    grid=advice_grid,
    judge=judge_advice,
    draw=draw_advice,
    notes=(
        f"In this world the advice for the sake of {TARGET} is to ask about it in scenes where {PROXY} does not follow it: the study says "
        "how much is saved by knowing which scenes these are.",
        "Where a way breaks nothing with the largest number that was asked, that number stands for what it needs, which favours it.",
    ),
)
