"""How far a long step is: the one protocol through which every long step reports."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, runtime_checkable


@runtime_checkable
class Progress(Protocol):
    """Called with the parts done, the parts in all, and an optional note, as often as the step likes."""

    def __call__(self, done: int, total: int, note: str = "") -> None: ...


def silent(done: int, total: int, note: str = "") -> None:
    """A `Progress` that reports nowhere."""


# Opens a step under a label, with its cost in words; yields the step's `Progress`.
ProgressSteps = Callable[[str, str], AbstractContextManager[Progress]]


@contextmanager
def silent_steps(label: str, cost: str) -> Iterator[Progress]:
    """`ProgressSteps` that report nowhere."""
    yield silent
