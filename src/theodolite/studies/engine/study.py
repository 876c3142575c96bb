"""Definition of a study: one question, a grid of runs, and functions that judge claims and draw figures from the finished runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from theodolite.records.part import Estimate
from theodolite.records.study import Claim, Figure, GridRun, Point, StudyRecord
from theodolite.report.study.page import matched_runs
from theodolite.report.words import listed
from theodolite.stats.claims import CONFIDENCE, Statement, difference_over_seeds, judge_claim, judge_family, over_seeds
from theodolite.studies.engine.execute import Run

Value = Callable[[GridRun], float | None]
Choice = Callable[[Run], bool]


@dataclass(frozen=True, eq=False)
class FinishedRuns:
    """Finished runs of a grid with their lines, all runs of the grid, and the lines of the other studies that it reads."""

    pairs: tuple[tuple[Run, GridRun], ...]
    runs: tuple[Run, ...] = ()
    others: tuple[GridRun, ...] = ()

    def where(self, choice: Choice) -> FinishedRuns:
        """The runs that satisfy `choice`."""
        pairs = tuple(pair for pair in self.pairs if choice(pair[0]))
        return FinishedRuns(pairs, tuple(run for run in self.runs if choice(run)), self.others)

    def arm(self, name: str, strength: float | None = None) -> FinishedRuns:
        """The runs of an arm, at one strength or at all."""
        return self.where(lambda run: run.arm.name == name and (strength is None or run.arm.strength == strength))

    def by_seed(self, value: Value) -> dict[int, float]:
        """The value of each run by seed; runs without it are left out. Raises `ValueError` if two runs have the same seed."""
        numbers: dict[int, float] = {}
        for run, line in self.pairs:
            number = value(line)
            if number is None:
                continue
            if run.seed in numbers:
                raise ValueError(f"two runs of seed {run.seed} are chosen, one of them {run.key}; choose one arm")
            numbers[run.seed] = number
        return numbers

    def of_others(self, arm: str, value: Value) -> dict[int, float]:
        """The value of each run of an arm of the studies that are read, by seed; runs without it are left out."""
        numbers = {line.facts.seed: value(line) for line in self.others if line.facts.arm == arm}
        return {seed: number for seed, number in sorted(numbers.items()) if number is not None}

    @property
    def num_scenes(self) -> int:
        """Sum of the surveyed scenes over these runs."""
        return sum(line.num_scenes for _, line in self.pairs)


@dataclass(frozen=True)
class Study:
    """One question: `grid(seeds, quick)` returns its runs; `judge` and `draw` turn the finished ones into claims and figures.

    `reads` names other studies whose finished runs it uses in addition to its own.
    """

    name: str
    question: str
    grid: Callable[[Sequence[int], bool], tuple[Run, ...]]
    judge: Callable[[FinishedRuns], tuple[Claim, ...]]
    draw: Callable[[FinishedRuns], tuple[Figure, ...]]
    reads: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    # Whether models are trained to answer; where not, answers at chance are no news.
    learns_answers: bool = True
    # The runs that other studies read, if not the whole grid: arms that were added later must not change what those were judged on.
    shared: Callable[[Sequence[int], bool], tuple[Run, ...]] | None = None


def moved_frac_of(factor: str, query: str, *, truth_moves: bool, form: str = "open") -> Value:
    """Share of pairs in which the answer to a query moves with a factor, 0 to 1: a read cell if the truth moves, else a leak cell."""

    def value(line: GridRun) -> float | None:
        for cell in line.cells:
            if (cell.factor, cell.query, cell.form, cell.truth_moves) == (factor, query, form, truth_moves):
                return cell.moved_frac
        return None

    return value


def if_competent(value: Value, query: str, form: str = "open") -> Value:
    """`value`, but None for a model that answers the query at chance even on scenes drawn as in training (the competence gate of surveys).

    A query that was not learned shows neither reading nor leaking, so it is no evidence about what the questions pin down.
    """

    def gated(line: GridRun) -> float | None:
        return value(line) if can_be_asked(line, query, form) else None

    return gated


def can_be_asked(line: GridRun, query: str, form: str = "open") -> bool:
    """Whether the lower end of the interval for right answers is above chance, on new scenes drawn as in training."""
    for rate in line.answered:
        if (rate.query, rate.form, rate.scenes) == (query, form, "training"):
            return rate.low is not None and rate.low > rate.chance_frac
    return False


def answered(query: str, scenes: str = "training", form: str = "open") -> Value:
    """Share of right answers to a query, 0 to 1, on new scenes drawn as in training or on decorrelated ones."""

    def value(line: GridRun) -> float | None:
        for rate in line.answered:
            if (rate.query, rate.form, rate.scenes) == (query, form, scenes):
                return rate.frac
        return None

    return value


def claim_level(statement: Statement, runs: FinishedRuns, value: Value) -> Claim:
    """A claim about the mean of a share over seeds."""
    by_seed = runs.by_seed(value)
    return judge_claim(statement, over_seeds(by_seed, runs.num_scenes) if by_seed else None, by_seed, len(runs.pairs))


def difference(statement: Statement, one: FinishedRuns, other: FinishedRuns, value: Value, subtracted: Value | None = None) -> Claim:
    """A claim about a share in `one` less that in `other`, paired by seed; seeds that lack either are left out.

    `subtracted` is the value taken of `other`, if it is not the same.
    """
    less = other.by_seed(subtracted or value)
    estimate, by_seed = difference_over_seeds(one.by_seed(value), less, min(one.num_scenes, other.num_scenes))
    return judge_claim(statement, estimate, by_seed, len(one.pairs) + len(other.pairs))


def paired_claim(statement: Statement, one: Mapping[int, float], other: Mapping[int, float]) -> Claim:
    """A claim about the difference of two numbers, paired by seed, that are no shares of pairs; seeds that lack either are left out."""
    estimate, by_seed = difference_over_seeds(one, other)
    return judge_claim(statement, estimate, by_seed, len(one) + len(other))


def point(panel: str, series: str, x: str | float, runs: FinishedRuns, value: Value) -> Iterable[Point]:
    """One mark of a figure, with its interval over seeds; none if no run has the value."""
    by_seed = runs.by_seed(value)
    if by_seed:
        yield point_of(panel, series, x, over_seeds(by_seed, runs.num_scenes), by_seed)


def point_of(panel: str, series: str, x: str | float, estimate: Estimate, by_seed: dict[int, float]) -> Point:
    """A mark of a figure at an estimate, rounded to five places."""
    low, high = (None if end is None else round(end, 5) for end in (estimate.low, estimate.high))
    return Point(panel=panel, series=series, x=x, value=round(estimate.value, 5), low=low, high=high, by_seed=by_seed)


def conclude(
    study: Study, runs: Sequence[Run], lines: Mapping[str, GridRun], others: Sequence[GridRun] = (), *, command: str, quick: bool
) -> StudyRecord:
    """The record of a study: claims, figures and notes from its finished runs and those of the studies that it reads."""
    finished = FinishedRuns(tuple((run, lines[run.key]) for run in runs if run.key in lines), tuple(runs), tuple(others))
    missing = len(runs) - len(finished.pairs)
    figures = study.draw(finished)
    claims = judge_family(study.judge(finished))
    return StudyRecord(
        name=study.name,
        question=study.question,
        command=command,
        quick=quick,
        confidence=CONFIDENCE,
        seeds=tuple(sorted({run.seed for run in runs})),
        num_runs=len(finished.pairs),
        keys=tuple(line.key for _, line in finished.pairs),
        num_missing=missing,
        claims=claims,
        figures=tuple(figure for figure in figures if figure.points),
        notes=(
            *study.notes,
            *_notes(finished, missing, study.learns_answers),
            *_family(claims),
            *(f"nothing to draw {figure.name} from" for figure in figures if not figure.points),
        ),
    )


def _family(claims: Sequence[Claim]) -> list[str]:
    """A note on the claims that are decided alone and not within the family of all claims, and on those whose outcome was known before."""
    measured = [claim for claim in claims if claim.p_value is not None]
    decided = [claim for claim in measured if claim.finding != "undecided"]
    lost = [claim.name for claim in decided if claim.family_finding == "undecided"]
    notes = []
    if measured:
        kept = f"not decided at that level: {listed(lost)}" if lost else "all of these are decided at that level too"
        notes.append(
            f"{len(decided)} of {len(measured)} claims with an interval are decided one by one; at a family-wise error of "
            f"{1 - CONFIDENCE:.2g} over all of them (Holm) {kept if decided else 'none is'}"
        )
    known = [claim.name for claim in claims if claim.known]
    if known:
        notes.append(f"the outcome was known from an earlier trial or run before the rule was written: {listed(known)}")
    return notes


def _notes(finished: FinishedRuns, missing: int, learns_answers: bool) -> list[str]:
    """Notes for the reader: runs that are missing, not matched, not learned, or made by different code."""
    lines = [line for _, line in finished.pairs]
    notes = [f"{match.words}: {listed(match.different)} differ" for match in matched_runs(lines) if match.different]
    if missing:
        notes.append(f"{missing} of {len(finished.runs)} runs of the grid are missing; what is said rests on the others")
    if learns_answers:
        notes += _unlearned(lines)
    makers = {(line.revision, line.torch) for line in lines}
    if len(makers) > 1:
        notes.append(f"runs were made by {len(makers)} revisions of the code or of torch; runs.jsonl says which by which")
    return notes


def _unlearned(lines: Sequence[GridRun]) -> list[str]:
    """A note for each arm that answers a query at chance, with the seeds."""
    at_chance: dict[tuple[str, str, float, str], list[str]] = {}
    for line in lines:
        facts = line.facts
        for name in line.answered:
            if name.scenes == "training" and not can_be_asked(line, name.query, name.form):
                at_chance.setdefault((facts.world, facts.arm, facts.strength, name.query), []).append(str(facts.seed))
    return [
        f"{arm} of {world} at strength {strength:g} answers {query} at chance as in training in "
        f"{'seed' if len(seeds) == 1 else 'seeds'} {listed(seeds)}, so what it reads or leaks there is left out"
        for (world, arm, strength, query), seeds in at_chance.items()
    ]
