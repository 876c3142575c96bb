"""Texts of the comparison page: differences, cells, and its first sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from theodolite.records.comparison import CellChange, Change, Comparison
from theodolite.report.words import show_count, show_frac


@dataclass(frozen=True)
class Headline:
    """One overall quantity in a sentence; `better` is whether the second model is better in it, None where the interval includes 0."""

    name: str
    change: Change
    text: str
    better: bool | None


def show_signed(value: float | None) -> str:
    """A difference of fractions with its sign and two decimals."""
    return "–" if value is None else f"{round(value, 2) + 0.0:+.2f}"


def show_difference(change: Change) -> str:
    """A paired difference with its interval: "+0.12 [+0.05, +0.19]"."""
    estimate = change.difference
    ends = (
        "[no interval]" if estimate.low is None or estimate.high is None else f"[{show_signed(estimate.low)}, {show_signed(estimate.high)}]"
    )
    return f"{show_signed(estimate.value)} {ends}"


def cell_words(cell: CellChange) -> str:
    """A cell as "colour → shape (open)": the factor that is changed and what is asked about."""
    return f"{cell.factor} → {cell.query} ({cell.form.replace('_', '/')})"


def headlines(comparison: Comparison, labels: Sequence[str]) -> tuple[Headline, ...]:
    """What the rows of all cells together show of answers that are right, that follow the truth, and that move although it stays."""
    overall = comparison.overall
    if overall is None:
        return ()
    parts = (
        ("right", overall.right, True, "is right about both pictures", "of the pairs that both were asked"),
        ("read", overall.read, True, "follows the truth", "of the pairs in which it changes"),
        ("leak", overall.leak, False, "moves its answer", "of the pairs in which the truth stays"),
    )
    return tuple(
        _headline(name, change, more_is_better, f"{labels[1]} {verb}", where, labels[0])
        for name, change, more_is_better, verb, where in parts
        if change is not None
    )


def _headline(name: str, change: Change, more_is_better: bool, claim: str, where: str, one: str) -> Headline:
    low, high = change.difference.low, change.difference.high
    sure = low is not None and high is not None and not low <= 0 <= high
    shares = f"in {show_frac(change.other)} {where}, {one} in {show_frac(change.one)}"
    difference = f"{show_difference(change)}, {show_count(change.difference.num_scenes)} scenes"
    if sure:
        text = f"{claim} {'more' if change.difference.value > 0 else 'less'} often: {shares}; paired difference {difference}."
        return Headline(name, change, text, (change.difference.value > 0) == more_is_better)
    detectable = "" if change.detectable is None else f"; they would detect {show_frac(change.detectable)}"
    return Headline(name, change, f"{claim} {shares}: these pairs show no difference, {difference}{detectable}.", None)
