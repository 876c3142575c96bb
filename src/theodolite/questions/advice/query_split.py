"""Split of a query's questions among scenes, and the policy lines that express it. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
from jaxtyping import Bool, Float, Int

from theodolite.questions.advice.problem import AdviceProblem
from theodolite.questions.advice.water_filling import fill_water, total_bits
from theodolite.questions.coverage import QueryTable
from theodolite.worlds.prior import spread

# Share of a query's budget that may go to scenes for coverage alone, whatever they add to pressure.
LEAST_FRAC = 0.1
DIGITS = 6


@dataclass(frozen=True, eq=False)
class QuerySplit:
    """A query asked for the sake of a factor: pictures and questions by the values of `context`, the factor's axis first."""

    problem: AdviceProblem
    item: QueryTable
    factor: str

    @cached_property
    def context(self) -> tuple[str, ...]:
        return self.problem.context(self.item, self.factor)

    @cached_property
    def pictures(self) -> Float[np.ndarray, "value ..."]:
        return self._first(self.problem.over(self.context, np.ones(1)))

    @cached_property
    def asked(self) -> Float[np.ndarray, "value ..."]:
        """Expected number of questions asked already."""
        rates = [item.rate for item in self.problem.asked if item.query.name == self.item.query.name]
        return self._first(self.problem.over(self.context, rates[0] if rates else np.zeros(1)))

    @cached_property
    def answer(self) -> Int[np.ndarray, "value ..."]:
        dropped = tuple(axis for axis, name in enumerate(self.problem.names) if name not in self.context)
        return np.broadcast_to(self._first(self.item.answer.squeeze(dropped)), self.pictures.shape)

    @cached_property
    def room(self) -> Float[np.ndarray, "value ..."]:
        """Expected number of questions that can be added, 0 on lines with one answer only, where they add no bits."""
        left = self.problem.left[self.item.query.name] * self.item.rate
        room = self._first(self.problem.over(self.context, left))
        return np.asarray(room * ((self._by_answer(room + self.asked) > 0).sum(axis=-1) > 1))

    def _first(self, table: np.ndarray) -> np.ndarray:
        return np.moveaxis(table, self.context.index(self.factor), 0)

    def _by_answer(self, table: np.ndarray) -> Float[np.ndarray, "... answer"]:
        return np.stack([(table * (self.answer == choice)).sum(axis=0) for choice in range(len(self.item.query.choices))], axis=-1)

    def _lines(self, table: np.ndarray) -> Float[np.ndarray, "line answer"]:
        return self._by_answer(table).reshape(-1, len(self.item.query.choices))

    @property
    def num_useful(self) -> float:
        """Expected number of questions that can be added, 0 or more."""
        return float(self.room.sum())

    @property
    def num_balanced(self) -> float:
        """Expected number of questions up to which the answers of every line can stay equally likely."""
        asked, room = self._lines(self.asked), self._lines(self.room)
        high = asked + room
        level = np.min(high, axis=1, where=high > 0, initial=np.inf)
        return float(np.clip(level[:, None] - asked, 0, room).sum())

    @property
    def limit_bits(self) -> float:
        """Bits of one question if all answers on a line were equally likely, 0 or more."""
        return float(np.log2(max(1, int((self._lines(self.room + self.asked) > 0).sum(axis=1).max()))))

    def questions(self, budget: float) -> Float[np.ndarray, "value ..."]:
        """Expected number of questions to add to the scenes of each value, `budget` in all or all the room."""
        first = np.where(self.asked == 0, np.minimum(self.room, 1.0), 0.0)
        first *= min(1.0, LEAST_FRAC * budget / max(float(first.sum()), 1e-300))
        room = self._by_answer(self.room)
        added = fill_water(self._lines(self.asked), self._lines(self.room), self._lines(first), budget).reshape(room.shape)
        frac = np.divide(added, room, out=np.zeros(room.shape), where=room > 0)
        of_answer = [frac[..., choice] * (self.answer == choice) for choice in range(frac.shape[-1])]
        return np.asarray(self.room * np.sum(of_answer, axis=0))

    def bits(self, questions: Float[np.ndarray, "value ..."]) -> float:
        """Pressure in bits on the factor of one question of this query once these are added, 0 or more."""
        lines = self._lines(self.asked + questions)
        return total_bits(lines) / float(lines.sum()) if lines.sum() > 0 else 0.0

    def rates(self, questions: Float[np.ndarray, "value ..."]) -> Float[np.ndarray, "..."]:
        """Questions per picture over the axes `context`; of recorded data, per picture with questions left."""
        base = self.room if self.problem.recorded else self.pictures
        rates = np.divide(questions, base, out=np.zeros(base.shape), where=base > 0)
        return np.moveaxis(rates, 0, self.context.index(self.factor))


@dataclass(frozen=True, eq=False)
class ScenePart:
    """One line of a policy: the region as text and as a mask over the problem's axes, and its questions per picture."""

    region: str
    inside: Bool[np.ndarray, "..."]
    rate: float

    def written(self, query: str) -> str:
        times = "" if self.rate == 1 else f"*{self.rate!r}".removesuffix(".0")
        return query + ("" if self.region == "all" else f":{self.region}") + times


def lines_of(split: QuerySplit, rates: Float[np.ndarray, "..."]) -> list[ScenePart]:
    """The coarsest lines with these rates (to 2e-6 of each): all scenes, by agreement, by a value, by both, or scene by scene."""
    problem, context = split.problem, split.context
    real = problem.over(context, np.ones(1)) > 0
    for regions in _partitions(problem, context):
        lines = []
        for region, mask in regions:
            inside = rates[np.broadcast_to(mask, rates.shape) & real]
            if len(inside) and np.ptp(inside) > 2e-6 * inside.max():
                break
            if len(inside) and inside.max() > 0:
                lines.append(ScenePart(region, spread(mask, context, problem.names), float(f"{inside.mean():.{DIGITS}g}")))
        else:
            return lines
    raise AssertionError("scene by scene every rate is constant")


def _partitions(problem: AdviceProblem, context: tuple[str, ...]) -> Iterator[list[tuple[str, Bool[np.ndarray, "..."]]]]:
    """Partitions of all scenes into regions (text, mask), coarse to fine; masks have one axis for each factor of the context."""
    values = {name: problem.space[name].values for name in context}

    def is_value(name: str, level: int) -> Bool[np.ndarray, "..."]:
        return spread(np.arange(len(values[name])) == level, (name,), context)

    everything = np.ones((1,) * len(context), dtype=bool)
    yield [("all", everything)]
    sides: list[tuple[str, Bool[np.ndarray, "..."]]] = []
    if problem.prior.correlated and problem.prior.correlated <= set(context) and not problem.recorded:
        agree = problem.prior.agreement(context)
        sides = [("agree", agree), ("odd", ~agree)]
        yield sides
    for prefix in ([], sides) if sides else ([],):
        for name in context:
            yield [
                ("&".join(filter(None, (side, f"{name}={value}"))), mask & is_value(name, level))
                for level, value in enumerate(values[name])
                for side, mask in (prefix or [("", everything)])
            ]
    cells = []
    for levels in product(*(range(len(values[name])) for name in context)):
        mask = everything
        for name, level in zip(context, levels, strict=True):
            mask = mask & is_value(name, level)
        cells.append(("&".join(f"{name}={values[name][level]}" for name, level in zip(context, levels, strict=True)), mask))
    yield cells
