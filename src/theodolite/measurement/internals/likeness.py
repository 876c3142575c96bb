"""Likeness of the vision tokens of a picture, by site: mean pairwise cosine and effective rank.

Likeness alone is no verdict: tokens can have a high cosine because of one large common direction and still separate every factor. The
causal measures (tokens shuffled, or replaced by their mean) test whether it affects answers.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from theodolite.measurement.internals.context import MeasureContext
from theodolite.measurement.internals.directions import pictures_by_scene
from theodolite.records.likeness import Likeness, SiteLikeness
from theodolite.records.part import Estimate
from theodolite.stats.jackknife import rounded
from theodolite.stats.rates import clustered_mean


def measure_likeness(context: MeasureContext) -> Likeness | None:
    """Likeness of the vision tokens of all pictures that interventions use, by site; None where there are none."""
    pictures, scenes = pictures_by_scene(context.interventions)
    if not len(pictures):
        return None
    activations = context.activations
    return Likeness(
        sites={
            site: SiteLikeness(
                cosine=average(activations.likeness(site)[pictures], scenes, context.confidence, (-1.0, 1.0)),
                rank=average(activations.rank(site)[pictures], scenes, context.confidence),
                num_pictures=len(pictures),
            )
            for site in activations.sites
        }
    )


def average(
    values: Float[np.ndarray, " picture"], scenes: Int[np.ndarray, " picture"], confidence: float, bounds: tuple[float, float] | None = None
) -> Estimate | None:
    """Mean over the pictures that have a value, with its interval clustered by scene; None where no picture has one."""
    present = np.isfinite(values)
    if not present.any():
        return None
    exact = values[present].astype(np.float64)
    if bounds is not None:  # single precision may exceed them
        exact = exact.clip(*bounds)
    return rounded(clustered_mean(exact, scenes[present], confidence, bounds))
