"""Study flip: does a factor's status depend on the questions alone? Pictures, order and number of questions stay; the policy changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from theodolite.records.study import Claim, Figure, GridRun, Point
from theodolite.stats.claims import Rule, Statement, judge_claim, over_seeds
from theodolite.studies.engine.arms import Arm, easy_vqa_arms
from theodolite.studies.engine.execute import Run
from theodolite.studies.engine.study import FinishedRuns, Study, answered, claim_level, difference, if_competent, moved_frac_of, point
from theodolite.studies.flip_controls import control_arms, draw_controls, judge_controls
from theodolite.studies.flip_setup import (
    ANSWERS,
    DIFFER,
    ESSAY,
    INERT,
    LEAK,
    MAIN,
    NUM_PICTURES,
    NUM_SCENES,
    PROXY,
    PROXY_READ,
    QUICK_STEPS,
    RARE,
    READ,
    STEPS,
    STRENGTHS,
    TARGET,
    TRIAL,
    policies,
    study_recipe,
)
from theodolite.worlds.easy_vqa.world import EasyVQA
from theodolite.worlds.shapes.world import Shapes


def flip_grid(seeds: Sequence[int], quick: bool = False) -> tuple[Run, ...]:
    """The runs of `first_grid`, then the control arms (`flip_controls`), seed by seed; quick: agree and all at 0.8 only."""
    controls = () if quick else control_arms()
    runs = first_grid(seeds, quick)
    return tuple(
        run
        for seed in seeds
        for run in (*(run for run in runs if run.seed == seed), *(_run(Shapes.name, arm, seed, quick) for arm in controls))
    )


def first_grid(seeds: Sequence[int], quick: bool = False) -> tuple[Run, ...]:
    """Every arm at 0.8, the main arms at every strength, and the three policies of easy-VQA's tour; quick: agree and all at 0.8 only.

    The arms with more questions about odd scenes run at 0.95 too, where such scenes are rare. At strength 1 there are none, so *agree* and
    *all* are the same policy.
    """
    recipe = study_recipe(QUICK_STEPS if quick else STEPS)
    arms = [
        Arm(name, policy, recipe, strength, NUM_PICTURES)
        for strength in STRENGTHS
        for name, policy in policies().items()
        if name in (("agree", "all") if quick and strength == MAIN else () if quick else _arms_at(strength))
    ]
    official = () if quick else tuple(arm for arm in easy_vqa_arms(MAIN) if arm.source == "policy")
    return tuple(
        _run(world, arm, seed, quick)
        for seed in seeds
        for world, members in ((Shapes.name, arms), (EasyVQA.name, official))
        for arm in members
    )


def _run(world: str, arm: Arm, seed: int, quick: bool) -> Run:
    return Run(world, arm, seed, NUM_SCENES, measures=() if quick else ("gap",), official=False, survey_seed=seed)


def _arms_at(strength: float) -> Sequence[str]:
    if strength == MAIN:
        return tuple(policies())
    return {1.0: ("all", "both"), RARE: ("agree", "all", "both", "odd2", "odd4")}.get(strength, ("agree", "all", "both"))


def inert_leak(line: GridRun) -> float | None:
    """Largest leak of the `INERT` factors into the target's answer, above its noise, 0 to 1."""
    leaks = [number for name in INERT if (number := if_competent(moved_frac_of(name, TARGET, truth_moves=False), TARGET)(line)) is not None]
    return max(max(leaks) - line.noise.get(TARGET, 0.0), 0.0) if leaks else None


def _inert(shapes: FinishedRuns) -> Claim:
    """The claim about inert factors: the larger leak of two arms, seed by seed."""
    arms = [shapes.arm(name, MAIN) for name in ("agree", "both")]
    one, other = (arm.by_seed(inert_leak) for arm in arms)
    by_seed = {seed: max(one[seed], other[seed]) for seed in sorted(one.keys() & other.keys())}
    estimate = over_seeds(by_seed, min(arm.num_scenes for arm in arms)) if by_seed else None
    return judge_claim(RESIDUE, estimate, by_seed, sum(len(arm.pairs) for arm in arms))


