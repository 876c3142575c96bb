"""The survey of one model, as the command line runs it: which pairs its arguments name, and what is printed and written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.table import Table

from theodolite.commands.csv_tables import cells_csv
from theodolite.commands.progress import Steps
from theodolite.measurement.internals.registry import measures_named
from theodolite.measurement.survey.options import INSIDE_SCENES, SurveyOptions
from theodolite.measurement.survey.resolution import Resolvable, ResolvableLeak, fewest_scenes_without_leak, resolvable
from theodolite.measurement.survey.result import SurveyResult
from theodolite.measurement.survey.session import survey_model
from theodolite.measurement.survey.targets import GalleryTarget, SurveyTarget, WorldTarget
from theodolite.measurement.survey.unfinished import remove_if_done, unfinished_beside
from theodolite.models.device import Placement
from theodolite.records.errors import BadInput
from theodolite.records.folder import refuse_taken, sole_writer, whole_folder, write_whole
from theodolite.records.survey import Thresholds
from theodolite.records.training import TrainingRecord, read_training
from theodolite.worlds.manifest.faults import fault_lines
from theodolite.worlds.manifest.read import read_manifest
from theodolite.worlds.registry import gallery_named, is_gallery, world_named

PAGE = "report.html"
# Side in pixels of the pictures of a plan that is only counted.
PLANNED_SIZE = 64


@dataclass(frozen=True)
class TargetArguments:
    """The arguments that name a survey's pairs: a world or a gallery, or a file. None means not given."""

    world: str | None = None
    pairs: Path | None = None
    ask: str | None = None
    strength: float | None = None
    num_scenes: int | None = None
    seed: int | None = None

    def words(self) -> list[str]:
        """The arguments as they are written on the command line, without the number of scenes."""
        given = {"--world": self.world, "--pairs": self.pairs, "--ask": self.ask, "--strength": self.strength, "--seed": self.seed}
        return [word for flag, value in given.items() if value is not None for word in (flag, str(value))]

    def refuse(self, why: str, *names: str) -> None:
        """Raises `BadInput` if some of these were given, which mean nothing here."""
        flags = {"ask": "--ask", "strength": "--strength", "num_scenes": "--scenes", "seed": "--seed"}
        if idle := [flags[name] for name in names if getattr(self, name) is not None]:
            raise BadInput(f"{', '.join(idle)}: {why}, so leave them out")


def resolve_target(
    arguments: TargetArguments, options: SurveyOptions, training: TrainingRecord | None, say: Callable[[str], None]
) -> tuple[SurveyTarget, SurveyOptions]:
    """The target and the options with its scenes and seed; refuses whatever can be refused without the model. Raises `BadInput`.

    Rows of a file that cannot be used are printed, and the rest is surveyed.
    """
    if (arguments.world is None) == (arguments.pairs is None):
        raise BadInput("give either --world or --pairs: where the counterfactual pairs come from")
    if arguments.pairs is not None:
        arguments.refuse("of a world only; a file of pairs brings its own questions and scenes", "ask", "strength", "num_scenes", "seed")
        manifest = read_manifest(arguments.pairs)
        for line in fault_lines(manifest.faults):
            say(line)
        return GalleryTarget(manifest.gallery), options
    name = str(arguments.world)
    options = replace(options, seed=options.seed if arguments.seed is None else arguments.seed)
    if is_gallery(name):
        arguments.refuse("of a world that is drawn only; a gallery brings its own questions", "ask", "strength")
        return GalleryTarget(gallery_named(name, arguments.num_scenes, options.seed)), options
    num_scenes = options.num_scenes if arguments.num_scenes is None else arguments.num_scenes
    return _world_target(name, arguments, training), replace(options, num_scenes=num_scenes)


def _world_target(name: str, arguments: TargetArguments, training: TrainingRecord | None) -> WorldTarget:
    """World and policy to judge a model by: as given, else as it was trained, else independent factors and all open questions."""
    trained = training.setup if training is not None and training.setup.world == name else None
    strength = arguments.strength if arguments.strength is not None else (trained.strength if trained else 0.0)
    world = world_named(name, strength, trained.correlation if trained else None)
    policy = arguments.ask or (trained.policy if trained else world.open_policy)
    return WorldTarget(world, world.policy(policy))


