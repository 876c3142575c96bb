"""The survey of a model behind an endpoint, as the command line runs it. Nothing is loaded; answers only."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from theodolite.asking.endpoint.asker import CostAsker, CostEstimate, EndpointAsker
from theodolite.asking.endpoint.cache import ResponseCache
from theodolite.asking.endpoint.channel import KEY_ENV, EndpointSettings
from theodolite.commands.progress import Steps
from theodolite.commands.survey import stage_in
from theodolite.commands.targets import SurveyTarget, surveying
from theodolite.measurement.internals.registry import measures_named
from theodolite.measurement.survey.options import refuse_inside
from theodolite.measurement.survey.session import SurveyedModel, SurveyOptions, SurveyResult
from theodolite.records.folder import refuse_taken, whole_folder
from theodolite.records.survey import SurveyRecord
from theodolite.records.writing import run_record, write_survey


def survey_endpoint(
    model: str,
    url: str,
    out: Path,
    matter: SurveyTarget,
    *,
    overwrite: bool,
    steps: Steps,
    measures: str = "shadows",
    dry_run: bool = False,
    key_env: str = KEY_ENV,
    answers: Literal["auto", "logprobs", "text"] = "auto",
    picture_size: int = 224,
    concurrency: int = 8,
    per_minute: float | None = None,
    timeout_s: float = 120.0,
    cache: Path | None = None,
    price_in: float | None = None,
    price_out: float | None = None,
) -> SurveyRecord | None:
    """Surveys a model behind an endpoint, writes the record to `out`, and returns it; None in a dry run, which only tells the cost.

    Answers are kept in `cache`, beside the record unless said otherwise, so that a survey that was stopped goes on where it was. Prices are
    USD for a million tokens. Raises `BadInput` on anything that cannot be used.
    """
    if not dry_run:
        refuse_taken(out, overwrite=overwrite)
    settings = EndpointSettings(url, model, key_env, answers, picture_size, concurrency, per_minute, timeout_s)
    way = SurveyOptions(measures_named(measures), stage=stage_in(steps))
    survey_candidate = surveying(matter, model.rstrip("/").rpartition("/")[2], None, steps.console.print)
    path = cache or _beside(out)

    asker: EndpointAsker | None = None
    refuse_inside(way.measures)  # before a file is made
    started = datetime.now(UTC)
    answered = ResponseCache(path if path.exists() or not dry_run else None)
    try:
        if not dry_run:
            asker = EndpointAsker(settings, answered)
            asker.detect()  # what it offers decides what a question costs
        total = _cost(settings, answered, lambda trial: survey_candidate(trial, SurveyOptions()))
        steps.console.print(total.words(price_in, price_out), highlight=False)
        if asker is None:
            return None
        survey = survey_candidate(SurveyedModel(asker, picture_size, asker.describe, asker.notices), way)
    finally:
        answered.close()
    _write(out, survey, started, overwrite, steps.console.print)
    return survey.record


def _cost(settings: EndpointSettings, answered: ResponseCache, survey: Callable[[SurveyedModel], object]) -> CostEstimate:
    """What a whole survey will take, official questions and all: it is gone through once without asking anybody."""
    parts: list[CostEstimate] = []
    trial = CostAsker(settings, answered, parts.append)
    survey(SurveyedModel(trial, settings.picture_size, trial.describe))
    return sum(parts, CostEstimate(0, 0, 0, 0))


def _beside(out: Path) -> Path:
    """The file of answers that goes with a record's folder."""
    whole = out.resolve()
    return whole.with_name(f"{whole.name}.responses.sqlite")


def _write(out: Path, survey: SurveyResult, started: datetime, overwrite: bool, say: Callable[[str], None]) -> None:
    for notice in survey.notices:
        say(f"note: {notice}")
    update = {"pairs_per_s": round(survey.pairs_per_s, 3), "notices": survey.notices}
    run = run_record("survey", started, survey.seconds).model_copy(update=update)
    with whole_folder(out, overwrite=overwrite) as folder:
        write_survey(folder, survey.record, survey.rows, survey.pictures, run)
