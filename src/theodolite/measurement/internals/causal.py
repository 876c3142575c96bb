"""Causal effects on answers of patching, erasing, shuffling and averaging vision tokens, to be read beside the similarity measures.

Work is bounded: the first scenes in order, up to the numbers below, which the record contains.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from theodolite.asking.local import Edit
from theodolite.measurement.internals.context import MeasureContext
from theodolite.measurement.internals.directions import factor_basis
from theodolite.measurement.internals.erasing import SHRINKAGE, Eraser, fit_erasers, paired_labels, random_labels
from theodolite.measurement.internals.leftover import probe_erased
from theodolite.measurement.internals.patching import Basis, Change, Patcher, random_directions, responses, shuffled_basis
from theodolite.measurement.internals.probes import Task, assign_folds
from theodolite.measurement.internals.reask import (
    ModelAnswers,
    answered_rows,
    answers_in,
    ask_under_edits,
    cases_of,
    first_pictures,
    inner_layers,
    of_scenes,
    open_rows,
    truth_in,
    with_others,
)
from theodolite.measurement.pairs.interventions import Interventions, split_scenes
from theodolite.models.taps import layer_sites
from theodolite.records.causal import Causal, Disturbance, Erased, ErasedProbe, Erasure, Patch, SiteDisturbance
from theodolite.records.part import Estimate, Rate
from theodolite.records.progress import Progress
from theodolite.stats.jackknife import rounded
from theodolite.stats.rates import clustered_mean, clustered_rate, paired_difference

PATCH_SCENES = 40
ERASE_SCENES = 40
FIT_SCENES = 80
TOKEN_SCENES = 100
NUM_PATCHES = 5  # at a site: the factor's part, the whole, and three controls
NUM_OTHERS = 2  # questions about other factors per scene, in rotation


def measure_causal(context: MeasureContext, shrinkage: bool = SHRINKAGE) -> Causal | None:
    """Patch and erase of each factor, shuffle and mean, under the survey's open questions; None where none is answered.

    Factors that no question asks for are included: answers that change with them are shadows. `shrinkage` is that of the covariance in
    LEACE.
    """
    rows = answered_rows(open_rows(context.rows))
    factors = [factor for factor in context.interventions if not rows.filter(pl.col("factor") == factor).is_empty()]
    if not factors:
        return None
    sites = ("connector", *inner_layers(layer_sites(context.model)))
    # Features that bypass the connector (deepstack) have their own directions; a subspace of the connector's tokens does not cover them.
    past = context.asker.encode_pictures(context.plan.pictures[:1]).past
    inner = sites[1:] if past else sites
    counter = StepCounter(context.progress, len(factors) * (NUM_PATCHES * len(inner) + 1 + 2 * len(inner)) + 2 * len(sites))
    patches, erasures = [], []
    for factor in factors:
        split = HeldOut.of(context, factor, rows)
        if split is not None:
            patches += _patch(context, split, inner, counter)
            erasures += _erase(context, split, inner, counter, shrinkage)
    shuffle, mean = _disturb(context, rows, sites, counter)
    return Causal(
        sites=sites,
        subspace_sites=inner,
        num_patch_scenes=PATCH_SCENES,
        num_erase_scenes=ERASE_SCENES,
        num_fit_scenes=FIT_SCENES,
        num_token_scenes=TOKEN_SCENES,
        num_others=NUM_OTHERS,
        shrinkage=shrinkage,
        patch=tuple(patches),
        erase=tuple(erasures),
        shuffle=shuffle,
        mean=mean,
    )


@dataclass
class StepCounter:
    """Counts steps (of unequal cost), one for each site, factor and edit."""

    progress: Progress
    total: int
    done: int = field(default=0)

    def step(self, number: int = 1) -> None:
        self.done += number
        self.progress(self.done, self.total)


@dataclass(frozen=True, eq=False)
class HeldOut:
    """The interventions on a factor, split: those for fitting, and the held-out scenes' rows with open questions, sorted by scene."""

    factor: str
    training: Interventions
    rows: pl.DataFrame

    @staticmethod
    def of(context: MeasureContext, factor: str, rows: pl.DataFrame) -> HeldOut | None:
        """Split by scene; None where a side is empty."""
        interventions = context.interventions[factor]
        training = split_scenes(interventions.scene, context.rng(f"causal {factor}"))
        held_out = of_scenes(rows.filter(pl.col("factor") == factor), np.unique(interventions.scene[~training]))
        if not training.any() or held_out.is_empty():
            return None
        return HeldOut(factor, interventions.take(training), held_out.sort("scene", maintain_order=True))

    def first(self, num_scenes: int) -> pl.DataFrame:
        """The rows of the first held-out scenes that ask for the factor (of all, if none does), with a few other questions."""
        about = self.rows.filter(pl.col("query") == self.factor)
        scenes = (self.rows if about.is_empty() else about)["scene"].unique().sort().head(num_scenes)
        return with_others(of_scenes(self.rows, scenes.to_numpy()), self.factor, NUM_OTHERS)


