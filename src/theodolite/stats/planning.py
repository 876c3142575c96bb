"""How many scenes a decision takes: at measured rates, or before anything is measured."""

from __future__ import annotations

from collections.abc import Callable

from scipy.optimize import brentq

from theodolite.records.part import Rate
from theodolite.stats.rates import exact_interval

MOST_SCENES = 100_000


def scenes_to_decide_rate(rate: Rate, line: float, confidence: float) -> int | None:
    """How many more scenes put the interval of a rate off a line, if the rate stays: 0 or more; None for over 100,000 or one scene."""
    size = effective_size(rate, confidence)
    if size is None:
        return None

    def decided(times: float) -> bool:
        low, high = exact_interval(rate.frac, size * times, confidence)
        return not low <= line <= high

    return _more(decided, rate.num_scenes)


def scenes_to_decide_difference(one: Rate, other: Rate, line: float, measured_confidence: float, confidence: float) -> int | None:
    """How many more scenes put the interval of `one` - `other` off a line, if both rates stay; None for over 100,000 or one scene.

    The rates' own intervals are at `measured_confidence`. Both count as independent, so the number errs to the large side where a scene's
    noise moves both.
    """
    sizes = [effective_size(rate, measured_confidence) for rate in (one, other)]
    if sizes[0] is None or sizes[1] is None:
        return None
    first, second = sizes[0], sizes[1]

    def decided(times: float) -> bool:
        low, high = difference_ends(one.frac, first * times, other.frac, second * times, confidence)
        return not low <= line <= high

    return _more(decided, max(one.num_scenes, other.num_scenes))


def difference_ends(one: float, size_one: float, other: float, size_other: float, confidence: float) -> tuple[float, float]:
    """Ends of the interval of a difference of two independent rates at their effective sizes (as `rates.rate_difference`)."""
    (low, high), (other_low, other_high) = exact_interval(one, size_one, confidence), exact_interval(other, size_other, confidence)
    value = one - other
    return value - ((one - low) ** 2 + (other_high - other) ** 2) ** 0.5, value + ((high - one) ** 2 + (other - other_low) ** 2) ** 0.5


def effective_size(rate: Rate, confidence: float) -> float | None:
    """The number of independent pairs at which the exact interval of a rate is as wide as its own; None without ends."""
    if rate.low is None or rate.high is None:
        return None
    upper = rate.frac < 0.5  # the end on the side where there is room

    def surplus(size: float) -> float:
        low, high = exact_interval(rate.frac, size, confidence)
        return high - float(rate.high or 0) if upper else float(rate.low or 0) - low

    least, most = 0.5, 10.0 * max(rate.num_pairs, 1)
    if surplus(least) < 0 or surplus(most) > 0:
        return float(rate.num_scenes)
    return float(brentq(surplus, least, most))


def _more(decided: Callable[[float], bool], num_scenes: int) -> int | None:
    """The fewest scenes beyond `num_scenes` at which `decided(times as many)` holds."""
    if not decided(MOST_SCENES / num_scenes):
        return None
    least, most = 0, MOST_SCENES
    while most > least:
        middle = (least + most) // 2
        if decided((num_scenes + middle) / num_scenes):
            most = middle
        else:
            least = middle + 1
    return least
