"""Study laver: does LaVer keep what no question asked for, and which part of it does?

All arms ask the same questions of the same pictures in the same order, about shape of agreeing scenes alone. Statements and rules were
written before any run of this study.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from theodolite.models.forward import Adaptation
from theodolite.objectives.laver import LaverConfig
from theodolite.records.study import Claim, Figure, GridRun
from theodolite.stats.claims import Rule, Statement, difference_over_seeds, judge_claim
from theodolite.studies.engine.execute import Run
from theodolite.studies.engine.study import FinishedRuns, Study, Value, claim_level, difference
from theodolite.studies.flip_setup import ESSAY, INERT, LEAK, QUICK_STEPS, TRIED_TEXT, study_recipe
from theodolite.studies.rivals import BROKEN, LAST, LAVER_SETTINGS, LEAKS, MORE, PAPER, cosine, objective_figure, objective_grid, residue
from theodolite.training.recipe import Recipe
from theodolite.training.recipes import MIXED

PLAIN, CONTROL, JOINT, SEPARATE = "plain", "mixed", "joint", "separate"
# Changes to the model by arm, without a visual loss; then LaVer's settings by arm, each with the control's changes.
ADAPTATIONS: Mapping[str, Adaptation] = {
    PLAIN: Adaptation(),
    "mixed-1d": Adaptation("mixed", "native"),
    "2d": Adaptation("native", "2d"),
    CONTROL: MIXED,
}
LAVERS: Mapping[str, LaverConfig] = {
    "mim": replace(LAVER_SETTINGS, gram="none"),
    "symmetric": replace(LAVER_SETTINGS, gram="symmetric"),
    JOINT: LAVER_SETTINGS,
    SEPARATE: replace(LAVER_SETTINGS, branch="separate"),
    f"{JOINT}-kaiming": replace(LAVER_SETTINGS, head_init="kaiming"),
    f"{SEPARATE}-kaiming": replace(LAVER_SETTINGS, head_init="kaiming", branch="separate"),
}
# Arms that are run on raw patches too, in place of the tower that was trained to tell every factor apart.
PATCHES = "-patches"
ON_PATCHES = (PLAIN, CONTROL, JOINT)
ARMS = (*ADAPTATIONS, *LAVERS, *(name + PATCHES for name in ON_PATCHES))
KEEPING = (JOINT, SEPARATE, f"{JOINT}-kaiming", f"{SEPARATE}-kaiming")
QUICK_ARMS = (CONTROL, JOINT)
LANGUAGE_LINE = 0.005


def laver_recipe(name: str, quick: bool = False) -> Recipe:
    """The recipe of an arm."""
    recipe = study_recipe(QUICK_STEPS) if quick else study_recipe()
    base = name.removesuffix(PATCHES)
    recipe = replace(recipe, adaptation=ADAPTATIONS.get(base, MIXED), laver=LAVERS.get(base))
    return recipe if base == name else replace(recipe, frontend="patches")


def laver_grid(seeds: Sequence[int], quick: bool = False) -> tuple[Run, ...]:
    """Every arm at 0.8, with the ladder and the likeness of vision tokens; quick: two arms without them."""
    return objective_grid({name: laver_recipe(name, quick) for name in (QUICK_ARMS if quick else ARMS)}, seeds, quick)


def growth(line: GridRun) -> float | None:
    """How much more alike a picture's vision tokens are at the last layer than behind the connector: difference of mean cosines."""
    ends = [line.cosine.get(site) for site in (LAST, "connector")]
    return None if ends[0] is None or ends[1] is None else ends[0] - ends[1]


def language_loss(line: GridRun) -> float:
    """Mean loss of the answers over the last tenth of training, nats a token."""
    return line.final_loss


