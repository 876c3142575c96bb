"""Texts of a study: its numbers as words, and its claims as tables in Markdown and for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from theodolite.records.errors import BadInput
from theodolite.records.study import STUDY, Claim, Finding, Point, StudyRecord, read_study
from theodolite.report.words import NO_NUMBER, show_measured

ESSAY_QUESTIONS = {
    1: "read the geometry",
    2: "measure coverage",
    3: "catch shadows in the act",
    4: "go beyond likelihood",
    5: "find the frontier of what can be said",
}
STYLES: dict[Finding, str] = {"holds": "bold blue", "fails": "bold dark_orange", "undecided": "dim"}
NOTHING_MEASURED = "nothing to measure it by"
NOT_RUN = "not run yet"
KNOWN = "known before from a trial"
NOT_IN_FAMILY = "not at the family's level"
NO_STUDY = "No study has landed yet."
RESULTS_BEGIN, RESULTS_END = "<!-- results -->", "<!-- /results -->"
CLAIMS_END = "<!-- /claims -->"
# Escapes of characters that Markdown or HTML interprets.
ESCAPES = {character: f"\\{character}" for character in "\\`*_[]|"} | {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def show_x(value: str | float) -> str:
    """The x of a point: a name unchanged, a number with as many digits as it needs."""
    return value if isinstance(value, str) else f"{value:g}"


def show_point(point: Point) -> str:
    """A mean with its interval."""
    return " ".join(show_measured(point.value, point.low, point.high))


def show_effect(claim: Claim) -> tuple[str, str]:
    """A claim's effect and its interval, or the words for a missing one."""
    return (NOTHING_MEASURED, "") if claim.effect is None else show_measured(claim.effect, claim.low, claim.high)


def show_seeds(by_seed: Mapping[int, float], value: float, low: float | None, high: float | None) -> str:
    """A value in each seed, with as many decimals as the mean `value` has."""
    decimals = len(show_measured(value, low, high)[0].partition(".")[2])
    return ", ".join(f"seed {seed}: {round(one, decimals) + 0.0:.{decimals}f}" for seed, one in by_seed.items())


def show_claim_seeds(claim: Claim) -> str:
    """A claim's effect in each seed; a dash for none."""
    mean = claim.effect if claim.effect is not None else 0.0
    return show_seeds(claim.by_seed, mean, claim.low, claim.high) or NO_NUMBER


def show_finding(claim: Claim) -> str:
    """A claim's finding in words; one without any run is not yet one."""
    return claim.finding if claim.num_runs else NOT_RUN


def claim_remarks(claim: Claim) -> list[str]:
    """Remarks beside a finding: that the outcome was known before the rule, that it does not stand among all claims of the study."""
    known = [KNOWN] if claim.known else []
    return [*known, NOT_IN_FAMILY] if claim.finding != "undecided" and claim.family_finding == "undecided" else known


def num_of(count: int, noun: str) -> str:
    """A count with its noun: "1 seed", "5 seeds", "10 policies"."""
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{count:,} {noun if count == 1 else plural}"


def num_units(claim: Claim) -> str:
    """The number of independent units behind a claim's interval: "5 seeds"."""
    return num_of(claim.num_independent, claim.independent)


def show_span(seconds: float) -> str:
    """A duration in seconds, minutes, or hours and minutes."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def essay_words(question: int | None) -> str:
    """An open question of the essay by number and name; a dash for none, the number alone if the essay has no such question."""
    if question is None:
        return NO_NUMBER
    name = ESSAY_QUESTIONS.get(question)
    return f"{question}: {name}" if name else str(question)


# For documents


def claims_begin(name: str) -> str:
    """The marker before the table of a study's claims."""
    return f"<!-- claims:{name} -->"


def claims_text(record: StudyRecord) -> str:
    """A study's claims as a Markdown table: claim, verdict, effect with interval, units of independence, runs."""
    lines = ["| claim | verdict | effect | n | runs |", "|---|---|---|---|---|"]
    for claim in record.claims:
        effect = " ".join(part for part in show_effect(claim) if part)
        unit = f" ({_plain(claim.unit)})" if claim.effect is not None and claim.unit else ""
        lines.append(_row(_plain(claim.statement), _verdict(record, claim), effect + unit, num_units(claim), f"{claim.num_runs:,}"))
    return "\n".join(lines)


