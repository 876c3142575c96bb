"""The geometric gap between text and vision tokens in a survey's record."""

from __future__ import annotations

from pydantic import Field

from theodolite.records.part import Estimate, Part, Rate


class SiteGap(Part):
    """Distance of text and vision tokens at one site; one random token of each kind a picture."""

    distance: Estimate = Field(
        description="Euclidean distance of the two centroids, 0 and up, in units of the activations; plug-in, so biased upwards where "
        "there is no gap: sampling alone moves centroids apart (compare relative with chance_relative)"
    )
    relative: Estimate | None = Field(
        description="that distance over the root mean square norm of all tokens, 0 to 2; null where all tokens are 0"
    )
    chance_relative: float | None = Field(
        description="mean of the same with the two kinds exchanged at random within scenes: what sampling alone gives"
    )
    cosine: Estimate | None = Field(
        description="cosine of the two centroids, -1 to 1; null where one of them is 0. Plug-in: as the distance is biased upwards where "
        "there is no gap, the cosine is biased downwards"
    )
    separable: Rate | None = Field(
        description="accuracy of a linear classifier of text against vision on held-out scenes, 0 to 1, chance 0.5; null: too few scenes"
    )
    num_pictures: int = Field(description="pictures behind the distances")


class Gap(Part):
    """The geometric modality gap by site. It is the distance of two kinds of tokens, not a measure of what is mapped between them."""

    sites: dict[str, SiteGap] = Field(description="by site: connector (text side: the input embeddings), layer.1 to the last layer")