RESIDUE = f"normalised accuracy of probes at {LAST}, mean over {len(INERT)} factors that are not asked about"
ALIKE = Statement(
    "alike", "Under next-token prediction alone a picture's vision tokens grow alike through the language model.", PAPER,
    Rule("above", 0.0), f"mean cosine at {LAST} less that behind the connector, {PLAIN}", None,
)  # fmt: skip
MIM = Statement(
    "mim collapses", "Without Gram anchoring the masked latent loss ends with vision tokens more alike than without any visual loss.",
    PAPER, Rule("above", 0.0), f"mean cosine at {LAST}, mim less {CONTROL}", None,
)  # fmt: skip
CLIPPED = Statement(
    "clipped", "Clipped Gram anchoring keeps more of what no question is about than symmetric anchoring.", PAPER, Rule("above", 0.0),
    f"{RESIDUE}, {JOINT} less symmetric", 5,
)  # fmt: skip
LANGUAGE = Statement(
    "language kept", "LaVer's loss of the answers is at most half a per cent above that of the control.", PAPER,
    Rule("below", LANGUAGE_LINE), f"loss of the answers at the end, {SEPARATE} over {CONTROL}, less 1", None,
)  # fmt: skip
HALF = Statement(
    "half", "Mixed attention with 2D positions alone makes half of LaVer's gain over plain next-token prediction.", PAPER,
    Rule("within", MORE), f"gain of {CONTROL} less half of the gain of {SEPARATE}; {RESIDUE}", None,
)  # fmt: skip
ON_RAW = Statement(
    "keeps on patches", "On raw patches, where the encoder keeps everything, LaVer keeps more than mixed attention does.", ESSAY,
    Rule("above", MORE), f"{RESIDUE}, {JOINT}{PATCHES} less {CONTROL}{PATCHES}", 5,
)  # fmt: skip


def _keeps(name: str) -> Statement:
    text = f"LaVer ({name}) keeps more than mixed attention does of what no question is about."
    return Statement(f"{name} keeps", text, PAPER, Rule("above", MORE), f"{RESIDUE}, less that of {CONTROL}", 5)


def _no_cure(name: str) -> Statement:
    text = f"LaVer ({name}) does not break the shadow: answers about shape go on to follow colour."
    known = name == JOINT
    return Statement(f"{name} cures nothing", text, TRIED_TEXT if known else ESSAY, Rule("above", BROKEN), LEAKS, 4, known)


def judge_laver(runs: FinishedRuns) -> tuple[Claim, ...]:
    """The claims that the runs of the grid can decide: in a quick one, that about the leak of one arm alone."""
    control = runs.arm(CONTROL)
    if not runs.arm(PLAIN).runs:  # quick
        return (claim_level(_no_cure(JOINT), runs.arm(JOINT), LEAK),)
    return (
        claim_level(ALIKE, runs.arm(PLAIN), growth),
        difference(MIM, runs.arm("mim"), control, cosine),
        difference(CLIPPED, runs.arm(JOINT), runs.arm("symmetric"), residue),
        _of_arms(LANGUAGE, runs, (SEPARATE, CONTROL), language_loss, lambda laver, mixed: laver / mixed - 1),
        _of_arms(HALF, runs, (PLAIN, CONTROL, SEPARATE), residue, lambda plain, mixed, laver: (mixed - plain) - (laver - plain) / 2),
        *(difference(_keeps(name), runs.arm(name), control, residue) for name in KEEPING),
        difference(ON_RAW, runs.arm(JOINT + PATCHES), runs.arm(CONTROL + PATCHES), residue),
        *(claim_level(_no_cure(name), runs.arm(name), LEAK) for name in (JOINT, SEPARATE)),
    )


def _of_arms(statement: Statement, runs: FinishedRuns, names: Sequence[str], value: Value, combined: Callable[..., float]) -> Claim:
    """A claim about a number that is computed, seed by seed, from a value of several arms; seeds that lack one are left out."""
    by_arm = [runs.arm(name).by_seed(value) for name in names]
    seeds = sorted(set.intersection(*(set(each) for each in by_arm)))
    numbers = {seed: combined(*(each[seed] for each in by_arm)) for seed in seeds}
    estimate, by_seed = difference_over_seeds(numbers, dict.fromkeys(seeds, 0.0), min(runs.arm(name).num_scenes for name in names))
    return judge_claim(statement, estimate, by_seed, sum(len(runs.arm(name).pairs) for name in names))


def draw_laver(runs: FinishedRuns) -> tuple[Figure, ...]:
    """Leak, read, accuracy, residue and likeness by arm."""
    return (objective_figure(runs, ARMS, name="laver", title="LaVer and its parts beside the same questions", x_title="arm"),)


LAVER = Study(
    name="laver",
    question="Does LaVer keep what no question asked for, and which part of it does?",
    grid=laver_grid,
    judge=judge_laver,
    draw=draw_laver,
    notes=(
        "mim, symmetric, joint and the arm on patches run one masked pass for both losses; separate is the paper's, with a pass over the "
        "masked pictures alone. Steps are the same, their cost is not: docs/reference/objectives.md.",
        "The paper's claim of half the gain is about benchmarks of answers; here it is put to the probes of what no question is about.",
    ),
)
