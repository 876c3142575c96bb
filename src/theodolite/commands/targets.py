"""What a survey asks about, as the command line names it: a world, a gallery, or a file of pairs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from theodolite.measurement.survey.options import SurveyOptions
from theodolite.measurement.survey.targets import GalleryTarget, SurveyTarget, WorldTarget
from theodolite.records.errors import BadInput
from theodolite.records.training import TrainingRecord
from theodolite.worlds.manifest.faults import fault_lines
from theodolite.worlds.manifest.read import read_manifest
from theodolite.worlds.registry import gallery_named, is_gallery, world_named


@dataclass(frozen=True)
class TargetArguments:
    """The arguments that name a survey's pairs: a world or a gallery, or a file. None means not given."""

    world: str | None = None
    pairs: Path | None = None
    ask: str | None = None
    strength: float | None = None
    num_scenes: int | None = None
    seed: int | None = None

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
