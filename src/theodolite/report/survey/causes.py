"""Why a factor leaks, where the questions of training say it: sentences from coverage, each with what to ask instead."""

from __future__ import annotations

from collections.abc import Sequence

from theodolite.report.survey.arms import SurveyArm
from theodolite.report.survey.findings import Finding
from theodolite.report.survey.headlines import correlated_pairs


def leak_causes(arms: Sequence[SurveyArm], findings: Sequence[Finding]) -> tuple[str, ...]:
    """A sentence for each leak into a factor of coverage 0 that was asked about, in the order of the findings.

    There coverage names the cause: where the factor was asked about, another one always changed with it ("confounded").
    """
    by_label = {arm.label: arm for arm in arms}
    sentences = []
    for finding in findings:
        arm = by_label[finding.label]
        if finding.query is None or arm.coverage is None:
            continue
        for asked in finding.query.split("&"):
            if arm.coverage.cause.get(asked) != "confounded":
                continue
            (leaking,) = finding.factors
            tied = {leaking, asked} in [set(pair) for pair in correlated_pairs(arm)]
            other = leaking if tied else "another factor"
            sentences.append(
                f"{arm.label} was asked about {asked} only where {other} changes with it, so none of its questions tells them apart "
                f"(coverage of {asked}: 0). Ask about {asked} in pictures where {other} does not follow it."
            )
    return tuple(dict.fromkeys(sentences))
