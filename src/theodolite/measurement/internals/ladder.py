"""The readout ladder: probe accuracy of each factor at every step from the encoder to the spoken answer, and the step that loses it.

Definitions: the design of this project ("Readout ladder"). Probes and answers are evaluated on the same held-out pictures, so
neighbouring steps are compared picture by picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from theodolite.measurement.internals.activations import Activations
from theodolite.measurement.internals.context import MeasureContext
from theodolite.measurement.internals.control_task import draw_control
from theodolite.measurement.internals.position_probes import probe_positions
from theodolite.measurement.internals.probes import Probe, Task, assign_folds, probe
from theodolite.measurement.pairs.interventions import Labelled, known_levels, split_scenes
from theodolite.records.ladder import FactorLadder, Ladder, LadderThresholds, Loss, Pooling, PositionMap, Rung, Step
from theodolite.records.part import Estimate, Rate
from theodolite.stats.jackknife import DIGITS, rounded
from theodolite.stats.rates import clustered_rate, clustered_rates, paired_difference

ANSWER, SPOKEN = "answer", "spoken"
TOO_FEW = "a probe needs two scenes and two values or more among the training scenes, and as many among the held-out ones"


@dataclass(frozen=True, eq=False)
class Decoded:
    """Which held-out samples a step decodes correctly. `known` is false where the model was not asked; `by_pooling`: of pooled tokens."""

    site: str
    right: Float[np.ndarray, " test"]
    known: Bool[np.ndarray, " test"]
    probe: Probe | None = None
    pooling: Pooling | None = None
    by_pooling: Mapping[Pooling, Probe] | None = None


@dataclass(frozen=True, eq=False)
class HeldOutSamples:
    """The held-out samples of a factor: their scenes, the chance accuracy, and the thresholds of the summary."""

    scenes: Int[np.ndarray, " test"]
    chance_frac: float
    thresholds: LadderThresholds

    def rate(self, right: Float[np.ndarray, " test"], known: Bool[np.ndarray, " test"]) -> Rate:
        """Accuracy over the samples that are known, 0 to 1."""
        return clustered_rate(right[known], self.scenes[known], self.thresholds.confidence)

    def normalised(self, step: Decoded) -> Estimate:
        """(accuracy - chance) / (1 - chance): 0 at chance, 1 where always right."""
        rate = self.rate(step.right, step.known)
        accuracy = Estimate(value=rate.frac, low=rate.low, high=rate.high, num_scenes=rate.num_scenes)
        return _scaled(accuracy, self.chance_frac, 1 - self.chance_frac)

    def selectivity(self, step: Decoded) -> tuple[Rate | None, Estimate | None]:
        """Accuracy at the control task, and accuracy minus it, over the samples whose combination of other factors is in training.

        None without a control task, and where no combination is.
        """
        control = None if step.probe is None else step.probe.control
        if control is None or not (step.known & np.isfinite(control)).any():
            return None, None
        keep = step.known & np.isfinite(control)
        difference = paired_difference(control[keep], step.right[keep], self.scenes[keep], self.thresholds.confidence, (-1.0, 1.0))
        return self.rate(control, keep), rounded(difference)

    def drop(self, before: Decoded, after: Decoded, num_drops: int = 1) -> Estimate | None:
        """Normalised accuracy lost between two steps, over the samples known at both; None where there are none.

        The interval is one of `num_drops` that hold together (Bonferroni).
        """
        both = before.known & after.known
        if not both.any():
            return None
        level = 1 - (1 - self.thresholds.confidence) / num_drops
        difference = paired_difference(after.right[both], before.right[both], self.scenes[both], level, (-1.0, 1.0))
        return _scaled(difference, 0.0, 1 - self.chance_frac)

    def present(self, step: Decoded) -> bool | None:
        """Whether a step decodes the factor; None where the interval straddles the threshold."""
        accuracy = self.normalised(step)
        if accuracy.low is None or accuracy.high is None:
            return None
        if accuracy.low > self.thresholds.present_frac:
            return True
        return False if accuracy.high < self.thresholds.present_frac else None

    def lost(self, drop: Estimate | None) -> bool:
        """Whether a drop is a loss: its interval lies above the threshold."""
        return drop is not None and drop.low is not None and drop.low > self.thresholds.loss_frac


def _scaled(estimate: Estimate, offset: float, unit: float) -> Estimate:
    low, high = (None if end is None else (end - offset) / unit for end in (estimate.low, estimate.high))
    return rounded(Estimate(value=(estimate.value - offset) / unit, low=low, high=high, num_scenes=estimate.num_scenes))


def find_loss(steps: Sequence[Decoded], samples: HeldOutSamples) -> Loss:
    """The step at which a factor is lost, from its steps in the order of the model, the spoken answer last where there is one.

    Presence at the answer decides: vision tokens of late layers may drop a factor that the answer position has already read. Which drop
    is reported depends on the drops, so their intervals hold together: the error rate is divided among all drops that could be reported.
    Step words: `records.ladder.Loss`. Raises `ValueError` without a step before the spoken answer.
    """
    spoken = next((step for step in steps if step.site == SPOKEN), None)
    inside = [step for step in steps if step.site != SPOKEN]
    if not inside:
        raise ValueError("a ladder needs a step before the spoken answer")
    present = [samples.present(step) for step in inside]
    if spoken is not None and samples.present(spoken):
        return _loss("said")
    if present[-1]:
        return _loss("no words") if spoken is None else _between(inside[-1], spoken, samples, len(steps))
    if present[-1] is None:
        return _loss("undecided")
    if True not in present:
        return _loss("undecided" if None in present else "not perceived")
    last = len(present) - 1 - present[::-1].index(True)
    return _narrowest(inside[last : present.index(False, last) + 1], samples, len(steps))


def _loss(step: Step) -> Loss:
    return Loss(step=step, kept_at=None, lost_at=None, drop=None)


def _num_neighbours(num_steps: int) -> int:
    """Drops among which half of the error rate is divided: those between neighbours."""
    return 2 * (num_steps - 1)


def _num_spans(num_steps: int) -> int:
    """Drops among which the other half is divided: those between any two steps, of which the intervals of presence choose one."""
    return num_steps * (num_steps - 1)


def _between(last: Decoded, spoken: Decoded, samples: HeldOutSamples, num_steps: int) -> Loss:
    """The loss between the answer position, where the factor is present, and the spoken answer."""
    num_drops = _num_neighbours(num_steps)
    drop = samples.drop(last, spoken, num_drops)
    if samples.present(spoken) is None or not samples.lost(drop):
        return _loss("undecided")
    return Loss(step="not said", kept_at=last.site, lost_at=spoken.site, drop=drop, num_drops=num_drops)


def _narrowest(span: Sequence[Decoded], samples: HeldOutSamples, num_steps: int) -> Loss:
    """The largest loss between neighbours of a span from present to absent; the loss over the span where no neighbours have one."""
    num_drops = _num_neighbours(num_steps)
    neighbours = [(before, after, samples.drop(before, after, num_drops)) for before, after in pairwise(span)]
    losses = [each for each in neighbours if samples.lost(each[2])]
    if not losses:
        num_drops = _num_spans(num_steps)
        losses = [(span[0], span[-1], samples.drop(span[0], span[-1], num_drops))]
    before, after, drop = max(losses, key=lambda each: each[2].value if each[2] else 0.0)
    if not samples.lost(drop):
        return _loss("undecided")
    return Loss(step="not kept", kept_at=before.site, lost_at=after.site, drop=drop, num_drops=num_drops)


def decode_pooled(site: str, mean: Float[np.ndarray, "row dim"], largest: Float[np.ndarray, "row dim"], task: Task) -> Decoded:
    """A step at pooled vision tokens, with the pooling of the higher cross-validated accuracy (mean, if equal)."""
    probes: dict[Pooling, Probe] = {"mean": probe(mean, task), "max": probe(largest, task)}
    pooling: Pooling = "max" if probes["max"].folds_frac > probes["mean"].folds_frac else "mean"
    best = probes[pooling]
    return Decoded(site, best.right, np.ones(len(best.right), dtype=bool), best, pooling, probes)


def decode_single(site: str, vectors: Float[np.ndarray, "row dim"], task: Task) -> Decoded | None:
    """A step at one vector a picture, NaN where there is none; None where the pictures that have one cannot be probed."""
    present = np.isfinite(vectors).all(axis=1)
    part = task.take(present)
    if not part.can_be_probed:
        return None
    known = present[~task.training]
    fitted = probe(vectors[present], part)

    def spread(values: Float[np.ndarray, " present"]) -> Float[np.ndarray, " test"]:
        every = np.full(len(known), np.nan)
        every[known] = values
        return every

    control = None if fitted.control is None else spread(fitted.control)
    right = np.where(known, spread(fitted.right), 0.0)
    return Decoded(site, right, known, replace(fitted, right=right, control=control))


def decode_spoken(right: Mapping[int, bool], pictures: Int[np.ndarray, " test"]) -> Decoded | None:
    """The spoken step, from whether each picture was answered right; None where none of these pictures was asked about."""
    asked = np.array([int(picture) in right for picture in pictures], dtype=bool)
    answered = np.array([right.get(int(picture), False) for picture in pictures], dtype=float)
    return Decoded(SPOKEN, answered, asked) if asked.any() else None


def rung(step: Decoded, before: Decoded | None, samples: HeldOutSamples) -> Rung:
    """The record of a step, with its drop from the previous one."""

    def of(pooling: Pooling) -> Rate | None:
        return samples.rate(step.by_pooling[pooling].right, step.known) if step.by_pooling else None

    control, selectivity = samples.selectivity(step)
    return Rung(
        site=step.site,
        pooling=step.pooling,
        accuracy=samples.rate(step.right, step.known),
        mean=of("mean"),
        max=of("max"),
        control=control,
        selectivity=selectivity,
        normalised=samples.normalised(step),
        drop=samples.drop(before, step) if before else None,
        penalty=step.probe.penalty if step.probe else None,
    )


def map_positions(
    site: str,
    tokens: Float[np.ndarray, "row token channel"],
    cells: Int[np.ndarray, "token 2"] | None,
    task: Task,
    samples: HeldOutSamples,
    device: torch.device | str = "cpu",
) -> PositionMap:
    """Accuracy of one probe per token position, 0 to 1. All use the penalty selected for the mean over positions; there are no controls."""
    task = task.without_control()
    penalty = probe(tokens.mean(axis=1), task).penalty
    rates = clustered_rates(probe_positions(tokens, task, penalty, device), samples.scenes, samples.thresholds.confidence)
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
    """The readout ladder of every factor; None if there are no interventions. All factors share one split of scenes."""
    samples = {factor: interventions.labelled() for factor, interventions in context.interventions.items()}
    if not samples:
        return None
    scenes = np.unique(np.concatenate([each.scene for each in samples.values()]))
    training = scenes[split_scenes(scenes, context.rng("ladder split"))]
    thresholds = LadderThresholds(confidence=context.confidence)
    ladders: dict[str, FactorLadder] = {}
    left_out: dict[str, str] = {}
    values = known_levels(context.interventions, exact=context.plan.pair_kind == "exact")
    for number, (factor, labelled) in enumerate(samples.items()):
        context.progress(number, len(samples))
        rng = context.rng(f"ladder of {factor}")
        inside = np.isin(labelled.scene, training)
        task = Task(labelled.level, labelled.scene, inside, assign_folds(labelled.scene[inside], rng), len(labelled.values))
        if task.can_be_probed:
            others = {name: levels[labelled.picture] for name, levels in values.items() if name != factor}
            control = draw_control(others, task.levels, inside, task.num_levels, rng)
            ladders[factor] = _ladder_of(context, labelled, replace(task, control=control), thresholds)
        else:
            left_out[factor] = TOO_FEW
    context.progress(len(samples), len(samples))
    return Ladder(thresholds=thresholds, factors=ladders, left_out=left_out)


def _ladder_of(context: MeasureContext, labelled: Labelled, task: Task, thresholds: LadderThresholds) -> FactorLadder:
    activations, pictures, testing = context.activations, labelled.picture, ~task.training
    samples = HeldOutSamples(task.scenes[testing], task.chance_frac, thresholds)
    query = answer_query(_most_asked(activations, pictures), labelled.factor)
    steps = _probed(activations, query, pictures, task)
    spoken = context.spoken.get(labelled.factor)
    if spoken is not None:
        last = decode_spoken(dict(zip(spoken.picture.tolist(), spoken.right.tolist(), strict=True)), pictures[testing])
        steps += [last] if last else []
    return FactorLadder(
        chance_frac=task.chance_frac,
        num_training_scenes=len(np.unique(task.scenes[task.training])),
        control_factors=() if task.control is None else task.control.factors,
        num_combinations=None if task.control is None else task.control.num_combinations,
        answer_query=query if any(step.site == ANSWER for step in steps) else None,
        rungs=tuple(rung(step, before, samples) for before, step in zip([None, *steps[:-1]], steps, strict=True)),
        positions=_maps(activations, pictures, task, thresholds, context.asker.base.device),
        loss=find_loss(steps, samples),
    )


def _maps(
    activations: Activations, pictures: Int[np.ndarray, " row"], task: Task, thresholds: LadderThresholds, device: torch.device
) -> tuple[PositionMap, ...]:
    """Maps over the pictures with stored tokens; none where these are too few to be probed."""
    stored = pictures < activations.num_tokened
    pictures, task = pictures[stored], task.take(stored)
    if not task.can_be_probed:
        return ()
    samples = HeldOutSamples(task.scenes[~task.training], task.chance_frac, thresholds)
    sites, cells = activations.token_sites, activations.cells
    return tuple(map_positions(site, activations.tokens(site)[pictures], cells, task, samples, device) for site in sites)


def answer_query(queries: Sequence[str], factor: str) -> str | None:
    """The open query whose answer position a factor is probed at: its own, else the first; None where none was asked."""
    return factor if factor in queries else next(iter(queries), None)


def _most_asked(activations: Activations, pictures: Int[np.ndarray, " row"]) -> list[str]:
    """The queries asked of some of these pictures, those asked of most first."""
    asked = {query: int((activations.chosen(query)[pictures] >= 0).sum()) for query in activations.queries}
    return sorted((query for query in asked if asked[query]), key=lambda query: -asked[query])


def _probed(activations: Activations, query: str | None, pictures: Int[np.ndarray, " row"], task: Task) -> list[Decoded]:
    steps = [decode_pooled(site, activations.mean(site)[pictures], activations.largest(site)[pictures], task) for site in activations.sites]
    answer = None if query is None else decode_single(ANSWER, activations.answer(query)[pictures], task)
    return steps if answer is None else [*steps, answer]
