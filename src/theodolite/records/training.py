"""The training record of a saved model: `training.json` in its folder. Bytewise equal when repeated."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, JsonValue, ValidationError

from theodolite.records.part import Part
from theodolite.records.reading import MARK
from theodolite.records.survey import VERSION, BadRecord, TrainingFacts

NAME = "training.json"


class TrainedOn(Part):
    """World, policy and recipe of a training run; two runs with equal `setup` are the same run."""

    world: str = Field(description="name of the world that the pictures come from")
    correlation: tuple[str, str] = Field(description="cause and effect: the two correlated factors")
    strength: float = Field(description="how often the cause sets the effect, 0 to 1")
    policy: str = Field(description="which questions are asked of which scenes, as --ask takes it")
    source: str = Field(description="policy: asked as the policy says; official: the world's own training questions, unchanged")
    recipe: dict[str, JsonValue] = Field(description="every setting of the training recipe by its name")
    seed: int = Field(description="seed of the training run")
    num_pictures: int = Field(description="distinct pictures")


class TrainingRecord(Part):
    """Setup, data and losses of a training run."""

    version: Literal[1] = Field(default=VERSION, description="version of the format; another one is refused")
    kind: Literal["training"] = Field(default="training", description="which record this is")
    setup: TrainedOn = Field(description="settings that determine the outcome")
    facts: TrainingFacts = Field(description="the training data, as in a survey of the model")
    weights_sha256: str = Field(description="over parameters and buffers by name")
    losses: tuple[tuple[int, float], ...] = Field(description="step, and mean nats a token since the entry before")

    def to_json(self) -> str:
        return self.model_dump_json(indent=1) + "\n"


def read_training(folder: Path) -> TrainingRecord | None:
    """The training record in a model's folder; None if there is none. Raises `BadRecord` if it is of another version."""
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        return TrainingRecord.model_validate_json(path.read_bytes().removeprefix(MARK))
    except ValidationError as error:
        raise BadRecord(f"{path} is no training record of version {VERSION}; delete it, or train the model again") from error
