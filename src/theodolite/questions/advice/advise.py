"""Cause and cure: which questions to ask of which scenes next, and what only other pictures can cure. Needs no torch.

Queries are chosen by greedy cover of pairs, the factors that nobody asks about first (`measurement.cover`). Each gets an equal share of the
budget, split among scenes so that its answer is least predictable from everything else (`measurement.splitting`).
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
    """A query that is to be asked, for the sake of which factor, and what it adds to coverage after those before it."""

    split: QuerySplit
    gain: float
    unasked: bool


@dataclass(frozen=True, eq=False)
class PickOutcome:
    """What became of a pick: its number of questions, bits of one of them, and its lines."""

    pick: PickedQuery
    num_questions: float
    bits: float
    lines: list[ScenePart]

    @property
    def asked(self) -> QueryTable:
        ground, item = self.pick.split.ground, self.pick.split.item
        rate = sum((line.rate * line.inside for line in self.lines), np.zeros((1,) * len(ground.names)))
        return QueryTable(item.query, item.answer, rate * ground.left[item.query.name] * item.rate if ground.recorded else rate)

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


def advise(ground: AdviceProblem, budget: int, factors: Sequence[str], subject: str) -> Advice:
    """What to ask next with a budget of questions, for the sake of some factors, and the scenes to add where questions cannot help.

    Raises `BadInput` on a budget below 1, `UnknownName` on a factor that is not there.
    """
    if budget < 1:
        raise BadInput(f"the budget is {budget} questions; give 1 or more")
    for name in factors:
        ground.space.index(name)
    cover = pair_cover(ground.names, ground.weights, ground.asked, ground.candidates, factors)
    picks = _picks(ground, cover, budget)
    available = np.array([pick.split.num_useful for pick in picks])
    shares = [_share(pick, part) for pick, part in zip(picks, fair_shares(available, float(budget)), strict=True) if part > 0]
    lines = [line for share in shares for line in share.record().lines]
    policy = ",".join(lines) or None
    known = str(ground.policy) if ground.policy else None
    judged = _factors(ground, cover, shares)
    confounded = [factor.factor for factor in judged if factor.cure == "pictures"]
    return Advice(
        subject=subject,
        num_pictures=ground.num_pictures,
        budget=budget,
        num_questions=round(sum(share.num_questions for share in shares), 2),
        asked=known,
        policy=policy,
        together=None if ground.recorded else ",".join(filter(None, (known, policy))) or None,
        undetermined=ground.undetermined,
        queries=tuple(share.record() for share in shares),
        factors=judged,
        scenes=tuple(scene for name in confounded for scene in scenes_to_add(ground, name, budget / len(judged))),
    )


def _picks(ground: AdviceProblem, cover: PairCover, budget: int) -> list[PickedQuery]:
    """Queries for the factors that nothing covers, then those that add to coverage, else those that add to pressure."""
    before, most = cover.covered(), cover.covered(range(len(ground.candidates)))
    unasked = [name for name in cover.factors if before[name] <= ZERO < most[name]]
    num_queries = max(1, int(budget // _largest_context(ground, cover.factors)))
    first = cover.of(unasked)
    chosen = [index for index, _ in lazy_greedy(first.worth, first.told, first.known, num_queries)]
    rest = cover.opened(chosen)
    chosen += [index for index, _ in lazy_greedy(rest.worth, rest.told, rest.known, num_queries - len(chosen))]
    picks = []
    for index in chosen:
        after = cover.opened([index]).covered()
        gains = {name: after[name] - value for name, value in cover.covered().items()}
        factor = max((name for name in unasked if gains[name] > ZERO), key=gains.__getitem__, default=max(gains, key=gains.__getitem__))
        picks.append(PickedQuery(QuerySplit(ground, ground.candidates[index], factor), sum(gains.values()), factor in unasked))
        cover = cover.opened([index])
    if picks:
        return picks
    sharpest = [_sharpest(ground, name, float(budget)) for name in cover.factors]
    return [PickedQuery(split, 0.0, False) for split in sharpest if split is not None][:num_queries]


def _sharpest(ground: AdviceProblem, factor: str, budget: float) -> QuerySplit | None:
    """The query by which more questions add most bits of a factor; None if none adds any."""
    splits = [QuerySplit(ground, item, factor) for item in ground.candidates if factor in item.query.depends_on]
    gains = [split.bits(split.questions(budget)) - split.bits(np.zeros(split.room.shape)) for split in splits if split.num_useful > 0]
    useful = [split for split in splits if split.num_useful > 0]
    best = int(np.argmax(gains)) if gains else -1
    return useful[best] if gains and gains[best] > ZERO else None


def _largest_context(ground: AdviceProblem, factors: Sequence[str]) -> int:
    """Scenes that a query must be asked of, one question each, before it tells all apart that it can: the most over all queries."""
    sizes = [
        int((QuerySplit(ground, item, name).pictures > 0).sum())
        for item in ground.candidates
        for name in item.query.depends_on
        if name in factors and name in ground.names
    ]
    return max(sizes, default=1)


def _share(pick: PickedQuery, budget: float) -> PickOutcome:
    questions = pick.split.questions(budget)
    return PickOutcome(pick, float(questions.sum()), pick.split.bits(questions), lines_of(pick.split, pick.split.rates(questions)))


def _factors(ground: AdviceProblem, cover: PairCover, shares: Sequence[PickOutcome]) -> tuple[AdvisedFactor, ...]:
    before, most = cover.covered(), cover.covered(range(len(ground.candidates)))
    added = [share.asked for share in shares]
    after = pair_cover(ground.names, ground.weights, ground.layout(added).asked, (), cover.factors).covered()
    old, new = ground.layout(), ground.layout(added)
    rows = [
        AdvisedFactor(
            factor=name,
            cause=_cause(ground, name, before[name], most[name]),
            cure=_cure(ground, name, before[name], most[name], shares),
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


def _named(ground: AdviceProblem, factor: str) -> bool:
    return factor in ground.nameable and any(factor in item.query.depends_on for item in ground.candidates)


def _cause(ground: AdviceProblem, factor: str, before: float, most: float) -> Literal["unasked", "confounded"] | None:
    if before > ZERO:
        return None
    asked = any(factor in item.query.depends_on and (ground.weights * item.rate).any() for item in ground.asked)
    return "confounded" if asked or (_named(ground, factor) and most <= ZERO) else "unasked"


def _cure(
    ground: AdviceProblem, factor: str, before: float, most: float, shares: Sequence[PickOutcome]
) -> Literal["questions", "new questions", "pictures", "none"] | None:
    if not _named(ground, factor):
        if before > ZERO:
            return None
        return "new questions" if factor in ground.nameable else "none"
    if most <= ZERO:
        return "pictures"
    raised = any(share.pick.split.factor == factor for share in shares)
    return "questions" if raised or most > before + ZERO else None


def _rounded(value: float) -> float:
    return round(value, PLACES) + 0.0
