"""What a saved model was trained on: `training.json` in its folder. Bytewise equal when repeated."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from theodolite.records.survey import VERSION, BadRecord, Part, TrainingFacts

NAME = "training.json"


class TrainedOn(Part):
    """World, policy and recipe of a training run; two runs with equal `setup` are the same run."""

    world: str
    correlation: tuple[str, str]
    strength: float
    policy: str
    source: str
    recipe: dict[str, str | int | float | dict[str, int | float]]
    seed: int
    num_pictures: int


class TrainingRecord(Part):
    """How a model came to be, and its losses as (step, mean nats a token since the entry before)."""

    version: Literal[1] = VERSION
    kind: Literal["training"] = "training"
    setup: TrainedOn
    facts: TrainingFacts
    weights_sha256: str
    losses: tuple[tuple[int, float], ...]

    def to_json(self) -> str:
        return self.model_dump_json(indent=1) + "\n"


def read_training(folder: Path) -> TrainingRecord | None:
    """The training record in a model's folder; None if there is none. Raises `BadRecord` if it is of another version."""
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        return TrainingRecord.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise BadRecord(f"{path} is no training record of version {VERSION}; delete it, or train the model again") from error