def _patch(context: MeasureContext, split: HeldOut, sites: tuple[str, ...], counter: StepCounter) -> list[Patch]:
    rows, rng = split.first(PATCH_SCENES), context.rng(f"patch {split.factor}")
    cases = cases_of(rows, "before", apart=context.asker.sharing == "nothing")
    bases = {site: factor_basis(split.training, context.activations.mean(site)) for site in sites}
    other = _other_factor(context, split, rows)
    changes = {site: _changes(context, split, other, site, bases[site], len(cases.before), rng) for site in sites}
    answers = Patcher(context.asker, context.plan.pictures).answers(cases, changes)
    counter.step(NUM_PATCHES * len(sites))
    before, after = answers_in(rows, "before"), answers_in(rows, "after")
    scenes, about = rows["scene"].to_numpy(), _by_query(rows)
    own = (rows["query"] == split.factor).to_numpy()
    patches = []
    for site in sites:
        moved = {name: (answers[site, name].chosen != before.chosen).astype(np.float64) for name in changes[site]}
        named = {name: responses(answers[site, name], before, after, own, scenes, context.confidence) for name in changes[site]}
        by_query = {query: clustered_rate(moved["subspace"][keep], scenes[keep], context.confidence) for query, keep in about.items()}
        asked = about.get(other or "") if "other" in moved else None
        patches.append(
            Patch(
                site=site,
                factor=split.factor,
                rank=bases[site].shape[1],
                by_query=by_query,
                subspace=named["subspace"],
                whole=named["whole"],
                random_direction=named["random"],
                shuffled_direction=named["shuffled"],
                other_direction=named.get("other"),
                other_factor=other if "other" in named else None,
                other_moved=None if asked is None else clustered_rate(moved["other"][asked], scenes[asked], context.confidence),
            )
        )
    return patches


def _other_factor(context: MeasureContext, split: HeldOut, rows: pl.DataFrame) -> str | None:
    """The factor along which the patch's control moves: the next one after the patched, of those that a question is about if there are."""
    names = list(context.interventions)
    start = names.index(split.factor)
    others = [*names[start + 1 :], *names[:start]]
    asked = set(rows["query"].to_list())
    return next((name for name in others if name in asked), next(iter(others), None))


def _changes(
    context: MeasureContext, split: HeldOut, other: str | None, site: str, basis: Basis, num_cases: int, rng: np.random.Generator
) -> dict[str, Change]:
    """The patch at a site with its controls: random directions, those of shuffled labels, and those of another factor."""
    dim, rank = basis.shape
    vectors = context.activations.mean(site)

    def along(within: int | Basis) -> Change:
        return Change(basis, random_directions(num_cases, rank, within, rng))

    shuffled = shuffled_basis(split.training, vectors, basis, rng)
    changes = {"subspace": Change(basis), "whole": Change(None), "random": along(dim), "shuffled": along(shuffled)}
    if other is not None:
        interventions = context.interventions[other]
        elsewhere = ~np.isin(interventions.scene, split.rows["scene"].to_numpy())
        within = factor_basis(interventions.take(elsewhere), vectors) if elsewhere.any() else np.empty((dim, 0))
        if within.shape[1]:
            changes["other"] = along(within)
    return changes


def _by_query(rows: pl.DataFrame) -> dict[str, Bool[np.ndarray, " row"]]:
    about = rows["query"].to_numpy()
    return {query: about == query for query in rows["query"].unique(maintain_order=True).to_list()}


