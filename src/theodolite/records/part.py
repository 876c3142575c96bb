"""Base of all record models, and numbers with intervals."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Part(BaseModel):
    """Base of all parts of a record: immutable, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Rate(Part):
    """A fraction of pairs, 0 to 1, with a two-sided interval clustered by scene; null below two scenes."""

    frac: float = Field(description="the fraction, 0 to 1")
    low: float | None = Field(description="lower end of the interval; null below two scenes")
    high: float | None = Field(description="upper end of the interval; null below two scenes")
    num_pairs: int = Field(description="pairs behind it; single questions in competence")
    num_scenes: int = Field(description="scenes behind it: the unit of independence")


class Estimate(Part):
    """A number with a two-sided interval clustered by scene; null ends below two scenes."""

    value: float = Field(description="the number, in the unit that its field names")
    low: float | None = Field(description="lower end of the interval")
    high: float | None = Field(description="upper end of the interval")
    num_scenes: int = Field(description="scenes behind it: the unit of independence")
