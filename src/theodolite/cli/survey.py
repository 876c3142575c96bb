"""`theodolite survey`: surveys one model, from disk or behind an endpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from theodolite.cli import options
from theodolite.cli.app import Csv, Overwrite, app, refuse_file
from theodolite.cli.printing import console, print_line, print_table
from theodolite.records.errors import BadInput

if TYPE_CHECKING:
    from theodolite.records.survey import SurveyRecord, Thresholds

# Options whose names differ from the keyword arguments that they become.
FLAGS = {"attention": "--attn", "timeout_s": "--timeout", "longest_wait_s": "--longest-wait"}


@app.command("survey")
def survey_command(
    model: options.Model,
    out: options.Out = None,
    title: options.Title = None,
    world: options.WorldOrGallery = None,
    pairs: options.PairsFile = None,
    ask: options.PolicyText = None,
    prompt: options.PromptText = None,
    score: options.ScoreOfChoices = None,
    strength: options.PriorStrength = None,
    scenes: options.Scenes = None,
    seed: options.PairsSeed = None,
    read_frac: options.ReadFrac = None,
    leak_above_noise: options.LeakAboveNoise = None,
    confidence: options.Confidence = None,
    noise: options.NoiseRows = None,
    plan: options.PlanOnly = False,
    picture_size: options.PictureSize = None,
    max_pixels: options.MaxPixels = None,
    min_pixels: options.MinPixels = None,
    device: options.Device = None,
    dtype: options.Precision = None,
    devices: options.Devices = None,
    on: options.On = None,
    batch: options.RowsAtOnce = None,
    save_every: options.SaveEvery = None,
    workers: options.Workers = None,
    measures: options.Measures = "shadows",
    inside_scenes: options.InsideScenes = None,
    sentences: options.SentencesFile = None,
    attn: options.Attention = None,
    endpoint: options.Endpoint = None,
    key_env: options.KeyName = None,
    answers: options.Answers = None,
    concurrency: options.Concurrency = None,
    per_minute: options.PerMinute = None,
    timeout: options.Timeout = None,
    retries: options.Retries = None,
    longest_wait: options.LongestWait = None,
    cache: options.Cache = None,
    dry_run: options.DryRun = False,
    price_in: options.PriceIn = None,
    price_out: options.PriceOut = None,
    answer_log: options.AnswerLog = None,
    csv: Csv = None,
    overwrite: Overwrite = False,
) -> None:
    """Ask a model about counterfactual pairs and record which changes move its answers."""
    target = _target(world, pairs, ask, strength, scenes, seed)
    local = _without_none(device=device, dtype=dtype, devices=_parts(devices), on=on, batch=batch, workers=workers,
        save_every=save_every, score=score, attention=attn, inside_scenes=inside_scenes, sentences=sentences)  # fmt: skip
    remote = _without_none(key_env=key_env, answers=answers, concurrency=concurrency, per_minute=per_minute, cache=cache, price_in=price_in,
        timeout_s=timeout, retries=retries, longest_wait_s=longest_wait, price_out=price_out, dry_run=dry_run or None)  # fmt: skip
    shared = _without_none(thresholds=_thresholds(read_frac=read_frac, leak_above_noise_frac=leak_above_noise, confidence=confidence))
    shared |= _without_none(title=title, noise=noise, prompt=prompt, picture_size=picture_size) | _pixels(max_pixels, min_pixels)
    if plan:
        return _print_plan(model, target, shared)
    shared |= {"measures": measures, "overwrite": overwrite}
    return _survey(model, out or _default_folder(model, world, pairs), target, (endpoint, answer_log), shared, local, remote, csv)


def _parts(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(text.split(","))


def _pixels(most: int | None, least: int | None) -> dict[str, Any]:
    return _without_none(max_pixels=most, min_pixels=least)


def _target(*arguments: Any) -> Any:
    """The arguments that name the pairs."""
    from theodolite.commands.survey import TargetArguments

    return TargetArguments(*arguments)


def _survey(
    model: str,
    folder: Path,
    target: Any,
    source: tuple[str | None, Path | None],
    shared: dict[str, Any],
    local: dict[str, Any],
    remote: dict[str, Any],
    csv: Path | None,
) -> None:
    """Surveys a model from disk, behind an endpoint or by its logged answers, and prints the record; refuses the options of the others.

    `source` is the endpoint and the log, None where not given.
    """
    from theodolite.commands.answer_log import run_logged_survey
    from theodolite.commands.endpoint import run_endpoint_survey
    from theodolite.commands.progress import Steps
    from theodolite.commands.survey import run_survey

    refuse_file(csv, "CSV", overwrite=shared["overwrite"])
    shared = {**shared, "steps": Steps(console), "csv": csv}
    endpoint, log = source
    if log is not None:
        sizes = {name: shared[name] for name in ("picture_size", "max_pixels", "min_pixels") if name in shared}
        _refuse({**_without_none(endpoint=endpoint), **local, **remote, **sizes}, "for a model that is asked; --answer-log asks none")
        result: Any = run_logged_survey(model, log, folder, target, **shared)
    elif endpoint is None:
        _refuse(remote, "for a model behind an endpoint; give --endpoint URL too")
        result = run_survey(model, folder, target, **shared, **local)
    else:
        _refuse(local, "for a local model; an endpoint has its own")
        result = run_endpoint_survey(model, endpoint, folder, target, **shared, **remote)
    if result is None:
        return
    again = ["theodolite", "survey", model, *([] if endpoint is None else ["--endpoint", endpoint]), *target.words()]
    _print_record(result.record, folder, again)


def _thresholds(**given: float | None) -> Thresholds | None:
    """The thresholds of verdicts with these in place of the defaults; None where none is given."""
    from theodolite.records.survey import Thresholds

    values = _without_none(**given)
    return Thresholds(**values) if values else None


def _print_plan(model: str, target: Any, asking: Mapping[str, Any]) -> None:
    from theodolite.commands.survey import plan_survey
    from theodolite.measurement.survey.options import SurveyOptions

    for table in plan_survey(model, target, SurveyOptions(**asking), console.print):
        print_table(table)


def _print_record(record: SurveyRecord, folder: Path, survey: Sequence[str]) -> None:
    """Prints the tables, then every verdict, the findings, where the record and its page are, and the next command."""
    from theodolite.measurement.survey.result import PAGE
    from theodolite.report.survey.closing import finding_lines, next_command, verdict_lines
    from theodolite.report.tables import survey_lines, survey_tables

    for table in survey_tables(record):
        print_table(table)
    for line in survey_lines(record):
        print_line(line)
    for line in (*verdict_lines(record), *finding_lines(record), f"record: {folder / 'survey.json'}", f"report: {folder / PAGE}"):
        print_line(line)
    print_line(f"next: {next_command(record, survey, str(folder))}")


def _default_folder(model: str, world: str | None, pairs: Path | None) -> Path:
    """runs/survey-MODEL-WORLD; for a file of pairs, its folder's name stands for the world."""
    subject = world or (pairs.resolve().parent.name if pairs else "nothing")
    name = Path(model).resolve().name if Path(model).is_dir() else model.rpartition("/")[2]
    return Path("runs") / f"survey-{name}-{subject.replace(':', '-')}"


def _without_none(**values: object) -> dict[str, Any]:
    """The values that were given on the command line; the called function has the defaults of the others."""
    return {name: value for name, value in values.items() if value is not None}


def _refuse(values: Mapping[str, object], why: str) -> None:
    """Raises `BadInput` if any of these were given; `why` says which models they are for."""
    if values:
        flags = [FLAGS.get(name, f"--{name.replace('_', '-')}") for name in values]
        raise BadInput(f"{', '.join(flags)}: {why}, or leave {'them' if len(flags) > 1 else 'it'} out")
