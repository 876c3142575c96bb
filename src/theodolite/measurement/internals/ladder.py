"""The readout ladder: how well each factor can be told at every step from the encoder to the spoken answer, and where it is lost.

Definitions: the design of this project ("Readout ladder"). Probes and words are read on the same held-out pictures, so neighbouring
steps are compared picture by picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float, Int

from theodolite.measurement.internals.activations import Activations
from theodolite.measurement.internals.context import MeasureContext
from theodolite.measurement.internals.probes import Probe, Task, deal, probe
from theodolite.measurement.pairs.interventions import Labelled, split_scenes
from theodolite.records.ladder import FactorLadder, Ladder, LadderThresholds, Loss, Pooling, PositionMap, Rung, Step
from theodolite.records.part import Estimate, Rate
from theodolite.stats.jackknife import DIGITS, rounded
from theodolite.stats.rates import clustered_rate, paired_difference

ANSWER, SPOKEN = "answer", "spoken"
TOO_FEW = "a probe needs two scenes and two values or more among the training scenes, and as many among the held-out ones"


@dataclass(frozen=True, eq=False)
class Decoded:
    """What one step got right of the held-out samples. `known` is false where nobody asked; probes by pooling where tokens were pooled."""

    site: str
    right: Float[np.ndarray, " test"]
    known: Bool[np.ndarray, " test"]
    probe: Probe | None = None
    pooling: Pooling | None = None
    by_pooling: Mapping[Pooling, Probe] | None = None


@dataclass(frozen=True, eq=False)
class HeldOutSamples:
    """The held-out samples of a factor: their scenes, the accuracy of chance, and the lines of the summary."""

    scenes: Int[np.ndarray, " test"]
    chance_frac: float
    thresholds: LadderThresholds

    def rate(self, right: Float[np.ndarray, " test"], known: Bool[np.ndarray, " test"]) -> Rate:
        """Accuracy over the samples that are known, 0 to 1."""
        return clustered_rate(right[known], self.scenes[known], self.thresholds.confidence)

    def normalised(self, told: Decoded) -> Estimate:
        """(accuracy - chance) / (1 - chance): 0 at chance, 1 where always right."""
        rate = self.rate(told.right, told.known)
        found = Estimate(value=rate.frac, low=rate.low, high=rate.high, num_scenes=rate.num_scenes)
        return _scaled(found, self.chance_frac, 1 - self.chance_frac)

    def drop(self, before: Decoded, after: Decoded) -> Estimate | None:
        """Normalised accuracy lost between two steps, over the samples that both know; None where there are none."""
        both = before.known & after.known
        if not both.any():
            return None
        found = paired_difference(after.right[both], before.right[both], self.scenes[both], self.thresholds.confidence, (-1.0, 1.0))
        return _scaled(found, 0.0, 1 - self.chance_frac)

    def present(self, told: Decoded) -> bool | None:
        """Whether a factor is there at a step; None where the interval straddles the threshold."""
        found = self.normalised(told)
        if found.low is None or found.high is None:
            return None
        if found.low > self.thresholds.present_frac:
            return True
        return False if found.high < self.thresholds.present_frac else None

    def lost(self, drop: Estimate | None) -> bool:
        """Whether a drop is a loss: its whole interval lies above the threshold."""
        return drop is not None and drop.low is not None and drop.low > self.thresholds.loss_frac


def _scaled(found: Estimate, offset: float, unit: float) -> Estimate:
    low, high = (None if end is None else (end - offset) / unit for end in (found.low, found.high))
    return rounded(Estimate(value=(found.value - offset) / unit, low=low, high=high, num_scenes=found.num_scenes))


def find_loss(steps: Sequence[Decoded], held: HeldOutSamples) -> Loss:
    """Where a factor is lost, from its steps in the order of the model, the spoken answer last where it can be asked.

    What counts is what reaches the answer: vision tokens of late layers may drop a factor that the answer position has read before.
    Words: `records.ladder.Loss`. Raises `ValueError` without any step before the words.
    """
    spoken = next((told for told in steps if told.site == SPOKEN), None)
    inside = [told for told in steps if told.site != SPOKEN]
    if not inside:
        raise ValueError("a ladder needs a step before the spoken answer")
    there = [held.present(told) for told in inside]
    if spoken is not None and held.present(spoken):
        return _loss("said")
    if there[-1]:
        return _loss("no words") if spoken is None else _between(inside[-1], spoken, held)
    if there[-1] is None:
        return _loss("undecided")
    if True not in there:
        return _loss("undecided" if None in there else "not perceived")
    kept = len(there) - 1 - there[::-1].index(True)
    lost = there.index(False, kept)
    return _narrowest(inside[kept : lost + 1], held)


def _loss(step: Step) -> Loss:
    return Loss(step=step, kept_at=None, lost_at=None, drop=None)


def _between(last: Decoded, spoken: Decoded, held: HeldOutSamples) -> Loss:
    """A factor that is there at the answer position, against the words."""
    drop = held.drop(last, spoken)
    if held.present(spoken) is None or not held.lost(drop):
        return _loss("undecided")
    return Loss(step="not said", kept_at=last.site, lost_at=spoken.site, drop=drop)


def _narrowest(span: Sequence[Decoded], held: HeldOutSamples) -> Loss:
    """From a step where a factor is there to one where it is not: the largest loss of neighbours; where it fades bit by bit, the whole."""
    neighbours = [(before, after, held.drop(before, after)) for before, after in pairwise(span)]
    losses = [each for each in neighbours if held.lost(each[2])] or [(span[0], span[-1], held.drop(span[0], span[-1]))]
    before, after, drop = max(losses, key=lambda each: each[2].value if each[2] else 0.0)
    if not held.lost(drop):
        return _loss("undecided")
    return Loss(step="not kept", kept_at=before.site, lost_at=after.site, drop=drop)


def tell_pooled(
    site: str, mean: Float[np.ndarray, "row dim"], largest: Float[np.ndarray, "row dim"], task: Task, rng: np.random.Generator
) -> Decoded:
    """A step at pooled vision tokens: the pooling that tells more of left-out training scenes (the mean of equals)."""
    probes: dict[Pooling, Probe] = {"mean": probe(mean, task, rng), "max": probe(largest, task, rng)}
    pooling: Pooling = "max" if probes["max"].folds_frac > probes["mean"].folds_frac else "mean"
    best = probes[pooling]
    return Decoded(site, best.right, np.ones(len(best.right), dtype=bool), best, pooling, probes)


def tell_single(site: str, vectors: Float[np.ndarray, "row dim"], task: Task, rng: np.random.Generator) -> Decoded:
    """A step at one vector a picture."""
    found = probe(vectors, task, rng)
    return Decoded(site, found.right, np.ones(len(found.right), dtype=bool), found)


def tell_spoken(said: Mapping[int, int], pictures: Int[np.ndarray, " test"], levels: Int[np.ndarray, " test"]) -> Decoded | None:
    """The step of the words: what was said of each picture (-1: something else); None where none of these pictures was asked about."""
    known = np.array([int(picture) in said for picture in pictures], dtype=bool)
    words = np.array([said.get(int(picture), -1) for picture in pictures])
    return Decoded(SPOKEN, (words == levels).astype(float), known) if known.any() else None


def rung(told: Decoded, before: Decoded | None, held: HeldOutSamples) -> Rung:
    """The record of a step, with its drop since the one before."""

    def of(pooling: Pooling) -> Rate | None:
        return held.rate(told.by_pooling[pooling].right, told.known) if told.by_pooling else None

    control = told.probe.control if told.probe else None
    selectivity = None
    if control is not None:
        selectivity = rounded(paired_difference(control, told.right, held.scenes, held.thresholds.confidence, (-1.0, 1.0)))
    return Rung(
        site=told.site,
        pooling=told.pooling,
        accuracy=held.rate(told.right, told.known),
        mean=of("mean"),
        max=of("max"),
        control=held.rate(control, told.known) if control is not None else None,
        selectivity=selectivity,
        normalised=held.normalised(told),
        drop=held.drop(before, told) if before else None,
        penalty=told.probe.penalty if told.probe else None,
    )


def map_positions(
    site: str, tokens: Float[np.ndarray, "row token channel"], cells: Int[np.ndarray, "token 2"] | None, task: Task, held: HeldOutSamples
) -> PositionMap:
    """Accuracy of one probe a position, 0 to 1. They share the penalty that suits the mean over positions; there are no controls."""
    rng = np.random.default_rng(0)  # never drawn from: only controls are random
    penalty = probe(tokens.mean(axis=1), task, rng, num_controls=0).penalty
    every = np.ones(len(held.scenes), dtype=bool)
    rates = [
        held.rate(probe(tokens[:, token], task, rng, num_controls=0, penalties=(penalty,)).right, every) for token in range(tokens.shape[1])
    ]
    return PositionMap(
        site=site,
        num_pictures=len(tokens),
        cells=None if cells is None else tuple((int(row), int(column)) for row, column in cells),
        accuracy_frac=tuple(round(rate.frac, DIGITS) for rate in rates),
        low=tuple(rate.low if rate.low is None else round(rate.low, DIGITS) for rate in rates),
        high=tuple(rate.high if rate.high is None else round(rate.high, DIGITS) for rate in rates),
        penalty=penalty,
    )


def measure_ladder(context: MeasureContext) -> Ladder | None:
    """The readout ladder of every factor of a subject; None if it has no factors. One split of scenes serves all of them."""
    samples = {factor: changes.labelled() for factor, changes in context.changes.items()}
    if not samples:
        return None
    scenes = np.unique(np.concatenate([each.scene for each in samples.values()]))
    training = scenes[split_scenes(scenes, context.rng("ladder split"))]
    thresholds = LadderThresholds(confidence=context.confidence)
    found: dict[str, FactorLadder] = {}
    left_out: dict[str, str] = {}
    for number, (factor, labelled) in enumerate(samples.items()):
        context.progress(number, len(samples))
        rng = context.rng(f"ladder of {factor}")
        inside = np.isin(labelled.scene, training)
        task = Task(labelled.level, labelled.scene, inside, deal(labelled.scene[inside], rng), len(labelled.values))
        if task.can_be_probed:
            found[factor] = _ladder_of(context, labelled, task, thresholds, rng)
        else:
            left_out[factor] = TOO_FEW
    context.progress(len(samples), len(samples))
    return Ladder(thresholds=thresholds, factors=found, left_out=left_out)


def _ladder_of(
    context: MeasureContext, labelled: Labelled, task: Task, thresholds: LadderThresholds, rng: np.random.Generator
) -> FactorLadder:
    activations, pictures, out = context.activations, labelled.picture, ~task.training
    held = HeldOutSamples(task.scenes[out], task.chance_frac, thresholds)
    query = answer_query(activations.queries, labelled.factor)
    steps = _probed(activations, query, pictures, task, rng)
    spoken = context.spoken.get(labelled.factor)
    if spoken is not None:
        said = dict(zip(spoken.picture.tolist(), spoken.level.tolist(), strict=True))
        words = tell_spoken(said, pictures[out], task.levels[out])
        steps += [words] if words else []
    return FactorLadder(
        chance_frac=task.chance_frac,
        num_training_scenes=len(np.unique(task.scenes[task.training])),
        answer_query=query,
        rungs=tuple(rung(told, before, held) for before, told in zip([None, *steps[:-1]], steps, strict=True)),
        positions=_maps(activations, pictures, task, thresholds),
        loss=find_loss(steps, held),
    )


def _maps(activations: Activations, pictures: Int[np.ndarray, " row"], task: Task, thresholds: LadderThresholds) -> tuple[PositionMap, ...]:
    """Over the pictures whose tokens were kept; none where these are too few to be probed."""
    kept = pictures < activations.num_tokened
    some = task.take(kept)
    if not some.can_be_probed:
        return ()
    held = HeldOutSamples(some.scenes[~some.training], some.chance_frac, thresholds)
    places = pictures[kept]
    return tuple(map_positions(site, activations.tokens(site)[places], activations.cells, some, held) for site in activations.token_sites)


def answer_query(queries: Sequence[str], factor: str) -> str | None:
    """The open query at whose answer position a factor is read: its own, else the first; None where none was captured."""
    return factor if factor in queries else next(iter(queries), None)


def _probed(
    activations: Activations, query: str | None, pictures: Int[np.ndarray, " row"], task: Task, rng: np.random.Generator
) -> list[Decoded]:
    steps = [
        tell_pooled(site, activations.mean(site)[pictures], activations.largest(site)[pictures], task, rng) for site in activations.sites
    ]
    if query is not None:
        steps.append(tell_single(ANSWER, activations.answer(query)[pictures], task, rng))
    return steps
