"""What a study is: one question, a function that returns its grid of runs, and what its finished runs say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from theodolite.records.study import Claim, Figure, GridRun, Point, StudyRecord
from theodolite.report.study.page import matched_runs
from theodolite.report.words import listed
from theodolite.stats.claims import CONFIDENCE, Statement, difference_over_seeds, judge_claim, over_seeds
from theodolite.studies.engine.execute import Run

Value = Callable[[GridRun], float | None]
# Of the runs of a grid, those that a number is about.
Choice = Callable[[Run], bool]


@dataclass(frozen=True, eq=False)
class FinishedRuns:
    """The finished runs of a grid, each with its line; all runs of the grid; and the lines of the other studies that are read."""

    pairs: tuple[tuple[Run, GridRun], ...]
    runs: tuple[Run, ...] = ()
    others: tuple[GridRun, ...] = ()

    def where(self, choice: Choice) -> FinishedRuns:
        """Those that are chosen."""
        pairs = tuple(pair for pair in self.pairs if choice(pair[0]))
        return FinishedRuns(pairs, tuple(run for run in self.runs if choice(run)), self.others)

    def arm(self, name: str, strength: float | None = None) -> FinishedRuns:
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
    judge: Callable[[FinishedRuns], tuple[Claim, ...]]
    draw: Callable[[FinishedRuns], tuple[Figure, ...]]
    reads: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())


def moved_frac_of(factor: str, query: str, *, truth_moves: bool, form: str = "open") -> Value:
    """How often the answers to a query move with a factor, 0 to 1: a read cell if the truth moves, a leak cell if it stands still."""

    def value(line: GridRun) -> float | None:
        for cell in line.cells:
            if (cell.factor, cell.query, cell.form, cell.truth_moves) == (factor, query, form, truth_moves):
                return cell.moved_frac
        return None

    return value


def if_competent(value: Value, query: str, form: str = "open") -> Value:
    """A number that speaks only where the query can be asked: null of a model that answers it at chance even as in training.

    What was not learned neither reads nor leaks, and says nothing of what the questions pin down (the competence gate of surveys).
    """

    def gated(line: GridRun) -> float | None:
        return value(line) if can_be_asked(line, query, form) else None

    return gated


def can_be_asked(line: GridRun, query: str, form: str = "open") -> bool:
    """Whether a query is answered above chance on new scenes drawn as in training: by the whole interval."""
    for found in line.answered:
        if (found.query, found.form, found.scenes) == (query, form, "training"):
            return found.low is not None and found.low > found.chance_frac
    return False


def answered(query: str, scenes: str = "training", form: str = "open") -> Value:
    """How often a query is answered right, 0 to 1: of new scenes drawn as in training, or of decorrelated ones."""

    def value(line: GridRun) -> float | None:
        for found in line.answered:
            if (found.query, found.form, found.scenes) == (query, form, scenes):
                return found.frac
        return None

    return value


def claim_level(statement: Statement, runs: FinishedRuns, value: Value) -> Claim:
    """A claim about a share itself, over seeds."""
    by_seed = runs.by_seed(value)
    return judge_claim(statement, over_seeds(by_seed, runs.num_scenes) if by_seed else None, by_seed, len(runs.pairs))


def difference(statement: Statement, one: FinishedRuns, other: FinishedRuns, value: Value) -> Claim:
    """A claim about a share in `one` less that in `other`, paired by seed; seeds of which one side is missing are left out."""
    found, by_seed = difference_over_seeds(one.by_seed(value), other.by_seed(value), min(one.num_scenes, other.num_scenes))
    return judge_claim(statement, found, by_seed, len(one.pairs) + len(other.pairs))


def point(panel: str, series: str, x: str | float, runs: FinishedRuns, value: Value) -> Iterable[Point]:
    """A mark of a figure; none where no run has the number."""
    by_seed = runs.by_seed(value)
    if by_seed:
        found = over_seeds(by_seed, runs.num_scenes)
        low, high = (None if end is None else round(end, 5) for end in (found.low, found.high))
        yield Point(panel=panel, series=series, x=x, value=round(found.value, 5), low=low, high=high, by_seed=by_seed)


def conclude(
    study: Study, runs: Sequence[Run], lines: Mapping[str, GridRun], others: Sequence[GridRun] = (), *, command: str, quick: bool
) -> StudyRecord:
    """What follows from the finished runs of a grid, and from those of the other studies that it reads."""
    found = FinishedRuns(tuple((run, lines[run.key]) for run in runs if run.key in lines), tuple(runs), tuple(others))
    missing = len(runs) - len(found.pairs)
    figures = study.draw(found)
    return StudyRecord(
        name=study.name,
        question=study.question,
        command=command,
        quick=quick,
        confidence=CONFIDENCE,
        seeds=tuple(sorted({run.seed for run in runs})),
        num_runs=len(found.pairs),
        keys=tuple(line.key for _, line in found.pairs),
        num_missing=missing,
        claims=study.judge(found),
        figures=tuple(figure for figure in figures if figure.points),
        notes=(*study.notes, *_notes(found, missing), *(f"nothing to draw {figure.name} from" for figure in figures if not figure.points)),
    )


def _notes(found: FinishedRuns, missing: int) -> list[str]:
    """What a reader must know of the runs: what is missing, not matched, not learned, or made by other code."""
    lines = [line for _, line in found.pairs]
    told = [f"{match.words}: {listed(match.different)} differ" for match in matched_runs(lines) if match.different]
    if missing:
        told.append(f"{missing} of {len(found.runs)} runs of the grid are missing; what is said rests on the others")
    told += _unlearned(lines)
    makers = {(line.revision, line.torch) for line in lines}
    if len(makers) > 1:
        told.append(f"runs were made by {len(makers)} revisions of the code or of torch; runs.jsonl says which by which")
    return told


def _unlearned(lines: Sequence[GridRun]) -> list[str]:
    """Arms that answer something at chance, with the seeds in which they do."""
    seeds: dict[tuple[str, str, float, str], list[str]] = {}
    for line in lines:
        facts = line.facts
        for name in line.answered:
            if name.scenes == "training" and not can_be_asked(line, name.query, name.form):
                seeds.setdefault((facts.world, facts.arm, facts.strength, name.query), []).append(str(facts.seed))
    return [
        f"{arm} of {world} at strength {strength:g} answers {query} at chance as in training in "
        f"{'seed' if len(found) == 1 else 'seeds'} {listed(found)}, so what it reads or leaks there is left out"
        for (world, arm, strength, query), found in seeds.items()
    ]
