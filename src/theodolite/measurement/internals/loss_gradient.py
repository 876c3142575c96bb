"""The gradient of the next-token loss along each factor's displacement at the connector, in nats, with no threshold that makes it 0.

The claim that it measures: along a factor that no question needs, the gradient of the training loss is 0 whatever the data. Beside each
factor stand the factors that are asked about, the displacement by the nuisance seed alone, and random directions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int

from theodolite.records.fisher import DirectionGradient
from theodolite.records.part import Estimate
from theodolite.stats.rates import bootstrap, clustered_mean, paired_difference

NUM_RESAMPLES = 400
SIGNIFICANT = 6


def significant(estimate: Estimate) -> Estimate:
    """The estimate with value and ends rounded to six significant digits: decimals would set a small gradient to 0."""
    low, high = (None if end is None else _digits(end) for end in (estimate.low, estimate.high))
    return Estimate(value=_digits(estimate.value), low=low, high=high, num_scenes=estimate.num_scenes)


def _digits(value: float) -> float:
    return float(f"{value:.{SIGNIFICANT}g}")


def direction_gradients(
    factors: Sequence[str],
    asked: Sequence[str],
    column: Callable[[str], Float[np.ndarray, "case factor"]],
    scenes: Int[np.ndarray, " case"],
    confidence: float,
    rng: np.random.Generator,
) -> tuple[DirectionGradient, ...]:
    """One record a factor that displaces some picture's tokens; `column` gives the fields of `AlongDisplacements` by name.

    `asked` are the factors that some question of the cases is about.
    """
    signed, nuisance, chance = column("gradient"), np.abs(column("gradient_nuisance")), column("gradient_random")
    size = np.abs(signed)
    of_asked = np.isin(np.array(factors), np.array(asked)) & np.isfinite(size)
    counts = of_asked.sum(axis=1)
    covered = np.divide(np.where(of_asked, size, 0).sum(axis=1), counts, out=np.full(len(size), np.nan), where=counts > 0)
    records = []
    for number, factor in enumerate(factors):
        moved = np.isfinite(size[:, number])
        if not moved.any():
            continue
        own, rows = size[moved, number], scenes[moved]
        paired = moved & np.isfinite(nuisance[:, number])
        compared = moved & np.isfinite(covered)
        records.append(
            DirectionGradient(
                factor=factor,
                asked=factor in asked,
                gradient=significant(clustered_mean(signed[moved, number], rows, confidence)),
                size=significant(clustered_mean(own, rows, confidence)),
                random=significant(clustered_mean(chance[moved, number], rows, confidence)),
                nuisance=significant(clustered_mean(nuisance[paired, number], scenes[paired], confidence)) if paired.any() else None,
                excess_random=significant(paired_difference(chance[moved, number], own, rows, confidence)),
                excess_nuisance=significant(paired_difference(nuisance[paired, number], size[paired, number], scenes[paired], confidence))
                if paired.any()
                else None,
                share_of_asked=_share(size[compared, number], covered[compared], scenes[compared], confidence, rng),
                num_cases=int(moved.sum()),
            )
        )
    return tuple(records)


def _share(
    own: Float[np.ndarray, " case"],
    covered: Float[np.ndarray, " case"],
    scenes: Int[np.ndarray, " case"],
    confidence: float,
    rng: np.random.Generator,
) -> Estimate | None:
    """Mean size over that of the asked factors in the same cases, with a bootstrap over scenes; None where theirs is 0."""

    def ratio(one: Float[np.ndarray, " case"], other: Float[np.ndarray, " case"]) -> float:
        return float(one.sum() / other.sum()) if other.sum() > 0 else float("nan")

    if not len(own) or not np.isfinite(ratio(own, covered)):
        return None
    return significant(bootstrap(ratio, (own, covered), scenes, rng, NUM_RESAMPLES, confidence))