def _erase(context: MeasureContext, split: HeldOut, sites: tuple[str, ...], counter: StepCounter, shrinkage: bool) -> list[Erasure]:
    rows = split.first(ERASE_SCENES)
    apart = context.asker.sharing == "nothing"
    cases = {side: cases_of(rows, side, apart=apart) for side in ("before", "after")}
    pictures = {side: context.plan.pictures[getattr(each, side)] for side, each in cases.items()}
    erasers = _fit(context, split, rows, sites, shrinkage)
    task = _probe_task(context, split)
    counter.step()
    unchanged = PairAnswers(rows, {side: answers_in(rows, side) for side in cases}, split.factor, context.confidence)
    edits = {(site, number): (site, eraser) for site in sites for number, eraser in enumerate(erasers[site])}
    answers = {side: ask_under_edits(context.asker, pictures[side], each.questions, edits) for side, each in cases.items()}
    counter.step(len(edits))
    erasures = []
    for site in sites:
        states = [
            PairAnswers(rows, {side: answers[side][site, number] for side in cases}, split.factor, context.confidence) for number in (0, 1)
        ]
        lost = {query: states[0].lost(unchanged, keep) for query, keep in _by_query(rows).items()}
        erasures.append(
            Erasure(
                site=site,
                factor=split.factor,
                rank=erasers[site][0].rank,
                before=unchanged.erased(),
                after=states[0].erased(),
                control=states[1].erased(),
                probe=None if task is None else _probe(context, split, site, erasers[site][0], task),
                lost=lost.pop(split.factor, None),
                others_lost=lost,
                moved={query: states[0].moved(unchanged, keep) for query, keep in _by_query(rows).items()},
            )
        )
    return erasures


def _probe_task(context: MeasureContext, split: HeldOut) -> Task | None:
    """The factor's pictures with the split of its erasure, for probes; None where a side has too few scenes or values."""
    labelled = context.interventions[split.factor].labelled()
    training = np.isin(labelled.scene, split.training.scene)
    folds = assign_folds(labelled.scene[training], context.rng(f"probe erased {split.factor}"))
    task = Task(labelled.level, labelled.scene, training, folds, len(labelled.values))
    return task if task.can_be_probed else None


def _probe(context: MeasureContext, split: HeldOut, site: str, eraser: Eraser, task: Task) -> ErasedProbe:
    pictures = context.interventions[split.factor].labelled().picture
    return probe_erased(eraser, context.activations.mean(site)[pictures], task, context.confidence)


def _fit(
    context: MeasureContext, split: HeldOut, rows: pl.DataFrame, sites: tuple[str, ...], shrinkage: bool
) -> Mapping[str, list[Eraser]]:
    """By site, fitted on the first training scenes: the eraser of the factor, and a control of equal rank for levels shuffled by scene."""
    first = np.unique(split.training.scene)[:FIT_SCENES]
    training = split.training.take(np.isin(split.training.scene, first))
    pictures = context.plan.pictures[np.concatenate([training.before, training.after])]
    number, rng = len(training.values), context.rng(f"erase {split.factor}")
    labels = [
        paired_labels(training.level_before, training.level_after, number),
        random_labels(training.level_before, training.level_after, training.scene, number, rng),
    ]
    question = cases_of(rows.head(1), "before", apart=False).questions[0]
    fitted = fit_erasers(context.asker, pictures, question, labels, sites, shrinkage)
    return {site: [own, random.first(own.rank)] for site, (own, random) in fitted.items()}


