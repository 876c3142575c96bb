"""The record of a search for blind pairs: pictures that one encoder confuses and another distinguishes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from theodolite.records.part import Part


class EncoderFacts(Part):
    """One of the two encoders, and how it embeds a picture."""

    name: str = Field(description="folder or name, as passed by the user")
    model_type: str = Field(description="model type in its configuration")
    weights_sha256: str = Field(description="over parameters and buffers by name; of a VLM, those of its encoder")
    pooling: str = Field(description="what the vector is: image_embeds, pooler_output, class token, or a mean of tokens")
    dim: int = Field(description="dimension of a vector")
    dtype: str = Field(description="precision that the encoder ran in; vectors are kept in float32")


class CosineQuantile(Part):
    """One quantile of cosines, in each encoder separately."""

    frac: float = Field(description="share of the cosines that are at most this large, 0 to 1")
    same_cos: float = Field(description="in the encoder that is to confuse pairs, -1 to 1")
    other_cos: float = Field(description="in the encoder that is to distinguish them, -1 to 1")


class BlindPair(Part):
    """Two pictures and their cosines."""

    scene: str = Field(description="name of the pair; the scene of its row in manifest.jsonl")
    first: str = Field(description="path of the first picture, from the folder that was searched")
    second: str = Field(description="path of the second picture")
    same_cos: float = Field(description="cosine in the encoder that confuses them, -1 to 1")
    other_cos: float = Field(description="cosine in the other encoder, -1 to 1")


class BlindRecord(Part):
    """Pairs of pictures that one encoder confuses and another distinguishes, best first. The factor that differs is unknown.

    Where no pair qualifies, `pairs` is empty and `nearest` has those that miss the thresholds by least.
    """

    version: Literal[1] = Field(default=1, description="version of the format; another one is refused")
    kind: Literal["blind"] = Field(default="blind", description="which record this is")
    same: EncoderFacts = Field(description="the encoder that confuses pairs")
    other: EncoderFacts = Field(description="the encoder that distinguishes them")
    high: float = Field(description="least cosine in `same`, -1 to 1")
    low: float = Field(description="largest cosine in `other`, -1 to 1")
    most: int = Field(description="largest number of pairs, as requested")
    per_picture: int | None = Field(description="largest number of pairs with the same picture; null: no limit")
    num_pictures: int = Field(description="different pictures that were compared")
    num_copies: int = Field(description="files left out because their bytes equal those of another one")
    left_out: dict[str, tuple[str, ...]] = Field(description="files that cannot be used, by kind of fault")
    num_zero: int = Field(description="pictures with a vector of zeros in one encoder, hence no cosine; they are in no pair")
    num_compared: int = Field(description="pairs of pictures that were compared: all of them")
    num_same: int = Field(description="pairs with a cosine of at least `high` in `same`")
    num_qualifying: int = Field(description="of these, pairs with a cosine of at most `low` in `other`")
    random_pairs: tuple[CosineQuantile, ...] = Field(description="quantiles over random pairs")
    nearest_neighbours: tuple[CosineQuantile, ...] = Field(
        description="quantiles over random pictures, each with the picture that `same` finds nearest to it"
    )
    pairs: tuple[BlindPair, ...] = Field(description="the pairs that qualify, largest difference of cosines first, at most `most`")
    nearest: tuple[BlindPair, ...] = Field(description="where none qualifies, those that miss the thresholds by least")

    def to_json(self) -> str:
        """As written to blind.json."""
        return self.model_dump_json(indent=1) + "\n"