SHADOW = Statement(
    "shadow",
    "Asked of agreeing scenes only, colour is a shadow: answers about shape follow it, and asked of all scenes they do not "
    "(strength 0.8, the same pictures).",
    ESSAY, Rule("above", 0.5), f"do(colour) -> shape answer, agree less all: {DIFFER}", 3, known=True,
)  # fmt: skip
READS = Statement(
    "reads", "With the same change of questions, shape goes from unread to read (strength 0.8).",
    ESSAY, Rule("above", 0.5), f"do(shape) -> shape answer, all less agree: {DIFFER}", 2, known=True,
)  # fmt: skip
IDENTIFIED = Statement(
    "identified", "Asked about shape and colour in all scenes, answers about shape no longer follow colour (strength 0.8). Two things "
    "change at once: all, which never asks about colour, gives the same, so the questions about shape of odd scenes do it.",
    ESSAY, Rule("above", 0.5), f"do(colour) -> shape answer, agree less both: {DIFFER}", 3,
)  # fmt: skip
COLOUR_READ = Statement(
    "colour read", "Asked about shape and colour in all scenes, colour is read (strength 0.8).",
    ESSAY, Rule("above", 0.5), "do(colour) -> colour answer in both: share of pairs", 2,
)  # fmt: skip
RESIDUE = Statement(
    "inert residue",
    "A factor that is correlated with nothing and that no question is about leaks little in the arms agree and both (strength 0.8).",
    ESSAY, Rule("below", 0.1), "largest leak of such a factor into the shape answer above noise, in agree or both: share of pairs", 3,
)  # fmt: skip
ENTANGLED = Statement(
    "entangled", "Where shape and colour are one (strength 1), asking about both changes nothing: colour leaks all the same.",
    TRIAL, Rule("within", 0.1), f"do(colour) -> shape answer, all less both: {DIFFER}", 3, known=True,
)  # fmt: skip
ENTANGLED_LEAK = Statement(
    "entangled leak", "And there it leaks into nearly every answer about shape, although colour is asked and read.",
    TRIAL, Rule("above", 0.9), "do(colour) -> shape answer in both at strength 1: share of pairs", 3, known=True,
)  # fmt: skip
QUESTIONS_ONLY = Statement(
    "questions only", "Pictures without any correlation will do: asking only of agreeing scenes makes the shadow by itself (strength 0).",
    ESSAY, Rule("above", 0.5), f"do(colour) -> shape answer, agree less all: {DIFFER}", 3,
)  # fmt: skip
ODD = Statement(
    "odd scenes", "Where the correlation is strong (0.95), asking odd scenes four times as often frees shape of colour sooner. The arm "
    "is confounded: it asks about shape 0.56 times a picture, all asks once.",
    ESSAY, Rule("above", 0.05), f"do(colour) -> shape answer, all less odd4: {DIFFER}", 4,
)  # fmt: skip
CONJUNCTIONS = Statement(
    "conjunctions", "Questions that join both factors make shape be read without asking about it alone (strength 0.8). The arm could "
    "not test this: wording alone answers 0.82 to 0.85 of its questions, and no run learned more than to say no.",
    ESSAY, Rule("above", 0.5), "do(shape) -> conjunction answer where the truth moves: share of pairs", 4,
)  # fmt: skip
EASY = Statement(
    "easy-VQA", "On easy-VQA's own pictures and questions, where every arm asks about colour too, answers about shape follow colour asked "
    "of agreeing scenes, and not asked of all: entangled, not a shadow (382 pictures, strength 0.8; a model that reads colour alone would "
    "follow it in 0.75 of pairs there).",
    ESSAY, Rule("above", 0.5), f"do(colour) -> shape answer, agree less all: {DIFFER}", 3, known=True,
)  # fmt: skip


