"""Examples that cannot be trained on: the reason of each, their counts, and the fraction at which the run stops."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from theodolite.records.errors import BadInput

Kind = Literal["unreadable", "malformed", "too long"]
# Kinds that mean damaged data. "too long" depends on the chosen length.
DAMAGE: tuple[Kind, ...] = ("unreadable", "malformed")


class Unfit(Exception):
    """An example yields no sample. The message, which starts with the kind, is the listed reason."""

    def __init__(self, kind: Kind, reason: str) -> None:
        super().__init__(f"{kind}: {reason}")
        self.kind = kind


class Dropped:
    """Counts dropped examples by kind of reason, from the collator's `dropped` lists.

    Raises if the fraction of unreadable or malformed examples among those seen exceeds `max_damaged_frac` (0 to 1), once `min_seen` have
    been seen. `listed` maps the first `num_listed` dropped examples' keys to reasons.
    """

    def __init__(self, max_damaged_frac: float = 0.01, min_seen: int = 100, num_listed: int = 1000) -> None:
        if not 0 <= max_damaged_frac <= 1:
            raise BadInput(f"max_damaged_frac is {max_damaged_frac}; give a fraction from 0 to 1")
        self.max_damaged_frac, self.min_seen, self.num_listed = max_damaged_frac, min_seen, num_listed
        self.num_seen = 0
        self.counts: Counter[str] = Counter()
        self.listed: dict[str, str] = {}

    def add(self, dropped: Sequence[tuple[str, str]], num_seen: int) -> None:
        """Counts the (key, reason) pairs of a batch made from `num_seen` examples. Raises `BadInput` above the fraction."""
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
        """One line of text per kind; empty if no example was dropped."""
        return [f"{count} of {self.num_seen} examples left out: {kind}" for kind, count in sorted(self.counts.items())]
