"""Measures of the inside of a model in a survey's record: one field a measure."""

from __future__ import annotations

from pydantic import Field

from theodolite.records.allocation import Allocation
from theodolite.records.causal import Causal
from theodolite.records.fisher import Fisher
from theodolite.records.gap import Gap
from theodolite.records.geometry import Geometry
from theodolite.records.identifiability import Identifiability
from theodolite.records.ladder import Ladder
from theodolite.records.likeness import Likeness
from theodolite.records.part import Part
from theodolite.records.words import Words


class Inside(Part):
    """Measures of the inside of a model, over the interventions of its first scenes; null where not asked for or not available."""

    measures: tuple[str, ...] = Field(description="those that were asked for, in order")
    num_scenes: int = Field(description="scenes whose interventions were used; single measures say where they use fewer")
    num_pictures: int = Field(description="pictures of these scenes")
    ladder: Ladder | None = Field(default=None, description="where each factor can be decoded by a linear probe, and where it is lost")
    likeness: Likeness | None = Field(default=None, description="how alike a picture's vision tokens are, by site")
    allocation: Allocation | None = Field(default=None, description="attention from text to vision tokens, by layer and head")
    geometry: Geometry | None = Field(default=None, description="directions of factors: consistency, orthogonality, simplexes, levels")
    fisher: Fisher | None = Field(default=None, description="answer Fisher information at the connector, and its energy along each factor")
    causal: Causal | None = Field(default=None, description="effect on answers of patching, erasing, shuffling or averaging vision tokens")
    gap: Gap | None = Field(default=None, description="the geometric modality gap, by site")
    identifiability: Identifiability | None = Field(default=None, description="how well simple maps of vision tokens recover the factors")
    words: Words | None = Field(default=None, description="what vision tokens say in words, by site: logit lens and LatentLens")
