"""The last lines of a survey on the terminal: every factor's verdict with its reason, its page's findings, and the next command."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from theodolite.records.survey import Evidence, SurveyRecord
from theodolite.report.stored import StoredSurvey
from theodolite.report.survey.arms import label_arms
from theodolite.report.survey.findings import page_findings
from theodolite.report.survey.words import show_rate, show_scenes_more
from theodolite.report.words import WORD, show_frac, withheld_options

MOST_FINDINGS = 5
WRONG = ("shadow", "blind", "entangled")


def verdict_lines(record: SurveyRecord) -> list[str]:
    """A line for each factor: its verdict, and why, or how many scenes are missing."""
    return [f"{factor}: {WORD[evidence.verdict]}; {_reason(evidence)}" for factor, evidence in record.shadows.evidence.items()]


def _reason(evidence: Evidence) -> str:
    if evidence.verdict == "undecided":
        return show_scenes_more(evidence)[0].lower() + show_scenes_more(evidence)[1:].rstrip(".")
    if evidence.missing:
        more = len(evidence.missing) - 1
        return f"missing: {evidence.missing[0]}{f' (and {more} more)' if more else ''}"
    parts = [f"read {show_rate(evidence.read)}" if evidence.asked else "never asked about"]
    if (leak := evidence.leak) is not None:
        noise = "" if leak.noise is None else f" against {show_frac(leak.noise.frac)} by noise"
        parts.append(f"moves answers about {leak.query} in {show_frac(leak.rate.frac)}{noise}")
    return ", ".join(parts)


def finding_lines(record: SurveyRecord) -> list[str]:
    """What the answers do wrong, in the sentences of the page (`findings`), worst first, at most five."""
    failures = [finding for finding in page_findings(label_arms([StoredSurvey(record)])) if finding.is_failure]
    lines = [f"finding: {finding.text}" for finding in failures[:MOST_FINDINGS]]
    more = len(failures) - len(lines)
    return [*lines, *([f"finding: {more} more; the report lists them"] if more else [])]


def next_command(record: SurveyRecord, survey: Sequence[str], folder: str) -> str:
    """The command that says most after this survey.

    `survey` is the command that was run, up to its pairs (model, --world or --pairs); `folder` is the record's.
    """
    shadows = record.shadows
    more = [evidence.scenes_more for evidence in shadows.evidence.values() if evidence.scenes_more is not None]
    drawn = record.world is not None and record.world.known_prior
    if shadows.withheld and (options := withheld_options(record)):
        return shlex.join([*survey, *options, "--out", f"{folder}-{options[-1]}"])
    if more and drawn:
        scenes = record.num_scenes + max(more)
        return shlex.join([*survey, "--scenes", str(scenes), "--out", f"{folder}-{scenes}"])
    if "--pairs" in survey and {"undecided", "not_measured"} & set(shadows.verdicts.values()):
        return shlex.join([*survey, "--plan"])
    return advise_command(record) or f"{shlex.join(['theodolite', 'compare', folder])} OTHER_SURVEY"


def advise_command(record: SurveyRecord) -> str | None:
    """The command that says which questions would change a wrong verdict; None without one, or where prior or policy is not known."""
    world = record.world
    if world is None or not world.known_prior or not record.policy or not set(WRONG) & set(record.shadows.verdicts.values()):
        return None
    strengths = [str(tie["strength"]) for tie in world.correlations if tie.get("strength")]
    tied = ["--strength", strengths[0]] if strengths else []
    return shlex.join(["theodolite", "advise", world.name, "--ask", record.policy, *tied, "--budget", "1000"])
