"""Expected cost of a grid: seconds of each run from its number of operations, corrected by runs that were timed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from rich.table import Table

from theodolite.models.construction.frontends import PATCH, SIZE
from theodolite.studies.engine.execute import Run
from theodolite.training.recipe import Recipe

# Floating-point operations a second of one core, in training and in surveys: benchmarks/standard_run.py, docs/results/log.md.
# Machines differ; the first finished runs correct it.
FLOPS = 8e10
# Questions of a picture, tokens of a question with its answer, and seconds that a run of any size takes.
NUM_QUESTIONS, QUESTION_TOKENS, FIXED_S = 2, 9, 12.0
# Pictures that a survey renders of each scene: one for each factor, the scene itself and a new nuisance seed.
PICTURES_A_SCENE = 12


def arithmetic(run: Run) -> float:
    """Approximate floating-point operations of a run: six for each parameter and token in training, two in the survey."""
    recipe = run.arm.recipe
    decoder, vision = recipe.decoder, (SIZE // PATCH) ** 2
    parameters = decoder.num_layers * (4 + 3 * decoder.expansion) * decoder.width**2
    tokens = vision + NUM_QUESTIONS * QUESTION_TOKENS
    # Attention scores and the weighted sum: two products of tokens by tokens by width in each layer.
    attention = 4 * decoder.num_layers * tokens**2 * decoder.width
    forward = 2 * parameters * tokens + attention
    return float(3 * forward * recipe.steps * recipe.batch * _passes(recipe) + forward * run.num_scenes * PICTURES_A_SCENE)


def _passes(recipe: Recipe) -> float:
    """Operations of a step over those of next-token prediction, roughly: a teacher's passes, pictures alone, partners."""
    auxiliary = recipe.auxiliary
    laver = 0.0 if recipe.laver is None else 1 / 3 if recipe.laver.branch == "joint" else 4 / 3
    views = 0.0 if auxiliary is None or auxiliary.views is None else 4 / 3
    return 1.0 + laver + views + recipe.stage.pair_frac


@dataclass(frozen=True)
class Costs:
    """Seconds of runs: measured for `timed` ones, else estimated from operations, times `scale` (median of measured over estimated)."""

    timed: Mapping[str, float]
    scale: float

    @classmethod
    def of(cls, runs: Sequence[Run], timed: Mapping[str, float]) -> Costs:
        """The costs of a grid; `timed` holds the seconds of finished runs by key."""
        ratios = [timed[run.key] / _estimate(run) for run in runs if run.key in timed]
        return cls(timed, median(ratios) if ratios else 1.0)

    def seconds(self, run: Run) -> float:
        """Seconds of one run on one core, measured or estimated."""
        return self.timed.get(run.key, self.scale * _estimate(run))

    def total(self, runs: Sequence[Run]) -> float:
        """Sum of the seconds of these runs on one core."""
        return sum((self.seconds(run) for run in runs), 0.0)

    def table(self, runs: Sequence[Run], finished: Collection[str], workers: int) -> Table:
        """A row for each world and arm: runs, those on disk, time on one core. The title has the runs left and their time."""
        todo = [run for run in runs if run.key not in finished]
        title = f"{len(runs)} runs, {len(runs) - len(todo)} on disk; left: {hours(self.total(todo))} on one core"
        table = Table(title=title + (f", about {hours(self.total(todo) / workers)} with {workers} workers" if workers > 1 else ""))
        for head in ("world", "arm", "strengths", "steps", "width"):
            table.add_column(head)
        for head in ("runs", "on disk", "on one core"):
            table.add_column(head, justify="right")
        for key, number in Counter((run.world, run.arm.name) for run in runs).items():
            members = [run for run in runs if (run.world, run.arm.name) == key]
            recipes = [run.arm.recipe for run in members]
            done = sum(run.key in finished for run in members)
            table.add_row(
                *key,
                _listed(run.arm.strength for run in members),
                _listed(recipe.steps for recipe in recipes),
                _listed(recipe.decoder.width for recipe in recipes),
                str(number),
                str(done),
                hours(self.total(members)),
            )
        return table


def _estimate(run: Run) -> float:
    return FIXED_S + arithmetic(run) / FLOPS


def _listed(values: Iterable[float]) -> str:
    return ", ".join(f"{value:g}" for value in sorted(set(values)))


def hours(seconds: float) -> str:
    """A duration as text: "45 s", "12 min", "2.5 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
