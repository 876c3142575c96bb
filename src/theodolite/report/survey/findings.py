"""Findings of surveys: sentences made by rules from the records, none stronger than its number, each with its evidence.

These rules alone decide what a page, a model card and the end of a survey on the terminal find.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from theodolite.records.part import Rate
from theodolite.records.survey import Evidence, Leak, SurveyRecord, Verdict
from theodolite.report.survey.arms import SurveyArm
from theodolite.report.survey.pairs_address import ANSWER_MOVES, TRUTH_MOVES, Outcome, pairs_address
from theodolite.report.words import listed, show_count, withheld_remedy

# Worst first; inert factors are no finding.
RANK: dict[Verdict, int] = {
    verdict: rank
    for rank, verdict in enumerate(("shadow", "entangled", "blind", "cannot_be_asked", "undecided", "not_measured", "identified", "inert"))
}
LEAKS: tuple[Verdict, ...] = ("shadow", "entangled")
OPEN: tuple[Verdict, ...] = ("undecided", "not_measured")
"""Verdicts that wait for a read: a leak is a finding without it."""


@dataclass(frozen=True)
class Finding:
    """One sentence: the model's label, `claim`, then `number`, and `rest`.

    `query` is what a leak moves the answers about, None where the finding is no leak. `anchor` is the id of its line of numbers in the
    page; `pairs` the address of the pairs that the number counts, None for none.
    """

    verdict: Verdict
    label: str
    claim: str
    number: str
    rest: str
    anchor: str
    factors: tuple[str, ...]
    query: str | None = None
    pairs: str | None = None

    @property
    def text(self) -> str:
        return f"{self.label} {self.claim}{self.number}{self.rest}"

    @property
    def is_failure(self) -> bool:
        """Whether the sentence says what answers do wrong: a leak, or a factor that they do not follow."""
        return self.query is not None or self.verdict == "blind"


def page_findings(arms: Sequence[SurveyArm]) -> tuple[Finding, ...]:
    """All findings, worst verdict first, then by the size of the leak or, of blind factors, by how little is read."""
    several = len(arms) > 1
    ranked = [each for arm in arms for each in (*_single_findings(arm, several), *_joint_findings(arm, several))]
    return tuple(finding for _, finding in sorted(ranked, key=lambda each: each[0]))


def verdict_anchor(arm: SurveyArm, factor: str) -> str:
    """The id of a verdict's line in the tables of all numbers."""
    return f"{arm.anchor}-verdict-{list(arm.record.shadows.evidence).index(factor)}"


def show_percent(frac: float) -> str:
    """A fraction as a percentage, rounded as the tables round it; 0 and 100 only where it is exact, so that rounding claims nothing."""
    text = str(int(f"{frac:.2f}".replace(".", "")))
    if frac in (0, 1) or text not in ("0", "100"):
        return text
    text = f"{100 * frac:.1f}"
    return {"0.0": "<0.1", "100.0": ">99.9"}.get(text, text)


def show_percents(rate: Rate) -> str:
    """A rate as "98 % [96, 100] of 200 pairs"."""
    ends = "[no interval]" if rate.low is None or rate.high is None else f"[{show_percent(rate.low)}, {show_percent(rate.high)}]"
    return f"{show_percent(rate.frac)} % {ends} of {show_count(rate.num_pairs)} pair{'s' if rate.num_pairs != 1 else ''}"


def linked_model(arm: SurveyArm, several: bool) -> str | None:
    """The model that an address of pairs names: none where the page has only one."""
    return arm.label if several else None


def _single_findings(arm: SurveyArm, several: bool) -> list[tuple[tuple[int, float], Finding]]:
    findings = []
    for factor, evidence in arm.record.shadows.evidence.items():
        leak, read = evidence.leak, evidence.read
        rank = RANK[evidence.verdict]
        if leak is not None and (evidence.verdict in LEAKS or (evidence.verdict in OPEN and is_established(leak, arm))):
            finding, size = _leak_finding(arm, factor, evidence, leak, several), -leak.rate.frac
            rank = min(rank, RANK["entangled"])
        elif evidence.verdict == "blind" and read is not None:
            rest = " in which the true answer changes with it."
            parts = (f"does not follow {factor} when asked about it: its answer moves in ", show_percents(read), rest)
            pairs = read_address(arm, factor, evidence, ANSWER_MOVES, several)
            finding, size = Finding("blind", arm.label, *parts, verdict_anchor(arm, factor), (factor,), pairs=pairs), read.frac
        else:
            continue
        findings.append(((rank, size), finding))
    return findings


def is_established(leak: Leak, arm: SurveyArm) -> bool:
    """Whether a leak's interval above noise, adjusted for the number of queries, lies above the threshold."""
    threshold = arm.record.shadows.thresholds.leak_above_noise_frac
    return leak.adjusted is not None and leak.adjusted.low is not None and leak.adjusted.low > threshold


def leak_address(arm: SurveyArm, leak: Leak, several: bool) -> str:
    """The address of the pairs that leaked."""
    question = f"{leak.query} ({leak.form})"
    return pairs_address(factor=leak.factor, question=question, outcome="leaked", model=linked_model(arm, several))


