"""Faults of a manifest: what is wrong with which row, and what mends it. One row has one fault, the first that is found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

FIRST = 20

KINDS: Mapping[str, str] = {
    "text not UTF-8": "bytes of the line are no UTF-8",
    "no JSON": "the line is no JSON",
    "no object": "the line is JSON, but no object with keys",
    "long line": "the line is longer than 1 MB",
    "repeated key": "a key stands twice in one row",
    "unknown key": "a key that nobody knows; the nearest known one is suggested",
    "missing key": "a key that every row needs is missing or null",
    "NaN": "NaN where text or a list is wanted, as pandas writes for an empty cell",
    "wrong type": "a number where text is wanted, text where a list is wanted, and so on",
    "bad text": "text that holds half a character or a zero byte",
    "blank question": "a question without words",
    "blank text": "another text without words",
    "blank choice": "a choice without words",
    "too few choices": "fewer than two choices",
    "repeated choice": "the same choice twice",
    "answer not a choice": "an answer that is none of the choices",
    "unknown form": "a form that is none of open, yes_no, conjunction",
    "unknown kind": "a kind that is neither exact nor matched",
    "value missing": "a factor without from and to",
    "value without factor": "from or to without a factor",
    "from equals to": "the factor is said to change, but its two values are one",
    "answer without factor": "the two answers differ, but nothing is named that changes",
    "two changes": "a row with question_after changes the wording and something else too",
    "nothing changes": "one picture, one question: there is nothing to compare",
    "repeated id": "the id of an earlier row",
    "path outside the folder": "a path that is absolute, or leaves the manifest's folder through .. or a link",
    "missing picture": "there is no such file",
    "not a file": "the path is a folder, a pipe or another thing that is no file",
    "empty picture": "a file of zero bytes",
    "large file": "a file of more than 256 MiB",
    "unreadable picture": "the file system refuses to open it",
    "unsupported format": "SVG, PDF, HEIC and others, or more than 8 bits a channel",
    "not a picture": "the file is no picture of any known format",
    "large picture": "a side of more than 16,384 pixels; found in the header, before anything is decoded",
    "too many pixels": "more than 64 million pixels; found in the header, before anything is decoded",
    "picture bomb": "a PNG that holds more data than its header leaves room for",
    "giant chunk": "a PNG with a text or a colour profile of more than 1 MiB, or that inflates to more",
    "animated picture": "a file of several frames or pages",
    "truncated picture": "a file that ends too early",
    "broken picture": "a file whose pixels cannot be decoded",
    "identical pictures": "a factor is named, but both files hold the same bytes",
    "different sizes": "an exact pair whose two pictures differ in size",
}
"""Every kind of fault, and what it stands for. The words are what a gallery's `left_out` counts by."""


@dataclass(frozen=True)
class Fault:
    """A row that is left out: its number (lines of JSONL and rows of Parquet count from 1), its id, the kind (of `KINDS`), a message."""

    row: int
    id: str
    kind: str
    message: str


class RowFault(Exception):
    """Raised where a fault is found, which knows neither file nor row: the kind, what was found, and what mends it."""

    def __init__(self, kind: str, found: str, mend: str) -> None:
        super().__init__(f"{found}; {mend}")
        self.kind, self.found, self.mend = kind, found, mend

    def of(self, path: Path, row: int, identity: str) -> Fault:
        """The fault of that row of that file."""
        return Fault(row, identity, self.kind, f"{path}, row {row} (id {identity}): {self}")


def left_out(faults: Sequence[Fault]) -> dict[str, int]:
    """Number of rows left out, by kind; the commonest first."""
    return dict(Counter(fault.kind for fault in faults).most_common())


def fault_lines(faults: Sequence[Fault], most: int = FIRST) -> tuple[str, ...]:
    """At most `most` messages in the order of rows, every kind before any kind twice, and a last line that counts the rest by kind."""
    seen: Counter[str] = Counter()
    ranked = []
    for place, fault in enumerate(faults):
        ranked.append((seen[fault.kind], place))
        seen[fault.kind] += 1
    told = sorted(place for _, place in sorted(ranked)[:most])
    lines = [faults[place].message for place in told]
    shown = set(told)
    rest = [fault for place, fault in enumerate(faults) if place not in shown]
    if rest:
        counts = ", ".join(f"{kind} {number:,}" for kind, number in left_out(rest).items())
        lines.append(f"and {len(rest):,} more: {counts}")
    return tuple(lines)
