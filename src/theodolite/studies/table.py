"""The tables that commands print."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from theodolite.measurement.coverage import Coverage
from theodolite.records.survey import Cell, SurveyRecord


def tour_table(records: Sequence[SurveyRecord]) -> Table:
    """One row a survey: how often the answers about the correlated factors follow do(each), with intervals, and the verdicts."""
    correlated = _correlated(records)
    num_seeds = len({record.training.seed for record in records if record.training})
    note = {0: "training seed unknown", 1: "one seed"}.get(num_seeds, f"{num_seeds} seeds")
    table = Table(title=f"Does the answer move when one factor moves? (share of pairs, 95 % intervals by scene, {note})")
    table.add_column("policy")
    cells = [key for key in _keys(records) if not correlated or {key[0], *key[1].split("&")} <= correlated]
    for factor, query, moves in cells:
        table.add_column(f"do({factor})\n-> {query} answer\n({'read' if moves else 'leak'})", justify="right")
    table.add_column("verdicts")
    for record in records:
        found = {_key(cell): cell for cell in record.shadows.cells if cell.form == "open"}
        verdicts = {name: word for name, word in record.shadows.verdicts.items() if not correlated or name in correlated}
        seed = f"\nseed {record.training.seed}" if record.training and num_seeds > 1 else ""
        table.add_row(
            record.title + seed,
            *(_show(found[key]) if key in found else "" for key in cells),
            "\n".join(f"{name}: {word.replace('_', ' ')}" for name, word in verdicts.items()),
        )
    return table


def _correlated(records: Sequence[SurveyRecord]) -> set[str]:
    return {
        str(known[side])
        for record in records
        if record.world is not None
        for known in record.world.correlations
        for side in ("cause", "effect")
    }


def _key(cell: Cell) -> tuple[str, str, bool]:
    return cell.factor, cell.query, cell.truth_moves


def _keys(records: Sequence[SurveyRecord]) -> list[tuple[str, str, bool]]:
    keys = [_key(cell) for record in records for cell in record.shadows.cells if cell.form == "open"]
    return sorted(dict.fromkeys(keys), key=lambda key: (key[1], key[2]))


def score_table(records: Sequence[SurveyRecord]) -> Table | None:
    """Accuracy on official test questions beside what the text alone gives, one row a survey; None where there are no such questions."""
    forms = list(dict.fromkeys(score.form for record in records for score in record.scores))
    if not forms:
        return None
    table = Table(title="Accuracy on the official test questions (text alone)")
    table.add_column("policy")
    for form in forms:
        table.add_column(form.replace("_", "/"), justify="right")
    for record in records:
        found = {score.form: f"{score.accuracy_frac:.3f} ({score.text_only_frac:.3f})" for score in record.scores}
        table.add_row(record.title, *(found.get(form, "") for form in forms))
    return table


def _show(cell: Cell) -> str:
    if cell.low is None or cell.high is None:
        return f"{cell.moved_frac:.2f}\nno interval"
    return f"{cell.moved_frac:.2f}\n[{cell.low:.2f}, {cell.high:.2f}]"


def coverage_table(result: Coverage, factors: Sequence[str]) -> Table:
    """One row a factor: coverage, its limit, reach, pressure, and why it is uncovered."""
    table = Table(title=f"What asking {result.policy} pins down (agreement {result.agreement_frac:.4g})")
    table.add_column("factor")
    for name in ("coverage", "limit", "reach", "pressure, bits"):
        table.add_column(name, justify="right")
    table.add_column("uncovered because")
    for factor in factors:
        numbers = (result.coverage, result.coverage_limit, result.reach, result.pressure_bits)
        table.add_row(factor, *(f"{values[factor]:.4f}" for values in numbers), result.cause.get(factor, ""))
    return table


def proxy_lines(result: Coverage) -> list[str]:
    """What a shadow could earn, in bits, for every query; and how much of the world the questions resolve."""
    lines = [f"{name}: a shadow could earn {bits:.4f} bits" for name, bits in result.proxy_bits.items() if bits > 0]
    estimated = "" if result.resolved_exact else f" [{result.resolved_low:.4f}, {result.resolved_high:.4f}], estimated"
    return [*lines, f"two scenes drawn from the prior are told apart with chance {result.resolved_frac:.4f}{estimated}"]