def results_text(records: Sequence[StudyRecord]) -> str:
    """All studies' claims as one Markdown table: claim, verdict, effect, interval, n, open question of the essay, link."""
    if not records:
        return NO_STUDY
    lines = ["| claim | verdict | effect | interval | n | essay's open question | more |", "|---|---|---|---|---|---|---|"]
    for record in records:
        link = f"[{_plain(record.name)}]({record.name}.md)"
        for claim in record.claims:
            effect, interval = show_effect(claim)
            unit = f" ({_plain(claim.unit)})" if claim.effect is not None and claim.unit else ""
            count = f"{num_units(claim)}, {num_of(claim.num_runs, 'run')}"
            asked = essay_words(claim.essay_question)
            lines.append(_row(_plain(claim.statement), _verdict(record, claim), effect + unit, interval or NO_NUMBER, count, asked, link))
    return "\n".join(lines)


def put_between(text: str, begin: str, end: str, what: str, table: str) -> str:
    """A document with a table between two markers; idempotent. Raises `BadInput` unless the document `what` has one place for it."""
    if text.count(begin) != 1 or end not in text.partition(begin)[2]:
        raise BadInput(f"{what} has no place for the table, or more than one; write the lines {begin} and {end} where it belongs")
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n{table}\n{end}{after}"


def result_documents(folder: Path) -> dict[Path, str]:
    """Updated texts, by path, of README.md and each NAME.md in a folder of results: only the tables of claims change.

    A study is a folder NAME with a study.json. Raises `BadInput` on a document that is missing or has no place for its table, and
    `BadRecord` on an invalid study.
    """
    studies = {path: read_study(path.parent) for path in sorted(folder.glob(f"*/{STUDY}"))}
    documents: dict[Path, str] = {}
    for path, record in studies.items():
        if record.name != path.parent.name:
            raise BadInput(f"{path} is of the study {record.name!r}; rename the folder to {record.name}")
        documents |= _filled(folder / f"{record.name}.md", claims_begin(record.name), CLAIMS_END, claims_text(record))
    return documents | _filled(folder / "README.md", RESULTS_BEGIN, RESULTS_END, results_text(list(studies.values())))


def _filled(path: Path, begin: str, end: str, table: str) -> dict[Path, str]:
    if not path.is_file():
        raise BadInput(f"{path} does not exist; write it, with the lines {begin} and {end} where the table belongs")
    return {path: put_between(path.read_text(encoding="utf-8"), begin, end, str(path), table)}


def _verdict(record: StudyRecord, claim: Claim) -> str:
    remarks = [*claim_remarks(claim), *(["quick: a sign and no more"] if record.quick else [])]
    return f"**{show_finding(claim)}**" + (f" ({'; '.join(remarks)})" if remarks else "")


def _plain(text: str) -> str:
    """A text escaped for a cell of a Markdown table."""
    return "".join(ESCAPES.get(character, character) for character in " ".join(text.split()))


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


# For the terminal


def claims_table(record: StudyRecord) -> Table:
    """A study's claims as the command line prints them: claim, verdict, effect with interval, units of independence, runs."""
    parts = [num_of(len(record.seeds), "seed"), num_of(record.num_runs, "run"), f"intervals at {100 * record.confidence:g} %"]
    if record.num_missing:
        parts.append(f"{num_of(record.num_missing, 'run')} missing")
    if record.quick:
        parts.append("quick: signs and no more")
    table = Table(title=Text(f"{record.question} ({', '.join(parts)})"), title_justify="left", show_lines=True)
    table.add_column("claim", ratio=3)
    table.add_column("verdict", max_width=14)
    table.add_column("effect", ratio=2)
    table.add_column("n", justify="right")
    table.add_column("runs", justify="right")
    for claim in record.claims:
        effect = " ".join(part for part in show_effect(claim) if part)
        shown = Text(effect) if claim.effect is None else Text(f"{effect}\n").append(claim.unit, style="dim")
        finding = Text("\n".join([show_finding(claim), *claim_remarks(claim)]), style=STYLES[claim.finding])
        table.add_row(Text(claim.statement), finding, shown, num_units(claim), f"{claim.num_runs:,}")
    return table
