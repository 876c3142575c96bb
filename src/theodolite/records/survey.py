"""The record of a survey of one model: `survey.json`. Bytewise equal when repeated; times and hosts are in `run.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from theodolite.records.accuracy import Accuracy
from theodolite.records.answers import AnswersConfig
from theodolite.records.asking import BARE_QUESTION_SHA256, PROMPT_MEANING, SCORE_MEANING, ChoiceScore, PromptStyle
from theodolite.records.coverage import Coverage
from theodolite.records.endpoint import EndpointConfig
from theodolite.records.errors import BadInput, first_fault
from theodolite.records.inside import Inside
from theodolite.records.part import Estimate, Part, Rate
from theodolite.records.pictures import PicturesRecord
from theodolite.records.reading import MARK

VERSION: Literal[1] = 1
# Verdicts of version 1 followed other rules: a point estimate of noise, and open questions only.
SURVEY_VERSION: Literal[2] = 2
Verdict = Literal["identified", "entangled", "blind", "shadow", "inert", "undecided", "cannot_be_asked", "not_measured"]
NoiseSource = Literal["nuisance", "perturbation", "paraphrase"]


class Cell(Part):
    """How often the answer to a query moves when one factor moves: read where the truth moves too, leak where it does not."""

    factor: str = Field(description="the factor that is changed")
    query: str = Field(description="the factor that is asked about; two, joined by &, in a conjunction")
    form: str = Field(description="open, yes_no or conjunction")
    truth_moves: bool = Field(description="true: a read cell; false: a leak cell")
    moved_frac: float = Field(description="share of pairs in which the model's answer changes, 0 to 1")
    low: float | None = Field(description="lower end of the interval of moved_frac")
    high: float | None = Field(description="upper end of the interval of moved_frac")
    num_pairs: int = Field(description="pairs behind the cell")
    num_scenes: int = Field(description="scenes behind it: the unit of independence")
    right_frac: float = Field(description="share of pairs answered right before and after")
    right_low: float | None = Field(description="lower end of the interval of right_frac")
    right_high: float | None = Field(description="upper end of the interval of right_frac")
    variation: float = Field(description="mean total variation between the two answer distributions, 0 to 1")
    variation_low: float | None = Field(description="lower end of the interval of variation")
    variation_high: float | None = Field(description="upper end of the interval of variation")


class Noise(Part):
    """How often the answer to a query moves when only the nuisance seed or the wording changes."""

    query: str = Field(description="the factor that is asked about; two, joined by &, in a conjunction")
    form: str = Field(description="open, yes_no or conjunction")
    source: NoiseSource = Field(
        description="what changed: the nuisance seed (in matched pairs, the picture); the picture file, saved again, moved by one pixel or "
        "2 % brighter (perturbation); or the wording (paraphrase)"
    )
    rate: Rate = Field(description="how often the answer changes")
    variation: float = Field(description="mean total variation between the two answer distributions, 0 to 1")


class Competence(Part):
    """Accuracy of a query against chance, and whether the model can be asked it."""

    query: str = Field(description="the factor that is asked about; two, joined by &, in a conjunction")
    form: str = Field(description="open, yes_no or conjunction")
    scenes: Literal["decorrelated", "training"] = Field(
        description="decorrelated: both pictures of all pairs; training: scenes from the training distribution of the query"
    )
    rate: Rate = Field(description="how often the answer is right")
    chance_frac: float = Field(
        description="how often the commonest true answer of each question in other scenes (ten folds) is right, or guessing among the "
        "choices if that is better"
    )
    state: Literal["fit", "at_chance", "unknown"] = Field(
        description="at_chance: the upper end of the rate lies within 0.1 of chance; fit: the lower end lies above chance; else unknown"
    )


class Unanswered(Part):
    """How many questions of a query were not answered by one of their choices. They count neither as right nor as wrong."""

    query: str = Field(description="the factor that is asked about; two, joined by &, in a conjunction")
    form: str = Field(description="open, yes_no or conjunction")
    num_questions: int = Field(description="different questions about different pictures, of all kinds of rows")
    num_unanswered: int = Field(description="of those, how many have no answer")
    frac: float = Field(description="num_unanswered / num_questions, 0 to 1")


class Leak(Part):
    """How often the answer to a query moves with a factor that its truth does not depend on, and how much more often than by itself."""

    factor: str = Field(description="the factor that is changed")
    query: str = Field(description="the factor that is asked about; two, joined by &, in a conjunction")
    form: str = Field(description="form of the question that is evidence: open where it is asked, else yes_no, else conjunction")
    rate: Rate = Field(description="how often the answer moves though its truth does not")
    source: NoiseSource | None = Field(description="the noise that is subtracted; null: none was measured")
    noise: Rate | None = Field(description="how often the answer moves when only that changes")
    above_noise: Estimate | None = Field(description="rate less noise, paired by scene, -1 to 1; null: no noise was measured")
    adjusted: Estimate | None = Field(
        description="the same with ends adjusted for the number of queries that the factor could leak into (Bonferroni)"
    )


class Evidence(Part):
    """The numbers that a verdict follows from: those of the queries that decided."""

    asked: bool = Field(description="whether some supported query depends on the factor")
    read: Rate | None = Field(description="how often the answers that depend on the factor move with it, where their truth moves")
    read_above_noise: Estimate | None = Field(
        default=None,
        description="read less the noise of those queries, paired by scene: above the leak threshold if the factor is read; null: no noise",
    )
    read_queries: tuple[str, ...] = Field(default=(), description="those queries, each with its form")
    leak: Leak | None = Field(
        description="the leak that decided: where some query leaks, the one whose adjusted interval lies highest; else the one that comes "
        "closest to leaking; null: not measured"
    )
    missing: tuple[str, ...] = Field(default=(), description="what a verdict would need and nothing measures, in words")
    scenes_more: int | None = Field(
        default=None,
        description="how many more scenes would decide an undecided verdict at the measured rates; null: decided, or over 100,000",
    )
    verdict: Verdict = Field(description="the verdict that follows")


class OtherVerdict(Part):
    """A verdict that would be another at other thresholds."""

    factor: str = Field(description="the factor")
    read_frac: float = Field(description="threshold of the read rate")
    leak_above_noise_frac: float = Field(description="threshold of the leak above noise")
    verdict: Verdict = Field(description="the verdict at these thresholds")


class Mislabelled(Part):
    """A pair whose true answers contradict nearly all others of its query: likely mislabelled."""

    scene: int = Field(description="number of the base scene, as in rows.parquet")
    scene_name: str | None = Field(default=None, description="the scene as the manifest names it; null: the pairs are not from a manifest")
    row: str | None = Field(default=None, description="id of the manifest's row, or its number; null: the pairs are not from a manifest")
    factor: str = Field(description="the factor that is changed")
    query: str = Field(description="the query's own name")
    question: str = Field(description="the question")
    truth_before: str = Field(description="the true answer for the first picture, as given")
    truth_after: str = Field(description="the true answer for the second picture, as given")

    @property
    def scene_label(self) -> str:
        """The scene's name, else its number."""
        return str(self.scene) if self.scene_name is None else self.scene_name


