"""What a study is: one question, a function that returns its grid of runs, and what its finished runs say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from theodolite.measurement.claims import CONFIDENCE, Bounds, Statement, judge, over_seeds
from theodolite.records.study import Claim, Figure, GridRun, Point, StudyRecord
from theodolite.report.study import matched_runs
from theodolite.report.words import listed
from theodolite.studies.perform import Run

SHARE: Bounds = (0.0, 1.0)
DIFFERENCE: Bounds = (-1.0, 1.0)
Value = Callable[[GridRun], float | None]
# Of the runs of a grid, those that a number is about.
Choice = Callable[[Run], bool]


@dataclass(frozen=True, eq=False)
class Found:
    """The finished runs of a grid, each with its line, and the lines of the other studies that are read."""

    pairs: tuple[tuple[Run, GridRun], ...]
    others: tuple[GridRun, ...] = ()

    def where(self, choice: Choice) -> Found:
        """Those that are chosen."""
        return Found(tuple(pair for pair in self.pairs if choice(pair[0])), self.others)

    def arm(self, name: str, strength: float | None = None) -> Found:
        """Those of an arm, at one strength or at all."""
        return self.where(lambda run: run.arm.name == name and (strength is None or run.arm.strength == strength))

    def by_seed(self, value: Value) -> dict[int, float]:
        """A number of each run by its seed; runs that lack it are left out. Raises `ValueError` where two runs of one seed are chosen."""
        found: dict[int, float] = {}
        for run, line in self.pairs:
            number = value(line)
            if number is None:
                continue
            if run.seed in found:
                raise ValueError(f"two runs of seed {run.seed} are chosen, one of them {run.key}; choose one arm")
            found[run.seed] = number
        return found

    @property
    def num_scenes(self) -> int:
        """Scenes of the surveys of all of these runs together."""
        return sum(line.num_scenes for _, line in self.pairs)


@dataclass(frozen=True)
class Study:
    """One question. `grid(seeds, quick)` gives its runs; `judge` and `draw` what the finished ones say.

    `reads` names other studies whose finished runs it uses too, beside its own grid.
    """

    name: str
    question: str
    grid: Callable[[Sequence[int], bool], tuple[Run, ...]]
    judge: Callable[[Found], tuple[Claim, ...]]
    draw: Callable[[Found], tuple[Figure, ...]]
    reads: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())


def moved(factor: str, query: str, *, truth_moves: bool, form: str = "open") -> Value:
    """How often the answers to a query move with a factor, 0 to 1: a read cell if the truth moves, a leak cell if it stands still."""

    def value(line: GridRun) -> float | None:
        for cell in line.cells:
            if (cell.factor, cell.query, cell.form, cell.truth_moves) == (factor, query, form, truth_moves):
                return cell.moved_frac
        return None

    return value


def answered(query: str, scenes: str = "training", form: str = "open") -> Value:
    """How often a query is answered right, 0 to 1: of new scenes drawn as in training, or of decorrelated ones."""

    def value(line: GridRun) -> float | None:
        for found in line.answered:
            if (found.query, found.form, found.scenes) == (query, form, scenes):
                return found.frac
        return None

    return value


def level(statement: Statement, runs: Found, value: Value, bounds: Bounds | None = SHARE) -> Claim:
    """A claim about a number itself, over seeds."""
    by_seed = runs.by_seed(value)
    return judge(statement, over_seeds(by_seed, bounds, runs.num_scenes) if by_seed else None, by_seed, len(runs.pairs))


def difference(
    statement: Statement, one: Found, other: Found, value: Value, other_value: Value | None = None, bounds: Bounds = DIFFERENCE
) -> Claim:
    """A claim about `one` less `other`, paired by seed; seeds of which one side is missing are left out."""
    left, right = one.by_seed(value), other.by_seed(other_value or value)
    by_seed = {seed: left[seed] - right[seed] for seed in sorted(left.keys() & right.keys())}
    scenes = min(one.num_scenes, other.num_scenes)
    return judge(statement, over_seeds(by_seed, bounds, scenes) if by_seed else None, by_seed, len(one.pairs) + len(other.pairs))


def point(panel: str, series: str, x: str | float, runs: Found, value: Value, bounds: Bounds | None = SHARE) -> Iterable[Point]:
    """A mark of a figure; none where no run has the number."""
    by_seed = runs.by_seed(value)
    if by_seed:
        found = over_seeds(by_seed, bounds, runs.num_scenes)
        low, high = (None if end is None else round(end, 5) for end in (found.low, found.high))
        yield Point(panel=panel, series=series, x=x, value=round(found.value, 5), low=low, high=high, by_seed=by_seed)


def conclude(
    study: Study, runs: Sequence[Run], lines: Mapping[str, GridRun], others: Sequence[GridRun] = (), *, command: str, quick: bool
) -> StudyRecord:
    """What follows from the finished runs of a grid, and from those of the other studies that it reads."""
    found = Found(tuple((run, lines[run.key]) for run in runs if run.key in lines), tuple(others))
    missing = len(runs) - len(found.pairs)
    lines_found = [line for _, line in found.pairs]
    unequal = [match for match in matched_runs(lines_found) if match.different]
    notes = [*study.notes, *(f"{match.words}: {listed(match.different)} differ" for match in unequal)]
    if missing:
        notes.append(f"{missing} of {len(runs)} runs of the grid are missing; what is said rests on the others")
    return StudyRecord(
        name=study.name,
        question=study.question,
        command=command,
        quick=quick,
        confidence=CONFIDENCE,
        seeds=tuple(sorted({run.seed for run in runs})),
        num_runs=len(found.pairs),
        num_missing=missing,
        claims=study.judge(found),
        figures=study.draw(found),
        notes=tuple(notes),
    )
