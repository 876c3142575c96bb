"""The comparison page: what one model does differently from another on the same pairs, in one HTML file that loads nothing."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

import polars as pl

from theodolite.records.comparison import CellChange, Comparison, RightCounts
from theodolite.report.bar import Bar, Export, Serving
from theodolite.report.comparison import words
from theodolite.report.comparison.charts import MOST_CELLS, forest_chart, slope_chart
from theodolite.report.comparison.pairs import GROUPS, left_out, pair_list_json
from theodolite.report.environment import environment
from theodolite.report.stored import StoredSurvey
from theodolite.report.survey.arms import SurveyArm, label_arms
from theodolite.report.survey.board import ICON, BoardRow, verdict_board
from theodolite.report.survey.comparability import check_arms
from theodolite.report.survey.exports import page_exports
from theodolite.report.survey.words import column_of
from theodolite.report.vega import DARK_COLOURS, chart_script, spec_json

SECTIONS = {
    "change": "What changed",
    "verdicts": "Verdicts",
    "differences": "Differences",
    "counts": "Who is right",
    "pairs": "Pairs",
    "numbers": "Numbers",
    "provenance": "Provenance",
}


def build_comparison(
    one: StoredSurvey, other: StoredSurvey, comparison: Comparison, rows: pl.DataFrame, serving: Serving | None = None
) -> str:
    """The page's HTML; the same input gives the same text.

    `rows` are the rows of the comparison's cells: columns of `records.rows`, the second survey's with the suffix `_other`, and `right_by`,
    a field of `RightCounts`. `serving` is for a page that comes from a server.
    """
    arms = label_arms([one, other])
    labels = [arm.label for arm in arms]
    charts = {"read": slope_chart(arms, "read"), "leak": slope_chart(arms, "leak"), "forest": forest_chart(comparison)}
    drawn = {name: spec for name, spec in charts.items() if spec is not None}
    changed, same = _verdict_rows(arms, comparison)
    return environment(
        show_difference=words.show_difference,
        cell_words=words.cell_words,
        ICON=ICON,
        pairs_of=pairs_of,
    ).get_template("compare.html.j2").render(
        bar=_bar(arms, comparison, () if serving is None else serving.links),
        nonce="" if serving is None else serving.nonce,
        arms=arms,
        labels=labels,
        comparison=comparison,
        headlines=words.headlines(comparison, labels),
        warnings=[notice.text for notice in check_arms(arms) if notice.kind == "warning"],
        changed=changed,
        same=same,
        numbers={name: number for number, name in enumerate(drawn)},
        num_undrawn=max(0, len(comparison.cells) - MOST_CELLS),
        cells=sorted(comparison.cells, key=lambda cell: cell.gain),
        findings={
            (item.factor, item.query, item.form, item.truth_moves, item.measure): item for item in (*comparison.grew, *comparison.shrank)
        },
        total=_total(comparison),
        groups={name: text.format(*labels) for name, text in GROUPS.items()},
        left_out=left_out(rows),
        packed_pairs=Export.pack(pair_list_json(rows)),
        dark_colours=spec_json(dict(DARK_COLOURS)),
        specs=[spec_json(spec) for spec in drawn.values()],
        script=chart_script(),
    )  # fmt: skip


def pairs_of(group: str, cell: CellChange | None = None) -> str:
    """The address of the pairs of one group, of one cell or of all."""
    conditions = {"right": group}
    if cell is not None:
        conditions |= {"factor": cell.factor, "question": column_of(cell), "truth": "moves" if cell.truth_moves else "stays"}
    return "#pairs?" + "&".join(f"{name}={quote(value, safe='')}" for name, value in conditions.items())


def _total(comparison: Comparison) -> RightCounts:
    return RightCounts(**{name: sum(getattr(cell.counts, name) for cell in comparison.cells) for name in RightCounts.model_fields})


def _verdict_rows(arms: tuple[SurveyArm, ...], comparison: Comparison) -> tuple[list[BoardRow], list[BoardRow]]:
    """The factors whose verdict differs, in the comparison's order, and all others, worst first."""
    shown, inert = verdict_board(arms)
    rows = {row.factor: row for row in (*shown, *inert)}
    differ = [each.factor for each in comparison.verdicts]
    return [rows[factor] for factor in differ if factor in rows], [row for factor, row in rows.items() if factor not in differ]


def _bar(arms: tuple[SurveyArm, ...], comparison: Comparison, links: Sequence[tuple[str, str]]) -> Bar:
    stem = "comparison"
    record = Export(
        "comparison", "Comparison (JSON)", "every difference", f"{stem}.json", "application/json", Export.pack(comparison.to_json())
    )
    title = f"{arms[1].label} against {arms[0].label}"
    return Bar(title, [f"{comparison.num_rows:,} rows of both"], list(SECTIONS.items()), [record, *page_exports(arms, stem)], links)
