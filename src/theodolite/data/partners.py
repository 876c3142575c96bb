"""Partner pictures of training examples: each differs in one factor, and it is known which questions' truths that moves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int, UInt8

from theodolite.worlds.factors import Scenes
from theodolite.worlds.query import Query
from theodolite.worlds.world import World


@dataclass(frozen=True, eq=False)
class Partners:
    """Partners of some examples: their pictures, and for each question of the example whether the partner's truth is another one.

    `number` is the partner's number by example, -1 where it has none; `factor` is the one that was changed, by partner. Of the answers,
    only the first tokens are compared, which should tell a question's choices apart.
    """

    pictures: UInt8[np.ndarray, "partner height width 3"]
    number: Int[np.ndarray, " example"]
    factor: tuple[str, ...]
    moves: tuple[tuple[bool, ...], ...]

    def of(self, example: int) -> int | None:
        """The number of an example's partner; None where it has none."""
        number = int(self.number[example])
        return None if number < 0 else number


def draw_partners(
    world: World, scenes: Scenes, queries: Sequence[Sequence[Query]], seed: int, frac: float, size: int | None = None
) -> Partners | None:
    """Partners of a fraction (0 to 1) of the scenes, of which these queries are asked; None at 0.

    One factor is changed in each, drawn uniformly from the world's, to another of its values. Which scenes have a partner, and which one,
    depends on the seed alone; those of a smaller fraction are among those of a larger one. A scene has none if the world has no picture of
    it (`World.counterparts`).
    """
    if not frac:
        return None
    rng = np.random.default_rng([seed, 5])
    every, column = np.arange(len(scenes)), rng.integers(len(world.space.factors), size=len(scenes))
    num_values = np.array(world.space.sizes)[column]
    levels = scenes.levels.copy()
    levels[every, column] = (levels[every, column] + rng.integers(1, num_values)) % num_values
    factor = [world.space.names[at] for at in column]
    changed, is_there = world.counterparts(Scenes(scenes.space, levels, scenes.nuisance), factor)
    index = np.flatnonzero(drawn_part(len(scenes), frac, rng) & is_there)
    number = np.full(len(scenes), -1)
    number[index] = np.arange(len(index))
    places = index.tolist()
    distinct = {query.name: query for items in queries for query in items}
    moving = {name: query.truth(changed) != query.truth(scenes) for name, query in distinct.items()}
    return Partners(
        world.render(changed.take(index), size),
        number,
        tuple(factor[at] for at in places),
        tuple(tuple(bool(moving[query.name][at]) for query in queries[at]) for at in places),
    )


def drawn_part(number: int, frac: float, rng: np.random.Generator) -> Bool[np.ndarray, " example"]:
    """A fraction (0 to 1) of so many examples, rounded; of one generator's state, a larger fraction holds all of a smaller one."""
    chosen = np.zeros(number, dtype=bool)
    chosen[rng.permutation(number)[: round(frac * number)]] = True
    return chosen