def run_survey(
    model: str,
    out: Path,
    arguments: TargetArguments,
    *,
    overwrite: bool,
    steps: Steps,
    measures: str = "shadows",
    inside_scenes: int | None = None,
    csv: Path | None = None,
    **settings: Any,
) -> SurveyResult:
    """Surveys a model from a folder or hub name on a world, a gallery or a file of pairs, and writes the result to `out`, with its page.

    Until it is finished, answers and measures are stored beside `out`, and the same call goes on from them after an interruption.
    `measures` is a list such as "ladder,causal"; `settings` are fields of `SurveyOptions`; `csv` is a file for the cells. Raises
    `BadInput` on anything that cannot be used, before the model is loaded wherever that can be known.
    """
    remove_if_done(out)
    refuse_taken(out, overwrite=overwrite)
    chosen = measures_named(measures)
    if inside_scenes is not None and not chosen:
        raise BadInput("--inside-scenes is for measures of the inside; name some, such as --measures ladder, or leave it out")
    if settings.get("sentences") is not None and "words" not in chosen:
        raise BadInput("--sentences is for the measure of words; add it with --measures words, or leave --sentences out")
    training = read_training(Path(model))
    options = SurveyOptions(measures=chosen, inside_scenes=inside_scenes or INSIDE_SCENES, **settings)
    target, options = resolve_target(arguments, options, training, steps.console.print)
    if not options.devices and options.on == "here":
        placement = Placement.of(options.device, options.dtype)
        steps.console.print(f"{model} on {placement}")
        options = replace(options, device=placement.device, dtype=placement.dtype)
    else:
        steps.console.print(f"{model} in workers on {'a Ray cluster' if options.on == 'ray' else ','.join(options.devices)}")
    with sole_writer(out), unfinished_beside(out) as unfinished:
        refuse_taken(out, overwrite=overwrite)  # another process may have ended in between
        if unfinished.is_begun:
            steps.console.print(f"going on with the interrupted survey in {unfinished.folder}")
        result = survey_model(model, target, options, training=training, steps=steps.costed_step, unfinished=unfinished)
        steps.console.print(f"{result.run.pairs_per_s:.1f} pairs a second")
        unfinished.note_done(result.record)
        save_result(result, out, overwrite=overwrite, steps=steps, csv=csv)
    return result


def plan_survey(model: str, arguments: TargetArguments, options: SurveyOptions, say: Callable[[str], None]) -> list[Table]:
    """A table of what the pairs of a survey can show, before anything is asked: no model is loaded. Raises `BadInput`."""
    folder = Path(model)
    target, options = resolve_target(arguments, options, read_training(folder), say)
    rows = target.plan(options, PLANNED_SIZE).rows
    return [plan_table(resolvable(rows, *target.shadow_questions(rows), options.thresholds), options.thresholds)]


def plan_table(factors: Sequence[Resolvable], thresholds: Thresholds) -> Table:
    """One row a factor: how many scenes its pairs have, and what they show with 80 % power; of several leaks, the least resolved."""
    table = Table(
        title=f"What the pairs can show ({thresholds.confidence:.0%} intervals, 80 % power)",
        caption=f"thresholds: read {thresholds.read_frac:g}, leak {thresholds.leak_above_noise_frac:g} above noise. That a factor does not "
        f"leak takes {fewest_scenes_without_leak(thresholds)} scenes or more, even if no answer moves.",
    )
    table.add_column("factor")
    for column in ("read:\nscenes", "found as\nread from", "found as\nnot read to", "leak:\nquestions", "scenes", "noise\nscenes"):
        table.add_column(column, justify="right")
    for column in ("found as\nleak from", "no leak"):
        table.add_column(column, justify="right")
    for factor in factors:
        read = (f"{factor.num_read_scenes:,}", _or_never(factor.smallest_read), _or_never(factor.largest_unread))
        table.add_row(factor.factor, *(read if factor.asked else ("not asked", "", "")), *_leak_columns(factor.leaks))
    return table


def _leak_columns(leaks: Sequence[ResolvableLeak]) -> tuple[str, ...]:
    if not leaks:
        return "0", "", "", "not measured", "not measured"
    counts = (str(len(leaks)), f"{min(leak.num_scenes for leak in leaks):,}", f"{min(leak.num_noise_scenes for leak in leaks):,}")
    if not all(leak.num_noise_scenes for leak in leaks):
        return *counts, "not measured", "not measured"
    smallest = [leak.smallest for leak in leaks]
    worst = None if None in smallest else max(rate for rate in smallest if rate is not None)
    return *counts, _or_never(worst), "can be shown" if all(leak.none_possible for leak in leaks) else "too few scenes"


def _or_never(rate: float | None) -> str:
    return "never" if rate is None else f"{rate:.2f}"


def save_result(result: SurveyResult, out: Path, *, overwrite: bool, steps: Steps, csv: Path | None = None) -> None:
    """Prints the notices of a survey and writes it with its page, and its cells as CSV if a file is named: all of it, or no folder."""
    for notice in result.run.notices:
        steps.console.print(f"note: {notice}")
    with whole_folder(out, overwrite=overwrite) as folder:
        result.save(folder, overwrite=True, with_page=True)
        if csv is not None:
            write_whole(csv, cells_csv(result.record))
