"""How well simple maps of the vision tokens at each site recover the factors."""

from __future__ import annotations

from pydantic import Field

from theodolite.records.part import Estimate, Part


class Blocks(Part):
    """How well regression on the whole representation predicts one factor: R2 of its values' indicators on held-out scenes."""

    linear_r2: Estimate = Field(description="ridge regression; 1 is perfect, 0 no better than the training mean, below 0 worse")
    nonlinear_r2: Estimate = Field(description="kernel ridge regression with a Gaussian kernel; same scale")
    penalty: float = Field(description="ridge penalty of the linear fit, chosen on training scenes, in units of the mean squared length")
    nonlinear_penalty: float = Field(description="the same of the kernel fit, in units of the mean of the kernel's diagonal")
    width: float = Field(description="width of the Gaussian kernel, chosen on training scenes, in units of the median distance")
    completeness: float | None = Field(description="DCI: 1 if one axis matters for this factor, 0 if all matter equally; null for one axis")
    informativeness: float = Field(description="DCI: accuracy of the trees on held-out scenes, 0 at chance and 1 where always right")
    matched: float = Field(
        description="correlation ratio with the channel matched to it, corrected for chance (root of Kelley's epsilon^2; of the adjusted "
        "r^2 for two values), 0 to 1, of held-out scenes"
    )
    intervals: dict[str, Estimate] = Field(
        default_factory=dict,
        description="completeness, informativeness and matched with intervals: delete-a-group jackknife over scenes, forests and matching "
        "fitted again, the channels as chosen on all scenes; null ends where the groups give one value",
    )


class SiteIdentifiability(Part):
    """One site's mean over vision tokens, against all factors."""

    num_dims: int = Field(description="dimensions of the representation that vary")
    num_axes: int = Field(
        description="axes that DCI and MCC read: its own dimensions; where it has more than max_axes, so many of them, the most "
        "correlated with each factor in turn on training scenes"
    )
    principal: bool = Field(
        description="true in older records only: the axes were principal components of the training pictures, which describe those pictures"
    )
    kept_variance_frac: float = Field(description="variance of the standardised dimensions that the axes keep, 0 to 1")
    disentanglement: float | None = Field(
        description="DCI: 1 if each axis matters for one factor, 0 if for all equally; weighted by importance; null for one factor"
    )
    completeness: float | None = Field(description="DCI: mean over factors, 0 to 1; null for one axis")
    informativeness: float = Field(description="DCI: mean over factors, 0 is chance and 1 always right")
    mcc: float = Field(
        description="mean over factors of matched, 0 to 1: correlation with the channels matched to them one to one, of held-out scenes"
    )
    linear_r2: float = Field(description="mean over factors of their linear R2")
    nonlinear_r2: float = Field(description="mean over factors of their nonlinear R2")
    factors: dict[str, Blocks] = Field(description="by factor")
    intervals: dict[str, Estimate] = Field(
        default_factory=dict,
        description="disentanglement, completeness, informativeness and mcc with intervals: jackknife over scenes, as by factor",
    )


class Identifiability(Part):
    """Identifiability by site; no sites, but a reason, where no pictures have all factors known or no factor differs."""

    reason: str | None = Field(description="why there are no sites; null if there are")
    num_pictures: int = Field(description="pictures whose factors are all known")
    num_scenes: int = Field(description="scenes of these pictures")
    max_axes: int = Field(description="with more dimensions than this, DCI and MCC read this many of them")
    sites: dict[str, SiteIdentifiability] = Field(description="by site")
    left_out: dict[str, str] = Field(description="by site: why it has no numbers, such as a representation alike for all pictures")
