"""Likeness of vision tokens in a survey's record."""

from __future__ import annotations

from pydantic import Field

from theodolite.records.part import Estimate, Part


class SiteLikeness(Part):
    """Similarity of a picture's vision tokens at one site, averaged over pictures."""

    cosine: Estimate | None = Field(
        description="mean cosine of pairs of different vision tokens of a picture, -1 to 1; null: one token a picture"
    )
    rank: Estimate | None = Field(
        description="RankMe of a picture's vision tokens, from 1 up to the smaller of tokens and channels; null: all tokens are 0"
    )
    num_pictures: int = Field(description="pictures behind the cosine; the rank may be of fewer, drawn from them")


class Likeness(Part):
    """Likeness of vision tokens by site. Similar tokens do not imply lost factors: compare with the causal numbers."""

    sites: dict[str, SiteLikeness] = Field(description="by site: encoder, connector, layer.1 to the last layer")
