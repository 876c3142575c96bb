"""Coverage of the factors of an annotated data set by its questions, estimated from its records."""

from __future__ import annotations

from pydantic import Field

from theodolite.records.part import Estimate, Part


class FactorCoverage(Part):
    """Coverage and pressure of one factor."""

    factor: str = Field(description="name of the factor")
    num_values: int = Field(description="values of the factor in the data, 2 or more; values that never occur are not counted")
    coverage: Estimate | None = Field(
        description="chance that some question distinguishes two examples alike in all other factors, relative to the best case, 0 to 1; "
        "null where no two examples are alike in all other factors"
    )
    matched_frac: float = Field(
        description="share of examples with another example alike in all other factors, 0 to 1: those behind `coverage`"
    )
    pressure_bits: Estimate = Field(description="mutual information of one answer and the factor, given all others, in bits, 0 or more")
    asked_by: tuple[str, ...] = Field(description="queries whose answers depend on the factor, by estimate")


class QueryRecords(Part):
    """One query: how often it is asked, and the factors that it depends on."""

    query: str = Field(description="name of the query")
    num_rows: int = Field(description="how often it was asked")
    num_answers: int = Field(description="distinct answers recorded")
    depends_on: tuple[str, ...] = Field(description="factors that its answer depends on, by estimate")
    asked_by: tuple[str, ...] = Field(description="factors on which it depends, by estimate, whether the query is asked at all")
    noise_frac: float = Field(description="share of rows whose answer is not the most frequent one for its values of `depends_on`, 0 to 1")


class DataCoverage(Part):
    """Coverage and pressure of annotated examples, factor by factor, with intervals by example."""

    num_rows: int = Field(description="asked questions")
    num_examples: int = Field(description="examples, including those without questions: the unit of independence")
    confidence: float = Field(description="level of every interval, 0 to 1")
    factors: tuple[FactorCoverage, ...] = Field(description="by factor, in the order of the columns")
    queries: tuple[QueryRecords, ...] = Field(description="by query")
