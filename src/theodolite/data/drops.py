"""What cannot be trained on: why a single example is left out, and when so many are that the run must stop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from theodolite.records.errors import BadInput

Kind = Literal["unreadable", "malformed", "too long"]
# Kinds that tell of damage. That an example is too long is a choice of whoever set the length.
DAMAGE: tuple[Kind, ...] = ("unreadable", "malformed")


class Unfit(Exception):
    """An example that gives no sample. Its message, kind first, is the reason that is listed."""

    def __init__(self, kind: Kind, found: str) -> None:
        super().__init__(f"{kind}: {found}")
        self.kind = kind


class Dropped:
    """A tally of the examples that were left out, by kind of reason, fed with what the collator says of each batch.

    Past `max_damaged_frac` of the examples seen (0 to 1; pictures that cannot be read, records that are no conversations) it raises, once
    `min_seen` have been seen. `listed` holds a reason for each example, the first `num_listed` of them.
    """

    def __init__(self, max_damaged_frac: float = 0.01, min_seen: int = 100, num_listed: int = 1000) -> None:
        if not 0 <= max_damaged_frac <= 1:
            raise BadInput(f"max_damaged_frac is {max_damaged_frac}; give a fraction from 0 to 1")
        self.max_damaged_frac, self.min_seen, self.num_listed = max_damaged_frac, min_seen, num_listed
        self.num_seen = 0
        self.counts: Counter[str] = Counter()
        self.listed: dict[str, str] = {}

    def add(self, dropped: Sequence[tuple[str, str]], num_seen: int) -> None:
        """Counts the (key, reason) pairs of a batch made from `num_seen` examples. Raises `BadInput` past the fraction."""
        self.num_seen += num_seen
        for key, reason in dropped:
            self.counts[reason.partition(":")[0]] += 1
            if len(self.listed) < self.num_listed:
                self.listed.setdefault(key, reason)
        damaged = sum(self.counts[kind] for kind in DAMAGE)
        if self.num_seen >= self.min_seen and damaged > self.max_damaged_frac * self.num_seen:
            first = [f"{key} ({reason})" for key, reason in self.listed.items() if reason.startswith(DAMAGE)][:5]
            raise BadInput(
                f"{damaged} of the first {self.num_seen} examples cannot be read, more than the {self.max_damaged_frac:.1%} allowed: "
                f"{'; '.join(first)}; repair them, or raise max_damaged_frac"
            )

    def lines(self) -> list[str]:
        """The counts in words, one line a kind; no line if nothing was left out."""
        return [f"{count} of {self.num_seen} examples left out: {kind}" for kind, count in sorted(self.counts.items())]
