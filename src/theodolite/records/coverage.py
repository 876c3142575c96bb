"""What the questions alone pin down, as a record keeps it. Definitions: docs/measures.md, "Coverage"."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from theodolite.records.part import Part

Cause = Literal["unasked", "confounded"]


class Coverage(Part):
    """What a policy covers of a world; every map is keyed by factor, proxies by "factor->query"."""

    coverage: dict[str, float] = Field(
        description="chance that two scenes alike in all but the factor are told apart, relative to the best case; 0 to 1"
    )
    coverage_limit: dict[str, float] = Field(
        description="the same with equal weights on all scenes of non-zero probability: what endless data would pin down"
    )
    reach: dict[str, float] = Field(description="the same under the independent prior, with each asked query put to every scene")
    pressure_bits: dict[str, float] = Field(
        description="bits that the answer to one asked question tells of the factor when all others are known"
    )
    proxy_bits: dict[str, float] = Field(
        description="bits that a factor tells of the answer to a query which does not depend on it, keyed factor->query"
    )
    joint_proxy_bits: dict[str, float] = Field(description="bits of all such factors together, keyed by query")
    resolved_frac: float = Field(description="chance that two scenes drawn from the prior are told apart at all, 0 to 1")
    resolved_low: float = Field(description="lower end of the interval of resolved_frac; equal to it where that is exact")
    resolved_high: float = Field(description="upper end of the interval of resolved_frac; equal to it where that is exact")
    resolved_exact: bool = Field(description="true: resolved_frac was enumerated; false: it was estimated from drawn pairs of scenes")
    cause: dict[str, Cause] = Field(
        description="why a factor has coverage 0: unasked (other questions are needed) or confounded (other pictures are)"
    )
    agreement_frac: float = Field(description="share of scenes in which every correlated factor has a value that its cause sets, 0 to 1")
    policy: str = Field(description="the policy, as --ask takes it")
