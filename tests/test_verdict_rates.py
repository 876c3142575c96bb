"""How often verdicts are wrong, and how often undecided, where read, leak and noise are known."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from scipy.stats import binom

from helpers import HELPERS, script_environment
from helpers.simulated_verdicts import LEAKS, NUM_SCENES, READS, SURROUNDINGS, judged, verdict_counts
from theodolite.records.survey import Verdict

NUM_DRAWS = 200
# More than this among the draws would have chance 1 in 1,000 where one verdict in twenty is wrong.
MOST_WRONG = binom.isf(1e-3, NUM_DRAWS, 0.05) / NUM_DRAWS


@pytest.fixture(scope="module")
def cells() -> list[dict[str, float]]:
    """The share of wrong verdicts in every cell, from a process of its own: the type checks of tests would take four times as long."""
    command = [sys.executable, str(HELPERS / "simulated_verdicts.py"), str(NUM_DRAWS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=script_environment())
    assert done.returncode == 0, done.stderr
    printed: list[dict[str, float]] = json.loads(done.stdout)
    return printed


@pytest.mark.parametrize("num_scenes", NUM_SCENES)
def test_at_most_one_verdict_in_twenty_is_wrong_outside_the_lines(cells: list[dict[str, float]], num_scenes: int) -> None:
    own = [cell for cell in cells if cell["num_scenes"] == num_scenes]
    assert len(own) == len(READS) * len(LEAKS) * len(SURROUNDINGS)
    assert [cell for cell in own if cell["wrong_frac"] > MOST_WRONG] == []
    assert sum(cell["wrong_frac"] for cell in own) / len(own) < 0.02


def test_a_hundred_scenes_decide_a_clear_case_among_three_other_queries() -> None:
    shares = verdict_counts(0.95, (0.0, 0.0, 0.0), 0.02, 100, 500)
    assert shares["identified"] >= 0.8 and shares.get("undecided", 0.0) <= 0.2


@pytest.mark.parametrize(("num_scenes", "verdict"), [(35, "undecided"), (36, "identified")])
def test_no_leak_cannot_be_concluded_below_36_scenes(num_scenes: int, verdict: Verdict) -> None:
    still = ((0, 0, 0),) * 3
    assert judged(num_scenes, num_scenes, still) == verdict
