"""Queries, regions of scenes, and query policies: distributions over (scene, query)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from theodolite.records.errors import BadInput
from theodolite.worlds.factors import FactorSpace, Scenes
from theodolite.worlds.prior import Prior, spread

Form = Literal["open", "yes_no", "conjunction"]
REGIONS = ("all", "agree", "odd")


@dataclass(frozen=True, eq=False)
class Query:
    """A question in several wordings, its choices, and its true answer as a function of the factors in `depends_on`.

    `answers` holds indices into `choices`, one axis for each factor of `depends_on`. `about` is the factor that is
    asked (two, joined by "&", in a conjunction).
    """

    name: str
    form: Form
    about: str
    wordings: tuple[str, ...]
    choices: tuple[str, ...]
    depends_on: tuple[str, ...]
    answers: Int[np.ndarray, "..."]

    def truth(self, scenes: Scenes) -> Int[np.ndarray, " scene"]:
        """Index of the true answer for each scene."""
        return np.asarray(self.answers[tuple(scenes.of_factor(name) for name in self.depends_on)])


@dataclass(frozen=True)
class PolicyLine:
    """One line of a policy: a query, the region of scenes in which it is asked, and its rate: questions per scene of the region."""

    query: Query
    region: str = "all"
    rate: float = 1.0

    def __post_init__(self) -> None:
        for term in self._terms:
            if term not in REGIONS and term not in self.query.choices and not re.fullmatch("[^=]+=[^=]+", term):
                regions = ", ".join((*REGIONS, *self.query.choices))
                problem = f"{self.query.name!r} cannot be asked of {term!r} scenes"
                raise BadInput(f"{problem}; regions are {regions}, FACTOR=VALUE, or several of these joined by '&'")
        if not (np.isfinite(self.rate) and self.rate > 0):
            raise BadInput(f"the rate of {self.query.name!r} is {self.rate}; give a number above 0")

    def __str__(self) -> str:
        times = "" if self.rate == 1 else f"*{self.rate!r}".removesuffix(".0")
        return self.query.name + ("" if self.region == "all" else f":{self.region}") + times

    @property
    def depends_on(self) -> frozenset[str]:
        """The factors that the answer depends on or that the region names."""
        factors = {term.partition("=")[0] for term in self._terms if self._names_factor(term)}
        return frozenset(self.query.depends_on) | factors

    @property
    def _terms(self) -> tuple[str, ...]:
        return (self.region,) if self.region in self.query.choices else tuple(self.region.split("&"))

    def _names_factor(self, term: str) -> bool:
        return "=" in term and term not in self.query.choices

    def inside(self, scenes: Scenes, prior: Prior) -> Bool[np.ndarray, " scene"]:
        """Whether each scene lies in the region. Raises `UnknownName` where the region names an unknown factor or value."""
        inside = np.ones(len(scenes), dtype=bool)
        for term in self._terms:
            if self._names_factor(term):
                name, _, value = term.partition("=")
                level = prior.space[name].level(value)
                inside &= scenes.of_factor(name) == level
            elif term in ("agree", "odd"):
                inside &= prior.agrees(scenes) == (term == "agree")
            elif term != "all":
                inside &= self.query.truth(scenes) == self.query.choices.index(term)
        return inside

    def inside_table(self, prior: Prior, names: tuple[str, ...]) -> Bool[np.ndarray, "..."]:
        """The region as a mask broadcastable over factor axes `names`, which must hold all of `depends_on`. Raises as `inside` does."""
        inside = np.ones((1,) * len(names), dtype=bool)
        for term in self._terms:
            if self._names_factor(term):
                name, _, value = term.partition("=")
                factor = prior.space[name]
                inside = inside & spread(np.arange(len(factor.values)) == factor.level(value), (name,), names)
            elif term in ("agree", "odd"):
                inside = inside & (prior.agreement(names) == (term == "agree"))
            elif term != "all":
                truth = spread(self.query.answers, self.query.depends_on, names)
                inside = inside & (truth == self.query.choices.index(term))
        return inside


@dataclass(frozen=True)
class Policy:
    """p(q|s): which queries are asked, how often, and of which scenes. Lines with the same query add up."""

    lines: tuple[PolicyLine, ...]

    def __str__(self) -> str:
        return ",".join(str(line) for line in self.lines)

    @property
    def queries(self) -> tuple[Query, ...]:
        """The distinct queries, in order of first mention."""
        return tuple({line.query.name: line.query for line in self.lines}.values())

    @property
    def depends_on(self) -> frozenset[str]:
        """All factors that an answer depends on or a region names."""
        return frozenset().union(*(line.depends_on for line in self.lines))

    def supported(self, prior: Prior) -> tuple[Query, ...]:
        """The queries that are asked of at least one scene of non-zero probability: "shape:odd" of none at strength 1."""

        def is_supported(line: PolicyLine) -> bool:
            names = tuple(name for name in prior.space.names if name in prior.correlated | line.depends_on)
            return bool(np.any(prior.table(names) * line.inside_table(prior, names) > 0))

        return tuple({line.query.name: line.query for line in self.lines if is_supported(line)}.values())

    @classmethod
    def parse(cls, text: str, query: Callable[[str], Query]) -> Policy:
        """A policy from "shape,shape:odd*2,row:odd&shape=round": query, ":" region, "*" rate. `query` returns a query by name."""
        lines = []
        for item in filter(None, (piece.strip() for piece in text.split(","))):
            match = re.fullmatch(r"([^:*]+)(?::([^*]+))?(?:\*(.+))?", item)
            if match is None:
                raise BadInput(f"cannot read {item!r}; write QUERY, QUERY:REGION or QUERY:REGION*RATE")
            name, region, rate = match.groups()
            try:
                times = float(rate or 1)
            except ValueError:
                raise BadInput(f"the rate of {item!r} is {rate!r}; give a number") from None
            lines.append(PolicyLine(query(name.strip()), (region or "all").strip(), times))
        if not lines:
            raise BadInput("the policy asks nothing; name at least one query, for example shape")
        return cls(tuple(lines))

    def rates(self, scenes: Scenes, prior: Prior) -> Float[np.ndarray, "line scene"]:
        """Expected number of questions of each line about each scene."""
        return np.stack([line.rate * line.inside(scenes, prior) for line in self.lines])

    def draw(self, scenes: Scenes, prior: Prior, rng: np.random.Generator) -> list[list[Query]]:
        """The queries asked of each scene: rates are counts, with fractions rounded at random (systematic sampling).

        One number is drawn per scene, and rates are summed over lines before they are rounded. A scene whose rates sum to a whole
        number is asked exactly that many questions, so that all arms of a study have equal budgets.
        """
        sums = self.rates(scenes, prior).cumsum(axis=0)
        offset = rng.random(sums.shape)[:1]
        # Sums of fractions such as 0.1 miss the whole number by rounding errors, which must not remove a question.
        levels = np.floor(np.round(sums, 9) + offset)
        counts = np.diff(levels, axis=0, prepend=np.floor(offset)).astype(int)
        return [[line.query for line, count in zip(self.lines, column, strict=True) for _ in range(count)] for column in counts.T]


def open_query(space: FactorSpace, name: str, wordings: Sequence[str]) -> Query:
    """The query "what is its <factor>?": choices are the factor's values."""
    values = space[name].values
    return Query(name, "open", name, tuple(wordings), values, (name,), np.arange(len(values)))


def yes_no_query(space: FactorSpace, name: str, value: str, wordings: Sequence[str], *, negated: bool) -> Query:
    """The query "is it <value>?", or "Is it not <value>?": choices are yes and no."""
    holds = np.arange(len(space[name].values)) == space[name].level(value)
    answers = (holds == negated).astype(int)
    label = f"{name}{'!=' if negated else '='}{value}"
    return Query(label, "yes_no", name, tuple(wordings), ("yes", "no"), (name,), answers)


def conjunction_query(space: FactorSpace, conditions: Sequence[tuple[str, str]], wordings: Sequence[str]) -> Query:
    """The query "is it <value> and <value>?" of two factors: choices are yes and no."""
    (first, value), (second, other) = conditions
    if first == second:
        raise BadInput(f"a conjunction needs two different factors; both are {first!r}")
    holds = np.logical_and.outer(
        np.arange(len(space[first].values)) == space[first].level(value), np.arange(len(space[second].values)) == space[second].level(other)
    )
    label = f"{first}={value}&{second}={other}"
    return Query(label, "conjunction", f"{first}&{second}", tuple(wordings), ("yes", "no"), (first, second), 1 - holds)
