"""Study frontier: what can no question say, and does any objective keep it?

The runs of rivals are read by kind of factor: asked about; not asked about, tied to the target or free; and one that no question can
name, the sheen of the ground. There it is free; the runs of this study tie it to the target, as colour is tied there. Statements and
rules were written before any run of either study.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from theodolite.records.study import Claim, Figure, GridRun, Point
from theodolite.stats.claims import Rule, Statement, over_seeds
from theodolite.studies.engine.execute import Run
from theodolite.studies.engine.study import (
    FinishedRuns,
    Study,
    Value,
    claim_level,
    difference,
    if_competent,
    moved_frac_of,
    paired_claim,
    point,
    point_of,
)
from theodolite.studies.flip_setup import ESSAY, FILLER, INERT, NUM_PICTURES, PROXY, TARGET
from theodolite.studies.rivals import ARMS, CONTROL, LAST, LAVER, MORE, PAIRS, RECONSTRUCTION, SUMS, objective_grid, rival_recipe

UNSAYABLE = "sheen"
# Factors by what questions say of them in the runs of rivals.
KINDS: Mapping[str, tuple[str, ...]] = {
    "asked": (TARGET, FILLER),
    "tied": (PROXY,),
    "free": tuple(name for name in INERT if name != UNSAYABLE),
    "unsayable": (UNSAYABLE,),
}
# The arms in which the unsayable factor is tied, fewer than those of rivals: the grid would take another evening.
TIED_ARMS = (CONTROL, LAVER, "pixels", "predict", PAIRS)
QUICK_ARMS = (CONTROL, PAIRS)
KEEPING = (*RECONSTRUCTION, PAIRS, *SUMS)
ENCODER = "encoder"
LEAKING = 0.1
LEAK = if_competent(moved_frac_of(UNSAYABLE, TARGET, truth_moves=False), TARGET)


def frontier_grid(seeds: Sequence[int], quick: bool = False) -> tuple[Run, ...]:
    """The arms in which the unsayable factor is tied to the target; quick: two of them, not looked at inside."""
    recipes = {name: rival_recipe(name, quick) for name in (QUICK_ARMS if quick else TIED_ARMS)}
    return tuple(replace(run, correlation=(TARGET, UNSAYABLE)) for run in objective_grid(recipes, seeds, quick))


def kept(kind: str) -> Value:
    """Mean normalised accuracy of probes at the last layer, 0 to 1, over the factors of a kind."""
    return lambda line: _mean_decoded(line, kind, LAST)


def lost(kind: str) -> Value:
    """How far the same falls from the encoder to the last layer, -1 to 1."""

    def value(line: GridRun) -> float | None:
        ends = [_mean_decoded(line, kind, site) for site in (ENCODER, LAST)]
        return None if ends[0] is None or ends[1] is None else ends[0] - ends[1]

    return value


def _mean_decoded(line: GridRun, kind: str, site: str) -> float | None:
    rungs = [line.decoded.get(name, {}).get(site) for name in KINDS[kind]]
    return None if any(rung is None for rung in rungs) else float(np.mean(rungs))


PROBES = f"normalised accuracy of probes at {LAST}"
FALL = f"fall of the probes' normalised accuracy from the encoder to {LAST}, {CONTROL}"
LOST = Statement(
    "unasked lost", "On the way to the last layer more is lost of what no question is about than of what is asked.", ESSAY,
    Rule("above", MORE), f"{FALL}: free factors less asked ones", 5,
)  # fmt: skip
UNSAYABLE_LOST = Statement(
    "unsayable lost", "So it is with what no question can say.", ESSAY, Rule("above", MORE), f"{FALL}: {UNSAYABLE} less asked factors", 5,
)  # fmt: skip
ALIKE = Statement(
    "as unasked", "What no question can say fares as what no question happens to ask.", ESSAY, Rule("within", MORE),
    f"{FALL}: {UNSAYABLE} less free factors", 5,
)  # fmt: skip
TIE_KEEPS = Statement(
    "a tie keeps", "What no question can say is kept where it is tied to what is asked.", ESSAY, Rule("above", MORE),
    f"{PROBES} of {UNSAYABLE}, {CONTROL}: tied less free", 5,
)  # fmt: skip
UNSAYABLE_SHADOW = Statement(
    "unsayable shadow", "What no question can say can be a shadow: tied to the target, it moves answers about it.", ESSAY,
    Rule("above", LEAKING), f"do({UNSAYABLE}) -> {TARGET} answer: share of pairs, {CONTROL}, tied", 5,
)  # fmt: skip
CURE = Statement(
    "pairs cure it", "Pairs break a shadow that no question can name.", ESSAY, Rule("below", 0.0),
    f"do({UNSAYABLE}) -> {TARGET} answer: share of pairs, tied, {PAIRS} less {CONTROL}", 5,
)  # fmt: skip


def _keeps(name: str, *, tied: bool) -> Statement:
    where = ", tied" if tied else ""
    text = f"{name} keeps more than mixed attention does of what no question can say{', tied to what is asked' if tied else ''}."
    return Statement(f"{name} keeps{where}", text, ESSAY, Rule("above", MORE), f"{PROBES} of {UNSAYABLE}{where}, less that of {CONTROL}", 5)


def judge_frontier(runs: FinishedRuns) -> tuple[Claim, ...]:
    """The claims that the runs can decide: in a quick grid, those about leaks alone."""
    control, pairs = runs.arm(CONTROL), runs.arm(PAIRS)
    leaks = (claim_level(UNSAYABLE_SHADOW, control, LEAK), difference(CURE, pairs, control, LEAK))
    if not runs.arm(LAVER).runs:  # quick
        return leaks
    falls = {kind: runs.of_others(CONTROL, lost(kind)) for kind in KINDS}
    unsayable = kept("unsayable")
    free = runs.of_others(CONTROL, unsayable)
    return (
        paired_claim(LOST, falls["free"], falls["asked"]),
        paired_claim(UNSAYABLE_LOST, falls["unsayable"], falls["asked"]),
        paired_claim(ALIKE, falls["unsayable"], falls["free"]),
        *(paired_claim(_keeps(name, tied=False), runs.of_others(name, unsayable), free) for name in KEEPING),
        paired_claim(TIE_KEEPS, control.by_seed(unsayable), free),
        *leaks,
        *(difference(_keeps(name, tied=True), runs.arm(name), control, unsayable) for name in TIED_ARMS if name != CONTROL),
    )


def draw_frontier(runs: FinishedRuns) -> tuple[Figure, ...]:
    """What probes decode at the last layer, by objective and kind of factor."""
    panels = {f"{kind}: {', '.join(names)}": kind for kind, names in KINDS.items()}

    def points() -> Iterator[Point]:
        for panel, kind in panels.items():
            for arm in ARMS:
                numbers = runs.of_others(arm, kept(kind))
                if numbers:
                    yield point_of(panel, "runs of rivals", arm, over_seeds(numbers), numbers)
        for arm in TIED_ARMS:
            yield from point(f"unsayable, tied: {UNSAYABLE}", f"{UNSAYABLE} tied to {TARGET}", arm, runs.arm(arm), kept("unsayable"))

    return (
        Figure(
            name="frontier",
            title="What objectives keep, by what questions say of it",
            caption=f"Normalised accuracy of probes at {LAST}, mean over the factors of a kind. All arms answer the same questions of "
            f"{NUM_PICTURES:,} pictures, {TARGET} of agreeing scenes alone. Points are seeds, bars 95 % intervals over seeds.",
            x_title="objective",
            y_title="normalised accuracy",
            y_range=(0.0, 1.0),
            joined=False,
            points=tuple(points()),
        ),
    )


FRONTIER = Study(
    name="frontier",
    question="What can no question say, and does any objective keep it?",
    grid=frontier_grid,
    judge=judge_frontier,
    draw=draw_frontier,
    reads=("rivals",),
    notes=(
        f"{UNSAYABLE} has three values and {TARGET} four: where they are tied two values of {TARGET} share one, so {TARGET} is not wholly "
        "confounded.",
        f"Where {UNSAYABLE} is tied the grid has {len(TIED_ARMS)} of the {len(ARMS)} arms of rivals: it was thinned in arms, not in seeds.",
        "The front end is a tower that was trained to tell every factor apart. That a probe decodes a factor does not say that answers use "
        "it.",
    ),
)