@dataclass(frozen=True, eq=False)
class PairAnswers:
    """Answers about the pictures before and after an intervention, by side, for the same rows."""

    rows: pl.DataFrame
    answers: Mapping[str, ModelAnswers]
    factor: str
    confidence: float

    @property
    def right(self) -> Float[np.ndarray, " row"]:
        """Share of a row's two answers that are right: 0, 0.5 or 1."""
        return np.asarray(np.mean([answers.chosen == truth_in(self.rows, side) for side, answers in self.answers.items()], axis=0))

    def erased(self) -> Erased:
        """Accuracy on the factor's question, rate of changed answers where the truth changes, and accuracy on other questions."""
        own = (self.rows["query"] == self.factor).to_numpy()
        moves = own & (self.rows["truth_before"] != self.rows["truth_after"]).to_numpy()
        moved = (self.answers["before"].chosen != self.answers["after"].chosen).astype(np.float64)
        return Erased(accuracy=self._rate(self.right, own), read=self._rate(moved, moves), others=self._rate(self.right, ~own))

    def lost(self, unchanged: PairAnswers, keep: Bool[np.ndarray, " row"]) -> Estimate:
        """Accuracy of the chosen rows without the edit minus that with it, -1 to 1."""
        scenes = self.rows["scene"].to_numpy()[keep]
        return rounded(paired_difference(self.right[keep], unchanged.right[keep], scenes, self.confidence, (-1.0, 1.0)))

    def moved(self, unchanged: PairAnswers, keep: Bool[np.ndarray, " row"]) -> Rate:
        """How often answers of the chosen rows differ from those without the edit, 0 to 1, over both sides."""
        differs = np.mean([self.answers[side].chosen != unchanged.answers[side].chosen for side in self.answers], axis=0)
        return clustered_rate(differs[keep], self.rows["scene"].to_numpy()[keep], self.confidence)

    def _rate(self, values: Float[np.ndarray, " row"], keep: Bool[np.ndarray, " row"]) -> Rate | None:
        return clustered_rate(values[keep], self.rows["scene"].to_numpy()[keep], self.confidence) if keep.any() else None


def shuffling(orders: Int[Tensor, "picture token"]) -> Edit:
    """An edit that puts each picture's tokens in the given order."""

    def shuffle(tokens: Tensor, numbers: Tensor) -> Tensor:
        order = orders.to(tokens.device)[numbers.to(tokens.device)]
        return tokens.gather(1, order[:, :, None].expand_as(tokens))

    return shuffle


def average_tokens(tokens: Float[Tensor, "row token dim"], numbers: Int[Tensor, " row"]) -> Float[Tensor, "row token dim"]:
    """Each token replaced by the mean of the picture's tokens."""
    return tokens.float().mean(dim=1, keepdim=True).expand_as(tokens).to(tokens)


def _disturb(
    context: MeasureContext, rows: pl.DataFrame, sites: tuple[str, ...], counter: StepCounter
) -> tuple[tuple[SiteDisturbance, ...], tuple[SiteDisturbance, ...]]:
    """Shuffle and mean at each site, over the first pictures of the first scenes."""
    rows = first_pictures(rows, TOKEN_SCENES)
    cases = cases_of(rows, "before", apart=context.asker.sharing == "nothing")
    pictures = context.plan.pictures[cases.before]
    rng, num_tokens = context.rng("shuffle"), context.asker.model_inputs(pictures).num_tokens
    orders = {int(picture): rng.permutation(num_tokens) for picture in dict.fromkeys(cases.before.tolist())}
    shuffle = shuffling(torch.from_numpy(np.stack([orders[int(picture)] for picture in cases.before])))
    before, truth = answers_in(rows, "before"), truth_in(rows, "before")
    scenes, every_row = rows["scene"].to_numpy(), np.ones(len(rows), dtype=bool)

    edits: dict[tuple[str, str], tuple[str, Edit]] = {
        (name, site): (site, edit) for name, edit in (("shuffle", shuffle), ("mean", average_tokens)) for site in sites
    }
    answers = ask_under_edits(context.asker, pictures, cases.questions, edits)
    counter.step(len(edits))

    def disturbed(name: str, site: str) -> SiteDisturbance:
        def of(keep: Bool[np.ndarray, " row"]) -> Disturbance:
            return _disturbance(answers[name, site], before, truth, scenes, keep, context.confidence)

        return SiteDisturbance(site=site, overall=of(every_row), by_query={query: of(keep) for query, keep in _by_query(rows).items()})

    return tuple(disturbed("shuffle", site) for site in sites), tuple(disturbed("mean", site) for site in sites)


def _disturbance(
    answers: ModelAnswers,
    before: ModelAnswers,
    truth: Int[np.ndarray, " row"],
    scenes: Int[np.ndarray, " row"],
    keep: Bool[np.ndarray, " row"],
    confidence: float,
) -> Disturbance:
    def rate(values: Bool[np.ndarray, " row"]) -> Rate:
        return clustered_rate(values[keep].astype(np.float64), scenes[keep], confidence)

    return Disturbance(
        moved=rate(answers.chosen != before.chosen),
        variation=rounded(clustered_mean(answers.variation(before)[keep], scenes[keep], confidence, (0.0, 1.0))),
        accuracy_before=rate(before.chosen == truth),
        accuracy_after=rate(answers.chosen == truth),
    )
