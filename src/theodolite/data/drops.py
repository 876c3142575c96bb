"""Examples that cannot be trained on: the reason of each, their counts, and when they stop the run. Notes about pictures that can."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from scipy import stats

from theodolite.records.errors import BadInput

Kind = Literal["unreadable", "malformed", "too long"]
# Kinds that mean damaged data. "too long" depends on the chosen length.
DAMAGE: tuple[Kind, ...] = ("unreadable", "malformed")
MAX_DAMAGED_FRAC = 0.01
# Level of the binomial test of the running share. It is made after every step, and most of its looks come early, so it is strict.
LEVEL = 1e-5
REMEDIES: Mapping[str, str] = {
    "unreadable": "check the folder of the pictures and that the files are pictures",
    "malformed": "give records {id, image, conversations} to LlavaJson, or name the columns: from_datasets(..., text=..., pictures=...)",
    "too long": "raise max_length, or make the pictures smaller",
}


class Unfit(Exception):
    """An example yields no sample. The message, which starts with the kind, is the listed reason."""

    def __init__(self, kind: Kind, reason: str) -> None:
        super().__init__(f"{kind}: {reason}")
        self.kind = kind


class Dropped:
    """Counts dropped examples by kind of reason, from the collator's `dropped` lists, and stops a run whose data is damaged.

    Damage is unreadable and malformed examples; at most the fraction `max_damaged_frac` (0 to 1) is allowed. It stops the run where it is
    certain that the data has more (the number of different damaged examples, if `num_examples` is known), or statistically clear (a
    binomial test of the share seen so far, one-sided, at `LEVEL`). A run is also stopped where none of all examples, or of the first
    `min_seen`, gave a sample, whatever the reason. `listed` maps the first `num_listed` dropped examples' keys to reasons. `noted` counts
    the pictures of examples that were kept, by note of the decoder.
    """

    def __init__(
        self, max_damaged_frac: float = MAX_DAMAGED_FRAC, min_seen: int = 100, num_listed: int = 1000, num_examples: int | None = None
    ) -> None:
        if not 0 <= max_damaged_frac <= 1:
            raise BadInput(f"max_damaged_frac is {max_damaged_frac}; give a fraction from 0 to 1")
        self.max_damaged_frac, self.min_seen, self.num_listed = max_damaged_frac, min_seen, num_listed
        self.num_examples = num_examples
        self.num_seen = 0
        self.counts: Counter[str] = Counter()
        self.listed: dict[str, str] = {}
        self.noted: Counter[str] = Counter()
        self._damaged_keys: set[str] = set()

    def add(self, dropped: Sequence[tuple[str, str]], num_seen: int) -> None:
        """Counts the (key, reason) pairs of a batch made from `num_seen` examples. Raises `BadInput` where the run must stop."""
        self.num_seen += num_seen
        for given in dropped:
            # Half a surrogate pair could not be printed.
            key, reason = (text.encode("utf-8", "backslashreplace").decode() for text in given)
            self.counts[reason.partition(":")[0]] += 1
            if len(self.listed) < self.num_listed:
                self.listed.setdefault(key, reason)
            if reason.startswith(DAMAGE):
                self._damaged_keys.add(key)
        if self.num_seen >= min(self.min_seen, self.num_examples or self.min_seen):
            self.refuse_none_kept()
        self._refuse_damaged()

    def refuse_none_kept(self) -> None:
        """Raises `BadInput` if examples were seen and none of them gave a sample."""
        if not self.num_seen or self.counts.total() < self.num_seen:
            return
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.counts.items()))
        raise BadInput(
            f"none of the {self.num_seen} examples seen can be trained on ({kinds}), so the weights would stay as they are: "
            f"{self._first(self.counts)}. To mend this, {self._remedies(self.counts)}"
        )

    def lines(self) -> list[str]:
        """One line of text per kind of dropped examples, and one per note about pictures; empty if there is neither."""
        dropped = [f"{count} of {self.num_seen} examples left out: {kind}" for kind, count in sorted(self.counts.items())]
        noted = [f"{count} pictures of {self.num_seen} examples read with a note: {note}" for note, count in sorted(self.noted.items())]
        return dropped + noted

    def _refuse_damaged(self) -> None:
        damaged = sum(self.counts[kind] for kind in DAMAGE)
        is_certain = self.num_examples is not None and len(self._damaged_keys) > self.max_damaged_frac * self.num_examples
        if is_certain:
            share = f"{len(self._damaged_keys)} of the {self.num_examples} examples cannot be used"
        elif damaged > self.max_damaged_frac * self.num_seen and self._chance(damaged) < LEVEL:
            share = f"{damaged} of the first {self.num_seen} examples cannot be used"
        else:
            return
        raise BadInput(
            f"{share}, more than the {self.max_damaged_frac:.1%} allowed: {self._first(DAMAGE)}. To mend this, "
            f"{self._remedies(DAMAGE)}; or allow more: --max-damaged-frac FRACTION of theodolite train, max_damaged_frac=FRACTION of the "
            "Trainer"
        )

    def _chance(self, damaged: int) -> float:
        """Probability of as many damaged examples or more among those seen, if the share in the data is the largest allowed."""
        return float(stats.binom.sf(damaged - 1, self.num_seen, self.max_damaged_frac))

    def _remedies(self, kinds: Iterable[str]) -> str:
        """What to change for those of these kinds that occurred."""
        return "; ".join(REMEDIES[kind] for kind in sorted(kinds) if self.counts[kind])

    def _first(self, kinds: Iterable[str], num: int = 5) -> str:
        """Keys and reasons of the first few dropped examples of these kinds."""
        return "; ".join([f"{key} ({reason})" for key, reason in self.listed.items() if reason.startswith(tuple(kinds))][:num])
