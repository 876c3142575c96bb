"""Directions of factors in a survey's record: consistency, overlap, simplex, hierarchy, each with its chance level."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from theodolite.records.part import Estimate, Part

OverlapFinding = Literal["orthogonal", "overlapping", "undecided"]


class Tested(Part):
    """A number of geometry, and the same number on shuffled differences (the sign of each scene drawn at random)."""

    estimate: Estimate = Field(description="value with its interval: delete-a-group jackknife over scenes")
    chance: float = Field(description="mean of the same number over shuffles: what differences without a common direction give")
    p: float = Field(description="share of shuffles that reach the value, 0 to 1, the value itself counted")
    p_adjusted: float = Field(description="p after Benjamini-Hochberg over all of its kind at the site and under the product, 0 to 1")


class Simplex(Part):
    """How close the values of a factor are to the corners of a regular simplex, from products across independent quarters of the scenes."""

    regularity: Estimate | None = Field(
        description="0: all values on one line, 1: regular simplex; (effective dimension of the values - 1) / (values - 2), with the "
        "expectation of noise removed; interval: delete-a-group jackknife over scenes. Null where signal_frac is not above 0: the values "
        "cannot be distinguished from noise"
    )
    plug_in: float | None = Field(
        default=None, description="the same with noise in it, which counts as regular: near 1 for any values of a wide model and few scenes"
    )
    signal_frac: Estimate | None = Field(
        default=None, description="share of the squared size of the values' positions that repeats across scenes, 0 (noise) to 1"
    )
    cosine_gap: float = Field(description="root mean square of (cosine of two values about their centre + 1 / (values - 1)), 0 to 2")
    norm_spread: float = Field(description="standard deviation over mean of the values' distances from their centre, 0 and up")

    @model_validator(mode="before")
    @classmethod
    def _from_plug_in(cls, values: Any) -> Any:
        """Records written before the split had the plug-in number under `regularity`, with its chance and p."""
        number = values.get("regularity") if isinstance(values, dict) else None
        if isinstance(number, dict) and "estimate" in number:
            return {**values, "regularity": None, "plug_in": number["estimate"]["value"]}
        return values


class Hierarchy(Part):
    """Whether the direction between groups of values is orthogonal to differences within groups (Park et al. 2024).

    From products across independent quarters of the scenes, so that noise does not count as orthogonal.
    """

    group_cos: float = Field(
        description="root mean square cosine of group directions with differences within the groups, weighted by squared sizes, "
        "0 (orthogonal) to 1"
    )
    low: float | None = Field(description="lower end of its interval: delete-a-group jackknife over scenes")
    high: float | None = Field(description="upper end")
    chance: float = Field(description="mean of the same over all other ways to put the values into groups of these sizes, 0 to 1")
    p: float = Field(description="share of all ways to form the groups that are at least as orthogonal, this one counted, 0 to 1")
    least_p: float = Field(
        description="smallest p that so few ways to form the groups allow, 1 / their number, 0 to 1: 1/3 for two groups of two values"
    )


class Directions(Part):
    """The directions of one factor, from differences after - before of its interventions."""

    consistency: Tested | None = Field(
        description="mean cosine of differences of one change in different scenes, -1 to 1, averaged over changes; null: no two to compare"
    )
    rank: int = Field(description="dimension of the factor's subspace: values - 1 where the differences distinguish all values")
    num_differences: int = Field(
        description="pairs behind it, a random subset where a model is wide; pairs with equal sides count, but have no direction"
    )
    simplex: Simplex | None = Field(description="null below three values, or where interventions do not join all values")
    hierarchy: Hierarchy | None = Field(
        description="null where the factor lacks two groups of several values, or its values cannot be distinguished from noise"
    )


class Equivalence(Part):
    """Whether the overlap of two factors is below a bound, from products across independent quarters of the scenes."""

    estimate: Estimate | None = Field(
        description="RV coefficient of the two factors' values, 0 (orthogonal) to 1 (the same scatter): squared cosine for two values "
        "each. The expectation of noise is removed; interval: delete-a-group jackknife over scenes. Null where a factor's values "
        "cannot be distinguished from noise"
    )
    lower: float | None = Field(description="one-sided lower confidence limit, 0 to 1; null without an interval")
    upper: float | None = Field(description="one-sided upper confidence limit, 0 to 1; null without an interval")
    bound: float = Field(description="overlap below which two factors count as orthogonal, 0 to 1")
    finding: OverlapFinding = Field(
        description="orthogonal: upper is below the bound; overlapping: lower is above it; undecided: neither, or no limits"
    )


class Overlap(Part):
    """How far the subspaces of two factors coincide."""

    first: str = Field(description="one factor")
    second: str = Field(description="the other factor")
    overlap: Tested = Field(
        description="mean squared cosine of the principal angles, 0 (orthogonal) to 1 (one inside the other), with noise in it. Its p is "
        "of an overlap larger than chance; a high p shows no orthogonality, which equivalence tests"
    )
    random: float = Field(description="expected overlap of random subspaces of these dimensions: larger dimension / channels")
    equivalence: Equivalence | None = Field(default=None, description="whether the two are orthogonal; null in records that predate it")


class Shape(Part):
    """Geometry under one inner product."""

    factors: dict[str, Directions] = Field(description="by factor")
    overlaps: tuple[Overlap, ...] = Field(description="of every two factors")


class SiteGeometry(Part):
    """Geometry at one site, under both inner products."""

    euclidean: Shape = Field(description="under the Euclidean inner product")
    causal: Shape | None = Field(description="under x' Cov(unembedding) y; null where the site is not as wide as the unembedding (encoder)")


class Geometry(Part):
    """Factor directions by site."""

    pooling: Literal["mean of vision tokens"] = Field(description="what represents a picture; differences that cancel over tokens are lost")
    num_shuffles: int = Field(description="shuffles behind every p")
    num_words: int = Field(description="rows of the unembedding behind the causal inner product")
    unembedding_rank: int = Field(
        description="dimension of the unembedding about its mean; below the channels, the causal product ignores directions "
        "that no word reads, since it is not regularised"
    )
    sites: dict[str, SiteGeometry] = Field(description="by site: encoder, connector, layer.1 to the last layer")
