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
    energy_nuisance: Estimate | None = Field(
        default=None,
        description="the same along the displacement by a fresh nuisance seed, of pictures that have both; null without nuisance pairs",
    )
    energy_excess: Estimate | None = Field(
        default=None, description="energy - energy_nuisance, paired by picture and question; null without nuisance pairs"
    )
    slope: Estimate | None = Field(
        description="absolute cosine of the displacement and the gradient of the true answer's loss (-log of its whole probability), 0 to 1"
    )
    slope_span: Estimate | None = Field(description="the same of random directions in the span of the other factors' displacements")
    slope_nuisance: Estimate | None = Field(
        default=None, description="the same along the displacement by a fresh nuisance seed; null without nuisance pairs"
    )
    num_flat: int = Field(
        description="cases in which the query's answers respond to no direction beyond the pass's rounding; they have no energy, as "
        "it would be a ratio of rounding errors"
    )
    num_cases: int = Field(description="pictures with a displacement")


class DirectionGradient(Part):
    """Gradient of the next-token loss along a factor's displacement at the connector, with no threshold that makes it 0.

    In nats of the loss (summed over the true answer's tokens) for a step as long as the picture's tokens, so that models compare. Means
    over pictures and open questions.
    """

    factor: str = Field(description="the factor whose displacement is the direction")
    asked: bool = Field(description="some open question of the survey is about it")
    gradient: Estimate = Field(
        description="signed mean: what training on these questions does along the displacement; null ends: no spread"
    )
    size: Estimate = Field(description="mean absolute value over pictures and questions, 0 and up")
    random: Estimate = Field(description="expected absolute value along random directions of the same shape, of the same cases")
    nuisance: Estimate | None = Field(
        description="mean absolute value along the displacement by a fresh nuisance seed; null without such pairs"
    )
    excess_random: Estimate = Field(description="size - random, paired by picture and question")
    excess_nuisance: Estimate | None = Field(description="size - nuisance, paired; null without nuisance pairs")
    share_of_asked: Estimate | None = Field(
        description="size over the mean size of the factors that are asked about, in the same cases, 0 and up; bootstrap over scenes. Null "
        "where no such factor has a displacement or theirs is 0"
    )
    num_cases: int = Field(description="pictures times questions with a displacement")


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
    gradients: tuple[DirectionGradient, ...] = Field(default=(), description="of the loss, by factor")
    precision: str | None = Field(
        default=None,
        description="dtype of the pass: float32, for which half-precision weights are cast and restored; half only where memory "
        "lacks room, and there small values are rounding errors. Null in records that predate it",
    )
    rounding: float | None = Field(default=None, description="relative size of rounding in that dtype, 0 to 1: below it no ratio is formed")