class Thresholds(Part):
    """Thresholds of verdicts, as fractions of pairs."""

    read_frac: float = Field(
        default=0.5, description="a factor is read if the interval of its read rate lies above this, and not read if below"
    )
    leak_above_noise_frac: float = Field(
        default=0.1, description="a factor leaks if the interval of some leak above noise lies above this, and does not if all lie below"
    )
    confidence: float = Field(default=0.95, description="level of the intervals")
    outside_frac: float = Field(
        default=0.5, description="rates of a query are withheld if the mean probability outside its choices is above this"
    )


class Shadows(Part):
    """Answers under intervention: cells, noise, leaks above noise, competence, and a verdict a factor."""

    thresholds: Thresholds = Field(description="thresholds of the verdicts")
    cells: tuple[Cell, ...] = Field(description="one for each factor, query, form, and whether the truth moves")
    noise_cells: tuple[Noise, ...] = Field(description="one for each query, form and source of noise")
    leaks: tuple[Leak, ...] = Field(default=(), description="one for each factor and supported query that does not depend on it")
    competence: tuple[Competence, ...] = Field(description="one for each query, form and kind of scenes")
    verdicts: dict[str, Verdict] = Field(description="the verdict of each factor")
    evidence: dict[str, Evidence] = Field(description="the evidence of each factor's verdict")
    sensitivity: tuple[OtherVerdict, ...] = Field(
        default=(), description="verdicts that change at a read threshold of 0.3 or 0.7, or a leak threshold of 0.05 or 0.2"
    )
    mislabelled: tuple[Mislabelled, ...] = Field(
        default=(), description="pairs that contradict nearly all others of their query; at most 100"
    )
    num_mislabelled: int = Field(default=0, description="number of such pairs")
    withheld: dict[str, float] = Field(
        default={}, description="queries whose rates are withheld, each with its form, and the mean probability outside the choices"
    )
    outside_mass: float | None = Field(
        description="mean probability that the model gives to none of the choices, 0 to 1; null: unknown, since answers were read from text"
    )
    unanswered: tuple[Unanswered, ...] = Field(
        default=(), description="queries of which some questions were not answered; all other numbers leave those rows out"
    )


