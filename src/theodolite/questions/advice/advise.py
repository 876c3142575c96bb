"""Advice on a policy: which questions to ask of which scenes next, and which factors need other pictures instead. Needs no torch.

Queries are chosen by greedy cover of pairs, for unasked factors first (`greedy_cover`). Each gets an equal share of the budget, split among
scenes so that its answer is least predictable from everything else (`query_split`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from theodolite.questions.advice.counterfactuals import scenes_to_add
from theodolite.questions.advice.greedy_cover import PairCover, lazy_greedy, pair_cover
from theodolite.questions.advice.problem import AdviceProblem
from theodolite.questions.advice.query_split import QuerySplit, ScenePart, lines_of
from theodolite.questions.advice.water_filling import fair_shares
from theodolite.questions.coverage import ZERO, QueryTable, pressure_bits_of
from theodolite.records.advice import Advice, AdvisedFactor, AdvisedQuery
from theodolite.records.errors import BadInput

PLACES = 6


@dataclass(frozen=True, eq=False)
class PickedQuery:
    """A query to ask, split for the sake of a factor, and its gain in coverage after the picks before it."""

    split: QuerySplit
    gain: float
    unasked: bool


@dataclass(frozen=True, eq=False)
class PickOutcome:
    """A pick with its share of the budget: number of questions, bits per question, and policy lines."""

    pick: PickedQuery
    num_questions: float
    bits: float
    lines: list[ScenePart]

    @property
    def asked(self) -> QueryTable:
        problem, item = self.pick.split.problem, self.pick.split.item
        rate = sum((line.rate * line.inside for line in self.lines), np.zeros((1,) * len(problem.names)))
        return QueryTable(item.query, item.answer, rate * problem.left[item.query.name] * item.rate if problem.recorded else rate)

    def record(self) -> AdvisedQuery:
        split, query = self.pick.split, self.pick.split.item.query.name
        return AdvisedQuery(
            query=query,
            factor=split.factor,
            unasked=self.pick.unasked,
            num_questions=round(self.num_questions, 2),
            num_useful=round(split.num_useful, 2),
            num_balanced=round(split.num_balanced, 2),
            coverage_gain=_rounded(self.pick.gain),
            bits=_rounded(self.bits),
            limit_bits=_rounded(split.limit_bits),
            lines=tuple(line.written(query) for line in self.lines),
        )


def advise(problem: AdviceProblem, budget: int, factors: Sequence[str], subject: str) -> Advice:
    """The questions to ask next within a budget, for the sake of some factors, and the scenes to add where questions cannot help.

    Raises `BadInput` on a budget below 1, `UnknownName` on an unknown factor.
    """
    if budget < 1:
        raise BadInput(f"the budget is {budget} questions; give 1 or more")
    for name in factors:
        problem.space.index(name)
    cover = pair_cover(problem.names, problem.weights, problem.asked, problem.candidates, factors)
    picks = _picks(problem, cover, budget)
    available = np.array([pick.split.num_useful for pick in picks])
    shares = [_share(pick, share) for pick, share in zip(picks, fair_shares(available, float(budget)), strict=True) if share > 0]
    lines = [line for share in shares for line in share.record().lines]
    policy = ",".join(lines) or None
    before = str(problem.policy) if problem.policy else None
    judged = _factors(problem, cover, shares)
    confounded = [factor.factor for factor in judged if factor.cure == "pictures"]
    return Advice(
        subject=subject,
        num_pictures=problem.num_pictures,
        budget=budget,
        num_questions=round(sum(share.num_questions for share in shares), 2),
        asked=before,
        policy=policy,
        together=None if problem.recorded else ",".join(filter(None, (before, policy))) or None,
        undetermined=problem.undetermined,
        queries=tuple(share.record() for share in shares),
        factors=judged,
        scenes=tuple(scene for name in confounded for scene in scenes_to_add(problem, name, budget / len(judged))),
    )


def _picks(problem: AdviceProblem, cover: PairCover, budget: int) -> list[PickedQuery]:
    """Queries for the uncovered factors, then those that add to coverage; if there are none, those that add to pressure."""
    before, most = cover.covered(), cover.covered(range(len(problem.candidates)))
    unasked = [name for name in cover.factors if before[name] <= ZERO < most[name]]
    num_queries = max(1, int(budget // _largest_context(problem, cover.factors)))
    first = cover.of(unasked)
    chosen = [index for index, _ in lazy_greedy(first.worth, first.distinguishes, first.distinguished, num_queries)]
    rest = cover.opened(chosen)
    chosen += [index for index, _ in lazy_greedy(rest.worth, rest.distinguishes, rest.distinguished, num_queries - len(chosen))]
    picks = []
    for index in chosen:
        after = cover.opened([index]).covered()
        gains = {name: after[name] - value for name, value in cover.covered().items()}
        factor = max((name for name in unasked if gains[name] > ZERO), key=gains.__getitem__, default=max(gains, key=gains.__getitem__))
        picks.append(PickedQuery(QuerySplit(problem, problem.candidates[index], factor), sum(gains.values()), factor in unasked))
        cover = cover.opened([index])
    if picks:
        return picks
    sharpest = [_sharpest(problem, name, float(budget)) for name in cover.factors]
    return [PickedQuery(split, 0.0, False) for split in sharpest if split is not None][:num_queries]


def _sharpest(problem: AdviceProblem, factor: str, budget: float) -> QuerySplit | None:
    """The query whose further questions add most bits of a factor; None if none adds any."""
    splits = [QuerySplit(problem, item, factor) for item in problem.candidates if factor in item.query.depends_on]
    gains = [split.bits(split.questions(budget)) - split.bits(np.zeros(split.room.shape)) for split in splits if split.num_useful > 0]
    useful = [split for split in splits if split.num_useful > 0]
    best = int(np.argmax(gains)) if gains else -1
    return useful[best] if gains and gains[best] > ZERO else None


def _largest_context(problem: AdviceProblem, factors: Sequence[str]) -> int:
    """Number of scenes of which a query must be asked, one question each, to distinguish all it can: the largest over all queries."""
    sizes = [
        int((QuerySplit(problem, item, name).pictures > 0).sum())
        for item in problem.candidates
        for name in item.query.depends_on
        if name in factors and name in problem.names
    ]
    return max(sizes, default=1)


def _share(pick: PickedQuery, budget: float) -> PickOutcome:
    questions = pick.split.questions(budget)
    return PickOutcome(pick, float(questions.sum()), pick.split.bits(questions), lines_of(pick.split, pick.split.rates(questions)))


def _factors(problem: AdviceProblem, cover: PairCover, shares: Sequence[PickOutcome]) -> tuple[AdvisedFactor, ...]:
    before, most = cover.covered(), cover.covered(range(len(problem.candidates)))
    added = [share.asked for share in shares]
    after = pair_cover(problem.names, problem.weights, problem.layout(added).asked, (), cover.factors).covered()
    old, new = problem.layout(), problem.layout(added)
    rows = [
        AdvisedFactor(
            factor=name,
            cause=_cause(problem, name, before[name], most[name]),
            cure=_cure(problem, name, before[name], most[name], shares),
            coverage_before=_rounded(before[name]),
            coverage_after=_rounded(after[name]),
            coverage_most=_rounded(most[name]),
            pressure_bits_before=_rounded(pressure_bits_of(old, name)),
            pressure_bits_after=_rounded(pressure_bits_of(new, name)),
        )
        for name in cover.factors
    ]
    ranks = {"new questions": -1, "questions": 0, "pictures": 2, None: 3, "none": 4}

    def place(row: AdvisedFactor) -> tuple[int, float, float]:
        covered = row.cure == "questions" and row.cause is None
        gain, bits = row.coverage_after - row.coverage_before, row.pressure_bits_after - row.pressure_bits_before
        return ranks[row.cure] + covered, -gain, -bits

    return tuple(sorted(rows, key=place))


def _named(problem: AdviceProblem, factor: str) -> bool:
    return factor in problem.nameable and any(factor in item.query.depends_on for item in problem.candidates)


def _cause(problem: AdviceProblem, factor: str, before: float, most: float) -> Literal["unasked", "confounded"] | None:
    if before > ZERO:
        return None
    asked = any(factor in item.query.depends_on and (problem.weights * item.rate).any() for item in problem.asked)
    return "confounded" if asked or (_named(problem, factor) and most <= ZERO) else "unasked"


def _cure(
    problem: AdviceProblem, factor: str, before: float, most: float, shares: Sequence[PickOutcome]
) -> Literal["questions", "new questions", "pictures", "none"] | None:
    if not _named(problem, factor):
        if before > ZERO:
            return None
        return "new questions" if factor in problem.nameable else "none"
    if most <= ZERO:
        return "pictures"
    raised = any(share.pick.split.factor == factor for share in shares)
    return "questions" if raised or most > before + ZERO else None


def _rounded(value: float) -> float:
    return round(value, PLACES) + 0.0
