"""Number formats and verdict texts of all pages."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import get_args

from theodolite.records.endpoint import EndpointConfig
from theodolite.records.survey import SurveyRecord, Verdict

WORD: dict[Verdict, str] = {verdict: verdict.replace("_", " ") for verdict in get_args(Verdict)}
MEANING: dict[Verdict, str] = {
    "identified": "Asked about, and the answers follow it; changing it moves no answer whose truth is unchanged. It is determined.",
    "entangled": "Asked about and followed, but changing it also moves answers whose truth is unchanged: read, and still leaking.",
    "blind": "Asked about, but the answers do not follow it, and changing it moves no other answer either.",
    "shadow": "Not read, yet changing it moves answers whose truth is unchanged: a cheap proxy that misleads once the correlation breaks.",
    "inert": "Never asked about, and changing it moves no answer: undetermined, and harmless so far.",
    "undecided": "The pairs do not decide: an interval includes a threshold.",
    "cannot_be_asked": "Neither read nor leaking, and questions about it are answered at chance even on scenes like those of training: "
    "answers say nothing about it.",
    "not_measured": "Something that the verdict needs was not measured: pairs, noise, or a question that could leak.",
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
    """[low, high], or [no interval] below two scenes."""
    return "[no interval]" if low is None or high is None else f"[{low:.2f}, {high:.2f}]"


def show_measured(value: float, low: float | None, high: float | None) -> tuple[str, str]:
    """A number and its interval, with as many decimals as the interval needs to show its width: two or more below 10, at most four."""
    decimals = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    if low is not None and high is not None and 0 < high - low < 1:
        decimals = max(decimals, min(4, math.ceil(-math.log10(high - low))))
    # Adding 0.0 turns -0.0 into 0.0.
    texts = [None if number is None else f"{round(number, decimals) + 0.0:.{decimals}f}" for number in (value, low, high)]
    return texts[0] or "", "[no interval]" if texts[1] is None or texts[2] is None else f"[{texts[1]}, {texts[2]}]"


def unbroken(text: str) -> str:
    """The text with spaces at which no line ends before a percent sign and within an interval."""
    return re.sub(r"\[[^\]]*\]", lambda interval: interval.group().replace(" ", "\u00a0"), text.replace(" %", "\u00a0%"))


def show_count(value: int) -> str:
    return f"{value:,}"


def pair_set_name(record: SurveyRecord) -> str:
    """The world or gallery of the pairs; given pairs have no name of their own."""
    return "pairs from a file" if record.world is None else record.world.name


def listed(items: Sequence[str]) -> str:
    """Items in a sentence: "a", "a and b", "a, b and c"."""
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} and {items[-1]}"


def withheld_options(record: SurveyRecord) -> tuple[str, ...]:
    """Options to survey a model with again of which rates are withheld, since its answers are mostly none of the choices; none left: ()."""
    model = record.model
    if isinstance(model, EndpointConfig) and model.answers == "logprobs":
        return ("--answers", "text")
    return {"free": ("--prompt", "options"), "options": ("--prompt", "letters")}.get(model.prompt, ())


def withheld_remedy(record: SurveyRecord) -> str:
    """`withheld_options` as the end of a sentence."""
    options = withheld_options(record)
    return f"survey again with {' '.join(options)}" if options else "give the choices in the words that the model answers with"
