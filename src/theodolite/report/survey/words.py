"""Texts of the survey page: rates, estimates, and a verdict with its numbers."""

from __future__ import annotations

from theodolite.records.part import Estimate
from theodolite.records.survey import Cell, Evidence, Rate, Thresholds
from theodolite.report.words import MEANING, NO_NUMBER, WORD, show_interval, show_measured


def show_rate(rate: Rate | None) -> str:
    """A rate with its interval and scenes; "not measured" for none."""
    if rate is None:
        return "not measured"
    return f"{rate.frac:.2f} {show_interval(rate.low, rate.high)}, {rate.num_scenes} scenes"


def column_of(cell: Cell) -> str:
    """The column heading of a cell, its query and form: "shape (open)"."""
    return f"{cell.query} ({cell.form})"


def explain_verdict(factor: str, evidence: Evidence, thresholds: Thresholds) -> str:
    """A verdict in sentences, with the numbers that it follows from."""
    parts = [f"{factor}: {WORD[evidence.verdict]}. {MEANING[evidence.verdict]}", "Asked about." if evidence.asked else "Never asked about."]
    if evidence.asked:
        parts.append(f"Read {show_rate(evidence.read)}; the threshold is {thresholds.read_frac:g}.")
    if evidence.leak is None or evidence.leak_query is None:
        parts.append("Leak: not measured.")
    else:
        floor = evidence.noise_frac or 0.0
        threshold = floor + thresholds.leak_above_noise_frac
        leak = f"Largest leak {show_rate(evidence.leak)}, into answers about {evidence.leak_query}"
        parts.append(f"{leak}; noise floor {floor:.2f}, the threshold is {threshold:.2f}.")
    return " ".join(parts)


def value_of(number: Rate | Estimate) -> float:
    """The value of a rate or an estimate, without its interval."""
    return number.frac if isinstance(number, Rate) else number.value


def show_estimate(number: Rate | Estimate | None) -> str:
    """A rate or an estimate with its interval and scenes; a dash for none."""
    if number is None:
        return NO_NUMBER
    return f"{' '.join(show_measured(value_of(number), number.low, number.high))}, {number.num_scenes} scenes"
