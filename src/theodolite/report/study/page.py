"""The study page: one HTML file that opens from disk without a network, made from study records alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args
from urllib.parse import quote

from theodolite.records.folder import write_whole
from theodolite.records.study import AnsweredRight, Claim, Finding, GridRun, MovedCell, StudyRecord, read_runs, read_study
from theodolite.records.survey import RunRecord
from theodolite.report.bar import Bar
from theodolite.report.environment import environment
from theodolite.report.stored import read_run
from theodolite.report.study import words
from theodolite.report.study.charts import figure_chart, is_seeded
from theodolite.report.vega import DARK_COLOURS, chart_script, spec_json
from theodolite.report.words import WORD, listed, show_measured

PAGE = "index.html"
FINDINGS: tuple[Finding, ...] = get_args(Finding)
# Facts that must be equal in runs that differ in their questions alone.
EQUAL_IN_A_COMPARISON = {
    "pictures_sha256": "pictures",
    "order_sha256": "their order",
    "num_questions": "the number of questions",
    "num_answer_tokens": "the number of answer tokens",
}


@dataclass(frozen=True)
class CellColumn:
    """One column of cells in the table of runs: the query, whether the truth moves, and the factor that changes."""

    query: str
    truth_moves: bool
    factor: str

    @property
    def words(self) -> str:
        return f"do({self.factor}) → {self.query} ({'read' if self.truth_moves else 'leak'})"

    def of(self, run: GridRun) -> MovedCell | None:
        """The run's open cell of this column; None where the run lacks it."""
        return next((cell for cell in run.cells if cell.form == "open" and cell_column(cell) == self), None)


@dataclass(frozen=True)
class Matched:
    """The runs of one comparison and seed, and the facts in which they differ although these must be equal."""

    words: str
    num_runs: int
    different: tuple[str, ...]


@dataclass(frozen=True)
class ClaimFamily:
    """The claims of one source, counted by finding."""

    source: str
    num_by_finding: Counter[Finding]

    @property
    def num_claims(self) -> int:
        return self.num_by_finding.total()


def write_study_page(folder: Path) -> None:
    """Writes index.html of the study in a folder beside its records. Raises `BadRecord` on invalid records."""
    study = read_study(folder)
    used = set(study.keys)
    runs = [run for run in read_runs(folder).values() if run.key in used]
    page = build_study_page(study, runs, read_run(folder / "run.json"))
    write_whole(folder / PAGE, page)


def build_study_page(study: StudyRecord, runs: Sequence[GridRun] = (), how: RunRecord | None = None) -> str:
    """The page's HTML; the same records give the same text. Raises `BadRecord` on a figure without points."""
    matches = matched_runs(runs)
    templates = environment(
        show_effect=words.show_effect,
        show_claim_seeds=words.show_claim_seeds,
        num_units=words.num_units,
        show_finding=words.show_finding,
        claim_remarks=words.claim_remarks,
        show_seeds=words.show_seeds,
        is_seeded=is_seeded,
        show_measured=show_measured,
        show_x=words.show_x,
        essay_words=words.essay_words,
        num_of=words.num_of,
        answered_as_in_training=answered_as_in_training,
        others_of=others_of,
        claims_address=claims_address,
        FINDINGS=FINDINGS,
    )
    templates.filters["span"] = words.show_span
    figures = [("figures", "Figures")] if study.figures else []
    sections = (("claims", "Claims"), *figures, ("runs", "Runs"), ("provenance", "Provenance"))
    return templates.get_template("study.html.j2").render(
        bar=Bar(f"study {study.name}", (words.num_of(study.num_runs, "run"),), sections),
        dark_colours=spec_json(dict(DARK_COLOURS)),
        study=study,
        families=claim_families(study.claims),
        figures=list(enumerate(study.figures)),
        runs=runs,
        cells=main_cells(runs),
        how=how,
        matches=matches,
        matched_words=matched_words(matches),
        unequal=unequal_words(matches),
        specs=[spec_json(figure_chart(figure)) for figure in study.figures],
        script=chart_script(),
    )


def claim_families(claims: Iterable[Claim]) -> list[ClaimFamily]:
    """Claims by their source, in the order in which sources come first."""
    families: dict[str, Counter[Finding]] = {}
    for claim in claims:
        families.setdefault(claim.source, Counter())[claim.finding] += 1
    return [ClaimFamily(source, counts) for source, counts in families.items()]


def claims_address(source: str, finding: Finding | None = None) -> str:
    """The part of the page's address that shows the claims of one source, of one finding where it is given."""
    return f"#claims?source={quote(source, safe='')}" + (f"&finding={finding}" if finding else "")


def cell_column(cell: MovedCell) -> CellColumn:
    return CellColumn(cell.query, cell.truth_moves, cell.factor)


def main_cells(runs: Iterable[GridRun]) -> list[CellColumn]:
    """The columns of open cells in which both factors are of the correlated pair of a run's training."""
    columns = {
        cell_column(cell)
        for run in runs
        for cell in run.cells
        if cell.form == "open" and {cell.factor, cell.query} <= set(run.setup.correlation)
    }
    return sorted(columns, key=lambda column: (column.query, column.truth_moves, column.factor))


def answered_as_in_training(run: GridRun) -> list[AnsweredRight]:
    """Accuracy of each query and form on scenes drawn as in training."""
    return [answered for answered in run.answered if answered.scenes == "training"]


def others_of(run: GridRun) -> str:
    """The verdicts of factors outside the correlated pair of training, grouped by verdict, in words."""
    by_verdict: dict[str, list[str]] = {}
    for factor, verdict in run.verdicts.items():
        if factor not in run.setup.correlation:
            by_verdict.setdefault(WORD[verdict], []).append(factor)
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
    """The number of comparisons, and in how many of them hashes and counts are equal, in words."""
    num_equal = sum(not match.different for match in matches)
    runs, groups = sum(match.num_runs for match in matches), words.num_of(len(matches), "comparison")
    what = listed(list(EQUAL_IN_A_COMPARISON.values()))
    alike = "all" if num_equal == len(matches) else f"{num_equal:,}"
    return f"{runs:,} runs in {groups}, each of one world, strength, size and seed; in {alike} of them hashes and counts are equal: {what}"


def unequal_words(matches: Sequence[Matched]) -> list[tuple[str, str]]:
    """(facts that differ although they must be equal, comparisons in which they do) in words."""
    by_difference: dict[str, list[str]] = {}
    for match in matches:
        if match.different:
            by_difference.setdefault(listed(match.different), []).append(match.words)
    return [(different, "; ".join(groups)) for different, groups in by_difference.items()]