def judge_flip(runs: FinishedRuns) -> tuple[Claim, ...]:
    """The claims that the runs of the grid can decide."""
    shapes = runs.where(lambda run: run.world == Shapes.name)
    easy = runs.where(lambda run: run.world == EasyVQA.name)
    joined = f"{TARGET}&{PROXY}"
    conjunction = if_competent(moved_frac_of(TARGET, joined, truth_moves=True, form="conjunction"), joined, "conjunction")
    claims = [
        difference(SHADOW, shapes.arm("agree", MAIN), shapes.arm("all", MAIN), LEAK),
        difference(READS, shapes.arm("all", MAIN), shapes.arm("agree", MAIN), READ),
    ]
    if not shapes.arm("both").runs:  # quick
        return tuple(claims)
    return (
        *claims,
        difference(IDENTIFIED, shapes.arm("agree", MAIN), shapes.arm("both", MAIN), LEAK),
        claim_level(COLOUR_READ, shapes.arm("both", MAIN), PROXY_READ),
        _inert(shapes),
        difference(ENTANGLED, shapes.arm("all", 1.0), shapes.arm("both", 1.0), LEAK),
        claim_level(ENTANGLED_LEAK, shapes.arm("both", 1.0), LEAK),
        difference(QUESTIONS_ONLY, shapes.arm("agree", 0.0), shapes.arm("all", 0.0), LEAK),
        difference(ODD, shapes.arm("all", RARE), shapes.arm("odd4", RARE), LEAK),
        claim_level(CONJUNCTIONS, shapes.arm("conjunctions", MAIN), conjunction),
        difference(EASY, easy.arm("agree"), easy.arm("all"), LEAK),
        *judge_controls(shapes),
    )


ASKED = {
    "agree": f"agree: {TARGET} of agreeing scenes",
    "all": f"all: {TARGET} of all scenes",
    "both": f"both: {TARGET} and {PROXY} of all scenes",
    "odd": "odd: again of odd scenes",
}


def draw_flip(runs: FinishedRuns) -> tuple[Figure, ...]:
    """Leak and read by policy, by strength of the correlation, and on easy-VQA."""
    figures = [_bars(runs, Shapes.name, "flip", ("agree", "all", "both"), "The same pictures, other questions")]
    if runs.where(lambda run: run.arm.strength == 1.0).runs:
        figures.append(_lines(runs))
        figures.append(_bars(runs, EasyVQA.name, "flip-easy-vqa", ("agree", "all", "odd"), "The same on easy-VQA's pictures"))
    return (*figures, *draw_controls(runs.where(lambda run: run.world == Shapes.name)))


def _bars(runs: FinishedRuns, world: str, name: str, arms: Sequence[str], title: str) -> Figure:
    chosen = runs.where(lambda run: run.world == world and run.arm.strength == MAIN)

    def points() -> Iterator[Point]:
        for panel, value in ANSWERS:
            for arm in arms:
                yield from point(panel, panel, ASKED[arm], chosen.arm(arm), value)

    return Figure(
        name=name,
        title=title,
        caption=f"Share of counterfactual pairs in which the answer about {TARGET} moves, at strength {MAIN:g}. Points are seeds, bars "
        f"95 % intervals over seeds. The pictures, their order and the number of questions are the same; agreeing scenes are those in "
        f"which {TARGET} and {PROXY} go together, odd ones those in which they do not.",
        x_title="what is asked",
        y_title="share of pairs in which the answer moves",
        y_range=(0.0, 1.0),
        joined=False,
        points=tuple(points()),
    )


def _lines(runs: FinishedRuns) -> Figure:
    chosen = runs.where(lambda run: run.world == Shapes.name)

    def points() -> Iterator[Point]:
        panels = (*ANSWERS, (f"{TARGET} answered right, as in training", answered(TARGET)))
        for panel, value in panels:
            for arm in policies():
                for strength in STRENGTHS:
                    yield from point(panel, arm, strength, chosen.arm(arm, strength), value)

    return Figure(
        name="flip-strength",
        title="Strength of the correlation, and what is asked",
        caption="Each line is one way to ask of the same pictures. Where the correlation is whole (1), no question tells the two apart.",
        x_title="strength of the correlation in the pictures",
        y_title="share",
        y_range=(0.0, 1.0),
        joined=True,
        points=tuple(points()),
    )


FLIP = Study(
    name="flip",
    question="Does a factor's status turn on the questions alone?",
    grid=flip_grid,
    judge=judge_flip,
    draw=draw_flip,
    shared=first_grid,
)
