"""Coverage in a survey's record: what the questions alone determine. Definitions: docs/reference/measures.md, "Coverage"."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from theodolite.records.part import Part

Cause = Literal["unasked", "confounded"]


class Coverage(Part):
    """Coverage of a world by a policy; every map is keyed by factor, proxies by "factor->query"."""

    coverage: dict[str, float] = Field(
        description="chance that some question distinguishes two scenes that differ in this factor alone, relative to the best case; 0 to 1"
    )
    coverage_limit: dict[str, float] = Field(
        description="the same with equal weights on all scenes of non-zero probability: what infinite data would determine"
    )
    reach: dict[str, float] = Field(description="the same under the independent prior, with each asked query asked of every scene")
    pressure_bits: dict[str, float] = Field(
        description="mutual information of the answer to one asked question and the factor, given all other factors, in bits"
    )
    proxy_bits: dict[str, float] = Field(
        description="mutual information of a factor and the answer to a query that does not depend on it, in bits, keyed factor->query"
    )
    joint_proxy_bits: dict[str, float] = Field(description="the same of all such factors jointly, keyed by query")
    resolved_frac: float = Field(description="chance that some question distinguishes two scenes drawn from the prior, 0 to 1")
    resolved_low: float = Field(description="lower end of the interval of resolved_frac; equal to it where that is exact")
    resolved_high: float = Field(description="upper end of the interval of resolved_frac; equal to it where that is exact")
    resolved_exact: bool = Field(description="true: resolved_frac was enumerated; false: it was estimated from drawn pairs of scenes")
    cause: dict[str, Cause] = Field(
        description="why a factor has coverage 0: unasked (other questions are needed) or confounded (other pictures are)"
    )
    agreement_frac: float = Field(description="share of scenes in which every correlated factor has a value that its cause sets, 0 to 1")
    policy: str = Field(description="the policy, as --ask takes it")
