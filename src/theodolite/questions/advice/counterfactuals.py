"""Counterfactual scenes to add for factors that no question of the pictures at hand can determine. Needs no torch."""

from __future__ import annotations

from itertools import product
from math import ceil

import numpy as np

from theodolite.questions.advice.problem import AdviceProblem, correlated_factors
from theodolite.questions.advice.water_filling import fill_water
from theodolite.records.advice import AddedScenes

MOST_PARTNERS = 3


def scenes_to_add(problem: AdviceProblem, factor: str, budget: float) -> tuple[AddedScenes, ...]:
    """The scenes that decorrelate a factor from its correlated factors, enough for `budget` questions with equally likely values.

    A confounded factor has one value for each combination of values of its correlated factors. The scenes to add show its other values;
    a question about them has no proxy.
    """
    correlated = correlated_factors(problem.weights, problem.names, factor, problem.least_bits, MOST_PARTNERS)
    context = tuple(name for name in problem.names if name in (factor, *correlated))
    pictures = np.moveaxis(problem.over(context, np.ones(1)), context.index(factor), -1)
    others = [name for name in context if name != factor]
    lines = pictures.reshape(-1, pictures.shape[-1])
    seen = lines.sum(axis=1) > 0
    missing = (lines == 0) & seen[:, None]
    needed = fill_water(np.zeros(lines.shape), np.where(missing, float(budget), lines), np.zeros(lines.shape), float(budget))
    values = problem.space[factor].values
    levels = product(*(range(len(problem.space[name].values)) for name in others))
    scenes = []
    if not missing.any():  # the factor varies, but only together with factors that are not among the chosen correlated ones
        return (AddedScenes(factor=factor, where=(), to=values, num_each=ceil(budget / len(values))),)
    for row, where in enumerate(levels):
        if missing[row].any():
            scenes.append(
                AddedScenes(
                    factor=factor,
                    where=tuple(f"{name}={problem.space[name].values[level]}" for name, level in zip(others, where, strict=True)),
                    to=tuple(values[level] for level in np.flatnonzero(missing[row])),
                    num_each=ceil(round(float(needed[row][missing[row]].max()), 6)),
                )
            )
    return tuple(scenes)
