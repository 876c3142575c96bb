"""Queries, the regions they are asked in, and policies: distributions over (scene, query)."""

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
    """A question in several wordings, its answer as a function of the scene, its choices, and what the answer depends on.

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
    """One line of a policy: a query, the region of scenes it is asked in, and how many times each such scene is asked."""

    query: Query
    region: str = "all"
    rate: float = 1.0

    def __post_init__(self) -> None:
        for part in self._parts:
            if part not in REGIONS and part not in self.query.choices and not re.fullmatch("[^=]+=[^=]+", part):
                known = ", ".join((*REGIONS, *self.query.choices))
                found = f"{self.query.name!r} cannot be asked of {part!r} scenes"
                raise BadInput(f"{found}; regions are {known}, FACTOR=VALUE, or several of these joined by '&'")
        if not (np.isfinite(self.rate) and self.rate > 0):
            raise BadInput(f"{self.query.name!r} is asked {self.rate} times a scene; give a number above 0")

    def __str__(self) -> str:
        times = "" if self.rate == 1 else f"*{self.rate!r}".removesuffix(".0")
        return self.query.name + ("" if self.region == "all" else f":{self.region}") + times

    @property
    def depends_on(self) -> frozenset[str]:
        """The factors that the answer depends on or that the region names."""
        named = {part.partition("=")[0] for part in self._parts if self._names_factor(part)}
        return frozenset(self.query.depends_on) | named

    @property
    def _parts(self) -> tuple[str, ...]:
        return (self.region,) if self.region in self.query.choices else tuple(self.region.split("&"))

    def _names_factor(self, part: str) -> bool:
        return "=" in part and part not in self.query.choices

    def inside(self, scenes: Scenes, prior: Prior) -> Bool[np.ndarray, " scene"]:
        """Whether each scene lies in the region. Raises `UnknownName` where the region names a factor or value that is not there."""
        inside = np.ones(len(scenes), dtype=bool)
        for part in self._parts:
            if self._names_factor(part):
                name, _, value = part.partition("=")
                level = prior.space[name].level(value)
                inside &= scenes.of_factor(name) == level
            elif part in ("agree", "odd"):
                inside &= prior.agrees(scenes) == (part == "agree")
            elif part != "all":
                inside &= self.query.truth(scenes) == self.query.choices.index(part)
        return inside

    def inside_table(self, prior: Prior, names: tuple[str, ...]) -> Bool[np.ndarray, "..."]:
        """The region over factor axes `names`, broadcastable; they must hold all of `depends_on`. Raises `UnknownName` as `inside` does."""
        inside = np.ones((1,) * len(names), dtype=bool)
        for part in self._parts:
            if self._names_factor(part):
                name, _, value = part.partition("=")
                factor = prior.space[name]
                inside = inside & spread(np.arange(len(factor.values)) == factor.level(value), (name,), names)
            elif part in ("agree", "odd"):
                inside = inside & (prior.agreement(names) == (part == "agree"))
            elif part != "all":
                truth = spread(self.query.answers, self.query.depends_on, names)
                inside = inside & (truth == self.query.choices.index(part))
        return inside


@dataclass(frozen=True)
class Policy:
    """p(q|s): which queries are asked, how often, and of which scenes. Lines that name the same query add up."""

    asks: tuple[PolicyLine, ...]

    def __str__(self) -> str:
        return ",".join(str(ask) for ask in self.asks)

    @property
    def queries(self) -> tuple[Query, ...]:
        """The distinct queries, in order of first mention."""
        return tuple({ask.query.name: ask.query for ask in self.asks}.values())

    @property
    def depends_on(self) -> frozenset[str]:
        """All factors that some answer depends on or some region names."""
        return frozenset().union(*(ask.depends_on for ask in self.asks))

    def supported(self, prior: Prior) -> tuple[Query, ...]:
        """The queries that are asked of some scene of non-zero probability: "shape:odd" is of none at strength 1."""

        def asked(ask: PolicyLine) -> bool:
            names = tuple(name for name in prior.space.names if name in prior.correlated | ask.depends_on)
            return bool(np.any(prior.table(names) * ask.inside_table(prior, names) > 0))

        return tuple({ask.query.name: ask.query for ask in self.asks if asked(ask)}.values())

    @classmethod
    def parse(cls, text: str, query: Callable[[str], Query]) -> Policy:
        """A policy from "shape,shape:odd*2,row:odd&shape=round": query, ":" region, "*" rate; `query` looks query names up."""
        asks = []
        for part in filter(None, (piece.strip() for piece in text.split(","))):
            match = re.fullmatch(r"([^:*]+)(?::([^*]+))?(?:\*(.+))?", part)
            if match is None:
                raise BadInput(f"cannot read {part!r}; write QUERY, QUERY:REGION or QUERY:REGION*RATE")
            name, region, rate = match.groups()
            try:
                times = float(rate or 1)
            except ValueError:
                raise BadInput(f"the rate of {part!r} is {rate!r}; give a number") from None
            asks.append(PolicyLine(query(name.strip()), (region or "all").strip(), times))
        if not asks:
            raise BadInput("the policy asks nothing; name at least one query, for example shape")
        return cls(tuple(asks))

    def rates(self, scenes: Scenes, prior: Prior) -> Float[np.ndarray, "ask scene"]:
        """How often each line is asked of each scene."""
        return np.stack([ask.rate * ask.inside(scenes, prior) for ask in self.asks])

    def draw(self, scenes: Scenes, prior: Prior, rng: np.random.Generator) -> list[list[Query]]:
        """The queries asked of each scene: rates are counts, their fractions are rounded at random.

        One number is drawn a scene and the rates are summed along the lines before they are rounded (systematic sampling), so that
        a scene whose rates sum to a whole number is asked exactly so many questions: fractions then cost no arm more than another.
        """
        sums = self.rates(scenes, prior).cumsum(axis=0)
        offset = rng.random(sums.shape)[:1]
        # Sums of fractions such as 0.1 miss the whole number by a rounding, which must not cost a question.
        levels = np.floor(np.round(sums, 9) + offset)
        counts = np.diff(levels, axis=0, prepend=np.floor(offset)).astype(int)
        return [[ask.query for ask, count in zip(self.asks, column, strict=True) for _ in range(count)] for column in counts.T]


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


def conjunction_query(space: FactorSpace, parts: Sequence[tuple[str, str]], wordings: Sequence[str]) -> Query:
    """The query "is it <value> and <value>?" of two factors: choices are yes and no."""
    (first, value), (second, other) = parts
    if first == second:
        raise BadInput(f"a conjunction needs two different factors; both are {first!r}")
    holds = np.logical_and.outer(
        np.arange(len(space[first].values)) == space[first].level(value),
        np.arange(len(space[second].values)) == space[second].level(other),
    )
    label = f"{first}={value}&{second}={other}"
    return Query(label, "conjunction", f"{first}&{second}", tuple(wordings), ("yes", "no"), (first, second), 1 - holds)
