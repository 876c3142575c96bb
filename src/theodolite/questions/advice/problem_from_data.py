"""The advice problem of annotated examples: examples are the scenes, answers are learned as functions of factors. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, combinations

import numpy as np
from jaxtyping import Bool, Float, Int

from theodolite.questions.advice.problem import AdviceProblem, check_size
from theodolite.questions.annotated import Annotated
from theodolite.questions.coverage import QueryTable
from theodolite.worlds.factors import Factor, FactorSpace
from theodolite.worlds.prior import Prior, spread
from theodolite.worlds.query import Query

# A function is learned only if its cells hold this many rows on average: one row a cell "determines" anything.
ROWS_PER_CELL = 5
MOST_FACTORS = 3
# In a sample any two factors look correlated a little.
LEAST_BITS = 0.05
MOST_PARTNERS = 2


@dataclass(frozen=True, eq=False)
class LearnedAnswers:
    """An answer as a function of some factors, one axis each; `seen` marks the cells with a row."""

    factors: tuple[str, ...]
    answer: Int[np.ndarray, "..."]
    seen: Bool[np.ndarray, "..."]


def problem_from_data(data: Annotated, repeats: float = 1.0) -> AdviceProblem:
    """The problem of annotated examples, a question asked of an example at most `repeats` times.

    A query is a candidate if its answer is a function of at most three factors. Raises `BadInput` if the factors span too many scenes to
    enumerate.
    """
    space = FactorSpace(tuple(Factor(name, values) for name, values in zip(data.factors, data.values, strict=True)))
    check_size(space.sizes)
    cell = np.ravel_multi_index(tuple(data.levels.T), space.sizes)
    size = int(np.prod(space.sizes))
    examples = np.bincount(cell, minlength=size).reshape(space.sizes)
    asked, candidates, left, undetermined = [], [], {}, []
    for number, name in enumerate(data.queries):
        rows = np.flatnonzero(data.query == number)
        learned = learn(data, rows, name)
        if learned is None:
            undetermined.append(name)
            continue
        query = Query(name, "open", "&".join(learned.factors), (name,), data.answers, learned.factors, learned.answer)
        answer = spread(learned.answer, learned.factors, space.names)
        asked.append(QueryTable(query, answer, _per(np.bincount(cell[data.example[rows]], minlength=size), examples)))
        candidates.append(QueryTable(query, answer, spread(learned.seen, learned.factors, space.names).astype(float)))
        with_question = np.unique(data.example[rows])
        left[name] = repeats - _per(np.bincount(cell[with_question], minlength=size), examples)
    return AdviceProblem(
        space=space,
        prior=Prior(space),
        names=space.names,
        weights=examples / examples.sum(),
        num_pictures=data.num_examples,
        asked=tuple(asked),
        candidates=tuple(candidates),
        left=left,
        nameable=frozenset(space.names),
        recorded=True,
        undetermined=tuple(undetermined),
        least_bits=LEAST_BITS,
        most_partners=MOST_PARTNERS,
    )


def _per(count: Int[np.ndarray, " cell"], examples: Int[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    return np.asarray(np.divide(count.reshape(examples.shape), examples, out=np.zeros(examples.shape), where=examples > 0))


def learn(data: Annotated, rows: Int[np.ndarray, " row"], query: str) -> LearnedAnswers | None:
    """The answer of a query as a function of the fewest factors that determine it; None if no three do.

    Of several such sets the first in the order of the columns is taken, but factors that the query names, or whose values are its
    answers, come first: where two factors are fully correlated, either determines the answer.
    """
    levels, answer = data.levels[data.example[rows]], data.answer[rows]
    answers = {data.answers[index] for index in np.unique(answer)}

    def unrelated(axis: int) -> bool:
        return not (data.factors[axis] in query or answers <= set(data.values[axis]))

    order = sorted(range(len(data.factors)), key=lambda axis: (unrelated(axis), axis))
    for axes in chain.from_iterable(combinations(order, number) for number in range(1, MOST_FACTORS + 1)):
        sizes = tuple(len(data.values[axis]) for axis in axes)
        cell = np.ravel_multi_index(tuple(levels[:, axis] for axis in axes), sizes)
        table = np.zeros(int(np.prod(sizes)), dtype=np.int64)
        table[cell] = answer
        if (table[cell] == answer).all() and len(rows) >= ROWS_PER_CELL * len(np.unique(cell)):
            seen = np.bincount(cell, minlength=len(table)) > 0
            return LearnedAnswers(tuple(data.factors[axis] for axis in axes), table.reshape(sizes), seen.reshape(sizes))
    return None
