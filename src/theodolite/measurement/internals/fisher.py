"""Answer Fisher information at the connector: sensitivity of answers to directions of the vision tokens, and to a factor's displacement.

F = J^T (diag m - m m^T) J, with m the probabilities of a question's choices and J the derivative of their scores by the tokens. No
question constrains an uncovered factor: along its displacement F and the gradient of the loss should be exactly 0, not only small.
The pass runs in single precision, whatever the model's, since half precision cannot tell small from 0. Work is bounded: the first
scenes in order, one picture of each, with all its open questions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from theodolite.asking.answer import Question
from theodolite.asking.local import LocalAsker
from theodolite.asking.rows import Batch, TokenRow
from theodolite.measurement.internals.context import MeasureContext
from theodolite.measurement.internals.loss_gradient import direction_gradients, significant
from theodolite.measurement.internals.reask import cases_of, first_pictures, open_rows, truth_in
from theodolite.measurement.internals.sensitivity import (
    AlongDisplacements,
    along,
    centred,
    entropy_rank,
    is_rounding,
    negligible,
    participation_rank,
    spectrum,
)
from theodolite.measurement.internals.token_similarity import double_device
from theodolite.models.precision import fits_in_single_precision, in_single_precision
from theodolite.records.fisher import Energy, Fisher
from theodolite.records.part import Estimate
from theodolite.stats.jackknife import DIGITS, rounded
from theodolite.stats.rates import Bounds, clustered_mean

NUM_SCENES = 40
ROWS_AT_ONCE = 16
NUM_EIGENVALUES = 32
MOST_BYTES = 2**28  # of displacements that are cached for a picture's other questions
# Quantities along each displacement, with their ranges (None: unbounded).
BOUNDS: Mapping[str, Bounds | None] = {
    "energy": None,
    "energy_span": None,
    "energy_nuisance": None,
    "slope": (0.0, 1.0),
    "slope_span": (0.0, 1.0),
    "slope_nuisance": (0.0, 1.0),
}


@dataclass
class FisherSums:
    """Running sums: F over tokens and cases, and by case its trace, whether that is rounding, and its values along displacements."""

    total: Float[Tensor, "dim dim"]
    case: list[int] = field(default_factory=list)
    trace: list[float] = field(default_factory=list)
    flat: list[bool] = field(default_factory=list)
    along: list[AlongDisplacements] = field(default_factory=list)

    def column(self, name: str) -> Float[np.ndarray, "case factor"]:
        """One of the fields of `AlongDisplacements`, in the order of the cases."""
        return np.array([getattr(each, name) for each in self.along])[np.argsort(self.case)]


def measure_fisher(context: MeasureContext) -> Fisher | None:
    """Fisher information over the open questions of the first pictures of the first scenes; None without open questions."""
    all_rows = open_rows(context.rows)
    rows = first_pictures(all_rows, NUM_SCENES)
    if rows.is_empty():
        return None
    factors = tuple(context.interventions)
    afters = np.concatenate([_pictures_after(all_rows, rows, factors), _nuisance_after(context.rows, rows)[:, None]], axis=1)
    with _in_single_precision(context):
        sums, num_tokens = _accumulate(context, rows, afters)
        precision = context.asker.base.dtype
    dim = sums.total.shape[0]
    trace, flat = np.array(sums.trace)[np.argsort(sums.case)], np.array(sums.flat)[np.argsort(sums.case)]
    scenes, about = rows["scene"].to_numpy(), rows["query"].to_numpy()
    queries = rows["query"].unique(maintain_order=True).to_list()
    shares = spectrum(sums.total / len(rows))
    return Fisher(
        num_scenes=rows["scene"].n_unique(),
        num_cases=len(rows),
        num_tokens=num_tokens,
        dim=dim,
        trace=significant(clustered_mean(trace, scenes, context.confidence)),
        trace_by_query={
            query: significant(clustered_mean(trace[about == query], scenes[about == query], context.confidence)) for query in queries
        },
        spectrum=() if shares is None else tuple(round(float(share), DIGITS) for share in shares[:NUM_EIGENVALUES]),
        entropy_rank=None if shares is None else round(entropy_rank(shares), DIGITS),
        participation_rank=None if shares is None else round(participation_rank(shares), DIGITS),
        chance_slope=round(float(np.sqrt(2 / (np.pi * num_tokens * dim))), DIGITS),
        energies=_energies(sums, flat, factors, scenes, about, context.confidence),
        gradients=direction_gradients(factors, queries, sums.column, scenes, context.confidence, context.rng("fisher.gradients")),
        precision=str(precision).removeprefix("torch."),
        rounding=negligible(torch.finfo(precision).eps),
    )


@contextmanager
def _in_single_precision(context: MeasureContext) -> Iterator[None]:
    """Context in which the model computes in float32; where memory lacks room, in its own precision, with a notice."""
    if fits_in_single_precision(context.model):
        with in_single_precision(context.model):
            yield
    else:
        context.asker.notices.append("Fisher information is in half precision, whose rounding hides small gradients: float32 did not fit")
        yield


def _pictures_after(all_rows: pl.DataFrame, rows: pl.DataFrame, factors: Sequence[str]) -> Int[np.ndarray, "case factor"]:
    """The picture after an intervention on each factor in each case's picture; -1 where there is none."""
    changed = all_rows.unique(["picture_before", "factor"], keep="first", maintain_order=True)
    columns = changed.select("picture_before", "factor", "picture_after").iter_rows()
    after = {(before, factor): picture for before, factor, picture in columns}
    return np.array([[after.get((before, factor), -1) for factor in factors] for before in rows["picture_before"]], dtype=np.int64)


