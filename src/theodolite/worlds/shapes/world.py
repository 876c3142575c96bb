"""The shapes world: one object on a ground, ten factors, exact counterfactuals, any size."""

from __future__ import annotations

from functools import cached_property
from itertools import combinations

import numpy as np
from jaxtyping import UInt8

from theodolite.records.errors import BadInput
from theodolite.worlds.factors import Factor, FactorSpace, Scenes, UnknownName
from theodolite.worlds.prior import Prior
from theodolite.worlds.query import Query, conjunction_query, open_query, yes_no_query
from theodolite.worlds.shapes.draw import draw_scenes
from theodolite.worlds.world import Pairs, World

SPACE = FactorSpace(
    (
        Factor("shape", ("round", "square", "triangular", "crossed")),
        Factor("colour", ("red", "yellow", "blue", "green"), groups={"warm": ("red", "yellow"), "cold": ("blue", "green")}),
        Factor("size", ("small", "medium", "large")),
        Factor("column", ("leftmost", "left", "right", "rightmost"), predicate="{value} in the picture"),
        Factor("row", ("top", "upper", "lower", "bottom"), predicate="in the {value} row"),
        Factor("texture", ("plain", "striped", "dotted")),
        Factor("ground", ("light", "grey", "dark"), predicate="on {value} ground"),
        Factor("letter", ("E", "K", "S", "U"), predicate="marked {value}"),
        Factor("tilt", ("anticlockwise", "upright", "clockwise"), predicate="tilted {value}"),
        # A gradient of light across the ground, in every picture and in no query.
        Factor("sheen", ("sheen-0", "sheen-1", "sheen-2"), nameable=False),
    )
)

OPEN_WORDINGS = ("what is its {noun}?", "which {noun} does the object have?", "name the {noun} of the object.")
YES_NO_WORDINGS = ("is it {a}?", "is the object {a}?", "would you say that it is {a}?")
NEGATED_WORDINGS = ("is it not {a}?", "is the object not {a}?", "would you say that it is not {a}?")
CONJUNCTION_WORDINGS = ("is it {a} and {b}?", "is the object both {a} and {b}?", "is it true that it is {a} and {b}?")


class Shapes(World):
    """64 x 64 pictures (or any other size) of one object: shape, colour, size, place, texture, ground, letter, tilt, sheen."""

    name = "shapes"
    default_correlation = ("shape", "colour")

    def __init__(self, prior: Prior | None = None) -> None:
        self.prior = prior or Prior(SPACE)

    def correlate(self, cause: str, effect: str, strength: float) -> Shapes:
        return Shapes(self.prior.correlate(cause, effect, strength))

    def sample(self, num_scenes: int, rng: np.random.Generator) -> Scenes:
        return self.prior.sample(num_scenes, rng)

    def render(self, scenes: Scenes, size: int | None = None) -> UInt8[np.ndarray, "scene size size 3"]:
        return draw_scenes(scenes, size or 64)

    def pairs(self, num_scenes: int, rng: np.random.Generator) -> Pairs:
        """Exact pairs: every scene is re-rendered with each factor changed in turn, and once with a fresh nuisance seed."""
        base = self.independent.sample(num_scenes, rng)
        variants = [base]
        for factor in self.space.factors:
            step = rng.integers(1, len(factor.values), size=num_scenes)
            variants.append(base.do(factor.name, (base.of_factor(factor.name) + step) % len(factor.values)))
        variants.append(base.reseed(rng))
        factors = (*self.space.names, "")
        scene = np.arange(num_scenes)
        return Pairs(
            kind="exact",
            pool=Scenes.concatenate(variants),
            scene_id=np.tile(scene, len(factors)),
            factor=tuple(factor for factor in factors for _ in range(num_scenes)),
            before=np.tile(scene, len(factors)),
            after=np.arange(num_scenes, num_scenes * (len(factors) + 1)),
        )

    @cached_property
    def _by_name(self) -> dict[str, Query]:
        space, queries = self.space, []
        for name in space.nameable:
            queries.append(open_query(space, name, [text.format(noun=name) for text in OPEN_WORDINGS]))
            for value in space[name].values:
                for negated, texts in ((False, YES_NO_WORDINGS), (True, NEGATED_WORDINGS)):
                    wordings = [text.format(a=self._phrase(name, value)) for text in texts]
                    queries.append(yes_no_query(space, name, value, wordings, negated=negated))
        for first, second in combinations(space.nameable, 2):
            for value in space[first].values:
                for other in space[second].values:
                    phrases = {"a": self._phrase(first, value), "b": self._phrase(second, other)}
                    wordings = [text.format(**phrases) for text in CONJUNCTION_WORDINGS]
                    queries.append(conjunction_query(space, [(first, value), (second, other)], wordings))
        return {query.name: query for query in queries}

    def _phrase(self, name: str, value: str) -> str:
        return self.space[name].predicate.format(value=value)

    @property
    def queries(self) -> tuple[Query, ...]:
        return tuple(self._by_name.values())

    def query(self, name: str) -> Query:
        conditions = sorted(name.split("&"), key=lambda condition: self._rank(condition.split("=")[0]))
        canonical = "&".join(conditions)
        if canonical in self._by_name:
            return self._by_name[canonical]
        factor, _, value = name.partition("=")
        factor = factor.removesuffix("!")
        if "&" not in name and factor in self.space.nameable and value:
            raise UnknownName(f"value of {factor}", value, self.space[factor].values)
        if factor in self.space.names and factor not in self.space.nameable:
            raise BadInput(f"no query can name {factor!r}, by design of the world; ask {', '.join(self.space.nameable)}")
        examples = ("shape=round", "shape!=round", "shape=round&colour=red")
        raise UnknownName("query", name, (*self.space.nameable, *examples))

    def _rank(self, name: str) -> int:
        return self.space.names.index(name) if name in self.space.names else -1
