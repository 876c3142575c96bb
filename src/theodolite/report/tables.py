"""The tables that commands print."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from rich.table import Table

from theodolite.records.coverage import Coverage
from theodolite.records.survey import Cell, NoiseSource, Score, Shadows, SurveyRecord
from theodolite.report.survey.accuracy import ACCURACY
from theodolite.report.survey.words import show_sensitivity
from theodolite.report.words import withheld_remedy


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
        cells_by_key = {_key(cell): cell for cell in record.shadows.cells if cell.form == "open"}
        verdicts = {name: word for name, word in record.shadows.verdicts.items() if not correlated or name in correlated}
        seed = f"\nseed {record.training.seed}" if record.training and num_seeds > 1 else ""
        table.add_row(
            record.title + seed,
            *(_show(cells_by_key[key]) if key in cells_by_key else "" for key in cells),
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
        accuracies = {score.form: _accuracy(score) for score in record.scores}
        table.add_row(record.title, *(accuracies.get(form, "") for form in forms))
    return table


def _accuracy(score: Score) -> str:
    if score.accuracy_frac is None or score.text_only_frac is None:
        return "withheld"
    return f"{score.accuracy_frac:.3f} ({score.text_only_frac:.3f})"


def gallery_table(record: SurveyRecord) -> Table:
    """One row a factor and query of given pairs: how often the answer moves, beside its noise, and what stands behind it."""
    shadows = record.shadows
    level = f"{shadows.thresholds.confidence:.0%}"
    name = "pairs from a file" if record.world is None else record.world.name
    table = Table(title=f"{name}: does the answer move when one factor moves? ({level} intervals by scene)")
    for column in ("do(factor)\n-> answer", "cell"):
        table.add_column(column, no_wrap=True)
    for column in ("answer moves", "noise", "total variation", "right before\nand after", "pairs", "scenes"):
        table.add_column(column, justify="right")
    table.add_column("verdict on\nthe factor")
    shown: set[str] = set()
    for cell in shadows.cells:
        table.add_row(
            f"do({cell.factor})\n-> {cell.query}",
            f"{'read' if cell.truth_moves else 'leak'},\n{cell.form.replace('_', '/')}",
            _show(cell),
            _noise(record, cell),
            _interval(cell.variation, cell.variation_low, cell.variation_high),
            _interval(cell.right_frac, cell.right_low, cell.right_high),
            f"{cell.num_pairs:,}",
            f"{cell.num_scenes:,}",
            "" if cell.factor in shown else shadows.verdicts.get(cell.factor, "").replace("_", " "),
        )
        shown.add(cell.factor)
    return table


def _noise(record: SurveyRecord, cell: Cell) -> str:
    """The noise of a cell's query with its source, interval, and number of pairs."""
    cells = [noise for noise in record.shadows.noise_cells if (noise.query, noise.form) == (cell.query, cell.form)]
    if not cells:
        return "none measured"
    top = min(cells, key=lambda noise: get_args(NoiseSource).index(noise.source))
    return f"{_interval(top.rate.frac, top.rate.low, top.rate.high)}\n{top.source},\n{top.rate.num_pairs:,} pairs"


def accuracy_table(record: SurveyRecord) -> Table | None:
    """Accuracy of given pairs, each kind by its name, beside guessing; None where nothing of the sort was measured."""
    if record.accuracy is None:
        return None
    table = Table(title="Accuracy by what must be right at once (item accuracy is not pair accuracy)")
    table.add_column("accuracy")
    table.add_column("right at once")
    for column in ("share right", "guessing", "number", "unanswered"):
        table.add_column(column, justify="right")
    for name, what in ACCURACY.items():
        share = getattr(record.accuracy, name)
        if share is not None:
            rate = share.rate
            rate_text, number = (
                ("nothing answered", "0") if rate is None else (_interval(rate.frac, rate.low, rate.high), f"{rate.num_pairs:,}")
            )
            table.add_row(name, what, rate_text, f"{share.chance_frac:.2f}", number, f"{share.num_unanswered:,}")
    return table


def survey_tables(record: SurveyRecord) -> list[Table]:
    """What a survey's command prints: the tour's tables for a world and a policy, the gallery's for given pairs."""
    if record.policy is None:
        accuracy = accuracy_table(record)
        return [gallery_table(record), *([] if accuracy is None else [accuracy])]
    scores = score_table([record])
    return [tour_table([record]), *([] if scores is None else [scores])]


def survey_lines(record: SurveyRecord) -> list[str]:
    """What a survey's tables leave out, except its verdicts (`survey.closing`): unanswered questions, rows left out, attribution."""
    lines = [
        f"unanswered, {gap.query} ({gap.form.replace('_', '/')}): {gap.num_unanswered:,} of {gap.num_questions:,} questions "
        f"({gap.frac:.1%}); they count as nothing, neither right nor wrong"
        for gap in record.shadows.unanswered
    ]
    lines += [
        f"withheld: the rates of {query}: {mass:.0%} of the probability lies outside the choices; {withheld_remedy(record)}"
        for query, mass in record.shadows.withheld.items()
    ]
    lines += _verdict_lines(record.shadows)
    if record.shadows.num_mislabelled:
        first = record.shadows.mislabelled[0]
        lines.append(
            f"likely mislabelled: {record.shadows.num_mislabelled:,} pairs, of scene {first.scene_label} for example "
            f"({first.question} {first.truth_before}, then {first.truth_after}); survey.json lists them"
        )
    lines += [f"left out: {number:,} rows, {reason}" for reason, number in record.left_out.items()]
    if record.world is not None and record.world.attribution is not None:
        lines.append(record.world.attribution)
    return lines


def _verdict_lines(shadows: Shadows) -> list[str]:
    """What other thresholds would change."""
    return [show_sensitivity(shadows)] if set(shadows.verdicts.values()) - {"not_measured"} else []


def _show(cell: Cell) -> str:
    return _interval(cell.moved_frac, cell.low, cell.high)


def _interval(value: float, low: float | None, high: float | None) -> str:
    return f"{value:.2f}\nno interval" if low is None or high is None else f"{value:.2f}\n[{low:.2f}, {high:.2f}]"


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
    return [*lines, f"two scenes drawn from the prior are distinguished with chance {result.resolved_frac:.4f}{estimated}"]
