"""`theodolite survey`: surveys one model, from disk or behind an endpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from theodolite.cli import options
from theodolite.cli.app import Overwrite, app, console
from theodolite.records.errors import BadInput

if TYPE_CHECKING:
    from theodolite.records.survey import SurveyRecord, Thresholds

# Options whose names differ from the keyword arguments that they become.
FLAGS = {"attention": "--attn", "timeout_s": "--timeout"}


@app.command("survey")
def survey_command(
    model: options.Model,
    out: options.Out = None,
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
    cache: options.Cache = None,
    dry_run: options.DryRun = False,
    price_in: options.PriceIn = None,
    price_out: options.PriceOut = None,
    overwrite: Overwrite = False,
) -> None:
    """Ask a model about counterfactual pairs and record which changes move its answers."""
    target = _target(world, pairs, ask, strength, scenes, seed)
    local = _without_none(
        device=device, dtype=dtype, devices=None if devices is None else tuple(devices.split(",")), on=on, batch=batch, workers=workers,
        save_every=save_every, score=score, attention=attn, inside_scenes=inside_scenes, sentences=sentences,
    )  # fmt: skip
    remote = _without_none(
        key_env=key_env, answers=answers, concurrency=concurrency, per_minute=per_minute,
        timeout_s=timeout, cache=cache, price_in=price_in, price_out=price_out, dry_run=dry_run or None,
    )  # fmt: skip
    shared = _without_none(thresholds=_thresholds(read_frac=read_frac, leak_above_noise_frac=leak_above_noise, confidence=confidence))
    shared |= _without_none(noise=noise, prompt=prompt, picture_size=picture_size, max_pixels=max_pixels, min_pixels=min_pixels)
    if plan:
        return _print_plan(model, target, shared)
    chosen = {**shared, "measures": measures, "overwrite": overwrite}
    return _survey(model, out or _default_folder(model, world, pairs), target, endpoint, chosen, local, remote)


def _target(*arguments: Any) -> Any:
    """The arguments that name the pairs."""
    from theodolite.commands.survey import TargetArguments

    return TargetArguments(*arguments)


def _survey(
    model: str, folder: Path, target: Any, endpoint: str | None, shared: dict[str, Any], local: dict[str, Any], remote: dict[str, Any]
) -> None:
    """Surveys a model from disk or behind an endpoint, and prints the record; refuses the options of the other."""
    from theodolite.commands.endpoint import run_endpoint_survey
    from theodolite.commands.progress import Steps
    from theodolite.commands.survey import run_survey

    shared = {**shared, "steps": Steps(console)}
    if endpoint is None:
        _refuse(remote, "for a model behind an endpoint; give --endpoint URL too")
        result = run_survey(model, folder, target, **shared, **local)
    else:
        _refuse(local, "for a local model; an endpoint has its own")
        result = run_endpoint_survey(model, endpoint, folder, target, **shared, **remote)
    return None if result is None else _print_record(result.record, folder)


def _thresholds(**given: float | None) -> Thresholds | None:
    """The thresholds of verdicts with these in place of the defaults; None where none is given."""
    from theodolite.records.survey import Thresholds

    values = _without_none(**given)
    return Thresholds(**values) if values else None


def _print_plan(model: str, target: Any, asking: Mapping[str, Any]) -> None:
    from theodolite.commands.survey import plan_survey
    from theodolite.measurement.survey.options import SurveyOptions

    for table in plan_survey(model, target, SurveyOptions(**asking), console.print):
        console.print(table)


def _print_record(record: SurveyRecord, folder: Path) -> None:
    from theodolite.report.tables import survey_lines, survey_tables

    for table in survey_tables(record):
        console.print(table)
    for line in survey_lines(record):
        console.print(line, highlight=False)
    console.print(f"record: {folder / 'survey.json'}")


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
