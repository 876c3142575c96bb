"""Study rivals: which objective keeps what no question asked for, which one breaks a shadow, and at what cost?

All arms ask the same questions of the same pictures in the same order, about shape of agreeing scenes alone; all but *plain* have mixed
attention and 2D positions, so that *mixed* is the control of the others. Statements and rules were written before any run of this study.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from theodolite.objectives.align import AlignConfig
from theodolite.objectives.interventional import InterventionalConfig
from theodolite.objectives.laver import LaverConfig
from theodolite.objectives.pixels import PixelsConfig
from theodolite.objectives.predict import PredictConfig
from theodolite.objectives.schedules import EMASchedule
from theodolite.objectives.views import ViewsConfig
from theodolite.objectives.visual import AuxiliaryConfig
from theodolite.records.study import Claim, Figure, GridRun, Point
from theodolite.stats.claims import Rule, Statement
from theodolite.studies.engine.arms import Arm
from theodolite.studies.engine.execute import Run
from theodolite.studies.engine.study import FinishedRuns, Study, Value, answered, claim_level, difference, point
from theodolite.studies.flip_setup import (
    ANSWERS,
    ESSAY,
    INERT,
    LEAK,
    MAIN,
    NUM_PICTURES,
    NUM_SCENES,
    PROXY,
    QUICK_STEPS,
    TARGET,
    TRIED_TEXT,
    policies,
    study_recipe,
)
from theodolite.training.recipe import Recipe
from theodolite.training.recipes import MIXED
from theodolite.worlds.shapes.world import Shapes

PAPER = "LaVer (arXiv 2512.06281)"
# Of 240 steps without mixed attention: leak 0.58 [0.48, 0.68], where next-token prediction alone had 0.99.
TRIED_PAIRS = "a one-seed trial before these runs, of fewer steps and without mixed attention"
PLAIN, CONTROL, LAVER = "plain", "mixed", "laver"
PAIRS = "interventional"
# Losses on what a picture shows, without any question; the sums of these with pairs.
RECONSTRUCTION = (LAVER, "pixels", "align", "predict", "views")
SUMS = (f"{LAVER}+{PAIRS}", f"pixels+{PAIRS}")
ARMS = (PLAIN, CONTROL, *RECONSTRUCTION, PAIRS, *SUMS)
QUICK_ARMS = (CONTROL, "pixels", PAIRS)
# As tiny-laver has it: the masked pass serves both losses, and the teacher's period is the published fraction of the run. The other
# heads are of its size, and the other teacher follows its schedule.
HEAD, EMA = 294, EMASchedule(every=0.016)
LAVER_SETTINGS = LaverConfig(branch="joint", head_hidden=HEAD, ema=EMA)
SETTINGS: Mapping[str, Any] = {
    "pixels": PixelsConfig(head_hidden=HEAD),
    "align": AlignConfig(head_hidden=HEAD),
    "predict": PredictConfig(head_hidden=HEAD),
    "views": ViewsConfig(head_hidden=HEAD, ema=EMA),
    PAIRS: InterventionalConfig(),
}
LAST = "layer.4"
# What counts: normalised accuracy of probes more than the control's, and leak.
MORE, BROKEN = 0.05, 0.5
SCENES_INSIDE = 100


def rival_recipe(name: str, quick: bool = False) -> Recipe:
    """The recipe of an arm: names of losses joined by "+"; *plain* and *mixed* have none."""
    recipe = study_recipe(QUICK_STEPS) if quick else study_recipe()
    if name == PLAIN:
        return recipe
    losses = {loss: SETTINGS[loss] for loss in name.split("+") if loss in SETTINGS}
    laver = LAVER_SETTINGS if LAVER in name.split("+") else None
    return replace(recipe, adaptation=MIXED, laver=laver, auxiliary=AuxiliaryConfig(**losses) if losses else None)


def rivals_grid(seeds: Sequence[int], quick: bool = False) -> tuple[Run, ...]:
    """Every arm at 0.8, with the ladder and the likeness of vision tokens; quick: three arms without them."""
    return objective_grid({name: rival_recipe(name, quick) for name in (QUICK_ARMS if quick else ARMS)}, seeds, quick)


def objective_grid(recipes: Mapping[str, Recipe], seeds: Sequence[int], quick: bool) -> tuple[Run, ...]:
    """An arm for each recipe, all asked alike: shape of agreeing scenes at 0.8; unless quick, they are looked at inside."""
    arms = [Arm(name, policies()["agree"], recipe, MAIN, NUM_PICTURES) for name, recipe in recipes.items()]
    inside: Mapping[str, Any] = {} if quick else {"measures": ("ladder", "likeness"), "inside_scenes": SCENES_INSIDE}
    return tuple(Run(Shapes.name, arm, seed, NUM_SCENES, official=False, survey_seed=seed, **inside) for seed in seeds for arm in arms)


def residue(line: GridRun) -> float | None:
    """Mean normalised accuracy of probes at the last layer, 0 to 1, over the factors that no question is about and nothing is tied to."""
    rungs = [line.decoded.get(name, {}).get(LAST) for name in INERT]
    return None if any(rung is None for rung in rungs) else float(np.mean(rungs))


def decoded(factor: str, site: str = LAST) -> Value:
    """Normalised accuracy of a factor's probe at a site, 0 to 1."""
    return lambda line: line.decoded.get(factor, {}).get(site)


