"""The page's words: what each verdict means, and how numbers are written."""

from __future__ import annotations

import math
from collections.abc import Sequence

from theodolite.records.part import Estimate
from theodolite.records.survey import Cell, Evidence, Rate, Thresholds, Verdict

WORD: dict[Verdict, str] = {
    "identified": "identified",
    "entangled": "entangled",
    "blind": "blind",
    "shadow": "shadow",
    "inert": "inert",
    "undecided": "undecided",
    "cannot_be_asked": "cannot be asked",
}
MEANING: dict[Verdict, str] = {
    "identified": "Asked about, and the answers follow it; changing it moves no answer whose truth stands still. It is pinned down.",
    "entangled": "Asked about and followed, but changing it also moves answers whose truth stands still: read, and still leaking.",
    "blind": "Asked about, but the answers do not follow it, and changing it moves no other answer either.",
    "shadow": "Not read, yet changing it moves answers whose truth stands still: a cheap proxy that misleads once the correlation breaks.",
    "inert": "Never asked about, and changing it moves no answer: undetermined, and harmless so far.",
    "undecided": "The pairs do not settle it: an interval straddles a threshold, or no fit open question was asked.",
    "cannot_be_asked": "Questions about it are answered at chance even on scenes like those of training, so answers tell nothing of it.",
}
NO_NUMBER = "–"


def show_frac(value: float | None) -> str:
    """A fraction of pairs with two decimals."""
    return NO_NUMBER if value is None else f"{value:.2f}"


def show_exact(value: float | None) -> str:
    """A quantity that is computed, not sampled: an exact zero is written 0, small values get a third decimal."""
    if value is None:
        return NO_NUMBER
    if value == 0:
        return "0"
    if abs(value) < 0.0005:
        return "<0.001"
    return f"{value:.3f}" if abs(value) < 0.1 else f"{value:.2f}"


def show_interval(low: float | None, high: float | None) -> str:
    """[low, high], or words where fewer than two scenes speak."""
    return "[no interval]" if low is None or high is None else f"[{low:.2f}, {high:.2f}]"


def show_rate(rate: Rate | None) -> str:
    """A rate with its interval, or words where there was nothing to measure it by."""
    if rate is None:
        return "nothing to measure it by"
    return f"{rate.frac:.2f} {show_interval(rate.low, rate.high)}, {rate.num_scenes} scenes"


def show_count(value: int) -> str:
    return f"{value:,}"


def column_of(cell: Cell) -> str:
    """A query and its form, as columns are headed: "shape (open)"."""
    return f"{cell.query} ({cell.form})"


def listed(items: Sequence[str]) -> str:
    """Items in a sentence: "a", "a and b", "a, b and c"."""
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} and {items[-1]}"


def explain_verdict(factor: str, found: Evidence, thresholds: Thresholds) -> str:
    """A verdict in sentences, with the numbers that it rests on."""
    parts = [
        f"{factor}: {WORD[found.verdict]}. {MEANING[found.verdict]}",
        "Asked about." if found.asked else "Never asked about.",
    ]
    if found.asked:
        parts.append(f"Read {show_rate(found.read)}; the line is {thresholds.read_frac:g}.")
    if found.leak is None or found.leak_query is None:
        parts.append("Leak: nothing to measure it by.")
    else:
        floor = found.noise_frac or 0.0
        line = floor + thresholds.leak_above_noise_frac
        leak = f"Largest leak {show_rate(found.leak)}, into answers about {found.leak_query}"
        parts.append(f"{leak}; noise floor {floor:.2f}, the line is {line:.2f}.")
    return " ".join(parts)


def show_measured(value: float, low: float | None, high: float | None) -> tuple[str, str]:
    """A number and its interval, with as many decimals as the interval needs to show its width: two or more below 10, at most four."""
    decimals = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    if low is not None and high is not None and 0 < high - low < 1:
        decimals = max(decimals, min(4, math.ceil(-math.log10(high - low))))
    known = [None if number is None else f"{round(number, decimals) + 0.0:.{decimals}f}" for number in (value, low, high)]
    return known[0] or "", "[no interval]" if known[1] is None or known[2] is None else f"[{known[1]}, {known[2]}]"


def value_of(found: Rate | Estimate) -> float:
    """The number itself, of a rate or of an estimate."""
    return found.frac if isinstance(found, Rate) else found.value


def tell(found: Rate | Estimate | None) -> str:
    """A number with its interval and scenes."""
    if found is None:
        return NO_NUMBER
    value = found.frac if isinstance(found, Rate) else found.value
    return f"{' '.join(show_measured(value, found.low, found.high))}, {found.num_scenes} scenes"
