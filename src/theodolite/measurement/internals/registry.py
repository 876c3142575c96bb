"""The table of measures: what each is, what it costs, and how it is run. A new measure is one entry."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any

from theodolite.measurement.internals import allocation, causal, fisher
from theodolite.measurement.internals.allocation import measure_allocation
from theodolite.measurement.internals.causal import measure_causal
from theodolite.measurement.internals.context import MeasureContext
from theodolite.measurement.internals.fisher import measure_fisher
from theodolite.measurement.internals.gap import measure_gap
from theodolite.measurement.internals.geometry import measure_geometry
from theodolite.measurement.internals.identifiability import measure_identifiability
from theodolite.measurement.internals.ladder import measure_ladder
from theodolite.measurement.internals.likeness import measure_likeness
from theodolite.measurement.internals.reask import inner_layers, open_rows
from theodolite.measurement.pairs.interventions import TRAIN_FRAC
from theodolite.models.taps import layer_sites
from theodolite.records.errors import BadInput, UnknownName
from theodolite.records.inside import Inside
from theodolite.records.progress import ProgressSteps

CAPTURE = "capture"


@dataclass(frozen=True)
class Measure:
    """One measure of the inside of a model: a line on what it is, its function, and its cost in words, given what it is run on.

    `captures`: it reads the vectors that one pass over all pictures leaves, and so do all others that do.
    """

    what: str
    run: Callable[[MeasureContext], Any]
    cost: Callable[[MeasureContext], str]
    captures: bool = True


def _vectors(context: MeasureContext) -> str:
    return f"no pass of its own; arithmetic on the vectors of {len(context.pictures):,} pictures"


def _num_queries(context: MeasureContext) -> int:
    return open_rows(context.rows)["name"].n_unique()


def _num_scenes(context: MeasureContext, most: int, frac: float = 1.0) -> int:
    """Scenes that a measure with a limit of its own uses, of a share of all."""
    return min(most, round(frac * open_rows(context.rows)["scene"].n_unique()))


def _allocation(context: MeasureContext) -> str:
    return f"one pass over {_num_scenes(context, allocation.NUM_SCENES)} pictures with the eager back end"


def _fisher(context: MeasureContext) -> str:
    rows = open_rows(context.rows)
    choices = 0 if rows.is_empty() else int(rows["choices"].list.len().mean())  # type: ignore[arg-type]
    return f"about {_num_scenes(context, fisher.NUM_SCENES) * _num_queries(context) * choices:,} backward passes"


def _causal(context: MeasureContext) -> str:
    sites = 1 + len(inner_layers(layer_sites(context.model)))
    queries, held_out = _num_queries(context), 1 - TRAIN_FRAC
    patched = _num_scenes(context, causal.PATCH_SCENES, held_out) * 3 * sites
    erased = _num_scenes(context, causal.ERASE_SCENES, held_out) * 4 * sites
    asked = len(context.changes) * (patched + erased) * min(queries, 1 + causal.NUM_OTHERS)
    return f"about {asked + 2 * _num_scenes(context, causal.TOKEN_SCENES) * sites * queries:,} questions asked anew"


MEASURES: Mapping[str, Measure] = {
    "ladder": Measure("where each factor can be told by a linear probe, and where it is lost", measure_ladder, _vectors),
    "likeness": Measure("how alike a picture's vision tokens are, by layer", measure_likeness, _vectors),
    "allocation": Measure("attention from text to vision tokens, by layer and head", measure_allocation, _allocation, captures=False),
    "geometry": Measure("directions of factors, and how they stand to each other", measure_geometry, _vectors),
    "fisher": Measure("what directions of the connector's output answers feel", measure_fisher, _fisher, captures=False),
    "causal": Measure("how far answers move when vision tokens are patched, erased or mixed", measure_causal, _causal),
    "gap": Measure("the geometric gap between vision and text tokens, by layer", measure_gap, _vectors),
    "identifiability": Measure("how far vision tokens are the factors up to simple maps", measure_identifiability, _vectors),
}


def measures_named(text: str) -> tuple[str, ...]:
    """The measures of a list such as "ladder,causal", of "all", or of "shadows" (none of the inside). Raises `UnknownName`."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise BadInput("no measure is named; give a list such as ladder,causal, or all, or shadows for the answers alone")
    known = (*MEASURES, "all", "shadows")
    for name in names:
        if name not in known:
            raise UnknownName("measure", name, known)
    return tuple(name for name in MEASURES if name in names or "all" in names)


def look_inside(context: MeasureContext, measures: Sequence[str], steps: ProgressSteps) -> tuple[Inside, dict[str, float]]:
    """What these measures find, and the seconds that each took, the pass that they share apart."""
    found: dict[str, Any] = {}
    seconds: dict[str, float] = {}
    if any(MEASURES[name].captures for name in measures) and len(context.pictures):
        cost = f"one pass over {len(context.pictures):,} pictures, {len(context.questions)} questions each"
        with _timed(CAPTURE, seconds), steps(CAPTURE, cost) as context.progress:
            context.activations  # noqa: B018  captured when first read
    for name in measures:
        with _timed(name, seconds), steps(name, MEASURES[name].cost(context)) as context.progress:
            found[name] = MEASURES[name].run(context)
    scenes = {scene for changes in context.changes.values() for scene in changes.scene.tolist()}
    return Inside(measures=tuple(measures), num_scenes=len(scenes), num_pictures=len(context.pictures), **found), seconds


@contextmanager
def _timed(name: str, seconds: dict[str, float]) -> Iterator[None]:
    before = monotonic()
    yield
    seconds[name] = monotonic() - before
