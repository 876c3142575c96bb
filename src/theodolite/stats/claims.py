"""Claims under test: an effect over seeds, its interval, and a threshold that was fixed before the runs.

The seed is the unit of independence, as the scene is within a survey: arms of one seed share pictures and their order, so effects are
differences within a seed, and the interval is Student's over seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from theodolite.records.part import Estimate
from theodolite.records.study import Claim, Finding
from theodolite.stats.rates import clustered_mean, exact_interval

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Rule:
    """Decision rule of a claim: it holds if the whole interval lies *above* the line, *below* it, or *within* the line's distance of 0.

    It fails if the whole interval lies on the other side; otherwise it is undecided.
    """

    kind: Literal["above", "below", "within"]
    line: float

    def __str__(self) -> str:
        if self.kind == "within":
            return f"holds if the interval lies within {self.line:g} of 0, fails if it lies outside"
        other = "below" if self.kind == "above" else "above"
        return f"holds if the interval lies {self.kind} {self.line:g}, fails if it lies {other}"

    def judge(self, low: float | None, high: float | None) -> Finding:
        """The finding of an interval; missing ends leave it undecided."""
        if low is None or high is None:
            return "undecided"
        if self.kind == "within":
            if -self.line < low and high < self.line:
                return "holds"
            return "fails" if low > self.line or high < -self.line else "undecided"
        if low > self.line:
            return "holds" if self.kind == "above" else "fails"
        if high < self.line:
            return "fails" if self.kind == "above" else "holds"
        return "undecided"

    def p_value(self, effect: Estimate, confidence: float = CONFIDENCE) -> float | None:
        """Two-sided p, 0 to 1, of the side of the line on which the effect lies: at most 1 - `confidence` where `judge` decides.

        The error is read off the interval's half towards the line, as Student's with one degree of freedom less than its units. For
        *within*, the effect must differ from both ends of the margin (two one-sided tests; Schuirmann 1987). None without an interval.
        """
        if effect.low is None or effect.high is None or effect.num_scenes < 2:
            return None
        freedom = effect.num_scenes - 1
        critical = float(stats.t.ppf((1 + confidence) / 2, freedom))

        def tail(line: float) -> float:
            half = effect.value - effect.low if effect.value > line else effect.high - effect.value  # type: ignore[operator]
            distance = abs(effect.value - line)
            if half <= 0:
                return 0.0 if distance > 0 else 1.0
            return min(1.0, 2 * float(stats.t.sf(critical * distance / half, freedom)))

        if self.kind != "within":
            return tail(self.line)
        inside = abs(effect.value) < self.line
        return max(tail(self.line), tail(-self.line)) if inside else tail(self.line if effect.value > 0 else -self.line)


@dataclass(frozen=True)
class Statement:
    """A claim as stated before the runs: its text, source, rule, and the unit of its effect.

    `known`: an earlier trial or run had shown the outcome before the rule was written, so that the claim was at no risk.
    """

    name: str
    text: str
    source: str
    rule: Rule
    unit: str
    essay_question: int | None = None
    known: bool = False


def over_seeds(by_seed: Mapping[int, float], num_scenes: int = 0, confidence: float = CONFIDENCE) -> Estimate:
    """Mean share over seeds, 0 to 1, with Student's interval, n - 1 degrees of freedom, cut to 0 and 1; ends are None for fewer than two
    seeds. `num_scenes` of the result counts seeds.

    Where all seeds agree exactly (at a floor or a ceiling), Student's interval would have width 0; the exact binomial interval at
    `num_scenes` replaces it, the scenes of all seeds together, which differ between seeds. Without scenes the ends are None. Raises
    `ValueError` on no seeds.
    """
    if not by_seed:
        raise ValueError("found no seed; a mean over seeds needs one or more: leave the number out")
    values, seeds = np.array(list(by_seed.values())), np.array(list(by_seed))
    mean = clustered_mean(values, seeds, confidence)
    low, high = mean.low, mean.high
    if len(by_seed) > 1 and low is None and num_scenes > 0:
        low, high = exact_interval(min(max(mean.value, 0.0), 1.0), float(num_scenes), confidence)
    if low is not None and high is not None:
        low, high = max(low, 0.0), min(high, 1.0)
    return Estimate(value=mean.value, low=low, high=high, num_scenes=mean.num_scenes)


def difference_over_seeds(
    one: Mapping[int, float], other: Mapping[int, float], num_scenes: int = 0, confidence: float = CONFIDENCE
) -> tuple[Estimate | None, dict[int, float]]:
    """`one` - `other`, -1 to 1, paired by seed, and its value in each seed; None if no seed has both. Intervals as in `over_seeds`.

    Where all differences agree exactly, the ends are differences of the ends of the two shares' exact intervals: conservative.
    """
    seeds = sorted(one.keys() & other.keys())
    by_seed = {seed: one[seed] - other[seed] for seed in seeds}
    if not by_seed:
        return None, {}
    mean = clustered_mean(np.array(list(by_seed.values())), np.array(seeds), confidence)
    low, high = mean.low, mean.high
    if len(seeds) > 1 and low is None and num_scenes > 0:
        first, second = (
            exact_interval(float(np.mean([side[seed] for seed in seeds])), float(num_scenes), confidence) for side in (one, other)
        )
        low, high = first[0] - second[1], first[1] - second[0]
    if low is not None and high is not None:
        low, high = max(low, -1.0), min(high, 1.0)
    return Estimate(value=mean.value, low=low, high=high, num_scenes=mean.num_scenes), by_seed


def judge_claim(
    statement: Statement,
    effect: Estimate | None,
    by_seed: Mapping[int, float],
    num_runs: int,
    independent: Literal["seed", "policy"] = "seed",
) -> Claim:
    """A claim with its finding, from the effect (None: not measured) and its value in each seed.

    The `num_scenes` of `effect` count the units of its interval.
    """
    low, high = (effect.low, effect.high) if effect else (None, None)
    return Claim(
        name=statement.name,
        statement=statement.text,
        source=statement.source,
        essay_question=statement.essay_question,
        rule=str(statement.rule),
        finding=statement.rule.judge(low, high),
        effect=None if effect is None else round(effect.value, 5),
        low=None if low is None else round(low, 5),
        high=None if high is None else round(high, 5),
        unit=statement.unit,
        by_seed={seed: round(value, 5) for seed, value in sorted(by_seed.items())},
        independent=independent,
        num_independent=0 if effect is None else effect.num_scenes,
        num_runs=num_runs,
        known=statement.known,
        p_value=None if effect is None else statement.rule.p_value(effect),
    )


def judge_family(claims: Sequence[Claim], confidence: float = CONFIDENCE) -> tuple[Claim, ...]:
    """The claims with their findings at a family-wise error of 1 - `confidence` over all that have an interval, by Holm's step-down.

    A claim that is decided alone and not within the family is undecided there. Holm (1979), Scandinavian Journal of Statistics 6.
    """
    ranked = sorted((claim.p_value, number) for number, claim in enumerate(claims) if claim.p_value is not None)
    decided: set[int] = set()
    for place, (p, number) in enumerate(ranked):
        if p * (len(ranked) - place) > 1 - confidence:
            break
        decided.add(number)
    return tuple(
        claim.model_copy(update={"family_finding": claim.finding if number in decided else "undecided"})
        for number, claim in enumerate(claims)
    )
