"""Progress on the terminal: a bar and the time left for each long step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Steps:
    """The steps of a study, one bar each. Without a terminal there is a line a quarter, and one at the end."""

    def __init__(self, console: Console) -> None:
        self.console = console

    @contextmanager
    def step(self, label: str) -> Iterator[Callable[..., None]]:
        """A long step. It yields `tell(done, total, note="")`, to be called as often as one likes."""
        started = time.monotonic()
        if not self.console.is_terminal:
            yield self._tell_in_lines(label)
            self.console.print(f"{label}: done in {time.monotonic() - started:.0f} s")
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=self.console) as bar:
            task = bar.add_task(f"{label:<14}", total=None, note="")

            def tell(done: int, total: int, note: str = "") -> None:
                bar.update(task, completed=done, total=total, note=note)

            yield tell
            total = bar.tasks[0].total or 1
            bar.update(task, total=total, completed=total)

    def _tell_in_lines(self, label: str) -> Callable[..., None]:
        """For logs: a line each time another quarter is done."""
        last = 0

        def tell(done: int, total: int, note: str = "") -> None:
            nonlocal last
            if done < total and 4 * done // total > last:
                last = 4 * done // total
                self.console.print(f"{label}: {done} of {total} {note}")

        return tell

    def reuse(self, label: str) -> None:
        """Says that a step was done in an earlier run."""
        self.console.print(f"{label}: kept from an earlier run")
