"""What `theodolite advise` writes: which questions to ask of which scenes next, and what only other pictures can cure."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from theodolite.records.part import Part


class AdvisedQuery(Part):
    """One query to ask, of which scenes, and what it gives."""

    query: str = Field(description="name of the query")
    factor: str = Field(description="the factor for whose sake it is asked")
    unasked: bool = Field(description="whether no question told scenes apart by this factor before")
    num_questions: float = Field(description="expected number of questions, given the pictures")
    num_useful: float = Field(description="expected number of questions that could be asked where the factor is still open, 0 or more")
    num_balanced: float = Field(description="expected number up to which every further question feels the most bits that it can")
    coverage_gain: float = Field(description="what it adds to coverage, summed over the factors advised on, after the queries above it")
    bits: float = Field(description="bits of the factor that one question of this query feels, with those asked before, 0 or more")
    limit_bits: float = Field(description="the same if all answers were equally likely, 0 or more")
    lines: tuple[str, ...] = Field(description="lines of the policy: QUERY:REGION*RATE, the rate in questions a picture")


class AdvisedFactor(Part):
    """One factor before and after the advice."""

    factor: str = Field(description="name of the factor")
    cause: Literal["unasked", "confounded"] | None = Field(
        description="why it is uncovered before (confounded too where no question of these pictures could cover it); null if covered"
    )
    cure: Literal["questions", "new questions", "pictures", "none"] | None = Field(
        description="what cures it: questions; new questions, since no recorded one is about it; only other pictures; or nothing, since no "
        "question can name it; null if nothing is left to gain"
    )
    coverage_before: float = Field(description="coverage by what is asked already, 0 to 1")
    coverage_after: float = Field(description="coverage with the advised questions, 0 to 1")
    coverage_most: float = Field(description="coverage if every query were asked of every one of these pictures, 0 to 1")
    pressure_bits_before: float = Field(description="pressure of what is asked already, bits, 0 or more")
    pressure_bits_after: float = Field(description="pressure of all questions, the advised ones with them, bits, 0 or more")


class AddedScenes(Part):
    """Counterfactual scenes to add: a factor set anew where other factors have certain values, all else as it is."""

    factor: str = Field(description="the factor to set")
    where: tuple[str, ...] = Field(description="FACTOR=VALUE of the scenes to start from; empty: any scene")
    to: tuple[str, ...] = Field(description="values to set it to: those that no such scene has")
    num_each: int = Field(description="pictures to add for each of the values")


class Advice(Part):
    """Which questions to ask next, best first, what they give, and which scenes to add where questions cannot help."""

    subject: str = Field(description="the world, or the file of annotated examples")
    num_pictures: int = Field(description="pictures there are to ask about")
    budget: int = Field(description="questions that may be added")
    num_questions: float = Field(description="expected number of questions advised, at most the budget")
    asked: str | None = Field(description="policy of what is asked already; null where nothing is, or where it is recorded in the data")
    policy: str | None = Field(description="policy of the advised questions alone; null where none is advised")
    together: str | None = Field(description="policy of both; null where nothing is asked, and for data")
    undetermined: tuple[str, ...] = Field(
        description="recorded queries left out: the factors do not determine their answers; empty for worlds"
    )
    queries: tuple[AdvisedQuery, ...] = Field(description="queries to ask: for unasked factors first, then by gain")
    factors: tuple[AdvisedFactor, ...] = Field(
        description="factors: those that no question is about first, then those that questions cure, by what they gain, then the others"
    )
    scenes: tuple[AddedScenes, ...] = Field(description="scenes to add for factors that only other pictures cure")
