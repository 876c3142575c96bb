"""Control arms of the study flip: the missing cell of a two-by-two, target and proxy exchanged, and other vision towers.

Statements and rules were written before any of these runs. They were preceded by one-seed trials at strength 0.8 (`TRIED`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from theodolite.models.construction.frontends import FrontEnd
from theodolite.records.study import Claim, Figure, Point
from theodolite.stats.claims import Rule, Statement
from theodolite.studies.engine.arms import Arm
from theodolite.studies.engine.study import FinishedRuns, claim_level, difference, if_competent, moved_frac_of, point
from theodolite.studies.flip_setup import (
    ANSWERS,
    DIFFER,
    ESSAY,
    FILLER,
    LEAK,
    MAIN,
    NUM_PICTURES,
    PROXY,
    PROXY_READ,
    RARE,
    TARGET,
    TRIED_TEXT,
    policies,
    study_recipe,
)
from theodolite.training.recipe import Recipe

STRENGTHS = (MAIN, RARE)
# Strengths at which a trial of one seed had shown the outcome before these rules were written.
TRIED = (MAIN,)
BESIDE = "agree+colour"
SWAPPED, SWAPPED_ALL = "swap-agree", "swap-all"
# Front end, and whether its weights are trained with the rest, by the word in the arm's name.
TOWERS: dict[str, tuple[FrontEnd, bool]] = {
    "dct": ("dct", False),
    "random": ("conv-random", False),
    "patches": ("patches", False),
    "trained": ("conv-random", True),
}
TOWER_TEXTS = {
    "dct": "the low frequencies of patches, a fixed bank of filters",
    "random": "a tower with random weights",
    "patches": "raw patches of pixels",
    "trained": "a tower trained end to end from random weights",
}

SWAPPED_LEAK = if_competent(moved_frac_of(TARGET, PROXY, truth_moves=False), PROXY)


def control_policies() -> dict[str, str]:
    """The query policy of each control arm but those of towers: two questions a picture.

    *agree+colour* asks shape as *agree* does, and colour in place of the second filler: with *agree*, *all* and *both* it makes a
    two-by-two of what is asked of shape and whether colour is asked. *swap-agree* and *swap-all* are *agree* and *all* with target and
    proxy exchanged.
    """
    return {
        BESIDE: f"{TARGET}:agree,{FILLER}:odd,{PROXY}",
        SWAPPED: f"{PROXY}:agree,{FILLER}:odd,{FILLER}",
        SWAPPED_ALL: f"{PROXY},{FILLER}",
    }


def tower_recipe(tower: str) -> Recipe:
    """The study's recipe with another front end."""
    frontend, trained = TOWERS[tower]
    return replace(study_recipe(), frontend=frontend, tower="trained" if trained else "frozen")


def tower_arm(policy: str, tower: str) -> str:
    """Name of the arm that asks as *agree* or *all* does, on another tower."""
    return f"{policy}-{tower}"


def control_arms() -> tuple[Arm, ...]:
    """All control arms at both strengths; pictures, order and numbers of questions are those of flip's other arms."""
    plain = [
        Arm(name, policy, study_recipe(), strength, NUM_PICTURES) for strength in STRENGTHS for name, policy in control_policies().items()
    ]
    towers = [
        Arm(tower_arm(name, tower), policies()[name], tower_recipe(tower), strength, NUM_PICTURES)
        for strength in STRENGTHS
        for tower in TOWERS
        for name in ("agree", "all")
    ]
    return (*plain, *towers)


def _statement(name: str, text: str, rule: Rule, unit: str, strength: float, question: int = 3, known: bool | None = None) -> Statement:
    """A statement at one strength; its outcome was known before if a trial had shown it there."""
    known = strength in TRIED if known is None else known
    source = TRIED_TEXT if known else ESSAY
    return Statement(f"{name} at {strength:g}", f"{text} (strength {strength:g}).", source, rule, unit, question, known)


def judge_controls(shapes: FinishedRuns) -> tuple[Claim, ...]:
    """The claims about control arms, at both strengths; `shapes` are the runs of flip on the shapes world."""
    claims: list[Claim] = []
    for strength in STRENGTHS:
        claims += _two_by_two(shapes, strength)
    for strength in STRENGTHS:
        claims += _swap(shapes, strength)
    for strength in STRENGTHS:
        claims += [_tower(shapes, tower, strength) for tower in TOWERS]
    return tuple(claims)


