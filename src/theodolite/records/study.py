"""Records of a study: a line for each finished run of its grid (`runs.jsonl`), and claims and figures (`study.json`)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, model_validator

from theodolite.records.errors import first_fault
from theodolite.records.folder import write_whole
from theodolite.records.part import Part
from theodolite.records.reading import MARK, numbered_lines
from theodolite.records.survey import BadRecord, TrainingFacts, Verdict
from theodolite.records.training import TrainedOn

VERSION: Literal[1] = 1
RUNS, STUDY = "runs.jsonl", "study.json"
Finding = Literal["holds", "fails", "undecided"]


class PredictedByCoverage(Part):
    """Coverage by a run's questions, computed before any training; factors and pairs that a map leaves out have 0."""

    coverage: dict[str, float] = Field(description="chance that a question distinguishes two scenes that differ in it alone, by factor")
    coverage_limit: dict[str, float] = Field(description="the same with equal weights on all scenes, by factor")
    reach: dict[str, float] = Field(description="the same under the independent prior, by factor")
    pressure_bits: dict[str, float] = Field(
        description="mutual information of one answer and the factor, given all others, bits, by factor"
    )
    proxy_bits: dict[str, float] = Field(description="mutual information of a factor and an answer not about it, bits, keyed factor->query")
    asked_frac: dict[str, float] = Field(description="share of each query among the asked questions, by query")


class MovedCell(Part):
    """How often the answers to one query, in one form, move with one factor."""

    factor: str = Field(description="the factor that is changed")
    query: str = Field(description="the factor that is asked about; two, joined by &, in a conjunction")
    form: str = Field(description="open, yes_no or conjunction")
    truth_moves: bool = Field(description="true: a read cell; false: a leak cell")
    moved_frac: float = Field(description="share of pairs in which the model's answer changes, 0 to 1")
    low: float | None = Field(description="lower end of its interval, by scene")
    high: float | None = Field(description="upper end of its interval, by scene")
    variation: float = Field(description="mean total variation between the two answer distributions, 0 to 1")
    right_frac: float = Field(description="share of pairs answered right before and after")
    num_scenes: int = Field(description="scenes behind it")


class AnsweredRight(Part):
    """Accuracy of one query, in one form."""

    query: str = Field(description="the factor that is asked about; two, joined by &, in a conjunction")
    form: str = Field(description="open, yes_no or conjunction")
    scenes: Literal["decorrelated", "training"] = Field(description="decorrelated scenes, or new ones drawn as in training")
    frac: float = Field(description="share answered right, 0 to 1")
    low: float | None = Field(description="lower end of its interval, by scene; null below two scenes")
    chance_frac: float = Field(description="accuracy of the best rule that never sees the picture")


class GridRun(Part):
    """One finished run of a study: its training, its coverage, and the rates and verdicts of its survey. A line of runs.jsonl."""

    version: Literal[1] = Field(default=VERSION, description="version of the format; another one is refused")
    kind: Literal["grid-run"] = Field(default="grid-run", description="which record this is")
    key: str = Field(description="name of the run: readable words, and a hash of everything that determines its outcome")
    setup: TrainedOn = Field(description="settings that determine the outcome of its training")
    facts: TrainingFacts = Field(description="its training data; equal hashes prove that two runs saw the same pictures in the same order")
    num_scenes: int = Field(description="base scenes of its survey")
    final_loss: float = Field(description="mean loss over the last tenth of training, nats a token")
    num_trained: int = Field(description="parameters that were trained")
    foretold: PredictedByCoverage = Field(description="coverage by its questions, computed before any training")
    verdicts: dict[str, Verdict] = Field(description="the verdict of each factor")
    noise: dict[str, float] = Field(
        description="how often the answer to each open query moves with the nuisance seed alone, 0 to 1; in lines of commit 44058e7 the "
        "larger of that and the rate with the wording"
    )
    cells: tuple[MovedCell, ...] = Field(description="one for each factor, query, form, and whether the truth moves")
    answered: tuple[AnsweredRight, ...] = Field(description="one for each query, form and kind of scenes")
    gap: dict[str, float] = Field(description="relative modality gap by site, 0 to 2; empty: not measured")
    decoded: dict[str, dict[str, float]] = Field(
        default_factory=dict,
        description="normalised accuracy of a probe, 0 chance to 1 always right, by factor and site (the ladder); empty: not measured",
    )
    cosine: dict[str, float] = Field(
        default_factory=dict, description="mean cosine between the vision tokens of a picture, -1 to 1, by site; empty: not measured"
    )
    inside: dict[str, dict[str, float]] = Field(
        default_factory=dict,
        description="numbers inside the model by measure and factor: consistency, mean overlap with other factors and regularity of the "
        "factor's directions at the last layer, excess energy and excess gradient of its direction at the connector; empty: not measured",
    )
    survey_sha256: str = Field(description="over the whole survey.json that this line is taken from")
    revision: str | None = Field(description="revision of the code that made it, with +changes if files differed; null: not a checkout")
    torch: str = Field(description="version of torch that made it")


