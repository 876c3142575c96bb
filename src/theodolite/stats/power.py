"""Smallest differences that a number of scenes detects: what a survey of that size can and cannot show.

From the design, never from the observed effect: power at the observed effect is a transform of p and says nothing more (Hoenig and
Heisey, American Statistician 55, 2001).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from scipy import optimize, special, stats

from theodolite.stats.rates import ROUNDING, exact_interval, partition

PRECISION = 1e-9


def detectable_difference(
    differences: Float[np.ndarray, " row"], scenes: Int[np.ndarray, " row"], confidence: float = 0.95, power: float = 0.8
) -> float | None:
    """Smallest true mean, above 0, that `difference_p` finds at 1 - `confidence` with chance `power` at these scenes; None if none is.

    By the non-central t at n - 1 degrees of freedom for n scenes, exact for normal scene means, with the observed standard deviation (not
    the observed mean). At least the mean of one-sided changes of the largest observed size (1 where all are 0), in a share of scenes that
    the test finds as often: exact by the binomial, so few changed scenes do not pass for a small deviation. None for fewer than two scenes,
    and where no scene differs and they are so few that even a change in all of them is not significant. Raises `ValueError` on no rows.
    """
    if len(differences) == 0:
        raise ValueError("found no rows; a difference needs one or more: leave the cell out")
    groups = partition(scenes)
    number = groups.num_scenes
    if number < 2:
        return None
    share = _detectable_share(number, confidence, power)
    totals = groups.totals(differences) * number / len(differences)
    residual = groups.totals(differences - differences.mean()) * number / len(differences)
    largest = float(np.abs(totals).max())
    error = float(np.sqrt(np.square(residual).sum() / (number - 1) / number))
    dense = error * detectable_shift(number, confidence, power) if error > ROUNDING * largest else None
    sparse = None if share is None else share * (largest if largest > ROUNDING else 1.0)
    return max((each for each in (dense, sparse) if each is not None), default=None)


def detectable_shift(num_scenes: int, confidence: float = 0.95, power: float = 0.8) -> float:
    """Smallest true mean, in standard errors, that a two-sided Student's test on two scenes or more finds with chance `power`.

    The noncentrality at which t exceeds its limit with that chance; that t falls below the other limit has a chance below 1e-5.
    """
    freedom = num_scenes - 1
    return float(special.nctdtrinc(freedom, 1 - power, special.stdtrit(freedom, (1 + confidence) / 2)))


def _detectable_share(number: int, confidence: float, power: float) -> float | None:
    """Smallest share of scenes, 0 to 1, whose equal one-sided changes `difference_p` finds with chance `power`; None if no share does.

    Of n scenes, k changes of one size give t^2 = k (n - 1) / (n - k), and n of n the sign test.
    """
    if 2.0 ** (1 - number) > 1 - confidence:
        return None
    squared = float(special.stdtrit(number - 1, (1 + confidence) / 2)) ** 2
    changed = min(int(np.ceil(number * squared / (number - 1 + squared) - PRECISION)), number)
    return float(special.betaincinv(changed, number - changed + 1, power))


def detectable_rate(num_scenes: int, line: float, confidence: float = 0.95, power: float = 0.8, below: bool = False) -> float | None:
    """Smallest true rate above a line (with `below`, largest below it), 0 to 1, whose interval by `clustered_rate` clears the line.

    With chance `power`, for one row a scene: exact, by the binomial number of hits that clears it. None if no number of hits does.
    """
    if below:
        mirrored = detectable_rate(num_scenes, 1 - line, confidence, power)
        return None if mirrored is None else 1 - mirrored
    clears = np.flatnonzero(_rate_ends(num_scenes, confidence)[0] > line)
    return None if len(clears) == 0 else _rate_with(int(clears[0]), num_scenes, power)


def _rate_with(hits: int, num_scenes: int, power: float) -> float:
    """The rate at which `num_scenes` scenes have `hits` hits or more with chance `power`."""
    return float(special.betaincinv(hits, num_scenes - hits + 1, power)) if hits > 0 else 0.0


def detectable_rate_difference(
    num_scenes: int, base: float, line: float = 0.0, confidence: float = 0.95, power: float = 0.8
) -> float | None:
    """Smallest true difference above a line, of a rate and a base rate on the same scenes, whose lower end clears the line.

    Such as leak less noise, by `rate_difference`, with chance `power`; for one row a scene on each side, hits independent between sides.
    Exact: by enumeration of both binomials. None if even a rate of 1 does not.
    """
    low, high = _rate_ends(num_scenes, confidence)
    hits = np.arange(num_scenes + 1)
    frac = hits / num_scenes
    reach = np.sqrt((frac - low)[:, None] ** 2 + (high - frac)[None, :] ** 2)
    clears = frac[:, None] - frac[None, :] - reach > line
    found = clears @ stats.binom.pmf(hits, num_scenes, base)

    def short(rate: float) -> float:
        return float(stats.binom.pmf(hits, num_scenes, rate) @ found) - power

    lowest = min(base + line, 1.0)
    if short(1.0) < 0 or lowest >= 1:
        return None
    return float(optimize.brentq(short, lowest, 1.0, xtol=PRECISION)) - base if short(lowest) < 0 else line


def _rate_ends(num_scenes: int, confidence: float) -> tuple[Float[np.ndarray, " hits"], Float[np.ndarray, " hits"]]:
    """Ends of `clustered_rate` for each number of hits, 0 to `num_scenes`, of as many scenes of one row."""
    if num_scenes < 2:
        raise ValueError(f"found {num_scenes} scenes; an interval needs two or more")
    tail = (1 + confidence) / 2
    size = (num_scenes - 1) * float((special.ndtri(tail) / special.stdtrit(num_scenes - 1, tail)) ** 2)
    ends = [
        exact_interval(hits / num_scenes, size if 0 < hits < num_scenes else float(num_scenes), confidence)
        for hits in range(num_scenes + 1)
    ]
    return np.array([low for low, _ in ends]), np.array([high for _, high in ends])
