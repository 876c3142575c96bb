"""The page of a study: one HTML file that opens from disk without a network, made from records alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from theodolite.records.folder import write_whole
from theodolite.records.study import GridRun, MovedCell, StudyRecord, read_runs, read_study
from theodolite.records.survey import RunRecord
from theodolite.report.stored import read_run
from theodolite.report.study import words as study_words
from theodolite.report.study.charts import figure_chart, is_seeded
from theodolite.report.survey import charts, words
from theodolite.report.survey.page import environment

PAGE = "index.html"
# What must be equal in runs that differ in their questions alone, by the name of the fact.
EQUAL_IN_A_COMPARISON = {
    "pictures_sha256": "pictures",
    "order_sha256": "their order",
    "num_questions": "the number of questions",
    "num_answer_tokens": "the number of answer tokens",
}


@dataclass(frozen=True)
class CellColumn:
    """One kind of cell of the runs' table: what is changed, what is asked about, and whether the truth moves."""

    query: str
    truth_moves: bool
    factor: str

    @property
    def words(self) -> str:
        return f"do({self.factor}) → {self.query} ({'read' if self.truth_moves else 'leak'})"

    def of(self, run: GridRun) -> MovedCell | None:
        """The run's cell of this kind; null where it was not asked."""
        return next((cell for cell in run.cells if cell.form == "open" and cell_column(cell) == self), None)


@dataclass(frozen=True)
class Matched:
    """The runs of one comparison and seed, and in what they differ though they may not."""

    words: str
    num_runs: int
    different: tuple[str, ...]


def write_study_page(folder: Path) -> None:
    """Writes index.html of the study in a folder beside its records. Raises `BadRecord` on records that cannot be understood."""
    study = read_study(folder)
    used = set(study.keys)
    runs = [run for run in read_runs(folder).values() if run.key in used]
    page = build_study_page(study, runs, read_run(folder / "run.json"))
    write_whole(folder / PAGE, page)


def build_study_page(study: StudyRecord, runs: Sequence[GridRun] = (), how: RunRecord | None = None) -> str:
    """The page's HTML; the same records give the same text. Raises `BadRecord` on a figure without points."""
    matches = matched_runs(runs)
    shown = environment()
    shown.filters["span"] = study_words.show_span
    shown.globals.update(
        show_effect=study_words.show_effect,
        show_claim_seeds=study_words.show_claim_seeds,
        num_units=study_words.num_units,
        show_seeds=study_words.show_seeds,
        is_seeded=is_seeded,
        show_measured=words.show_measured,
        show_x=study_words.show_x,
        essay_words=study_words.essay_words,
        num_of=study_words.num_of,
        trained_right=answered_as_in_training,
        others_of=others_of,
    )
    return shown.get_template("study.html.j2").render(
        study=study,
        figures=list(enumerate(study.figures)),
        runs=runs,
        cells=main_cells(runs),
        how=how,
        matches=matches,
        matched_words=matched_words(matches),
        unequal=unequal_words(matches),
        specs=[charts.spec_json(figure_chart(figure)) for figure in study.figures],
        script=charts.chart_script(),
    )


def cell_column(cell: MovedCell) -> CellColumn:
    return CellColumn(cell.query, cell.truth_moves, cell.factor)


def main_cells(runs: Iterable[GridRun]) -> list[CellColumn]:
    """The kinds of cells of open questions that speak of the two factors that a run's training ties."""
    found = {
        cell_column(cell)
        for run in runs
        for cell in run.cells
        if cell.form == "open" and {cell.factor, cell.query} <= set(run.setup.correlation)
    }
    return sorted(found, key=lambda column: (column.query, column.truth_moves, column.factor))


def answered_as_in_training(run: GridRun) -> list[Any]:
    """How often each kind of question is answered right on scenes like those of training."""
    return [found for found in run.answered if found.scenes == "training"]


def others_of(run: GridRun) -> str:
    """The verdicts of the factors that training does not tie, those with the same verdict together."""
    by_verdict: dict[str, list[str]] = {}
    for factor, verdict in run.verdicts.items():
        if factor not in run.setup.correlation:
            by_verdict.setdefault(words.WORD[verdict], []).append(factor)
    return "; ".join(f"{', '.join(factors)}: {verdict}" for verdict, factors in by_verdict.items())


def matched_runs(runs: Iterable[GridRun]) -> list[Matched]:
    """Runs that may differ in their questions alone: of one comparison, world, strength, number of pictures and steps, and seed."""
    groups: dict[str, list[GridRun]] = {}
    for run in runs:
        facts, setup = run.facts, run.setup
        parts = [
            facts.comparison, setup.world, f"strength {setup.strength:g}", f"{facts.num_pictures:,} pictures", f"{facts.num_steps:,} steps",
            f"seed {setup.seed}",
        ]  # fmt: skip
        groups.setdefault(", ".join(parts), []).append(run)
    return [Matched(name, len(members), tuple(_different(members))) for name, members in groups.items() if len(members) > 1]


def _different(runs: Sequence[GridRun]) -> list[str]:
    return [what for name, what in EQUAL_IN_A_COMPARISON.items() if len({getattr(run.facts, name) for run in runs}) > 1]


def matched_words(matches: Sequence[Matched]) -> str:
    """In how many comparisons hashes and counts show that the runs differ in nothing but what they are compared for."""
    num_equal = sum(not found.different for found in matches)
    runs, groups = sum(found.num_runs for found in matches), study_words.num_of(len(matches), "comparison")
    what = words.listed(list(EQUAL_IN_A_COMPARISON.values()))
    alike = "all" if num_equal == len(matches) else f"{num_equal:,}"
    return f"{runs:,} runs in {groups}, each of one world, strength, size and seed; in {alike} of them hashes and counts are equal: {what}"


def unequal_words(matches: Sequence[Matched]) -> list[tuple[str, str]]:
    """For each way in which runs differ though they may not: what differs, and the comparisons in which it does."""
    found: dict[str, list[str]] = {}
    for match in matches:
        if match.different:
            found.setdefault(words.listed(match.different), []).append(match.words)
    return [(different, "; ".join(groups)) for different, groups in found.items()]
