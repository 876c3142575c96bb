"""How often verdicts are wrong, and how often undecided, where read, leak and noise are known."""

from __future__ import annotations

import pytest
from scipy.stats import binom

from helpers.simulated_verdicts import LEAKS, NUM_SCENES, READS, SURROUNDINGS, judged, leaks_of, verdict_counts, wrong_frac
from theodolite.records.survey import Verdict

NUM_DRAWS = 200
# More than this among the draws would have chance 1 in 1,000 where one verdict in twenty is wrong.
MOST_WRONG = binom.isf(1e-3, NUM_DRAWS, 0.05) / NUM_DRAWS


@pytest.mark.parametrize("num_scenes", NUM_SCENES)
def test_at_most_one_verdict_in_twenty_is_wrong_outside_the_lines(num_scenes: int) -> None:
    too_many, total = {}, []
    for read in READS:
        for leak in LEAKS:
            for noise, others in SURROUNDINGS:
                leaks = leaks_of(leak, others)
                wrong = wrong_frac(verdict_counts(read, leaks, noise, num_scenes, NUM_DRAWS), read, leaks)
                total.append(wrong)
                if wrong > MOST_WRONG:
                    too_many[read, leak, noise, others] = round(wrong, 3)
    assert too_many == {} and sum(total) / len(total) < 0.02


def test_a_hundred_scenes_decide_a_clear_case_among_three_other_queries() -> None:
    shares = verdict_counts(0.95, (0.0, 0.0, 0.0), 0.02, 100, 500)
    assert shares["identified"] >= 0.8 and shares.get("undecided", 0.0) <= 0.2


@pytest.mark.parametrize(("num_scenes", "verdict"), [(35, "undecided"), (36, "identified")])
def test_no_leak_cannot_be_concluded_below_36_scenes(num_scenes: int, verdict: Verdict) -> None:
    still = ((0, 0, 0),) * 3
    assert judged(num_scenes, num_scenes, still) == verdict