def cosine(line: GridRun) -> float | None:
    """Mean cosine between a picture's vision tokens at the last layer, -1 to 1."""
    return line.cosine.get(LAST)


LEAKS = f"do({PROXY}) -> {TARGET} answer: share of pairs"
RESIDUE = f"normalised accuracy of probes at {LAST}, mean over {len(INERT)} factors that are not asked about, less that of {CONTROL}"
SHADOW = Statement(
    "shadow", "Without a visual loss colour is a shadow, with mixed attention too.", "flip", Rule("above", BROKEN), LEAKS, 3,
)  # fmt: skip


def _keeps(name: str) -> Statement:
    source = PAPER if name == LAVER else ESSAY
    return Statement(
        f"{name} keeps",
        f"{name} keeps more than mixed attention does of what no question is about.",
        source,
        Rule("above", MORE),
        RESIDUE,
        5,
    )


def _no_cure(name: str) -> Statement:
    text = f"{name} does not break the shadow: answers about shape go on to follow colour."
    known = name == LAVER
    return Statement(f"{name} cures nothing", text, TRIED_TEXT if known else ESSAY, Rule("above", BROKEN), LEAKS, 4, known)


def _cures(name: str) -> Statement:
    text = f"{name}: pairs of which only is said whether the truth moves break the shadow."
    known = name == PAIRS
    return Statement(f"{name} cures", text, TRIED_PAIRS if known else ESSAY, Rule("below", BROKEN), LEAKS, 4, known)


PAIRS_KEEP_NOTHING = Statement(
    f"{PAIRS} keeps no more", "Pairs keep no more than mixed attention does of what no question is about.", ESSAY, Rule("within", MORE),
    RESIDUE, 5,
)  # fmt: skip
LIKENESS = Statement(
    "likeness", "LaVer's vision tokens are less alike at the last layer than those of mixed attention alone.", PAPER, Rule("below", 0.0),
    f"mean cosine at {LAST}, {LAVER} less {CONTROL}", None,
)  # fmt: skip


def judge_rivals(runs: FinishedRuns) -> tuple[Claim, ...]:
    """The claims that the runs of the grid can decide: in a quick one, those about leaks alone."""
    control = runs.arm(CONTROL)
    claims = [claim_level(SHADOW, control, LEAK)]
    claims += [claim_level(_no_cure(name), runs.arm(name), LEAK) for name in RECONSTRUCTION if runs.arm(name).runs]
    claims += [claim_level(_cures(name), runs.arm(name), LEAK) for name in (PAIRS, *SUMS) if runs.arm(name).runs]
    if not runs.arm(LAVER).runs:  # quick
        return tuple(claims)
    claims += [difference(_keeps(name), runs.arm(name), control, residue) for name in (*RECONSTRUCTION, *SUMS)]
    claims.append(difference(PAIRS_KEEP_NOTHING, runs.arm(PAIRS), control, residue))
    claims.append(difference(LIKENESS, runs.arm(LAVER), control, cosine))
    return tuple(claims)


PANELS: tuple[tuple[str, Value], ...] = (
    *ANSWERS,
    (f"{TARGET} answered right, decorrelated scenes", answered(TARGET, "decorrelated")),
    ("probes of unasked factors, last layer", residue),
    (f"probe of {PROXY}, last layer", decoded(PROXY)),
    ("cosine of vision tokens, last layer", cosine),
)


def draw_rivals(runs: FinishedRuns) -> tuple[Figure, ...]:
    """Leak, read, accuracy, residue and likeness by objective."""
    return (objective_figure(runs, ARMS, name="rivals", title="Objectives beside the same questions", x_title="objective"),)


def objective_figure(runs: FinishedRuns, arms: Sequence[str], *, name: str, title: str, x_title: str) -> Figure:
    """The values of `PANELS` by arm."""

    def points() -> Iterator[Point]:
        for panel, value in PANELS:
            for arm in arms:
                yield from point(panel, "asked of agreeing scenes", arm, runs.arm(arm), value)

    return Figure(
        name=name,
        title=title,
        caption=f"All arms answer the same questions of the same {NUM_PICTURES:,} pictures, {TARGET} of agreeing scenes alone. Points "
        "are seeds, bars 95 % intervals over seeds.",
        x_title=x_title,
        y_title="share, normalised accuracy, cosine",
        y_range=(0.0, 1.0),
        joined=False,
        points=tuple(points()),
    )


RIVALS = Study(
    name="rivals",
    question="Which objective keeps what no question asked for, and which one breaks a shadow?",
    grid=rivals_grid,
    judge=judge_rivals,
    draw=draw_rivals,
    notes=(
        "Arms see the same pictures, questions, order and steps. They do not cost the same: docs/reference/objectives.md has the cost of a "
        "step of each. Pairs see partner pictures too, of which no answer is given.",
        "One world, one strength, one tower that was trained to tell every factor apart.",
    ),
)
