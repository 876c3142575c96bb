"""The table of measures inside a model: function and cost of each. A new measure is one entry."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any

from theodolite.measurement.internals import allocation, causal, fisher, words
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
from theodolite.measurement.internals.stored import StoredMeasures
from theodolite.measurement.internals.words import measure_words
from theodolite.measurement.pairs.interventions import TRAIN_FRAC
from theodolite.models.taps import layer_sites
from theodolite.records.errors import BadInput, UnknownName
from theodolite.records.inside import Inside
from theodolite.records.progress import ProgressSteps

CAPTURE = "capture"


@dataclass(frozen=True)
class Measure:
    """One measure inside a model: `run` computes it, `cost` states its cost for a context in words.

    `captures`: it reads the activations of one pass over all pictures, which all such measures share.
    """

    run: Callable[[MeasureContext], Any]
    cost: Callable[[MeasureContext], str]
    captures: bool = True


def _vectors(context: MeasureContext) -> str:
    return f"no pass of its own; arithmetic on the vectors of {len(context.pictures):,} pictures"


def _num_queries(context: MeasureContext) -> int:
    return open_rows(context.rows)["name"].n_unique()


def _num_scenes(context: MeasureContext, most: int, frac: float = 1.0) -> int:
    """Number of scenes that a measure uses: a share of all, at most its limit."""
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
    patched = _num_scenes(context, causal.PATCH_SCENES, held_out) * causal.NUM_PATCHES * sites
    erased = _num_scenes(context, causal.ERASE_SCENES, held_out) * 4 * sites
    asked = len(context.interventions) * (patched + erased) * min(queries, 1 + causal.NUM_OTHERS)
    return f"about {asked + 2 * _num_scenes(context, causal.TOKEN_SCENES) * sites * queries:,} questions asked again"


def _words(context: MeasureContext) -> str:
    pictures, _ = words.word_pictures(context.interventions)
    return f"one pass over {len(pictures):,} pictures, whose vision tokens are compared with vocabulary and text at every layer"


MEASURES: Mapping[str, Measure] = {
    "ladder": Measure(measure_ladder, _vectors),
    "likeness": Measure(measure_likeness, _vectors),
    "allocation": Measure(measure_allocation, _allocation, captures=False),
    "geometry": Measure(measure_geometry, _vectors),
    "fisher": Measure(measure_fisher, _fisher, captures=False),
    "causal": Measure(measure_causal, _causal),
    "gap": Measure(measure_gap, _vectors),
    "identifiability": Measure(measure_identifiability, _vectors),
    "words": Measure(measure_words, _words, captures=False),
}


def measures_named(text: str) -> tuple[str, ...]:
    """The measures of a list such as "ladder,causal", of "all", or of "shadows" (no measure inside the model). Raises `UnknownName`."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise BadInput("no measure is named; give a list such as ladder,causal, or all, or shadows for the answers alone")
    options = (*MEASURES, "all", "shadows")
    for name in names:
        if name not in options:
            raise UnknownName("measure", name, options)
    return tuple(name for name in MEASURES if name in names or "all" in names)


def look_inside(
    context: MeasureContext, measures: Sequence[str], steps: ProgressSteps, stored: StoredMeasures | None = None
) -> tuple[Inside, dict[str, float]]:
    """Results of these measures, and seconds by measure; the shared pass is listed separately, as "capture".

    Measures that are in `stored` are not computed; each of the others is stored when it is finished.
    """
    known = {} if stored is None else stored.read(measures)
    results = {name: result for name, (result, _) in known.items()}
    for _, shown in known.values():
        context.shown_pictures |= shown
    seconds: dict[str, float] = {}
    with context.asker.keeping_features():
        _run(context, [name for name in measures if name not in results], steps, stored, results, seconds)
    scenes = {scene for each in context.interventions.values() for scene in each.scene.tolist()}
    return Inside(measures=tuple(measures), num_scenes=len(scenes), num_pictures=len(context.pictures), **results), seconds


def _run(
    context: MeasureContext,
    measures: Sequence[str],
    steps: ProgressSteps,
    stored: StoredMeasures | None,
    results: dict[str, Any],
    seconds: dict[str, float],
) -> None:
    """Adds the measures' results and seconds, and those of the shared pass."""
    if any(MEASURES[name].captures for name in measures) and len(context.pictures):
        number = sum(len(context.questions[int(picture)]) for picture in context.pictures)
        cost = f"one pass over {len(context.pictures):,} pictures, {number:,} questions in all"
        with _timed(CAPTURE, seconds), steps(CAPTURE, cost) as context.progress:
            context.activations  # noqa: B018  captured when first read
    for name in measures:
        before = set(context.shown_pictures)
        with _timed(name, seconds), steps(name, MEASURES[name].cost(context)) as context.progress:
            results[name] = MEASURES[name].run(context)
        if stored is not None:
            stored.write(name, results[name], {each: context.shown_pictures[each] for each in context.shown_pictures.keys() - before})


@contextmanager
def _timed(name: str, seconds: dict[str, float]) -> Iterator[None]:
    before = monotonic()
    yield
    seconds[name] = monotonic() - before
