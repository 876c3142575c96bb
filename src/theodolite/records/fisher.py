"""Answer Fisher information at the connector: sensitivity of answers to open questions, by direction of the vision tokens."""

from __future__ import annotations

from pydantic import Field

from theodolite.records.part import Estimate, Part


class Energy(Part):
    """Sensitivity of the answers to one query along a factor's displacement (tokens after minus before), and along other directions."""

    factor: str = Field(description="the factor whose displacement is the direction")
    query: str = Field(description="the factor that the open question is about")
    energy: Estimate | None = Field(
        description="Fisher information along the displacement, relative to the expectation over random directions of the same shape "
        "(trace / coordinates), which is 1; 0: no response. Null where the query's answers respond to no direction, or nothing is displaced"
    )
    energy_span: Estimate | None = Field(
        description="the same along random directions in the span of the other factors' displacements: the fairer null"
    )
    slope: Estimate | None = Field(
        description="absolute cosine of the displacement and the gradient of the true answer's loss (-log of its whole probability), 0 to 1"
    )
    slope_span: Estimate | None = Field(description="the same of random directions in the span of the other factors' displacements")
    num_flat: int = Field(description="cases in which the query's answers respond to no direction (beyond rounding); they are left out")
    num_cases: int = Field(description="pictures with a displacement")


class Fisher(Part):
    """F = J^T (diag m - m m^T) J of the answers' probabilities m, J the derivative of their scores by the connector's tokens.

    `spectrum` is of the mean over pictures and queries of F summed over tokens: a matrix of channels by channels.
    """

    num_scenes: int = Field(description="scenes, the first in order")
    num_cases: int = Field(description="pictures times queries behind the spectrum")
    num_tokens: int = Field(description="vision tokens of a picture")
    dim: int = Field(description="channels of a token")
    trace: Estimate = Field(description="trace of F, all tokens and channels, in units of 1 / squared length of a token")
    trace_by_query: dict[str, Estimate] = Field(description="the same by the factor that the question is about")
    spectrum: tuple[float, ...] = Field(description="largest eigenvalues as shares of their sum, 0 to 1, at most 32; none: all are 0")
    entropy_rank: float | None = Field(description="effective rank: exp of the entropy of the shares, 1 to channels; null: all are 0")
    participation_rank: float | None = Field(description="effective rank: 1 / sum of squared shares, 1 to channels; null: all are 0")
    chance_slope: float = Field(description="expected absolute cosine of two random directions of the same shape, 0 to 1")
    energies: tuple[Energy, ...] = Field(description="by factor and query")