class Claim(Part):
    """One claim under test, the rule that was fixed before the runs, and its finding."""

    name: str = Field(description="short name, the same from run to run of the study")
    statement: str = Field(description="the claim in a sentence")
    source: str = Field(description="origin of the claim: the essay, a trial, the paper")
    essay_question: int | None = Field(description="the open question of the essay that it addresses, 1 to 5; null: none")
    rule: str = Field(description="conditions under which it holds and fails, in words; otherwise it is undecided")
    finding: Finding = Field(description="holds, fails or undecided")
    effect: float | None = Field(description="the number that the rule is about; null: not measured")
    low: float | None = Field(description="lower end of its interval; null: fewer than two seeds, or no estimate of its error")
    high: float | None = Field(description="upper end of its interval")
    unit: str = Field(description="unit or quantity of the effect, in words")
    by_seed: dict[int, float] = Field(description="the effect in each seed, by seed")
    independent: Literal["seed", "policy"] = Field(description="the unit of independence, over which the interval is taken")
    num_independent: int = Field(description="number of independent units behind it")
    num_runs: int = Field(description="runs behind it")
    known: bool = Field(default=False, description="whether an earlier trial or run had shown the outcome before the rule was written")
    p_value: float | None = Field(
        default=None, description="two-sided p of its distance from the rule's line, 0 to 1; null: no interval, or made before p was kept"
    )
    family_finding: Finding | None = Field(
        default=None,
        description="its finding at a family-wise error of 1 - confidence over the study's claims (Holm); null: made before this was kept",
    )


class Point(Part):
    """One mark of a figure: a value with its interval, and its values by seed."""

    panel: str = Field(description="panel of the figure")
    series: str = Field(description="line or colour of the figure")
    x: str | float = Field(description="horizontal position: a quantity or a name")
    value: float = Field(description="mean over seeds; where seeds are pooled, one number over all runs")
    low: float | None = Field(
        description="lower end of the interval; null: fewer than two seeds, or too few policies where seeds are pooled"
    )
    high: float | None = Field(description="upper end of the interval")
    by_seed: dict[int, float] = Field(description="the value in each seed, by seed; empty: seeds are pooled")


class Figure(Part):
    """A figure as numbers; the page and the picture are drawn from it."""

    name: str = Field(description="short name, part of the picture's file name")
    title: str = Field(description="title, in one line")
    caption: str = Field(description="what to see in it and how it was measured")
    x_title: str = Field(description="title of the horizontal axis")
    y_title: str = Field(description="title of the vertical axis")
    y_range: tuple[float, float] | None = Field(description="ends of the vertical axis; null: those of the numbers")
    x_range: tuple[float, float] | None = Field(
        default=None, description="ends of the horizontal axis, which is then to scale even with few values; null: those of the points"
    )
    joined: bool = Field(description="whether points of a series are joined by a line: where x is a quantity")
    diagonal: bool = Field(
        default=False, description="whether the line of equal x and y is drawn: where both are the same quantity; requires x_range"
    )
    points: tuple[Point, ...] = Field(description="its marks, in order")

    @model_validator(mode="after")
    def _scaled(self) -> Figure:
        if self.diagonal and self.x_range is None:
            raise ValueError("a diagonal requires x_range, a horizontal axis to scale; set x_range")
        if self.x_range is not None and any(isinstance(point.x, str) for point in self.points):
            raise ValueError("x_range requires numeric x, and some points have names; remove x_range or give numbers")
        return self


class StudyRecord(Part):
    """Claims and figures of a study. Bytewise equal when made again from the same runs."""

    version: Literal[1] = Field(default=VERSION, description="version of the format; another one is refused")
    kind: Literal["study"] = Field(default="study", description="which record this is")
    name: str = Field(description="name of the study, as the command takes it")
    question: str = Field(description="the question that the study answers")
    command: str = Field(description="the command that makes it")
    quick: bool = Field(description="true: only a small part of the grid, whose results are indications, not findings")
    confidence: float = Field(description="level of all intervals")
    seeds: tuple[int, ...] = Field(description="seeds of its runs")
    num_runs: int = Field(description="finished runs of its grid behind it")
    keys: tuple[str, ...] = Field(description="those runs, by key: the folder may hold others")
    num_missing: int = Field(description="runs of the grid that are missing")
    claims: tuple[Claim, ...] = Field(description="the claims under test, with their findings")
    figures: tuple[Figure, ...] = Field(description="figures, as numbers")
    notes: tuple[str, ...] = Field(description="what a reader must know: comparisons that are not matched, runs that are missing")

    def to_json(self) -> str:
        return self.model_dump_json(indent=1) + "\n"


def read_runs(folder: Path) -> dict[str, GridRun]:
    """The finished runs in a study's folder by key; none if there is no such file. Raises `BadRecord` on an invalid line."""
    path = folder / RUNS
    if not path.is_file():
        return {}
    runs: dict[str, GridRun] = {}
    for number, line in numbered_lines(path):
        try:
            run = GridRun.model_validate_json(line or b"")
        except ValidationError as error:
            fault = first_fault(error, "the line")
            raise BadRecord(f"{path}, line {number}, is no run of version {VERSION}: {fault}; delete that line") from error
        runs[run.key] = run
    return runs


def write_runs(folder: Path, runs: list[GridRun]) -> None:
    """Writes all finished runs to one file, a line each, atomically. Raises `BadInput` if it cannot be written."""
    write_whole(folder / RUNS, "".join(run.model_dump_json() + "\n" for run in runs))


def read_study(folder: Path) -> StudyRecord:
    """The study in a folder. Raises `BadRecord` if there is none or it is of another version."""
    path = folder / STUDY
    if not path.is_file():
        raise BadRecord(f"{folder} has no {STUDY}; make it with `theodolite study`")
    try:
        return StudyRecord.model_validate_json(path.read_bytes().removeprefix(MARK))
    except ValidationError as error:
        raise BadRecord(f"{path} is no study of version {VERSION}; make it again with `theodolite study`") from error