class Example(Part):
    """One pair with both answers, pictures as PNG files beside the record."""

    scene_id: int = Field(description="number of the base scene, as in rows.parquet")
    scene_name: str | None = Field(default=None, description="the scene as the manifest names it; null: the pairs are not from a manifest")
    row: str | None = Field(default=None, description="id of the manifest's row, or its number; null: the pairs are not from a manifest")
    factor: str = Field(description="the factor that is changed")
    value_before: str = Field(description="its value in the first picture")
    value_after: str = Field(description="its value in the second picture")
    question: str = Field(description="the question that both pictures are asked")
    truth_before: str = Field(description="the true answer for the first picture")
    truth_after: str = Field(description="the true answer for the second picture")
    answer_before: str | None = Field(description="the model's answer to the first picture; null: none of the choices")
    answer_after: str | None = Field(description="the model's answer to the second picture; null: none of the choices")
    picture_before: str = Field(description="file of the first picture, relative to the record's folder")
    picture_after: str = Field(description="file of the second picture, relative to the record's folder")

    @property
    def scene_label(self) -> str:
        """The scene's name, else its number."""
        return str(self.scene_id) if self.scene_name is None else self.scene_name


class WorldConfig(Part):
    """The world or the gallery that was surveyed; `pair_kind` says whether pairs are exact or matched."""

    name: str = Field(description="the world's name, or the gallery's")
    pair_kind: Literal["exact", "matched"] = Field(
        description="exact: the same scene drawn again; matched: two real pictures alike in all other factors"
    )
    factors: dict[str, tuple[str, ...]] = Field(description="the values of each factor")
    groups: dict[str, dict[str, tuple[str, ...]]] = Field(description="of two-level factors: named sets of values, by factor and name")
    unnameable: tuple[str, ...] = Field(description="factors that no question can name")
    correlations: tuple[dict[str, str | float | dict[str, list[str]]], ...] = Field(
        description="each with cause and effect (factors), strength (0 to 1: how often the cause sets the effect) "
        "and map (the effect's values that each value of the cause sets)"
    )
    known_prior: bool = Field(
        default=True, description="false: a gallery of given pictures, whose distribution of scenes in training is unknown"
    )
    attribution: str | None = Field(default=None, description="attribution that the pictures' licence requires; null: none")


class ModelConfig(Part):
    """The model that was surveyed; `weights_sha256` is over its parameters and buffers by name."""

    family: str = Field(description="the family of models, as docs/reference/families.md names it")
    weights_sha256: str = Field(description="over parameters and buffers by name")
    num_parameters: int = Field(description="total number of parameters")
    dtype: str = Field(description="precision of the parameters, float32 for example")
    prompt: PromptStyle = Field(default="free", description=f"style of the prompts. {PROMPT_MEANING}")
    prompt_sha256: str = Field(default=BARE_QUESTION_SHA256, description="over the template of the prompts")
    score: ChoiceScore = Field(default="total", description=f"score of a choice that decides its probability. {SCORE_MEANING}")
    image_processor: str | None = Field(default=None, description="class of the image processor, always on Pillow; null: not recorded")
    image_processor_sha256: str | None = Field(default=None, description="over the image processor's settings; null: not recorded")

    @property
    def words(self) -> str:
        """Description in one line."""
        how = f"prompt {self.prompt}, choices scored {'in total' if self.score == 'total' else 'per token'}"
        return f"{self.family}, {self.num_parameters:,} parameters, {self.dtype}, {how}"


class TrainingFacts(Part):
    """Training data of the model, from its training record; hashes are equal across the arms of a comparison."""

    arm: str = Field(description="short name of the run among those it is compared with")
    comparison: str = Field(description="arms with the same value must have seen the same pictures in the same order")
    recipe: str = Field(description="name of the training recipe")
    seed: int = Field(description="seed of the training run")
    world: str = Field(description="name of the world that the pictures come from")
    strength: float = Field(description="strength of the correlation in the training pictures, 0 to 1")
    source: str = Field(description="policy: asked as the policy says; official: the world's own training questions, unchanged")
    policy: str = Field(description="which questions were asked of which scenes, as --ask takes it")
    num_pictures: int = Field(description="distinct pictures")
    num_steps: int = Field(description="optimiser steps")
    num_questions: int = Field(description="questions seen, repetitions counted")
    num_answer_tokens: int = Field(description="answer tokens seen, repetitions counted: the tokens of the language loss")
    pictures_sha256: str = Field(description="over the training pictures")
    order_sha256: str = Field(description="over the order in which examples were seen")
    questions_sha256: str = Field(description="over the questions and their answers")


