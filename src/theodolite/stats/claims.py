"""Claims under test: an effect over seeds with its interval, held against a line that was fixed before the runs.

The seed is the unit of independence here, as the scene is within a survey: arms of one seed share pictures and order, so that effects are
differences within a seed, and the interval is Student's over seeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from theodolite.records.part import Estimate
from theodolite.records.study import Claim, Finding
from theodolite.stats.rates import clustered_mean, exact_interval

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Rule:
    """When a claim holds: the whole interval lies *above* the line, *below* it, or *within* so much of 0 on either side.

    It fails when the whole interval lies on the other side; anything else is undecided.
    """

    kind: Literal["above", "below", "within"]
    line: float

    def __str__(self) -> str:
        if self.kind == "within":
            return f"holds if the interval lies within {self.line:g} of 0, fails if it lies outside"
        other = "below" if self.kind == "above" else "above"
        return f"holds if the interval lies {self.kind} {self.line:g}, fails if it lies {other}"

    def judge(self, low: float | None, high: float | None) -> Finding:
        """What an interval says; missing ends leave it undecided."""
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


@dataclass(frozen=True)
class Statement:
    """A claim before anything was run: what it says, who says it, the number it is about, and its rule."""

    name: str
    text: str
    source: str
    rule: Rule
    unit: str
    essay_question: int | None = None


def over_seeds(by_seed: Mapping[int, float], num_scenes: int = 0, confidence: float = CONFIDENCE) -> Estimate:
    """Mean share over seeds, 0 to 1, with Student's interval, n - 1 degrees of freedom, cut to 0 and 1; ends are null for fewer than two
    seeds. `num_scenes` of the result counts seeds.

    Where all seeds agree to the digit (answers at a floor or a ceiling), Student's interval would have width 0. Then it is the exact
    binomial's at the `num_scenes` scenes of all seeds together, which are different ones in each; without any the ends are null. Raises
    `ValueError` on no seeds.
    """
    if not by_seed:
        raise ValueError("no seed was run, so there is no mean; leave the number out")
    values, seeds = np.array(list(by_seed.values())), np.array(list(by_seed))
    found = clustered_mean(values, seeds, confidence)
    low, high = found.low, found.high
    if len(by_seed) > 1 and low is None and num_scenes > 0:
        low, high = exact_interval(min(max(found.value, 0.0), 1.0), float(num_scenes), confidence)
    if low is not None and high is not None:
        low, high = max(low, 0.0), min(high, 1.0)
    return Estimate(value=found.value, low=low, high=high, num_scenes=found.num_scenes)


def difference_over_seeds(
    one: Mapping[int, float], other: Mapping[int, float], num_scenes: int = 0, confidence: float = CONFIDENCE
) -> tuple[Estimate | None, dict[int, float]]:
    """`one` less `other`, -1 to 1, paired by seed, and what it is in each; null where no seed has both. Intervals as in `over_seeds`.

    Where all differences agree to the digit, the ends are those of the two shares' own exact intervals, less each other: wide, and safe.
    """
    seeds = sorted(one.keys() & other.keys())
    by_seed = {seed: one[seed] - other[seed] for seed in seeds}
    if not by_seed:
        return None, {}
    found = clustered_mean(np.array(list(by_seed.values())), np.array(seeds), confidence)
    low, high = found.low, found.high
    if len(seeds) > 1 and low is None and num_scenes > 0:
        first, second = (
            exact_interval(float(np.mean([side[seed] for seed in seeds])), float(num_scenes), confidence) for side in (one, other)
        )
        low, high = first[0] - second[1], first[1] - second[0]
    if low is not None and high is not None:
        low, high = max(low, -1.0), min(high, 1.0)
    return Estimate(value=found.value, low=low, high=high, num_scenes=found.num_scenes), by_seed


def judge_claim(
    statement: Statement,
    found: Estimate | None,
    by_seed: Mapping[int, float],
    num_runs: int,
    independent: Literal["seed", "policy"] = "seed",
) -> Claim:
    """A claim with what came of it: `found` is the effect (None: nothing to measure it by), `by_seed` what it is in each seed.

    The `num_scenes` of `found` count what its interval was taken over.
    """
    low, high = (found.low, found.high) if found else (None, None)
    return Claim(
        name=statement.name,
        statement=statement.text,
        source=statement.source,
        essay_question=statement.essay_question,
        rule=str(statement.rule),
        finding=statement.rule.judge(low, high),
        effect=None if found is None else round(found.value, 5),
        low=None if low is None else round(low, 5),
        high=None if high is None else round(high, 5),
        unit=statement.unit,
        by_seed={seed: round(value, 5) for seed, value in sorted(by_seed.items())},
        independent=independent,
        num_independent=0 if found is None else found.num_scenes,
        num_runs=num_runs,
    )
