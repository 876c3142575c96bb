"""Verdicts of a study's runs under other thresholds, from the rows that the study keeps; no model is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from rich.table import Table
from rich.text import Text

from theodolite.measurement.behaviour.shadows import measure_shadows
from theodolite.measurement.survey.targets import WorldTarget
from theodolite.records.errors import BadInput
from theodolite.records.study import GridRun, read_runs
from theodolite.records.survey import Thresholds, Verdict
from theodolite.report.study.words import num_of
from theodolite.report.words import WORD
from theodolite.studies.engine.execute import Run
from theodolite.studies.engine.kept_rows import read_kept_rows


@dataclass(frozen=True)
class ChangedVerdict:
    """A factor of a run whose verdict is another one under the thresholds."""

    key: str
    factor: str
    before: Verdict
    after: Verdict


@dataclass(frozen=True)
class Rejudged:
    """The verdicts that change, and how many finished runs were judged again, have no kept rows, and are missing from the grid."""

    thresholds: Thresholds
    changed: tuple[ChangedVerdict, ...]
    num_judged: int
    num_without_rows: int
    num_missing: int

    def table(self) -> Table:
        """A row for each verdict that changes; the title names the thresholds."""
        levels = self.thresholds
        table = Table(
            title=Text(
                f"verdicts that change: read above {levels.read_frac:g}, leak above noise by {levels.leak_above_noise_frac:g}, "
                f"intervals at {100 * levels.confidence:g} %"
            ),
            title_justify="left",
        )
        for head in ("run", "factor", "before", "after"):
            table.add_column(head)
        for each in self.changed:
            table.add_row(each.key, each.factor, WORD[each.before], WORD[each.after])
        return table

    def lines(self) -> list[str]:
        """What the table rests on, in sentences."""
        runs = len({each.key for each in self.changed})
        first = f"{num_of(self.num_judged, 'run')} judged again; {num_of(len(self.changed), 'verdict')} of {num_of(runs, 'run')} change"
        kept = f"{num_of(self.num_without_rows, 'finished run')} without kept rows: not judged again, so their verdicts may change too"
        missing = f"{num_of(self.num_missing, 'run')} of the grid not run yet"
        return [first, *([kept] if self.num_without_rows else []), *([missing] if self.num_missing else [])]


def judge_rows(run: Run, rows: pl.DataFrame, thresholds: Thresholds) -> Mapping[str, Verdict]:
    """The verdict of each factor from a run's rows, judged by the policy that it was trained on."""
    world = run.training_world
    shadows = measure_shadows(rows, *WorldTarget(world, world.policy(run.arm.policy)).shadow_questions(rows), thresholds)
    return shadows.verdicts


def rejudge_runs(runs: Sequence[Run], folder: Path, thresholds: Thresholds) -> Rejudged:
    """Verdicts of the finished runs of a grid under other thresholds, against those in their lines.

    Raises `BadInput` if the folder holds no finished run of the grid, `BadRecord` on kept rows that cannot be used.
    """
    lines: dict[str, GridRun] = read_runs(folder)
    finished = [run for run in runs if run.key in lines]
    if not finished:
        raise BadInput(f"{folder} holds no run of this grid, so there is nothing to judge again")
    changed: list[ChangedVerdict] = []
    num_judged = 0
    for run in finished:
        rows = read_kept_rows(folder, run.key)
        if rows is None:
            continue
        num_judged += 1
        before = lines[run.key].verdicts
        after = judge_rows(run, rows, thresholds)
        changed += [
            ChangedVerdict(run.key, name, before[name], verdict) for name, verdict in after.items() if before.get(name, verdict) != verdict
        ]
    return Rejudged(thresholds, tuple(changed), num_judged, len(finished) - num_judged, len(runs) - len(finished))