def _nuisance_after(all_rows: pl.DataFrame, rows: pl.DataFrame) -> Int[np.ndarray, " case"]:
    """The picture of each case's scene under a fresh nuisance seed; -1 where there is none."""
    pairs = all_rows.filter(pl.col("kind") == "nuisance").unique("picture_before", keep="first", maintain_order=True)
    after = dict(zip(pairs["picture_before"].to_list(), pairs["picture_after"].to_list(), strict=True))
    return np.array([after.get(before, -1) for before in rows["picture_before"]], dtype=np.int64)


def _accumulate(context: MeasureContext, rows: pl.DataFrame, afters: Int[np.ndarray, "case factor"]) -> tuple[FisherSums, int]:
    """One case a row, in batches of similar length, halved where memory runs out; only one batch's gradients are in memory."""
    own = context.asker
    asker = LocalAsker(context.model, own.processor, ROWS_AT_ONCE, share=False, prompt=own.prompt, score=own.choice_score)
    asker.features = own.features
    cases = cases_of(rows, "before", apart=True)
    pictures, truth, rng = context.plan.pictures[cases.before], truth_in(rows, "before"), context.rng("fisher")
    draws = rng.integers(2**31, size=len(rows))  # one seed a case, independent of the batches
    sums, num_tokens, done = None, 0, 0
    eps = torch.finfo(asker.base.dtype).eps
    displacements: dict[int, Tensor] = {}
    for slopes in _slopes(asker, pictures, cases.questions):
        for case, scores, gradients, tokens in slopes.cases():
            moved = displacements.get(before := int(cases.before[case]))
            if moved is None:
                moved = _displacements(context, tokens, afters[case])
                if (len(displacements) + 1) * moved.numel() * 4 <= MOST_BYTES:
                    displacements[before] = moved
            rooted, m = centred(gradients, scores.to(gradients.device))
            flat = is_rounding(rooted, gradients, m, eps)
            if sums is None:
                num_tokens = tokens.shape[0]
                sums = FisherSums(torch.zeros(tokens.shape[1], tokens.shape[1], dtype=torch.float64, device=tokens.device))
            by_channel = rooted.flatten(0, 1).double()
            sums.total += by_channel.T @ by_channel
            sums.case.append(case)
            sums.trace.append(float(by_channel.square().sum()))
            sums.flat.append(flat)
            loss, length = -gradients[truth[case]].flatten(), float(tokens.norm())
            case_gradients = None if flat else rooted.flatten(1)
            sums.along.append(along(case_gradients, loss, moved, length, np.random.default_rng(draws[case])))
        done += len(slopes.batch.questions)
        context.progress(done, len(rows))
    context.asker.notices += [notice for notice in asker.notices if notice not in context.asker.notices]
    assert sums is not None
    return sums, num_tokens


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Context without gradients of parameters, which saves their memory; each parameter's setting is restored at the end."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in trainable:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


