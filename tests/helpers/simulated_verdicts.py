"""Verdicts of answers drawn with known read, leak and noise, judged as a survey judges them.

`python tests/helpers/simulated_verdicts.py` prints the table of docs/reference/measures.md; with a number of draws, the share of wrong
verdicts in each cell, as JSON.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from functools import cache

import numpy as np

from theodolite.measurement.behaviour.competence import Question
from theodolite.measurement.behaviour.shadows import leak_of
from theodolite.measurement.behaviour.verdicts import FactorRates, adjusted_confidence, decide, verdict_of
from theodolite.records.part import Rate
from theodolite.records.survey import Leak, Thresholds, Verdict
from theodolite.stats.rates import clustered_rate

THRESHOLDS = Thresholds()
READ_QUERY = Question("shape", "open")
READS, LEAKS = (0.02, 0.48, 0.52, 0.95), (0.0, 0.08, 0.12, 0.5)
# Noise, and number of other queries, of which one leaks.
SURROUNDINGS = ((0.0, 1), (0.02, 3), (0.3, 1), (0.3, 3))
NUM_SCENES = (20, 56, 100, 200, 500)


@cache
def read_rate(num_scenes: int, moved: int) -> Rate:
    return clustered_rate((np.arange(num_scenes) < moved).astype(float), np.arange(num_scenes))


@cache
def leak_rate(num_others: int, num_scenes: int, both: int, leak_only: int, noise_only: int) -> Leak:
    """The leak of scenes of which so many move by the factor and by noise, by the factor only, and by noise only."""
    scenes = np.arange(num_scenes)
    leak = (scenes < both + leak_only).astype(float)
    noise = ((scenes < both) | ((scenes >= both + leak_only) & (scenes < both + leak_only + noise_only))).astype(float)
    plain = THRESHOLDS.confidence
    return leak_of(
        "shape", Question("other", "open"), (leak, scenes), "nuisance", (noise, scenes), plain, adjusted_confidence(plain, num_others)
    )


@cache
def judged(num_scenes: int, read: int, counts: tuple[tuple[int, int, int], ...]) -> Verdict:
    rates = FactorRates(
        factor="shape",
        asked=True,
        read=read_rate(num_scenes, read),
        read_above_noise=None,
        read_queries=(READ_QUERY,),
        missing_read=(),
        leaks=tuple(leak_rate(len(counts), num_scenes, *count) for count in counts),
        missing_leaks=(),
        states={READ_QUERY: "fit"},
    )
    return verdict_of(rates, THRESHOLDS)


def verdict_counts(read: float, leaks: tuple[float, ...], noise: float, num_scenes: int, num_draws: int) -> dict[str, float]:
    """Share of each verdict over draws. `leaks` are the leaks above noise, a query each; a scene that moves by noise moves when the factor
    changes too, so the leak itself has chance noise + leak."""
    # The same leaks for every read rate, so that their intervals are computed once.
    rng = np.random.default_rng([*(round(1000 * leak) for leak in leaks), round(1000 * noise), num_scenes])
    reads = np.random.default_rng([round(1000 * read), num_scenes]).binomial(num_scenes, read, num_draws)
    # Half of the noise is the scene's own and moves both answers; the rest is independent.
    shared = noise / 2
    chances = [(shared, (min(leak + noise, 1.0) - shared) / (1 - shared), (noise - shared) / (1 - shared)) for leak in leaks]
    either = rng.random((num_draws, len(leaks), 3, num_scenes)) < np.array(chances)[:, :, None]
    one, two = either[:, :, 0] | either[:, :, 1], either[:, :, 0] | either[:, :, 2]
    counts = np.stack([(one & two).sum(axis=2), (one & ~two).sum(axis=2), (two & ~one).sum(axis=2)], axis=2)
    # A verdict does not depend on the order of the queries: sorted, more of them are judged already.
    verdicts = Counter(
        judged(num_scenes, moved, tuple(sorted(map(tuple, each)))) for moved, each in zip(reads.tolist(), counts.tolist(), strict=True)
    )
    return {verdict: count / num_draws for verdict, count in verdicts.items()}


def right_verdict(read: float, leaks: tuple[float, ...]) -> str:
    return decide(True, read > THRESHOLDS.read_frac, max(leaks) > THRESHOLDS.leak_above_noise_frac)


def wrong_frac(shares: dict[str, float], read: float, leaks: tuple[float, ...]) -> float:
    """Share of verdicts that are neither right nor undecided."""
    return max(1 - shares.get("undecided", 0.0) - shares.get(right_verdict(read, leaks), 0.0), 0.0)


def leaks_of(leak: float, num_others: int) -> tuple[float, ...]:
    return (leak, *(0.0,) * (num_others - 1))


def wrong_fracs(num_draws: int) -> list[dict[str, float]]:
    """Share of wrong verdicts for every number of scenes and everything that is true."""
    cells = []
    for num_scenes in NUM_SCENES:
        for read in READS:
            for leak in LEAKS:
                for noise, others in SURROUNDINGS:
                    leaks = leaks_of(leak, others)
                    wrong = wrong_frac(verdict_counts(read, leaks, noise, num_scenes, num_draws), read, leaks)
                    cell = {"num_scenes": num_scenes, "read": read, "leak": leak, "noise": noise, "num_others": others}
                    cells.append({**cell, "wrong_frac": wrong})
    return cells


def table(num_draws: int = 1_000) -> str:
    """Wrong and undecided verdicts in percent, a line each for what is true and a column each for the number of scenes."""
    lines = ["| read | leak above noise | noise | other queries | " + " | ".join(f"{number} scenes" for number in NUM_SCENES) + " |"]
    lines.append("|" + "---|" * (4 + len(NUM_SCENES)))
    for read in READS:
        for leak in LEAKS:
            for noise, others in SURROUNDINGS:
                leaks = leaks_of(leak, others)
                columns = []
                for number in NUM_SCENES:
                    shares = verdict_counts(read, leaks, noise, number, num_draws)
                    columns.append(f"{100 * wrong_frac(shares, read, leaks):.1f} / {100 * shares.get('undecided', 0.0):.0f}")
                lines.append(f"| {read:g} | {leak:g} | {noise:g} | {others} | " + " | ".join(columns) + " |")
                print(lines[-1], file=sys.stderr, flush=True)
    return "\n".join(lines)


if __name__ == "__main__":
    print(json.dumps(wrong_fracs(int(sys.argv[1]))) if len(sys.argv) > 1 else table())