def read_address(arm: SurveyArm, factor: str, evidence: Evidence, outcomes: Sequence[Outcome], several: bool) -> str:
    """The address of pairs of a read with these outcomes; of one question where the read is measured on one."""
    question = evidence.read_queries[0] if len(evidence.read_queries) == 1 else None
    return pairs_address(factor=factor, question=question, outcome=outcomes, model=linked_model(arm, several))


def _leak_finding(arm: SurveyArm, factor: str, evidence: Evidence, leak: Leak, several: bool) -> Finding:
    about = listed(leak.query.split("&"))
    if _is_answered_by(arm, leak):
        claim = f"answers about {about} by looking at {factor}: in "
    elif evidence.verdict == "entangled":
        claim = f"reads {factor}, and lets it leak into answers about {about}: in "
    else:
        claim = f"lets {factor} leak into answers about {about}: in "
    noise = "" if leak.noise is None else f", against {show_percent(leak.noise.frac)} % by noise"
    others = [each for each in arm.record.shadows.leaks if each.factor == factor and each.query != leak.query and is_established(each, arm)]
    also = f"; answers about {listed(list(dict.fromkeys(each.query for each in others)))} move with it too" if others else ""
    rest = f" the answer moves although only {factor} changes and the true answer stays{noise}{also}."
    where = (verdict_anchor(arm, factor), (factor,), leak.query, leak_address(arm, leak, several))
    return Finding(evidence.verdict, arm.label, claim, show_percents(leak.rate), rest, *where)


def _is_answered_by(arm: SurveyArm, leak: Leak) -> bool:
    """Whether the leak above noise surely exceeds the threshold of a read, while what is asked about surely stays below it."""
    threshold = arm.record.shadows.thresholds.read_frac
    above = leak.adjusted or leak.above_noise
    if above is None or above.low is None or above.low <= threshold:
        return False
    reads = [evidence.read for part in leak.query.split("&") if (evidence := arm.evidence(part)) is not None]
    return bool(reads) and all(read is not None and read.high is not None and read.high < threshold for read in reads)


def _joint_findings(arm: SurveyArm, several: bool) -> list[tuple[tuple[int, float], Finding]]:
    """One sentence for all factors of each remaining verdict."""
    by_verdict: dict[Verdict, dict[str, Evidence]] = {}
    for factor, evidence in arm.record.shadows.evidence.items():
        by_verdict.setdefault(evidence.verdict, {})[factor] = evidence
    findings = []
    for verdict, members in by_verdict.items():
        parts = _joint_words(verdict, members, arm.record)
        if parts is not None:
            names, pairs = tuple(members), None
            if verdict == "identified":
                pairs = read_address(arm, *_least_read(members), ANSWER_MOVES, several)
            elif verdict == "cannot_be_asked" and len(names) == 1:
                pairs = read_address(arm, *next(iter(members.items())), TRUTH_MOVES, several)
            finding = Finding(verdict, arm.label, *parts, verdict_anchor(arm, names[0]), names, pairs=pairs)
            findings.append(((RANK[verdict], 0.0), finding))
    return findings


def _least_read(members: dict[str, Evidence]) -> tuple[str, Evidence]:
    """The factor whose read is the smallest, with its evidence."""
    reads = {factor: evidence.read.frac for factor, evidence in members.items() if evidence.read is not None}
    factor = min(reads, key=lambda name: reads[name])
    return factor, members[factor]


def _joint_words(verdict: Verdict, members: dict[str, Evidence], record: SurveyRecord) -> tuple[str, str, str] | None:
    names = listed(list(members))
    if verdict == "identified":
        reads = [evidence.read for evidence in members.values() if evidence.read is not None]
        if not reads:
            return None
        lowest = "its answer moves in " if len(members) == 1 else "the least read of them moves the answer in "
        worst = min(reads, key=lambda read: read.frac)
        rest = " in which the true answer changes, and none was seen to leak."
        return f"reads {names}: {lowest}", show_percents(worst), rest.replace("none was", "it was not") if len(members) == 1 else rest
    if verdict == "undecided":
        needs = [evidence.scenes_more for evidence in members.values()]
        most = max((need for need in needs if need is not None), default=None)
        open_ends = needs.count(None)
        more = "no number of scenes up to 100,000 would decide it" if most is None else f"about {show_count(most)} more scenes would decide"
        rest = f" (for {open_ends} of them, no number up to 100,000 would)." if most is not None and open_ends else "."
        return f"leaves {names} undecided: ", more, rest
    if verdict == "cannot_be_asked":
        return f"answers questions about {names} ", "at chance", ", so its answers say nothing about it."
    if verdict == "not_measured":
        reason = next((evidence.missing[0] for evidence in members.values() if evidence.missing), "something that the verdict needs")
        return f"has no verdict on {names}; ", "not measured", f": {reason}.{_missing_remedy(reason, record)}"
    return None


def _missing_remedy(reason: str, record: SurveyRecord) -> str:
    """A sentence on how to survey again, where other pairs are not needed; empty where they are."""
    if any(f"answers to {query} " in reason for query in record.shadows.withheld):
        return f" To measure it, {withheld_remedy(record)}."
    return " To measure it, survey again with --noise perturb." if reason.startswith("noise of ") else ""
