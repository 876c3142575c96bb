"""Study lock: does scale move the boundary? One policy with coverage 0 of shape; data, steps, width or connector change one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from theodolite.models.construction.build import DecoderSize
from theodolite.records.study import Claim, Figure, GridRun, Point
from theodolite.stats.claims import Rule, Statement, difference_over_seeds, judge_claim, over_seeds
from theodolite.studies.engine.arms import Arm
from theodolite.studies.engine.execute import Run
from theodolite.studies.engine.study import FinishedRuns, Study, Value, answered, difference, point
from theodolite.studies.flip_setup import ANSWERS, ESSAY, FILLER, LEAK, MAIN, NUM_SCENES, PROXY, READ, STEPS, TARGET, TRIAL, policies
from theodolite.training.recipe import Recipe, tour_shapes
from theodolite.worlds.shapes.world import Shapes

# Few enough that the base's steps suffice to see sixteen times as many.
NUM_PICTURES = 1_200
BASE = "base"
HEAD_WIDTH = 32


@dataclass(frozen=True)
class LockStep:
    """One arm along an axis of scale: its position on the axis, and what it changes in the base."""

    axis: str
    at: str
    recipe: Recipe
    num_pictures: int = NUM_PICTURES

    @property
    def name(self) -> str:
        return f"{self.axis} {self.at}"


def base_recipe() -> Recipe:
    """The recipe that every step changes in one respect."""
    return replace(tour_shapes(), name="study-shapes", steps=STEPS)


def axes() -> Mapping[str, tuple[LockStep, ...]]:
    """The steps along each axis, smallest first, without the base."""
    base = base_recipe()

    def wider(times: int) -> DecoderSize:
        width = times * base.decoder.width
        return replace(base.decoder, width=width, num_heads=width // HEAD_WIDTH)

    large = replace(base.decoder, initial_std=base.decoder.width**-0.5)
    return {
        "data": tuple(LockStep("data", f"x{times}", base, times * NUM_PICTURES) for times in (4, 16)),
        "steps": tuple(LockStep("steps", f"x{times}", replace(base, steps=times * base.steps)) for times in (4, 8)),
        "width": tuple(LockStep("width", f"x{times}", replace(base, decoder=wider(times))) for times in (2, 4)),
        "connector": tuple(LockStep("connector", kind, replace(base, connector=kind)) for kind in ("linear", "resampler", "local")),
        "start": (LockStep("start", "x4.4", replace(base, decoder=large)),),
    }


def lock_grid(seeds: Sequence[int], quick: bool = False) -> tuple[Run, ...]:
    """The base, all steps along all axes, and the base with a covering policy; quick: the bases and four times the data."""
    uncovered, covered = policies()["agree"], policies()["all"]
    base = base_recipe()
    steps = axes()["data"][:1] if quick else tuple(step for members in axes().values() for step in members)
    arms = [
        Arm(BASE, uncovered, base, MAIN, NUM_PICTURES),
        Arm("covered", covered, base, MAIN, NUM_PICTURES),
        *(Arm(step.name, uncovered, step.recipe, MAIN, step.num_pictures) for step in steps),
    ]
    measures = () if quick else ("gap",)
    return tuple(Run(Shapes.name, arm, seed, NUM_SCENES, measures=measures, survey_seed=seed) for seed in seeds for arm in arms)


def learned_its_question(line: GridRun) -> float | None:
    """Mean share of right answers to both questions, 0 to 1, on new scenes drawn as in training."""
    fracs = [number for query in (TARGET, FILLER) if (number := answered(query)(line)) is not None]
    return sum(fracs) / len(fracs) if fracs else None


UNMOVED = "The leak of colour into shape answers stays where it was when there is {more}."
MORE = {
    "data": "sixteen times the pictures (in the same 19,200 visits)", "steps": "eight times the steps", "width": "four times the width",
}  # fmt: skip
CONNECTOR = "The leak of colour into shape answers is the same through a {kind} connector as through the MLP."
KINDS = {"linear": "linear", "resampler": "resampler", "local": "locality-preserving"}
LEAKS = f"do({PROXY}) -> {TARGET} answer, scaled less base: difference of shares of pairs, paired by seed"
SCALED_TEXT = (
    "With up to 16 times the pictures (in the same 19,200 visits), 8 times the steps, 4 times the width or another connector, one at a time"
)
WHOLE = Statement(
    "locked", f"{SCALED_TEXT}, colour stays a shadow: the smallest leak of all scaled models is still most of the pairs.",
    ESSAY, Rule("above", 0.5), f"do({PROXY}) -> {TARGET} answer, smallest over data, steps, width and connector: share of pairs", 2,
)  # fmt: skip
UNREAD = Statement(
    "unread", f"{SCALED_TEXT}, shape stays unread: the largest read rate of all scaled models stays low.",
    ESSAY, Rule("below", 0.5), f"do({TARGET}) -> {TARGET} answer, largest over data, steps, width and connector: share of pairs", 2,
)  # fmt: skip
RISES = Statement(
    "accuracy rises", "Meanwhile accuracy on questions as in training rises: more of everything looks like progress.",
    ESSAY, Rule("above", 0.0), "answered right as in training, mean of data x16, steps x8 and width x4 less base: difference of shares", 2,
)  # fmt: skip
START = Statement(
    "larger start", "Larger weights to start from (1 / sqrt(width) in place of 0.02) lower the leak, at the same coverage of 0.",
    TRIAL, Rule("below", -0.1), f"do({PROXY}) -> {TARGET} answer, larger start less base: difference of shares of pairs, paired by seed", 2,
    known=True,
)  # fmt: skip
COVERED = Statement(
    "other questions", "Other questions do what scale does not: asked of all scenes, the base reads shape.",
    ESSAY, Rule("above", 0.5), f"do({TARGET}) -> {TARGET} answer, covered less base: difference of shares of pairs, paired by seed", 2,
)  # fmt: skip
SCALED = ("data", "steps", "width", "connector")


def judge_lock(runs: FinishedRuns) -> tuple[Claim, ...]:
    """The claims that the runs of the grid can decide."""
    base, members = runs.arm(BASE), axes()
    claims = []
    for axis, more in MORE.items():
        last = runs.arm(members[axis][-1].name)
        if last.runs:
            text = UNMOVED.format(more=more)
            claims.append(difference(Statement(f"{axis} unmoved", text, ESSAY, Rule("within", 0.1), LEAKS, 2), last, base, LEAK))
    for step in members["connector"]:
        other = runs.arm(step.name)
        if other.runs:
            text = CONNECTOR.format(kind=KINDS[step.at])
            claims.append(difference(Statement(f"{step.at} unmoved", text, ESSAY, Rule("within", 0.1), LEAKS, 2), other, base, LEAK))
    scaled = [_over_steps(WHOLE, runs, min, LEAK), _over_steps(UNREAD, runs, max, READ), _rises(runs)]
    larger = runs.arm(members["start"][0].name)
    start = [difference(START, larger, base, LEAK)] if larger.runs else []
    return (*claims, *scaled, difference(COVERED, runs.arm("covered"), base, READ), *start)


def _over_steps(statement: Statement, runs: FinishedRuns, extreme: Callable[[Iterable[float]], float], value: Value) -> Claim:
    """A claim about the extreme over all scaled models, seed by seed; seeds that lack one of them are left out."""
    # Steps that are not in the grid do not count; those of the grid whose runs all failed do, and leave no seed.
    steps = [members for axis in SCALED for step in axes()[axis] if (members := runs.arm(step.name)).runs]
    by_seed = {seed: extreme(numbers) for seed, numbers in _by_common_seed(steps, value).items()}
    num_scenes = min((members.num_scenes for members in steps), default=0)
    estimate = over_seeds(by_seed, num_scenes) if by_seed else None
    return judge_claim(statement, estimate, by_seed, sum(len(members.pairs) for members in steps))


def _rises(runs: FinishedRuns) -> Claim:
    """The claim about the mean gain in accuracy of the largest steps of data, steps and width; seeds that lack one are left out."""
    lasts = [members for axis in MORE if (members := runs.arm(axes()[axis][-1].name)).runs]
    base = runs.arm(BASE)
    means = {seed: sum(fracs) / len(fracs) for seed, fracs in _by_common_seed(lasts, learned_its_question).items()}
    estimate, by_seed = difference_over_seeds(means, base.by_seed(learned_its_question), base.num_scenes)
    return judge_claim(RISES, estimate, by_seed, len(base.pairs) + sum(len(members.pairs) for members in lasts))


def _by_common_seed(steps: Sequence[FinishedRuns], value: Value) -> dict[int, list[float]]:
    """The value in every step, by seed; seeds that lack one are left out."""
    each = [members.by_seed(value) for members in steps]
    seeds = sorted(set.intersection(*(set(numbers) for numbers in each))) if each else []
    return {seed: [numbers[seed] for numbers in each] for seed in seeds}


PANELS = {
    "data": "pictures (x 1,200)", "steps": "steps (x 300)", "width": "width (x 128)", "connector": "connector",
    "start": "weights at the start",
}  # fmt: skip
SERIES = (*ANSWERS, ("answered right, as in training", learned_its_question))


def draw_lock(runs: FinishedRuns) -> tuple[Figure, ...]:
    """Leak, read and accuracy along each axis of scale, and for each connector and start."""
    shares: dict[str, Any] = {"y_title": "share", "y_range": (0.0, 1.0)}
    policy = f"The policy asks {TARGET} only of scenes in which it agrees with {PROXY}, so its coverage is 0"
    each = "Points are seeds, bars 95 % intervals."
    return (
        Figure(
            name="lock",
            title="More of everything, asked the same questions",
            caption=f"{policy} whatever is scaled. Each panel scales one thing of the base (1,200 pictures, 300 steps, width 128). {each}",
            x_title="scale",
            joined=True,
            points=tuple(_points(runs, MORE)),
            **shares,
        ),
        Figure(
            name="lock-connector",
            title="Other connectors and another start, asked the same questions",
            caption=f"{policy} whatever joins tower and decoder, and wherever the decoder starts (1 / sqrt(width), 4.4 times 0.02). {each}",
            x_title="changed in the base",
            joined=False,
            points=tuple(_points(runs, ("connector", "start"))),
            **shares,
        ),
    )


def _points(runs: FinishedRuns, names: Iterable[str]) -> Iterator[Point]:
    """Points of these axes: for each series the base, then every step."""
    for axis in names:
        for series, value in SERIES:
            yield from point(PANELS[axis], series, "mlp" if axis == "connector" else "x1", runs.arm(BASE), value)
            for step in axes()[axis]:
                yield from point(PANELS[axis], series, step.at, runs.arm(step.name), value)


LOCK = Study(
    name="lock",
    question="Does scale move the boundary?",
    grid=lock_grid,
    judge=judge_lock,
    draw=draw_lock,
    notes=(
        "Arms differ in what is scaled, so their pictures or steps differ on purpose. A seed pairs the scenes of the survey, and where "
        "pictures and steps are those of the base their order too; weights at the start differ with width and connector.",
    ),
)
