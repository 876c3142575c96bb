"""The survey of a model whose answers another tool has logged, as the command line runs it. No model is loaded or asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from theodolite.asking.answer import Question
from theodolite.asking.answer_log import AnswerLog, read_answer_log
from theodolite.commands.progress import Steps
from theodolite.commands.survey import PLANNED_SIZE, TargetArguments, resolve_target, save_result
from theodolite.measurement.internals.registry import measures_named
from theodolite.measurement.pairs.file_pictures import FilePictures
from theodolite.measurement.survey.logged import LoggedAsker
from theodolite.measurement.survey.options import SurveyOptions
from theodolite.measurement.survey.result import SurveyResult
from theodolite.measurement.survey.session import survey_model
from theodolite.measurement.survey.surveyed import SurveyedModel
from theodolite.measurement.survey.targets import SurveyTarget
from theodolite.records.asking import PromptStyle
from theodolite.records.errors import BadInput
from theodolite.records.folder import refuse_taken, sole_writer


def run_logged_survey(
    model: str,
    log: Path,
    out: Path,
    arguments: TargetArguments,
    *,
    overwrite: bool,
    steps: Steps,
    measures: str = "shadows",
    prompt: PromptStyle | None = None,
    noise: Literal["perturb", "given"] | None = None,
    csv: Path | None = None,
    **settings: Any,
) -> SurveyResult:
    """Surveys the logged answers of a model on a file of pairs, and writes the result to `out`.

    `prompt` None means as the log says, else *letters*. `noise` None means *perturb* where the log has answers about changed pictures or
    other wordings, as an export with noise asks for them, else *given*. `settings` are fields of `SurveyOptions`. Raises `BadInput` on
    anything that cannot be used.
    """
    refuse_taken(out, overwrite=overwrite)
    if measures_named(measures):
        raise BadInput(f"--measures {measures}: they look inside the model, and a log holds answers only; leave --measures out")
    if arguments.pairs is None:
        raise BadInput("--answer-log needs --pairs: the manifest whose questions the log's answers are for")
    answers = read_answer_log(log)
    if None not in (prompt, answers.prompt) and prompt != answers.prompt:
        raise BadInput(f"{log} says that its prompts are of style {answers.prompt}, not {prompt}; leave --prompt out")
    style: PromptStyle = answers.prompt or prompt or "letters"
    options = SurveyOptions(title=model.rstrip("/").rpartition("/")[2], prompt=style, **settings)
    target, options = resolve_target(arguments, options, None, steps.console.print)
    asker = LoggedAsker(answers, model, style)
    options = replace(options, noise=noise or ("perturb" if _has_noise(asker, target, options) else "given"))
    line = f"{len(answers.answers):,} answers of {answers.tool}, joined by {answers.key}, prompt {style}, noise {options.noise}"
    steps.console.print(f"{log}: {line}", highlight=False)
    _check_name(model, answers, steps)
    surveyed = SurveyedModel(asker, PLANNED_SIZE, asker.describe, asker.notices)
    with sole_writer(out):
        result = survey_model(surveyed, target, options, steps=steps.costed_step)
        save_result(result, out, overwrite=overwrite, steps=steps, csv=csv)
    return result


def _has_noise(asker: LoggedAsker, target: SurveyTarget, options: SurveyOptions) -> bool:
    """Whether the log answers a question that only the noise made of changed pictures and other wordings has."""
    given = target.plan(replace(options, noise="given"), PLANNED_SIZE)
    plan = target.plan(replace(options, noise="perturb"), PLANNED_SIZE)
    assert isinstance(plan.pictures, FilePictures)
    added = plan.rows.slice(len(given.rows)).select("picture_after", "question_after", "choices")
    return any(asker.rows_of(plan.pictures, Question(picture, text, tuple(choices))) for picture, text, choices in added.iter_rows())


def _check_name(model: str, log: AnswerLog, steps: Steps) -> None:
    if log.model is not None and log.model.rpartition("/")[2] != model.rstrip("/").rpartition("/")[2]:
        steps.console.print(f"note: the results beside the log name the model {log.model}, not {model}", highlight=False)
