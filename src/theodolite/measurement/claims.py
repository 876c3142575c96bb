"""Claims under test: an effect over seeds with its interval, held against a line that was fixed before the runs.

The seed is the unit of independence here, as the scene is within a survey: arms of one seed share pictures and order, so that effects are
differences within a seed, and the interval is Student's over seeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from theodolite.measurement.stats import clustered_mean, exact_interval
from theodolite.records.part import Estimate
from theodolite.records.study import Claim, Finding

CONFIDENCE = 0.95
Bounds = tuple[float, float]


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


def over_seeds(by_seed: Mapping[int, float], bounds: Bounds | None, num_scenes: int = 0, confidence: float = CONFIDENCE) -> Estimate:
    """Mean over seeds with Student's interval, n - 1 degrees of freedom; ends are null for fewer than two seeds. `num_scenes` of the result
    counts seeds.

    Where all seeds agree to the digit (answers at a floor or a ceiling), Student's interval would have width 0. Then the scenes speak: of
    `num_scenes` in all seeds none differed, so a share of them up to u may (exact binomial), each by as much as `bounds` let it. Without
    scenes or bounds the ends are null. Raises `ValueError` on no seeds.
    """
    if not by_seed:
        raise ValueError("no seed was run, so there is no mean; leave the number out")
    values, seeds = np.array(list(by_seed.values())), np.array(list(by_seed))
    found = clustered_mean(values, seeds, confidence)
    if len(by_seed) < 2:
        return found
    low, high = found.low, found.high
    if low is None and bounds is not None and num_scenes > 0:
        unseen = exact_interval(0.0, float(num_scenes), confidence)[1]
        low, high = found.value - unseen * (found.value - bounds[0]), found.value + unseen * (bounds[1] - found.value)
    if low is not None and high is not None and bounds is not None:
        low, high = max(low, bounds[0]), min(high, bounds[1])
    return Estimate(value=found.value, low=low, high=high, num_scenes=found.num_scenes)


def judge(statement: Statement, found: Estimate | None, by_seed: Mapping[int, float], num_runs: int) -> Claim:
    """A claim with what came of it: `found` is the effect (None: nothing to measure it by), `by_seed` what it is in each seed."""
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
        num_seeds=len(by_seed),
        num_runs=num_runs,
    )
