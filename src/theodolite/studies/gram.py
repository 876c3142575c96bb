"""Study gram: is clipped Gram anchoring needed, and enough, where nothing but pictures is learned?

Masked latent prediction on raw patches by a decoder with bidirectional attention among vision tokens, without any loss on answers, at
three widths and three numbers of pictures. Statements and rules were written before any run of this study.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from theodolite.objectives.gram import Form
from theodolite.records.study import Claim, Figure, Point
from theodolite.stats.claims import Rule, Statement
from theodolite.studies.engine.arms import Arm
from theodolite.studies.engine.execute import Run
from theodolite.studies.engine.study import FinishedRuns, Study, Value, claim_level, difference, paired_claim, point
from theodolite.studies.flip_setup import ESSAY, INERT, MAIN, NUM_PICTURES, NUM_SCENES, QUICK_STEPS, policies, study_recipe
from theodolite.studies.lock import HEAD_WIDTH
from theodolite.studies.rivals import HEAD, LAST, LAVER_SETTINGS, MORE, PAPER, SCENES_INSIDE, cosine, residue
from theodolite.training.recipe import Recipe
from theodolite.training.recipes import MIXED
from theodolite.worlds.shapes.world import Shapes

FORMS: tuple[Form, ...] = ("none", "symmetric", "clipped")
START = "start"
WIDTH = 128
APART, COLLAPSED = 0.1, 0.9


@dataclass(frozen=True)
class Scale:
    """A width of the decoder and a number of pictures; every scale makes as many visits to pictures."""

    width: int
    num_pictures: int

    @property
    def name(self) -> str:
        return f"width {self.width}, {self.num_pictures:,} pictures"


SCALES = (Scale(64, NUM_PICTURES), Scale(WIDTH, NUM_PICTURES), Scale(256, NUM_PICTURES), Scale(WIDTH, 600), Scale(WIDTH, 3_000))
BASE = SCALES[1]


def gram_recipe(scale: Scale, form: Form | None, quick: bool = False) -> Recipe:
    """The recipe of an arm; without a form of Gram anchoring the model is left where it starts, but for one step."""
    recipe = study_recipe(QUICK_STEPS) if quick else study_recipe()
    decoder = replace(recipe.decoder, width=scale.width, num_heads=scale.width // HEAD_WIDTH)
    head = round(HEAD * scale.width / WIDTH)
    laver = replace(LAVER_SETTINGS, language_weight=0.0, gram=form or "clipped", head_hidden=head)
    recipe = replace(recipe, frontend="patches", decoder=decoder, adaptation=MIXED, laver=laver)
    return recipe if form else replace(recipe, steps=1)


def gram_arm(scale: Scale, form: Form | None) -> str:
    """Name of an arm."""
    return f"{form or START}, {scale.name}"


def gram_grid(seeds: Sequence[int], quick: bool = False) -> tuple[Run, ...]:
    """Every form at every scale, and each width before training; quick: no anchoring and clipped anchoring at the base."""
    arms: list[tuple[Scale, Form | None]] = [(scale, form) for scale in SCALES for form in FORMS]
    arms += [(scale, None) for scale in SCALES if scale.num_pictures == NUM_PICTURES]
    if quick:
        arms = [(BASE, "none"), (BASE, "clipped")]
    inside: Mapping[str, Any] = {"measures": ("likeness",) if quick else ("ladder", "likeness"), "inside_scenes": SCENES_INSIDE}
    return tuple(
        Run(
            Shapes.name,
            Arm(gram_arm(scale, form), policies()["agree"], gram_recipe(scale, form, quick), MAIN, scale.num_pictures, among=scale.name),
            seed,
            NUM_SCENES,
            official=False,
            survey_seed=seed,
            **inside,
        )
        for seed in seeds
        for scale, form in arms
    )


PROBES = f"normalised accuracy of probes at {LAST}, mean over {len(INERT)} factors"
ALIKE = f"mean cosine between a picture's vision tokens at {LAST}"


def _needed(scale: Scale) -> Statement:
    text = f"Without anchoring vision tokens collapse ({scale.name}): they end more alike than with clipped anchoring."
    return Statement(f"needed, {scale.name}", text, PAPER, Rule("above", APART), f"{ALIKE}, none less clipped", None)


def _enough(scale: Scale) -> Statement:
    text = f"Clipped anchoring is enough against collapse ({scale.name})."
    return Statement(f"enough, {scale.name}", text, PAPER, Rule("below", COLLAPSED), f"{ALIKE}, clipped", None)


def _better(scale: Scale) -> Statement:
    text = f"Clipped anchoring keeps more than symmetric anchoring ({scale.name})."
    return Statement(f"beyond symmetric, {scale.name}", text, PAPER, Rule("above", 0.0), f"{PROBES}, clipped less symmetric", None)


def _keeps(scale: Scale) -> Statement:
    text = f"Clipped anchoring keeps more of the factors than none ({scale.name})."
    return Statement(f"keeps, {scale.name}", text, PAPER, Rule("above", MORE), f"{PROBES}, clipped less none", None)


LEARNS = Statement(
    "learns", "Masked latent prediction with clipped anchoring keeps more of the factors than the model did before training.", PAPER,
    Rule("above", 0.0), f"{PROBES}, clipped less {START}, {BASE.name}", None,
)  # fmt: skip
SCALES_UP = Statement(
    "scales", "What clipped anchoring adds to what a model keeps grows with its width.", ESSAY, Rule("above", 0.0),
    f"{PROBES}, clipped less {START}, width 256 less width 64", None,
)  # fmt: skip


def judge_gram(runs: FinishedRuns) -> tuple[Claim, ...]:
    """The claims that the runs can decide: in a quick grid, those about likeness alone."""

    def of(scale: Scale, form: Form | None) -> FinishedRuns:
        return runs.arm(gram_arm(scale, form))

    scales = [scale for scale in SCALES if of(scale, "clipped").runs]
    claims = [difference(_needed(scale), of(scale, "none"), of(scale, "clipped"), cosine) for scale in scales]
    claims += [claim_level(_enough(scale), of(scale, "clipped"), cosine) for scale in scales]
    if not of(BASE, "symmetric").runs:  # quick
        return tuple(claims)
    claims += [difference(_better(scale), of(scale, "clipped"), of(scale, "symmetric"), residue) for scale in scales]
    claims += [difference(_keeps(scale), of(scale, "clipped"), of(scale, "none"), residue) for scale in scales]
    claims.append(difference(LEARNS, of(BASE, "clipped"), of(BASE, None), residue))
    gains = [_gain(of(scale, "clipped"), of(scale, None)) for scale in (SCALES[2], SCALES[0])]
    return (*claims, paired_claim(SCALES_UP, *gains))


def _gain(trained: FinishedRuns, start: FinishedRuns) -> dict[int, float]:
    """What training adds to the probes, by seed."""
    before = start.by_seed(residue)
    return {seed: value - before[seed] for seed, value in trained.by_seed(residue).items() if seed in before}


PANELS: Mapping[str, Value] = {"cosine of vision tokens, last layer": cosine, "probes, last layer": residue}


def draw_gram(runs: FinishedRuns) -> tuple[Figure, ...]:
    """Likeness and probes by scale, a colour for each form."""

    def points() -> Iterator[Point]:
        for panel, value in PANELS.items():
            for form in (*FORMS, None):
                for scale in SCALES:
                    yield from point(panel, form or START, scale.name, runs.arm(gram_arm(scale, form)), value)

    return (
        Figure(
            name="gram",
            title="Masked latent prediction on pictures alone",
            caption="No loss on answers; raw patches, attention in both directions among vision tokens. All scales make as many visits to "
            "pictures. Points are seeds, bars 95 % intervals over seeds.",
            x_title="scale",
            y_title="cosine, normalised accuracy",
            y_range=(0.0, 1.0),
            joined=False,
            points=tuple(points()),
        ),
    )


GRAM = Study(
    name="gram",
    question="Is clipped Gram anchoring needed, and enough, where nothing but pictures is learned?",
    grid=gram_grid,
    judge=judge_gram,
    draw=draw_gram,
    learns_answers=False,
    notes=(
        "The questions of the recipe are read and have weight 0 in the loss, so answers are at chance; no claim is about them.",
        f"{START} is the model after one step. Scales are a few hundred thousand parameters to a few million: larger ones are not run.",
    ),
)
