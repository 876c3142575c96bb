"""Directions of factors in a survey's record: consistency, overlap, simplex, hierarchy, each with its chance level."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from theodolite.records.part import Estimate, Part


class Tested(Part):
    """A number of geometry, and the same number on shuffled differences (the sign of each scene drawn at random)."""

    estimate: Estimate = Field(description="value with its interval: delete-a-group jackknife over scenes")
    chance: float = Field(description="mean of the same number over shuffles: what differences without a common direction give")
    p: float = Field(description="share of shuffles that reach the value, 0 to 1, the value itself counted")
    p_adjusted: float = Field(description="p after Benjamini-Hochberg over all of its kind at the site and under the product, 0 to 1")


class Simplex(Part):
    """How close the values of a factor are to the corners of a regular simplex."""

    regularity: Tested = Field(
        description="0: all values on one line, 1: regular simplex; (effective dimension of the values - 1) / (values - 2). "
        "Noise in many channels is regular too: compare with chance. Placements from differences with shuffled signs are near-regular "
        "in many dimensions, so chance is close to 1 there and p conservative"
    )
    cosine_gap: float = Field(description="root mean square of (cosine of two values about their centre + 1 / (values - 1)), 0 to 2")
    norm_spread: float = Field(description="standard deviation over mean of the values' distances from their centre, 0 and up")


class Hierarchy(Part):
    """Whether the direction between groups of values is orthogonal to differences within groups (Park et al. 2024)."""

    group_cos: float = Field(description="mean absolute cosine of group directions with differences within the groups, 0 (orthogonal) to 1")
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
    hierarchy: Hierarchy | None = Field(description="null where the factor lacks two groups of several values")


class Overlap(Part):
    """How far the subspaces of two factors coincide."""

    first: str = Field(description="one factor")
    second: str = Field(description="the other factor")
    overlap: Tested = Field(description="mean squared cosine of the principal angles, 0 (orthogonal) to 1 (one inside the other)")
    random: float = Field(description="expected overlap of random subspaces of these dimensions: larger dimension / channels")


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
