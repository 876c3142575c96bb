"""The JSON of `theodolite advise`: which questions to ask of which scenes next, and which factors need other pictures."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from theodolite.records.part import Part


class AdvisedQuery(Part):
    """One query to ask, the scenes to ask it of, and its gain."""

    query: str = Field(description="name of the query")
    factor: str = Field(description="the factor that the query is to cover")
    unasked: bool = Field(description="whether no question asked so far has answers that depend on this factor")
    num_questions: float = Field(description="expected number of questions, given the pictures")
    num_useful: float = Field(description="expected number of possible questions where the factor is still undetermined, 0 or more")
    num_balanced: float = Field(description="expected number up to which every further question has its largest pressure")
    coverage_gain: float = Field(description="increase of coverage, summed over the factors advised on, after the queries above it")
    bits: float = Field(description="pressure of one question of this query, with those asked before, bits, 0 or more")
    limit_bits: float = Field(description="the same if all answers were equally likely, 0 or more")
    lines: tuple[str, ...] = Field(description="lines of the policy: QUERY:REGION*RATE, the rate in questions a picture")


class AdvisedFactor(Part):
    """One factor before and after the advice."""

    factor: str = Field(description="name of the factor")
    cause: Literal["unasked", "confounded"] | None = Field(
        description="why it is uncovered before (confounded also where no question about these pictures could cover it); null if covered"
    )
    cure: Literal["questions", "new questions", "pictures", "none"] | None = Field(
        description="what covers it: questions; new questions, since no recorded one is about it; only other pictures; or nothing, since "
        "no question can name it; null if there is nothing to gain"
    )
    coverage_before: float = Field(description="coverage by the questions asked already, 0 to 1")
    coverage_after: float = Field(description="coverage with the advised questions, 0 to 1")
    coverage_most: float = Field(description="coverage if every query were asked of every one of these pictures, 0 to 1")
    pressure_bits_before: float = Field(description="pressure of the questions asked already, bits, 0 or more")
    pressure_bits_after: float = Field(description="pressure of all questions, the advised ones included, bits, 0 or more")


class AddedScenes(Part):
    """Counterfactual scenes to add: one factor set to another value where other factors have given values, all else unchanged."""

    factor: str = Field(description="the factor to set")
    where: tuple[str, ...] = Field(description="FACTOR=VALUE of the scenes to start from; empty: any scene")
    to: tuple[str, ...] = Field(description="values to set it to: those that no such scene has")
    num_each: int = Field(description="pictures to add for each of the values")


class Advice(Part):
    """Which questions to ask next, best first, their gain, and which scenes to add where questions cannot help."""

    subject: str = Field(description="the world, or the file of annotated examples")
    num_pictures: int = Field(description="pictures that can be asked about")
    budget: int = Field(description="questions that may be added")
    num_questions: float = Field(description="expected number of questions advised, at most the budget")
    asked: str | None = Field(description="policy of the questions asked already; null where there are none, or for data")
    policy: str | None = Field(description="policy of the advised questions alone; null where none is advised")
    together: str | None = Field(description="policy of both; null where no questions are asked already, and for data")
    undetermined: tuple[str, ...] = Field(
        description="recorded queries left out: the factors do not determine their answers; empty for worlds"
    )
    queries: tuple[AdvisedQuery, ...] = Field(description="queries to ask: for unasked factors first, then by gain")
    factors: tuple[AdvisedFactor, ...] = Field(
        description="factors: those that no question is about first, then those that questions cover, by gain, then the others"
    )
    scenes: tuple[AddedScenes, ...] = Field(description="scenes to add for factors that only other pictures can cover")
