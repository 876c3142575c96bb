"""What a survey found of one model: `survey.json`. Bytewise equal when repeated; times and hosts live in `run.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from theodolite.records.errors import BadInput
from theodolite.records.part import Part, Rate

VERSION: Literal[1] = 1
Verdict = Literal["identified", "entangled", "blind", "shadow", "inert", "undecided", "cannot_be_asked"]


class Cell(Part):
    """How often the answer to a query moves when one factor moves: read where the truth moves too, leak where it does not."""

    factor: str = Field(description="the factor that is changed")
    query: str = Field(description="the factor that is asked about; two, joined by &, in a conjunction")
    form: str = Field(description="open, yes_no or conjunction")
    truth_moves: bool = Field(description="true: a read cell; false: a leak cell")
    moved_frac: float = Field(description="share of pairs in which the model's answer changes, 0 to 1")
    low: float | None = Field(description="lower end of the interval of moved_frac")
    high: float | None = Field(description="upper end of the interval of moved_frac")
    num_pairs: int
    num_scenes: int
    right_frac: float = Field(description="share of pairs answered right before and after")
    right_low: float | None
    right_high: float | None
    variation: float = Field(description="mean total variation between the two answer distributions, 0 to 1")
    variation_low: float | None
    variation_high: float | None


class Noise(Part):
    """How often the answer to a query moves when nothing that matters does."""

    query: str
    form: str
    source: Literal["nuisance", "paraphrase"]
    rate: Rate
    variation: float


class Competence(Part):
    """How often a query is answered right, beside chance (the commonest true answer)."""

    query: str
    form: str
    scenes: Literal["decorrelated", "training"]
    rate: Rate
    chance_frac: float


class Evidence(Part):
    """What a verdict rests on; read and leak are null where there is nothing to measure them by."""

    asked: bool
    read: Rate | None
    leak: Rate | None
    leak_query: str | None = Field(description="the query whose leak stands highest above its own noise")
    noise_frac: float | None = Field(description="the noise floor of that query")
    verdict: Verdict


class Thresholds(Part):
    """Where the lines of a verdict lie, as fractions of pairs."""

    read_frac: float = 0.5
    leak_above_noise_frac: float = 0.1
    confidence: float = 0.95


class Shadows(Part):
    """Answers under intervention: cells, the noise floor, competence, and a verdict a factor."""

    thresholds: Thresholds
    cells: tuple[Cell, ...]
    noise: dict[str, float] = Field(description="floor per open query: the larger of the two sources")
    noise_cells: tuple[Noise, ...]
    competence: tuple[Competence, ...]
    verdicts: dict[str, Verdict]
    evidence: dict[str, Evidence]
    outside_mass: float = Field(description="mean probability that the model gives to none of the choices, 0 to 1")


class Example(Part):
    """One pair with both answers, pictures as PNG files beside the record."""

    scene_id: int
    factor: str
    value_before: str
    value_after: str
    question: str
    truth_before: str
    truth_after: str
    answer_before: str
    answer_after: str
    picture_before: str
    picture_after: str


class WorldConfig(Part):
    """The world that was surveyed; `pair_kind` says whether pairs are exact or matched."""

    name: str
    pair_kind: Literal["exact", "matched"]
    factors: dict[str, tuple[str, ...]]
    groups: dict[str, dict[str, tuple[str, ...]]] = Field(description="named sets of values of two-level factors")
    unnameable: tuple[str, ...]
    correlations: tuple[dict[str, str | float | dict[str, list[str]]], ...]


class ModelConfig(Part):
    """The model that was surveyed; `weights_sha256` is over its parameters and buffers by name."""

    family: str
    weights_sha256: str
    num_parameters: int
    dtype: str


class TrainingFacts(Part):
    """What the model was trained on, as its training record says; equal hashes across the arms of a comparison."""

    arm: str
    comparison: str = Field(description="arms with the same word here must have seen the same pictures in the same order")
    recipe: str
    seed: int
    world: str
    strength: float
    source: str = Field(description="policy: asked as the policy says; official: the world's own training questions, as they are")
    policy: str
    num_pictures: int = Field(description="distinct pictures")
    num_steps: int
    num_questions: int
    num_answer_tokens: int
    pictures_sha256: str
    order_sha256: str
    questions_sha256: str


class Score(Part):
    """Accuracy on an official test split, 0 to 1, with the baseline that never sees the picture."""

    split: str
    form: str
    accuracy_frac: float
    low: float | None = Field(description="lower end of the interval of accuracy_frac, clustered by picture")
    high: float | None
    text_only_frac: float
    num_questions: int


class SurveyRecord(Part):
    """Everything measured of one model."""

    version: Literal[1] = VERSION
    kind: Literal["survey"] = "survey"
    title: str = Field(description="the policy's short name, or the model's folder")
    world: WorldConfig | None
    model: ModelConfig
    policy: str | None = Field(description="the policy that verdicts speak about; null: nobody said what was asked")
    seed: int
    num_scenes: int
    pictures_sha256: str = Field(description="over the pictures of the pairs: the same for every model and policy")
    rows_sha256: str
    coverage: dict[str, object] | None
    shadows: Shadows
    training: TrainingFacts | None
    scores: tuple[Score, ...] = ()
    examples: tuple[Example, ...] = ()

    def to_json(self) -> str:
        return self.model_dump_json(indent=1) + "\n"


class RunRecord(Part):
    """What differs from run to run: `run.json`."""

    version: Literal[1] = VERSION
    command: str
    started: str
    seconds: float
    seconds_by_part: dict[str, float]
    host: dict[str, str | int]
    packages: dict[str, str]
    git_revision: str | None
    attention: str | None
    device: str | None


class BadRecord(BadInput):
    """A folder or file that is not a record of this version."""


def read_survey(folder: Path) -> SurveyRecord:
    """The survey in a record's folder. Raises `BadRecord` if there is none or it is of another version."""
    path = folder / "survey.json" if folder.is_dir() else folder
    if not path.is_file():
        raise BadRecord(f"{folder} holds no survey.json; give a folder that `theodolite survey` or `theodolite tour` wrote")
    try:
        return SurveyRecord.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise BadRecord(f"{path} is no survey record of version {VERSION}: {where}: {first['msg']}; survey the model again") from error