class Score(Part):
    """Accuracy on an official test split, 0 to 1, with the baseline that never sees the picture."""

    split: str = Field(description="name of the split")
    form: str = Field(description="open, yes_no, conjunction, or overall")
    accuracy_frac: float | None = Field(description="share of questions answered right; null: all are withheld")
    low: float | None = Field(description="lower end of the interval of accuracy_frac, clustered by picture")
    high: float | None = Field(description="upper end of the interval of accuracy_frac, clustered by picture")
    text_only_frac: float | None = Field(
        description="share answered right by the commonest training answer to the same text; null: all are withheld"
    )
    num_questions: int = Field(description="number of answered questions, without those that are withheld")
    withheld: dict[str, float] = Field(
        default={},
        description="queries that are left out, since the mean probability outside the choices, which stands beside each, is above the "
        "threshold outside_frac",
    )


class SurveyRecord(Part):
    """Everything measured of one model."""

    version: Literal[2] = Field(default=SURVEY_VERSION, description="version of the format; another one is refused")
    kind: Literal["survey"] = Field(default="survey", description="which record this is")
    title: str = Field(description="the policy's short name, or the model's folder")
    world: WorldConfig | None = Field(description="the world or gallery that the pairs come from; null: not given")
    model: ModelConfig | EndpointConfig | AnswersConfig = Field(
        description="the model, with a hash of its weights, or the endpoint that serves it, or the log that its answers come from"
    )
    policy: str | None = Field(description="the policy that verdicts are about; null: not given")
    seed: int = Field(description="seed of the pairs; 0 where they came from a file")
    noise: Literal["perturb", "given"] = Field(
        default="given",
        description="perturb: queries of given pairs without noise of their own were asked of slightly changed pictures too",
    )
    num_scenes: int = Field(description="base scenes that were requested; in a gallery or a file of pairs, all of its scenes")
    left_out: dict[str, int] = Field(default={}, description="rows of pairs that could not be used, by reason")
    pictures_sha256: str = Field(
        description="over the pictures of the pairs, or over their files' bytes: the same for every model and policy"
    )
    pictures: PicturesRecord | None = Field(
        default=None, description="what became of the pictures of files; null: they were drawn, or another tool showed them to the model"
    )
    rows_sha256: str = Field(description="over the rows of rows.parquet")
    coverage: Coverage | None = Field(description="coverage by the policy's questions, without any model; null: world or policy unknown")
    shadows: Shadows = Field(description="answers under intervention, and verdicts")
    training: TrainingFacts | None = Field(description="what the model was trained on; null: not given")
    accuracy: Accuracy | None = Field(default=None, description="accuracy on pairs from a file; null: the pairs are not from a file")
    scores: tuple[Score, ...] = Field(default=(), description="accuracy on the world's official splits, where it has any")
    examples: tuple[Example, ...] = Field(default=(), description="example pairs, never selected by their answers")
    inside: Inside | None = Field(default=None, description="measures of the model's inside; null: none was requested")

    def to_json(self) -> str:
        return self.model_dump_json(indent=1) + "\n"


class RunRecord(Part):
    """Facts that differ from run to run: `run.json`."""

    version: Literal[1] = Field(default=VERSION, description="version of the format; another one is refused")
    command: str = Field(description="the command that ran: survey or tour")
    started: str = Field(description="when it started: ISO 8601, UTC")
    seconds: float = Field(description="wall-clock seconds until the record was written")
    seconds_by_part: dict[str, float] = Field(description="wall-clock seconds of each part of the run")
    host: dict[str, str | int] = Field(description="system, machine, python (version), cpus (number), torch_threads (number)")
    packages: dict[str, str] = Field(description="version of each package that matters to the numbers")
    git_revision: str | None = Field(description="revision of the code, with +changes if files differ from it; null: not a checkout")
    attention: str | None = Field(description="attention implementation of the model")
    device: str | None = Field(description="device that the model ran on")
    step: int | None = Field(default=None, description="training step of the model; null: it was not surveyed in training")
    pairs_per_s: float | None = Field(default=None, description="picture pairs answered per second; null: unknown")
    rows_at_once: int | None = Field(
        default=None, description="largest number of token rows in a batch: repeated surveys are equal to the byte where it is equal"
    )
    pictures_folder: str | None = Field(
        default=None, description="folder that the paths in rows.parquet are relative to; null: the pictures were drawn, or not recorded"
    )
    notices: tuple[str, ...] = Field(default=(), description="decisions made during the run, in words: prefixes not shared, batches halved")


class BadRecord(BadInput):
    """A folder or file that is not a record of this version."""


def read_survey(folder: Path) -> SurveyRecord:
    """The survey in a record's folder. Raises `BadRecord` if there is none or it is of another version."""
    path = folder / "survey.json" if folder.is_dir() else folder
    if not path.is_file():
        raise BadRecord(f"{folder} holds no survey.json; give a folder that `theodolite survey` or `theodolite tour` wrote")
    try:
        return SurveyRecord.model_validate_json(path.read_bytes().removeprefix(MARK))
    except ValidationError as error:
        raise BadRecord(f"{path} is no survey record of version {SURVEY_VERSION}: {first_fault(error)}; survey the model again") from error
