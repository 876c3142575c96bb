"""Faults of manifest rows: the problem and how to fix it. A faulty row has one fault, the first that the checks meet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MAX_LINES = 20

KINDS: Mapping[str, str] = {
    "text not UTF-8": "the line is not UTF-8",
    "no JSON": "the line is not JSON",
    "no object": "the line is JSON, but not an object with keys",
    "long line": "the line is longer than 1 MB",
    "repeated key": "a key occurs twice in one row",
    "unknown key": "an unknown key; the nearest known one is suggested",
    "missing key": "a key that every row needs is missing or null",
    "NaN": "NaN where text or a list is expected, as pandas writes for an empty cell",
    "wrong type": "a number where text is expected, text where a list is expected, and so on",
    "bad text": "text with an unpaired surrogate or a zero byte",
    "blank question": "a question that is blank",
    "blank text": "another text that is blank",
    "blank choice": "a choice that is blank",
    "too few choices": "fewer than two choices",
    "repeated choice": "the same choice twice",
    "answer not a choice": "an answer that is not one of the choices",
    "unknown form": "a form other than open, yes_no, conjunction",
    "unknown kind": "a kind other than exact, matched",
    "value missing": "a factor without from and to",
    "value without factor": "from or to without a factor",
    "from equals to": "the factor changes, but its two values are equal",
    "answer without factor": "the two answers differ, but no factor is named",
    "two changes": "a row with question_after changes something besides the wording",
    "nothing changes": "one picture, one question: nothing to compare",
    "repeated id": "the id of an earlier row",
    "path outside the folder": "a path that is absolute, or leaves the manifest's folder through .. or a link",
    "missing picture": "the file does not exist",
    "not a file": "the path is a folder, a pipe or anything else but a file",
    "empty picture": "a file of zero bytes",
    "large file": "a file of more than 256 MiB",
    "unreadable picture": "the file system refuses to open it",
    "unsupported format": "SVG, PDF, HEIC and others, or pixels that are 32-bit integers or floats outside 0 to 1",
    "not a picture": "the file is not a picture in a known format",
    "large picture": "a side of more than 16,384 pixels, by its header, before anything is decoded",
    "too many pixels": "more than 64 million pixels, by its header, before anything is decoded",
    "picture bomb": "a PNG with more data than its header allows",
    "giant chunk": "a PNG with a text or a colour profile of more than 1 MiB, or that inflates to more",
    "truncated picture": "a file that ends too early",
    "broken picture": "a file whose pixels cannot be decoded",
    "identical pictures": "a factor is named, but both files have the same bytes",
    "different sizes": "an exact pair whose two pictures differ in size",
}
"""Every kind of fault and its meaning. A gallery's `left_out` counts rows by these kinds."""


@dataclass(frozen=True)
class Fault:
    """A row that is left out: its number (JSONL line or Parquet row, from 1), its id, the kind of fault (of `KINDS`), and a message."""

    row: int
    id: str
    kind: str
    message: str


class RowFault(Exception):
    """A fault raised by a check, without file and row: its kind (of `KINDS`), the problem, and how to fix it."""

    def __init__(self, kind: str, problem: str, fix: str) -> None:
        super().__init__(f"{problem}; {fix}")
        self.kind, self.problem, self.fix = kind, problem, fix

    def of(self, path: Path, row: int, identity: str) -> Fault:
        """The `Fault` of a row of a file."""
        return Fault(row, identity, self.kind, f"{path}, row {row} (id {identity}): {self}")


def left_out(faults: Sequence[Fault]) -> dict[str, int]:
    """Number of rows left out by kind of fault, most frequent first."""
    return dict(Counter(fault.kind for fault in faults).most_common())


def fault_lines(faults: Sequence[Fault], most: int = MAX_LINES) -> tuple[str, ...]:
    """At most `most` messages in row order, with every kind before a second of any, and a last line that counts the rest by kind."""
    num_earlier: Counter[str] = Counter()
    ranked = []
    for index, fault in enumerate(faults):
        ranked.append((num_earlier[fault.kind], index))
        num_earlier[fault.kind] += 1
    shown = {index for _, index in sorted(ranked)[:most]}
    lines = [faults[index].message for index in sorted(shown)]
    rest = [fault for index, fault in enumerate(faults) if index not in shown]
    if rest:
        counts = ", ".join(f"{kind} {number:,}" for kind, number in left_out(rest).items())
        lines.append(f"and {len(rest):,} more: {counts}")
    return tuple(lines)
