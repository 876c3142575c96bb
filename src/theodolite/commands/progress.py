"""Progress on the terminal: a bar and the time left for each long step."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from theodolite.records.progress import Progress as ProgressCallback


class Steps:
    """The long steps of a command, one progress bar each; without a terminal a line each quarter, and one at the end."""

    def __init__(self, console: Console) -> None:
        self.console = console

    @contextmanager
    def step(self, label: str) -> Iterator[ProgressCallback]:
        """A long step; yields its `records.progress.Progress`."""
        started = time.monotonic()
        if not self.console.is_terminal:
            yield self._in_lines(label)
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

            def update(done: int, total: int, note: str = "") -> None:
                bar.update(task, completed=done, total=total, note=note)

            yield update
            total = bar.tasks[0].total or 1
            bar.update(task, total=total, completed=total)

    @contextmanager
    def costed_step(self, label: str, cost: str) -> Iterator[ProgressCallback]:
        """A long step whose cost in words is printed first (`records.progress.ProgressSteps`)."""
        self.console.print(f"{label}: {cost}")
        with self.step(label) as progress:
            yield progress

    def _in_lines(self, label: str) -> ProgressCallback:
        """For logs: a line each time another quarter is done."""
        last = 0

        def print_quarter(done: int, total: int, note: str = "") -> None:
            nonlocal last
            if done < total and 4 * done // total > last:
                last = 4 * done // total
                self.console.print(f"{label}: {done} of {total} {note}")

        return print_quarter

    def reuse(self, label: str) -> None:
        """Prints that a step was done in an earlier run."""
        self.console.print(f"{label}: kept from an earlier run")
