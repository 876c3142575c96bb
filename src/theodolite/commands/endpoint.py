"""The survey of a model behind an endpoint, as the command line runs it. No model is loaded; answers only."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from theodolite.asking.endpoint.asker import CostAsker, CostEstimate, EndpointAsker
from theodolite.asking.endpoint.cache import ResponseCache
from theodolite.asking.endpoint.channel import KEY_ENV, EndpointSettings
from theodolite.asking.prompts import DEFAULT
from theodolite.commands.progress import Steps
from theodolite.commands.survey import TargetArguments, resolve_target, save_result
from theodolite.measurement.internals.registry import measures_named
from theodolite.measurement.survey.options import SurveyOptions
from theodolite.measurement.survey.result import SurveyResult
from theodolite.measurement.survey.session import refuse_inside, survey_model
from theodolite.measurement.survey.surveyed import SurveyedModel
from theodolite.measurement.survey.targets import SurveyTarget
from theodolite.records.asking import PromptStyle
from theodolite.records.folder import refuse_taken, sole_writer
from theodolite.records.progress import silent_steps

DRAWN_SIDE = 224  # of pictures that are drawn, in pixels
MAX_PIXELS = 2**20  # of a picture of a file: more makes requests of several MB, which most servers scale down anyway


def run_endpoint_survey(
    model: str,
    url: str,
    out: Path,
    arguments: TargetArguments,
    *,
    overwrite: bool,
    steps: Steps,
    measures: str = "shadows",
    dry_run: bool = False,
    key_env: str = KEY_ENV,
    answers: Literal["auto", "logprobs", "text"] = "auto",
    prompt: PromptStyle = DEFAULT,
    concurrency: int = 8,
    per_minute: float | None = None,
    timeout_s: float = 120.0,
    retries: int = 6,
    longest_wait_s: float = 60.0,
    cache: Path | None = None,
    price_in: float | None = None,
    price_out: float | None = None,
    csv: Path | None = None,
    **asking: Any,
) -> SurveyResult | None:
    """Surveys a model behind an endpoint and writes the result to `out`; a dry run prints the cost and returns None.

    Answers are stored in `cache`, by default beside the record, so that an interrupted survey goes on. Prices are USD for a million tokens.
    Pictures of files are sent at their own aspect ratio with at most `max_pixels` (None: `MAX_PIXELS`), or as squares of `picture_size`,
    at which others are drawn. `asking` are fields of `SurveyOptions`. Raises `BadInput` on anything that cannot be used.
    """
    if not dry_run:
        refuse_taken(out, overwrite=overwrite)
    asking = {"title": model.rstrip("/").rpartition("/")[2], **asking}
    options = SurveyOptions(measures=measures_named(measures), prompt=prompt, **asking)
    target, options = resolve_target(arguments, options, None, steps.console.print)
    options, side = _sizes(target, options)
    waits = {"timeout_s": timeout_s, "retries": retries, "longest_wait_s": longest_wait_s}
    settings = EndpointSettings(url, model, key_env, answers, side, concurrency, per_minute, **waits, prompt=prompt)
    path = cache or _beside(out)
    refuse_inside(options.measures)  # before a file is made

    def survey(surveyed: SurveyedModel, steps: Steps | None = None) -> SurveyResult:
        return survey_model(surveyed, target, options, steps=silent_steps if steps is None else steps.costed_step)

    asker: EndpointAsker | None = None
    with (
        nullcontext() if dry_run else sole_writer(out),
        closing(ResponseCache(path if path.exists() or not dry_run else None)) as responses,
    ):
        if not dry_run:
            refuse_taken(out, overwrite=overwrite)  # another process may have ended in between
            asker = EndpointAsker(settings, responses)
            asker.identify()  # what the server offers and its version decide what is left to ask
        steps.console.print(_cost(settings, responses, survey).words(price_in, price_out), highlight=False)
        if asker is None:
            return None
        result = survey(SurveyedModel(asker, side or DRAWN_SIDE, asker.describe, asker.notices), steps)
        save_result(result, out, overwrite=overwrite, steps=steps, csv=csv)
    return result


def _sizes(target: SurveyTarget, options: SurveyOptions) -> tuple[SurveyOptions, int | None]:
    """The options with the limit of the pixels of pictures of files, and the side of the pictures; None: those keep their aspect ratio."""
    if not target.has_files:
        return options, options.picture_size or DRAWN_SIDE
    if options.picture_size is None and options.max_pixels is None:
        options = replace(options, max_pixels=max(MAX_PIXELS, options.min_pixels or 0))
    return options, options.picture_size


def _cost(settings: EndpointSettings, responses: ResponseCache, survey: Callable[[SurveyedModel], object]) -> CostEstimate:
    """The cost of the whole survey, official questions included: a trial run that sends nothing."""
    parts: list[CostEstimate] = []
    trial = CostAsker(settings, responses, parts.append)
    survey(SurveyedModel(trial, settings.picture_size or DRAWN_SIDE, trial.describe))
    return sum(parts, CostEstimate(0, 0, 0, 0))


def _beside(out: Path) -> Path:
    """The file of answers that goes with a record's folder."""
    folder = out.resolve()
    return folder.with_name(f"{folder.name}.responses.sqlite")
