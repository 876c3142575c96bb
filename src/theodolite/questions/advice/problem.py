"""Input of the advice problem: scenes with weights, queries asked of them and candidate queries, from a world or from data. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce

import numpy as np
from jaxtyping import Float, Int

from theodolite.questions.coverage import MAX_SCENES, Enumeration, QueryTable, entropy_bits
from theodolite.records.errors import BadInput
from theodolite.worlds.factors import FactorSpace
from theodolite.worlds.prior import Prior, spread
from theodolite.worlds.query import Policy, Query


class ProblemShape(Enumeration):
    """An `Enumeration` of given weights and queries, without a policy: the input of `pressure_bits_of`."""

    def __init__(self, names: tuple[str, ...], weights: Float[np.ndarray, "..."], asked: Sequence[QueryTable]) -> None:
        self.names, self.shape, self.weights = names, weights.shape, weights
        self.asked = tuple(asked)


@dataclass(frozen=True, eq=False)
class AdviceProblem:
    """Scenes over the axes `names`; `weights` sums to 1 and has their full shape.

    `asked` holds the queries that are asked already, `candidates` those that may be advised, with rate 1 where they can be asked. `left` is
    the number of further questions of each query that a picture may get. `policy` is the source of `asked`; recorded data have none: there
    `left` differs between pictures, and rates count the pictures with questions left. `least_bits` and `most_partners` decide which factors
    count as correlated (see `correlated_factors`).
    """

    space: FactorSpace
    prior: Prior
    names: tuple[str, ...]
    weights: Float[np.ndarray, "..."]
    num_pictures: int
    asked: tuple[QueryTable, ...]
    candidates: tuple[QueryTable, ...]
    left: Mapping[str, Float[np.ndarray, "..."]]
    nameable: frozenset[str]
    recorded: bool = False
    undetermined: tuple[str, ...] = ()
    policy: Policy | None = None
    least_bits: float = 1e-9
    most_partners: int = 8
    _correlated: dict[str, tuple[str, ...]] = field(default_factory=dict, repr=False)

    def correlated_factors(self, factor: str) -> tuple[str, ...]:
        """The factors with which a factor is correlated, in the order of the space."""
        if factor not in self._correlated:
            correlated = correlated_factors(self.weights, self.names, factor, self.least_bits, self.most_partners)
            self._correlated[factor] = tuple(name for name in self.names if name in correlated)
        return self._correlated[factor]

    def context(self, item: QueryTable, factor: str) -> tuple[str, ...]:
        """The factors by whose values the questions of a query are split when it is asked for the sake of a factor."""
        relevant = {factor, *item.query.depends_on, *self.correlated_factors(factor)}
        left = self.left[item.query.name]
        return tuple(name for axis, name in enumerate(self.names) if name in relevant or (not self.recorded and left.shape[axis] > 1))

    def over(self, context: tuple[str, ...], table: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        """Expected number of pictures (times `table`) by the values of some factors."""
        dropped = tuple(axis for axis, name in enumerate(self.names) if name not in context)
        return np.asarray((self.weights * self.num_pictures * table).sum(axis=dropped))

    def layout(self, added: Iterable[QueryTable] = ()) -> ProblemShape:
        """The asked and the added questions together, rates of the same query summed."""
        merged: dict[str, QueryTable] = {}
        for item in (*self.asked, *added):
            before = merged.get(item.query.name)
            rate = item.rate if before is None else before.rate + item.rate
            merged[item.query.name] = QueryTable(item.query, item.answer, rate)
        return ProblemShape(self.names, self.weights, tuple(merged.values()))


def correlated_factors(weights: Float[np.ndarray, "..."], names: tuple[str, ...], factor: str, least_bits: float, most: int) -> list[str]:
    """Greedy choice of at most `most` factors that reduce H(factor | chosen) most, each by `least_bits` or more."""
    chosen: list[str] = []
    if factor not in names:
        return chosen
    remaining = conditional_bits(weights, names, factor, chosen)
    while len(chosen) < most:
        others = [name for name in names if name != factor and name not in chosen]
        bits = {name: conditional_bits(weights, names, factor, [*chosen, name]) for name in others}
        best = min(bits, key=lambda name: bits[name], default=None)
        if best is None or remaining - bits[best] < least_bits:
            return chosen
        chosen.append(best)
        remaining = bits[best]
    return chosen


def conditional_bits(weights: Float[np.ndarray, "..."], names: tuple[str, ...], factor: str, given: Sequence[str]) -> float:
    """H(factor | given), in bits."""
    dropped = tuple(axis for axis, name in enumerate(names) if name != factor and name not in given)
    both = weights.sum(axis=dropped, keepdims=True)
    return max(0.0, entropy_bits(both) - entropy_bits(both.sum(axis=names.index(factor))))


def world_problem(prior: Prior, queries: Sequence[Query], asked: Policy | None, num_pictures: int, repeats: float = 1.0) -> AdviceProblem:
    """The problem of `num_pictures` pictures drawn from a prior, with a policy asked already (None: nothing) and candidate queries.

    A question is asked of a picture at most `repeats` times. Raises `BadInput` if the involved factors span too many scenes to enumerate.
    """
    lines = asked.lines if asked else ()
    involved = prior.correlated.union(*(query.depends_on for query in queries), *(line.depends_on for line in lines))
    names = tuple(name for name in prior.space.names if name in involved)
    shape = tuple(len(prior.space[name].values) for name in names)
    check_size(shape)

    def answers(query: Query) -> Int[np.ndarray, "..."]:
        return spread(query.answers, query.depends_on, names)

    def rate(query: Query) -> Float[np.ndarray, "..."]:
        rates = [line.rate * line.inside_table(prior, names).astype(float) for line in lines if line.query.name == query.name]
        return np.asarray(reduce(np.add, rates, np.zeros((1,) * len(names))))

    return AdviceProblem(
        space=prior.space,
        prior=prior,
        names=names,
        weights=np.array(np.broadcast_to(prior.table(names), shape)),
        num_pictures=num_pictures,
        asked=tuple(QueryTable(query, answers(query), rate(query)) for query in (asked.queries if asked else ())),
        candidates=tuple(QueryTable(query, answers(query), np.ones((1,) * len(names))) for query in queries),
        left={query.name: np.maximum(0.0, repeats - rate(query)) for query in queries},
        nameable=frozenset(prior.space.nameable),
        policy=asked,
    )


def check_size(shape: tuple[int, ...]) -> None:
    """Raises `BadInput` if a table of this shape is too large to enumerate."""
    size = int(np.prod(shape, dtype=np.int64))
    if size > MAX_SCENES:
        raise BadInput(f"the factors span {size:,} scenes; advice enumerates up to {MAX_SCENES:,}: name fewer factors")
