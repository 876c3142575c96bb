"""What a survey is to ask about: a world, a gallery, or a file of pairs, as the command line names it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from theodolite.measurement.survey.session import SurveyedModel, SurveyOptions, SurveyResult, ask_gallery, ask_world
from theodolite.records.errors import BadInput
from theodolite.records.training import TrainingRecord
from theodolite.worlds.gallery import Gallery
from theodolite.worlds.manifest.read import fault_lines, read_manifest
from theodolite.worlds.query import Policy
from theodolite.worlds.registry import gallery_named, is_gallery, world_named
from theodolite.worlds.world import World

NUM_SCENES = 200
SEED = 0
Surveying = Callable[[SurveyedModel, SurveyOptions], SurveyResult]
Say = Callable[[str], None]


@dataclass(frozen=True)
class SurveyTarget:
    """What was said of the pairs: a world or a gallery by name, or a file; None is what nobody said."""

    world: str | None = None
    pairs: Path | None = None
    ask: str | None = None
    strength: float | None = None
    num_scenes: int | None = None
    seed: int | None = None

    def refuse(self, why: str, *names: str) -> None:
        """Raises `BadInput` if some of these were said, which mean nothing here."""
        flags = {"ask": "--ask", "strength": "--strength", "num_scenes": "--scenes", "seed": "--seed"}
        if idle := [flags[name] for name in names if getattr(self, name) is not None]:
            raise BadInput(f"{', '.join(idle)}: {why}, so leave them out")


def surveying(matter: SurveyTarget, title: str, trained: TrainingRecord | None, say: Say) -> Surveying:
    """What to do with whoever is surveyed; everything that can be wrong without them is refused here. Raises `BadInput`.

    A world without a number of scenes and a seed has 200 and 0. Rows of a file that cannot be used are said, and the rest is surveyed.
    """
    if (matter.world is None) == (matter.pairs is None):
        raise BadInput("give either --world or --pairs: where the counterfactual pairs come from")
    if matter.pairs is not None:
        matter.refuse("of a world only; a file of pairs brings its own questions and scenes", "ask", "strength", "num_scenes", "seed")
        manifest = read_manifest(matter.pairs)
        for line in fault_lines(manifest.faults):
            say(line)
        return _of_gallery(manifest.gallery, title, SEED, trained)
    name, seed = str(matter.world), SEED if matter.seed is None else matter.seed
    if is_gallery(name):
        matter.refuse("of a world that is drawn only; a gallery brings its own questions", "ask", "strength")
        return _of_gallery(gallery_named(name, matter.num_scenes, seed), title, seed, trained)
    world, policy = _setting(name, matter.ask, matter.strength, trained)
    scenes = NUM_SCENES if matter.num_scenes is None else matter.num_scenes
    facts = trained.facts if trained else None

    def survey(candidate: SurveyedModel, way: SurveyOptions) -> SurveyResult:
        return ask_world(candidate, world, policy, title=title, num_scenes=scenes, seed=seed, training=facts, way=way)

    return survey


def _of_gallery(gallery: Gallery, title: str, seed: int, trained: TrainingRecord | None) -> Surveying:
    facts = trained.facts if trained else None

    def survey(candidate: SurveyedModel, way: SurveyOptions) -> SurveyResult:
        return ask_gallery(candidate, gallery, title=title, seed=seed, training=facts, way=way)

    return survey


def _setting(name: str, ask: str | None, strength: float | None, trained: TrainingRecord | None) -> tuple[World, Policy]:
    """World and policy to judge a model by: as said, else as it was trained, else independent and all open questions."""
    known = trained if trained is not None and trained.setup.world == name else None
    rho = strength if strength is not None else (known.setup.strength if known else 0.0)
    world = world_named(name, rho, known.setup.correlation if known else None)
    text = ask or (known.setup.policy if known else ",".join(query.name for query in world.queries if query.form == "open"))
    return world, world.policy(text)
