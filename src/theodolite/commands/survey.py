"""The survey of one model, as the command line runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from theodolite.commands.progress import Steps
from theodolite.commands.targets import TargetArguments, resolve_target
from theodolite.measurement.internals.registry import measures_named
from theodolite.measurement.survey.options import INSIDE_SCENES, SurveyOptions
from theodolite.measurement.survey.result import SurveyResult
from theodolite.measurement.survey.session import survey_model
from theodolite.records.errors import BadInput
from theodolite.records.folder import refuse_taken
from theodolite.records.training import read_training


def run_survey(
    model: str,
    out: Path,
    arguments: TargetArguments,
    *,
    overwrite: bool,
    steps: Steps,
    measures: str = "shadows",
    inside_scenes: int | None = None,
    **settings: Any,
) -> SurveyResult:
    """Surveys a model from a folder or hub name on a world, a gallery or a file of pairs, and writes the result to `out`.

    `measures` is a list such as "ladder,causal"; `settings` are fields of `SurveyOptions`. Raises `BadInput` on anything that cannot be
    used, before the model is loaded wherever that can be known.
    """
    refuse_taken(out, overwrite=overwrite)
    chosen = measures_named(measures)
    if inside_scenes is not None and not chosen:
        raise BadInput("--inside-scenes is for measures of the inside; name some, such as --measures ladder, or leave it out")
    training = read_training(Path(model))
    options = SurveyOptions(measures=chosen, inside_scenes=inside_scenes or INSIDE_SCENES, **settings)
    target, options = resolve_target(arguments, options, training, steps.console.print)
    result = survey_model(model, target, options, training=training, steps=steps.costed_step)
    steps.console.print(f"{result.run.pairs_per_s:.1f} pairs a second")
    save_result(result, out, overwrite=overwrite, steps=steps)
    return result


def save_result(result: SurveyResult, out: Path, *, overwrite: bool, steps: Steps) -> None:
    """Prints the notices of a survey and writes it."""
    for notice in result.run.notices:
        steps.console.print(f"note: {notice}")
    result.save(out, overwrite=overwrite)