@dataclass(frozen=True, eq=False)
class ChoiceGradients:
    """Scores of a batch's choices, and their gradients by the connector's tokens, one array for each choice number of an ask; float32."""

    batch: Batch
    scores: Float[Tensor, " choice"]
    gradients: tuple[Float[Tensor, "row token dim"], ...]
    tokens: Float[Tensor, "row token dim"]

    def cases(self) -> Iterator[tuple[int, Float[Tensor, " choice"], Float[Tensor, "choice token dim"], Float[Tensor, "token dim"]]]:
        """Each case's number, scores, their gradients and the tokens."""
        owner, by_row = self.batch.question_of_choice.cpu(), self.batch.pictures.to(self.tokens.device)
        for position, case in enumerate(self.batch.questions):
            rows, choices = by_row == case, owner == position  # one row, or one a choice where nothing is shared
            gradients = torch.stack([self.gradients[number][rows].sum(dim=0) for number in range(int(choices.sum()))])
            yield case, self.scores[choices], gradients, self.tokens[rows][0]


def _slopes(asker: LocalAsker, pictures: np.ndarray, asks: Sequence[Question]) -> Iterator[ChoiceGradients]:
    """Gradients batch by batch; parameters have their own settings again before each yield."""

    def run(rows: Sequence[TokenRow]) -> ChoiceGradients:
        with frozen(asker.model):
            return _differentiate(asker, asker.collate(rows, pictures), pictures)

    for rows in asker.groups(pictures, asks):
        yield from asker.fitting(rows, run)


def _differentiate(asker: LocalAsker, batch: Batch, pictures: np.ndarray) -> ChoiceGradients:
    """One backward pass a choice, all asks of the batch at once."""
    with torch.no_grad():
        vision_features = asker.encode_batch(batch, pictures)
    leaf = vision_features.tokens.detach().clone().requires_grad_()
    with torch.enable_grad():
        scored = asker.score(batch, replace(vision_features, tokens=leaf))
    owner = batch.question_of_choice
    # A choice's number within its ask; choices of one ask are adjacent.
    on = double_device(leaf.device)  # where products in double precision follow
    order = torch.arange(len(owner), device=owner.device) - torch.searchsorted(owner, owner)
    gradients = tuple(
        torch.autograd.grad(scored.choices[order == number].sum(), leaf, retain_graph=True)[0].float().to(on)
        for number in range(int(order.max()) + 1)
    )
    return ChoiceGradients(batch, scored.choices.detach().float().cpu(), gradients, leaf.detach().float().to(on))


def _displacements(
    context: MeasureContext, tokens: Float[Tensor, "token dim"], after: Int[np.ndarray, " factor"]
) -> Float[Tensor, "factor coordinate"]:
    """Flattened tokens after each intervention minus those before; 0 without an intervention, or where the difference is rounding."""
    moved = torch.zeros(len(after), tokens.numel(), device=tokens.device)
    rounding = negligible(torch.finfo(context.asker.base.dtype).eps) * float(tokens.norm())
    changed: Bool[np.ndarray, " factor"] = after >= 0
    if changed.any():
        with torch.no_grad():
            vision_features = context.asker.encode_pictures(context.plan.pictures[after[changed]])
        moved[torch.from_numpy(changed).to(moved.device)] = (vision_features.tokens.float().to(tokens.device) - tokens).flatten(1)
    return torch.where(moved.norm(dim=1, keepdim=True) > rounding, moved, 0.0)


def _energies(
    sums: FisherSums,
    flat: Bool[np.ndarray, " case"],
    factors: Sequence[str],
    scenes: Int[np.ndarray, " case"],
    about: np.ndarray,
    confidence: float,
) -> tuple[Energy, ...]:
    columns, gradient = {name: sums.column(name) for name in BOUNDS}, sums.column("gradient")
    energies = []
    for number, factor in enumerate(factors):
        for query in dict.fromkeys(about.tolist()):
            keep = about == query
            numbers = {name: _mean(column[keep, number], scenes[keep], confidence, BOUNDS[name]) for name, column in columns.items()}
            excess = (columns["energy"] - columns["energy_nuisance"])[keep, number]
            numbers["energy_excess"] = _mean(excess, scenes[keep], confidence, None)
            moved = ~np.isnan(gradient[keep, number])
            energies.append(
                Energy(factor=factor, query=query, num_flat=int((moved & flat[keep]).sum()), num_cases=int(moved.sum()), **numbers)
            )
    return tuple(energies)


def _mean(
    values: Float[np.ndarray, " case"], scenes: Int[np.ndarray, " case"], confidence: float, bounds: Bounds | None
) -> Estimate | None:
    finite = np.isfinite(values)
    # Rounded first, so that rounding errors neither replace an exact 0 nor give an interval.
    return rounded(clustered_mean(values[finite].round(DIGITS), scenes[finite], confidence, bounds)) if finite.any() else None
