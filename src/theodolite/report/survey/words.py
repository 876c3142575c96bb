"""Texts of the survey page: rates, estimates, and a verdict with its numbers."""

from __future__ import annotations

from theodolite.records.comparison import CellChange
from theodolite.records.part import Estimate
from theodolite.records.survey import Cell, Evidence, Leak, NoiseSource, Rate, Shadows, Thresholds
from theodolite.report.words import MEANING, NO_NUMBER, WORD, show_frac, show_interval, show_measured


def show_rate(rate: Rate | None) -> str:
    """A rate with its interval and scenes; "not measured" for none."""
    if rate is None:
        return "not measured"
    return f"{rate.frac:.2f} {show_interval(rate.low, rate.high)}, {rate.num_scenes} scenes"


def column_of(cell: Cell | CellChange) -> str:
    """The column heading of a cell, its query and form: "shape (open)"."""
    return f"{cell.query} ({cell.form})"


SOURCE_WORDS: dict[NoiseSource, str] = {
    "nuisance": "another nuisance seed",
    "perturbation": "the picture saved again, moved by one pixel or 2 % brighter",
    "paraphrase": "another wording",
}


def show_leak(leak: Leak) -> str:
    """A leak in words: its query, its rate, the noise that it is compared with, and the difference."""
    into = f"{show_rate(leak.rate)}, into answers about {leak.query} ({leak.form})"
    if leak.noise is None or leak.source is None:
        return f"{into}; no noise was measured"
    return f"{into}; {show_frac(leak.noise.frac)} by noise ({SOURCE_WORDS[leak.source]}), {show_estimate(leak.above_noise)} above it"


def explain_verdict(factor: str, evidence: Evidence, thresholds: Thresholds) -> str:
    """A verdict in sentences, with the numbers that it follows from, what is missing, and how many more scenes would decide it."""
    parts = [f"{factor}: {WORD[evidence.verdict]}. {MEANING[evidence.verdict]}", "Asked about." if evidence.asked else "Never asked about."]
    if evidence.missing:
        parts.append(f"Not measured: {'; '.join(evidence.missing)}.")
    if evidence.asked:
        by = f" by {', '.join(evidence.read_queries)}" if evidence.read_queries else ""
        parts.append(f"Read {show_rate(evidence.read)}{by}; the threshold is {thresholds.read_frac:g}.")
    if evidence.leak is None:
        parts.append("Leak: not measured.")
    else:
        parts.append(f"The leak that decides: {show_leak(evidence.leak)}; the threshold is {thresholds.leak_above_noise_frac:g}.")
    if evidence.verdict == "undecided":
        parts.append(show_scenes_more(evidence))
    return " ".join(parts)


def show_scenes_more(evidence: Evidence) -> str:
    """How many more scenes would decide an undecided verdict, as a sentence."""
    if evidence.scenes_more is None:
        return "No number of scenes up to 100,000 would decide it at these rates."
    return f"About {evidence.scenes_more:,} more scenes would decide it at these rates."


def show_sensitivity(shadows: Shadows) -> str:
    """Which verdicts other thresholds would change, as a sentence."""
    reach = "between 0.3 and 0.7 for reads and 0.05 and 0.2 for leaks"
    if not shadows.sensitivity:
        return f"No verdict changes with thresholds {reach}."
    changes = [
        f"{other.factor} is {WORD[other.verdict]} at "
        + (f"read {other.read_frac:g}" if other.read_frac != shadows.thresholds.read_frac else f"leak {other.leak_above_noise_frac:g}")
        for other in shadows.sensitivity
    ]
    return f"With other thresholds ({reach}): {'; '.join(changes)}."


def value_of(number: Rate | Estimate) -> float:
    """The value of a rate or an estimate, without its interval."""
    return number.frac if isinstance(number, Rate) else number.value


def show_estimate(number: Rate | Estimate | None) -> str:
    """A rate or an estimate with its interval and scenes; a dash for none."""
    if number is None:
        return NO_NUMBER
    return f"{' '.join(show_measured(value_of(number), number.low, number.high))}, {number.num_scenes} scenes"
