"""Verdicts: from read and leak rates with their intervals to one word a factor, with what decided and what would decide.

Rules: the design of this project ("Shadows"). Asked and read and not leaking is *identified*, and so on (`decide`). A bit that nothing
measures stays missing, and an interval on a threshold undecided.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from theodolite.measurement.behaviour.competence import Question, State
from theodolite.records.part import Estimate, Rate
from theodolite.records.survey import Evidence, Leak, OtherVerdict, Thresholds, Verdict
from theodolite.stats.planning import scenes_to_decide_difference, scenes_to_decide_rate

Bit = bool | None | Literal["missing"]  # None: the interval includes the threshold
OTHER_READ_FRACS = (0.3, 0.7)
OTHER_LEAK_FRACS = (0.05, 0.2)


@dataclass(frozen=True)
class FactorRates:
    """What is measured of a factor, before any threshold.

    `leaks` has one entry for each supported query that does not depend on the factor and has pairs; `missing_leaks` says, in words, why "no
    query leaks" cannot be concluded. `read_above_noise` is None where the queries have no noise. `states` are those of the queries that
    depend on the factor.
    """

    factor: str
    asked: bool
    read: Rate | None
    read_above_noise: Estimate | None
    read_queries: tuple[Question, ...]
    missing_read: tuple[str, ...]
    leaks: tuple[Leak, ...]
    missing_leaks: tuple[str, ...]
    states: Mapping[Question, State]


def judge(rates: FactorRates, thresholds: Thresholds) -> Evidence:
    """The verdict of a factor with its evidence."""
    read = reading(rates, thresholds)
    leak, deciding = leaking(rates, thresholds.leak_above_noise_frac)
    verdict = verdict_of(rates, thresholds)
    missing: tuple[str, ...] = ()
    if verdict == "not_measured":
        missing = (rates.missing_read if rates.asked and read == "missing" else ()) + (rates.missing_leaks if leak == "missing" else ())
    elif verdict == "blind" and any(rates.states.get(query, "unknown") == "unknown" for query in rates.read_queries):
        missing = ("competence: whether the model can answer the question at all",)
    return Evidence(
        asked=rates.asked,
        read=rates.read,
        read_above_noise=rates.read_above_noise,
        read_queries=tuple(query.words for query in rates.read_queries),
        leak=deciding,
        missing=missing,
        scenes_more=_scenes_more(rates, thresholds, read, leak) if verdict == "undecided" else None,
        verdict=verdict,
    )


def verdict_of(rates: FactorRates, thresholds: Thresholds) -> Verdict:
    """The verdict of a factor alone."""
    verdict = decide(rates.asked, reading(rates, thresholds), leaking(rates, thresholds.leak_above_noise_frac)[0])
    # At chance a model neither reads nor leaks, whatever it sees; a leak or a read rate is evidence even so.
    if verdict == "blind" and all(rates.states.get(query) == "at_chance" for query in rates.read_queries):
        return "cannot_be_asked"
    return verdict


def decide(asked: bool, read: Bit, leak: Bit) -> Verdict:
    """The verdict of a factor from three bits; *not_measured* where one that matters is missing, *undecided* where one is not decided."""
    bits = (read, leak) if asked else (leak,)
    if "missing" in bits:
        return "not_measured"
    if None in bits:
        return "undecided"
    if not asked:
        return "shadow" if leak else "inert"
    if read:
        return "entangled" if leak else "identified"
    return "shadow" if leak else "blind"


def above(rate: Rate | Estimate | None, threshold: float) -> Bit:
    """Whether the interval lies above a threshold (True), below it (False), or includes it (None); "missing" for no rate."""
    if rate is None:
        return "missing"
    if rate.low is None or rate.high is None:
        return None
    if rate.low > threshold:
        return True
    return False if rate.high < threshold else None


def reading(rates: FactorRates, thresholds: Thresholds) -> Bit:
    """Whether the answers that depend on a factor follow it: they move in more pairs than the threshold, and more often than by noise.

    The second test, at the threshold of leaks, is for a model that guesses: its answers move in most pairs, whatever changes.
    """
    bits = [above(rates.read, thresholds.read_frac)]
    if rates.read_above_noise is not None:
        bits.append(above(rates.read_above_noise, thresholds.leak_above_noise_frac))
    return "missing" if "missing" in bits else False if False in bits else None if None in bits else True


def leaking(rates: FactorRates, margin: float) -> tuple[Bit, Leak | None]:
    """Whether some query leaks by more than the margin above its noise, and the query that decided.

    "Some query leaks" is a union of tests, so the ends are adjusted for their number. "No query leaks" is an intersection, in which every
    test must hold at the plain level: no adjustment is needed (Berger, Technometrics 24, 1982).
    """
    measured = [leak for leak in rates.leaks if leak.above_noise is not None and leak.adjusted is not None]
    leaking = [leak for leak in measured if above(leak.adjusted, margin) is True]
    if leaking:
        return True, max(leaking, key=lambda leak: _end(leak.adjusted, "low"))
    closest = max(measured, key=lambda leak: _end(leak.above_noise, "high"), default=next(iter(rates.leaks), None))
    if rates.missing_leaks:
        return "missing", closest
    return (False if all(above(leak.above_noise, margin) is False for leak in measured) else None), closest


def _end(estimate: Estimate | None, end: Literal["low", "high"]) -> float:
    """An end of an interval for sorting: without one it is as wide as can be."""
    value = None if estimate is None else getattr(estimate, end)
    return {"low": -1.0, "high": 1.0}[end] if value is None else float(value)


def _scenes_more(rates: FactorRates, thresholds: Thresholds, read: Bit, leak: Bit) -> int | None:
    """How many more scenes would decide the bits that are not decided, at the measured rates."""
    wanted: list[int | None] = []
    if rates.asked and read is None and rates.read is not None:
        wanted.append(scenes_to_decide_rate(rates.read, thresholds.read_frac, thresholds.confidence))
    if leak is None:
        wanted.append(_scenes_for_leaks(rates.leaks, thresholds))
    numbers = [number for number in wanted if number is not None]
    return max(numbers) if numbers and len(numbers) == len(wanted) else None


def _scenes_for_leaks(leaks: Sequence[Leak], thresholds: Thresholds) -> int | None:
    """The fewest further scenes after which either one query leaks at the adjusted level, or none does at the plain level."""
    margin, confidence = thresholds.leak_above_noise_frac, thresholds.confidence
    adjusted = adjusted_confidence(confidence, len(leaks))
    over, under = [], []
    for leak in leaks:
        if leak.noise is None or leak.above_noise is None:
            continue
        if leak.above_noise.value > margin:
            over.append(scenes_to_decide_difference(leak.rate, leak.noise, margin, confidence, adjusted))
        elif above(leak.above_noise, margin) is None:
            under.append(scenes_to_decide_difference(leak.rate, leak.noise, margin, confidence, confidence))
    if over:
        return min((number for number in over if number is not None), default=None)
    return max(number for number in under if number is not None) if under and None not in under else None


def adjusted_confidence(confidence: float, number: int) -> float:
    """The level of each of several intervals that hold together at `confidence` (Bonferroni)."""
    return 1 - (1 - confidence) / max(number, 1)


def sensitivity(rates: Sequence[FactorRates], thresholds: Thresholds) -> tuple[OtherVerdict, ...]:
    """The verdicts that change where one of the two thresholds is lower or higher, within the range that readers may choose from."""
    others = [thresholds.model_copy(update={"read_frac": frac}) for frac in OTHER_READ_FRACS]
    others += [thresholds.model_copy(update={"leak_above_noise_frac": frac}) for frac in OTHER_LEAK_FRACS]
    return tuple(
        OtherVerdict(factor=factor.factor, read_frac=at.read_frac, leak_above_noise_frac=at.leak_above_noise_frac, verdict=verdict)
        for factor in rates
        for at in others
        if (verdict := verdict_of(factor, at)) != verdict_of(factor, thresholds)
    )
