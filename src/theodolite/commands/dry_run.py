"""Dry runs of the paper's recipes, as tables and as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from theodolite.training.dry_run import DryRun, StageCost, dry_run

COUNTED = {"parameters_gib": "parameters", "gradients_gib": "gradients", "optimizer_gib": "optimizer", "teacher_gib": "teacher"}
ESTIMATED = {"accumulated_gib": "accumulated~", "gathered_gib": "gathered~", "activations_gib": "activations~"}


def dry_runs(names: Sequence[str], num_gpus: int) -> list[DryRun]:
    """The dry runs of recipes. Raises `UnknownName` and `BadInput` as `dry_run` does."""
    return [dry_run(name, num_gpus) for name in names]


def as_values(run: DryRun) -> dict[str, Any]:
    """A dry run as plain values, with each stage's total."""
    costs = [{**asdict(cost), "total_gib": cost.total_gib} for cost in run.costs]
    return {**asdict(run), "costs": costs, "twin_losses": {name: list(losses) for name, losses in run.twin_losses.items()}}


def memory_table(run: DryRun) -> Table:
    """A row for each stage: GiB on each GPU by component, TFLOP a step over all GPUs, and the twin's two losses."""
    number = run.costs[0].num_gpus
    table = Table(title=f"{run.recipe} on {number} GPUs, GiB on each (~: estimate; pictures of {run.picture})")
    table.add_column("stage")
    for column in (*COUNTED.values(), *ESTIMATED.values(), "total", "TFLOP a step", "twin's losses"):
        table.add_column(column, justify="right")
    for cost in run.costs:
        table.add_row(cost.stage, *_gib(cost), f"{cost.step_tflop:,.0f}", " ".join(f"{loss:.3f}" for loss in run.twin_losses[cost.stage]))
    return table


def _gib(cost: StageCost) -> list[str]:
    return [f"{getattr(cost, name):.2f}" for name in (*COUNTED, *ESTIMATED, "total_gib")]
