"""Scenes to add where no question can help: which factor to set to which values, where, and in how many pictures. Needs no torch."""

from __future__ import annotations

from itertools import product
from math import ceil

import numpy as np

from theodolite.questions.advice.problem import AdviceProblem, correlated_factors
from theodolite.questions.advice.water_filling import fill_water
from theodolite.records.advice import AddedScenes

MOST_PARTNERS = 3


def scenes_to_add(ground: AdviceProblem, factor: str, budget: float) -> tuple[AddedScenes, ...]:
    """The scenes that free a factor from those it is tied to, as many as `budget` questions need for equally likely values.

    A factor that can only be read off others takes one value wherever these have theirs. The same scenes with its other values are
    what no picture shows; a question about them has no proxy.
    """
    tied = correlated_factors(ground.weights, ground.names, factor, ground.least_bits, MOST_PARTNERS)
    context = tuple(name for name in ground.names if name in (factor, *tied))
    pictures = np.moveaxis(ground.over(context, np.ones(1)), context.index(factor), -1)
    others = [name for name in context if name != factor]
    lines = pictures.reshape(-1, pictures.shape[-1])
    seen = lines.sum(axis=1) > 0
    missing = (lines == 0) & seen[:, None]
    needed = fill_water(np.zeros(lines.shape), np.where(missing, float(budget), lines), np.zeros(lines.shape), float(budget))
    values = ground.space[factor].values
    levels = product(*(range(len(ground.space[name].values)) for name in others))
    found = []
    if not missing.any():  # the factor varies, but only together with factors that were not found to be tied to it
        return (AddedScenes(factor=factor, where=(), to=values, num_each=ceil(budget / len(values))),)
    for row, where in enumerate(levels):
        if missing[row].any():
            found.append(
                AddedScenes(
                    factor=factor,
                    where=tuple(f"{name}={ground.space[name].values[level]}" for name, level in zip(others, where, strict=True)),
                    to=tuple(values[level] for level in np.flatnonzero(missing[row])),
                    num_each=ceil(round(float(needed[row][missing[row]].max()), 6)),
                )
            )
    return tuple(found)