def _two_by_two(shapes: FinishedRuns, strength: float) -> list[Claim]:
    """Asking about the proxy: beside shape of agreeing scenes, and beside shape of all scenes."""
    agree, beside, every, both = (shapes.arm(name, strength) for name in ("agree", BESIDE, "all", "both"))
    answer = f"do({PROXY}) -> {TARGET} answer"
    not_helped = _statement(
        "proxy asked",
        "Asking about the proxy does not help: asked of shape in agreeing scenes only, answers about shape follow colour as much "
        "when colour is asked of every scene as when it is never asked",
        Rule("within", 0.1),
        f"{answer}, agree less agree+colour: {DIFFER}",
        strength,
    )
    # The committed runs had shown both before these statements were written.
    panels = {
        MAIN: (
            "Of the essay's own panels (shape alone, shape and colour) neither shows a shadow: asked of all scenes, the leak of colour is "
            "the same with and without questions about colour",
            Rule("within", 0.1),
        ),
        RARE: ("Asking about colour too raises the leak of colour into answers about shape, where shape is asked of all scenes",
               Rule("above", 0.0)),
    }  # fmt: skip
    text, rule = panels[strength]
    raised = replace(
        _statement("all to both", text, rule, f"{answer}, both less all: {DIFFER}", strength, known=True), source="the runs of this study"
    )
    return [difference(not_helped, agree, beside, LEAK), difference(raised, both, every, LEAK)]


def _swap(shapes: FinishedRuns, strength: float) -> list[Claim]:
    """Target and proxy exchanged: at coverage 0 of both, which of the two tied factors is read?"""
    agree, swapped, covered = (shapes.arm(name, strength) for name in ("agree", SWAPPED, SWAPPED_ALL))
    answer = f"do({PROXY}) -> {PROXY} answer"
    read = _statement(
        "swap read",
        "Asked of colour in agreeing scenes only, colour is read although its coverage is 0: coverage says where nothing decides, "
        "and the easier factor is read there",
        Rule("above", 0.5),
        f"{answer} in swap-agree: share of pairs",
        strength,
        2,
    )
    same = _statement(
        "swap covered",
        "Asked of colour in all scenes, colour is read no better than asked of agreeing scenes only",
        Rule("within", 0.1),
        f"{answer}, swap-all less swap-agree: {DIFFER}",
        strength,
        2,
    )
    which = _statement(
        "salience",
        "At equal coverage (0) salience decides which factor answers follow: colour moves answers about shape, shape does not move "
        "answers about colour",
        Rule("above", 0.5),
        f"do({PROXY}) -> {TARGET} answer in agree less do({TARGET}) -> {PROXY} answer in swap-agree: {DIFFER}",
        strength,
    )
    return [
        claim_level(read, swapped, PROXY_READ),
        difference(same, covered, swapped, PROXY_READ),
        difference(which, agree, swapped, LEAK, SWAPPED_LEAK),
    ]


def _tower(shapes: FinishedRuns, tower: str, strength: float) -> Claim:
    agree, every = (shapes.arm(tower_arm(name, tower), strength) for name in ("agree", "all"))
    statement = _statement(
        f"tower {tower}",
        f"The flip does not rest on the tower: through {TOWER_TEXTS[tower]}, colour is a shadow asked of agreeing scenes, and not of all",
        Rule("above", 0.5),
        f"do({PROXY}) -> {TARGET} answer, agree less all: {DIFFER}",
        strength,
        known=False,
    )
    return difference(statement, agree, every, LEAK)


CELLS = {"agree": "agreeing scenes", BESIDE: "agreeing scenes, and colour", "all": "all scenes", "both": "all scenes, and colour"}


def draw_controls(shapes: FinishedRuns) -> tuple[Figure, ...]:
    """Leak and read in the two-by-two and by tower, at both strengths; no figure before the arms have runs."""
    figures = []
    if shapes.arm(BESIDE).pairs:
        figures.append(
            _figure(
                "flip-two-by-two",
                "What is asked of shape, and whether colour is asked",
                f"Share of counterfactual pairs in which the answer about {TARGET} moves.",
                "shape is asked of",
                tuple(_points(shapes, list(CELLS), CELLS)),
            )
        )
    arms = {tower_arm(policy, tower): f"{tower}: {policy}" for tower in TOWERS for policy in ("agree", "all")}
    if any(shapes.arm(name).pairs for name in arms):
        figures.append(
            _figure(
                "flip-towers",
                "The flip through other towers",
                "Share of counterfactual pairs in which the answer about shape moves, where shape is asked of agreeing scenes and of all; "
                + "; ".join(f"{tower}: {text}" for tower, text in TOWER_TEXTS.items())
                + ". Runs that answer at chance as in training are left out.",
                "tower, and what is asked",
                tuple(_points(shapes, list(arms), arms)),
            )
        )
    return tuple(figures)


def _points(shapes: FinishedRuns, arms: Sequence[str], names: dict[str, str]) -> Iterator[Point]:
    for panel, value in ANSWERS:
        for strength in STRENGTHS:
            for arm in arms:
                yield from point(panel, f"strength {strength:g}", names[arm], shapes.arm(arm, strength), value)


def _figure(name: str, title: str, caption: str, x_title: str, points: tuple[Point, ...]) -> Figure:
    return Figure(
        name=name,
        title=title,
        caption=f"{caption} Points are seeds, bars 95 % intervals over seeds. Pictures, order and number of questions are those of flip.",
        x_title=x_title,
        y_title="share of pairs in which the answer moves",
        y_range=(0.0, 1.0),
        joined=False,
        points=points,
    )
