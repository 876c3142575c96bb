"""Differences between two surveys of the same pairs: the JSON of `theodolite compare`. Bytewise equal when repeated."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from theodolite.records.part import Estimate, Part
from theodolite.records.survey import Verdict

VERSION: Literal[1] = 1
Measure = Literal["moved", "right", "variation"]


class Compared(Part):
    """One of the two surveys."""

    title: str = Field(description="the survey's title")
    policy: str | None = Field(description="the policy that its verdicts are about; null: not given")
    weights_sha256: str | None = Field(description="over the model's parameters and buffers by name; null: a model behind an endpoint")
    rows_sha256: str = Field(description="over the rows of the survey")
    num_rows_alone: int = Field(description="intervention rows that the other survey lacks or left unanswered, which are left out")
    withheld: dict[str, float] = Field(
        default={},
        description="queries whose rates this survey withholds, each with its form, and the mean probability outside the choices; they are "
        "not compared",
    )


class Change(Part):
    """One quantity of a cell in both surveys, over the same pairs."""

    one: float = Field(description="its mean in the first survey, 0 to 1")
    other: float = Field(description="its mean in the second survey, 0 to 1")
    difference: Estimate = Field(description="second less first, -1 to 1, with a paired interval clustered by scene")
    p: float | None = Field(description="two-sided p of a difference of 0, clustered by scene, 0 to 1; null below two scenes")
    p_adjusted: float | None = Field(description="p by Benjamini-Hochberg across the cells of this quantity, 0 to 1")
    detectable: float | None = Field(
        default=None,
        description="smallest true difference, up or down, that these scenes detect with the comparison's power, unadjusted, 0 to 1; "
        "null where they detect none",
    )


class RightCounts(Part):
    """Numbers of pairs by which of the two models answers them right before and after."""

    both: int = Field(description="both models")
    only_one: int = Field(description="the model of the first survey alone")
    only_other: int = Field(description="the model of the second survey alone")
    neither: int = Field(description="neither model")


class Overall(Part):
    """The rows of all cells together, each of the same weight; p is not adjusted."""

    right: Change = Field(description="share answered right before and after")
    read: Change | None = Field(description="share whose answer changes, where the truth changes; null: there is no such row")
    leak: Change | None = Field(description="share whose answer changes, where the truth does not; null: there is no such row")


class CellChange(Part):
    """A cell of both surveys: one factor is changed, one query is asked, and its true answer moves or not."""

    factor: str = Field(description="the factor that is changed")
    query: str = Field(description="the factor that is asked about; two, joined by &, in a conjunction")
    form: str = Field(description="open, yes_no or conjunction")
    truth_moves: bool = Field(description="true: a read cell; false: a leak cell")
    num_pairs: int = Field(description="pairs that both surveys asked")
    num_scenes: int = Field(description="scenes of those pairs: the unit of independence")
    moved: Change = Field(description="share of pairs in which the model's answer changes")
    right: Change = Field(description="share of pairs answered right before and after")
    variation: Change = Field(description="mean total variation between the two answer distributions")
    counts: RightCounts = Field(description="the pairs of `right`, by who is right")

    @property
    def gain(self) -> float:
        """How much better the second survey is, -1 to 1: it reads more, or leaks less."""
        return self.moved.difference.value if self.truth_moves else -self.moved.difference.value


class Finding(Part):
    """A quantity of a cell that differs, by its adjusted p."""

    measure: Measure = Field(description="moved, right or variation")
    factor: str = Field(description="the factor that is changed")
    query: str = Field(description="the factor that is asked about")
    form: str = Field(description="open, yes_no or conjunction")
    truth_moves: bool = Field(description="true: a read cell; false: a leak cell")
    difference: float = Field(description="second less first, -1 to 1")


class VerdictChange(Part):
    """A factor whose verdict differs between the surveys."""

    factor: str = Field(description="the factor")
    one: Verdict = Field(description="its verdict in the first survey")
    other: Verdict = Field(description="its verdict in the second survey")


class Comparison(Part):
    """Two surveys on the same pairs: paired differences, what grew and what shrank."""

    version: Literal[1] = Field(default=VERSION, description="version of the format")
    kind: Literal["comparison"] = Field(default="comparison", description="which record this is")
    one: Compared = Field(description="the first survey")
    other: Compared = Field(description="the second survey; differences are second less first")
    pictures_sha256: str = Field(description="over the pictures of the pairs: the same in both")
    confidence: float = Field(description="level of the intervals, 0 to 1")
    false_discovery_frac: float = Field(description="p_adjusted at or below it counts as grown or shrunk, 0 to 1")
    power: float = Field(description="the power that detectable is computed for, 0 to 1")
    num_rows: int = Field(description="intervention rows of both surveys, of queries that neither withholds")
    verdicts: tuple[VerdictChange, ...] = Field(
        default=(), description="verdicts that differ, worst first; each survey judges all of its own rows"
    )
    overall: Overall | None = Field(default=None, description="the rows of all cells together; null: none is compared")
    cells: tuple[CellChange, ...] = Field(description="sorted by factor, query, form, truth_moves")
    grew: tuple[Finding, ...] = Field(description="larger in the second survey, largest difference first")
    shrank: tuple[Finding, ...] = Field(description="smaller in the second survey, largest difference first")

    def to_json(self) -> str:
        return self.model_dump_json(indent=1) + "\n"
