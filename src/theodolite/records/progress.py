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


@contextmanager
def shown_steps(label: str, cost: str) -> Iterator[Progress]:
    """`ProgressSteps` as bars on standard error or in the notebook, as transformers and datasets show theirs."""
    from tqdm.auto import tqdm  # loads asyncio, which commands that show no such bars start faster without

    with tqdm(desc=label, unit="") as bar:

        def show(done: int, total: int, note: str = "") -> None:
            bar.total = total
            bar.set_postfix_str(note, refresh=False)
            bar.update(done - bar.n)

        yield show
        # Bars of steps that end early, such as those that were stored, are full.
        bar.total = bar.total or 1
        bar.update(bar.total - bar.n)
