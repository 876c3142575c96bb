"""Answer Fisher information at the connector: how strongly answers feel each direction of the vision tokens, and a factor's own.

F = J^T (diag m - m m^T) J, with m the probabilities of a question's choices and J the derivative of their scores by the tokens. A factor
that no question covers has nothing that holds the answers to it: along its own displacement F and the gradient of the loss should vanish,
which is more than being small. Work is bounded: the first scenes in order, one picture of each, with all its open questions.
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
from theodolite.measurement.internals.reask import cases_of, first_pictures, open_rows, truth_in
from theodolite.records.fisher import Energy, Fisher
from theodolite.records.part import Estimate
from theodolite.stats.jackknife import DIGITS, rounded
from theodolite.stats.rates import Bounds, clustered_mean

NUM_SCENES = 40
NUM_DRAWS = 8
ROWS_AT_ONCE = 16
NUM_EIGENVALUES = 32
MOST_BYTES = 2**28  # of displacements that are kept for a picture's other questions
# What is said of each displacement, and between what it lies.
BOUNDS: Mapping[str, Bounds | None] = {"energy": None, "energy_span": None, "slope": (0.0, 1.0), "slope_span": (0.0, 1.0)}


def negligible(eps: float) -> float:
    """The share of a whole, 0 to 1, below which a difference is rounding: 4e-6 in float32, 0.03 in bfloat16 (`eps` is the dtype's)."""
    return max(30 * torch.finfo(torch.float32).eps, 4 * eps)


def centred(
    gradients: Float[Tensor, "choice *tokens dim"], scores: Float[Tensor, " choice"], eps: float
) -> tuple[Float[Tensor, "choice *tokens dim"], Float[Tensor, " choice"]]:
    """Gradients of the choices' scores about their mean under m = softmax(scores), times sqrt(m): F is the sum of their squares.

    Exactly 0 where what is left is rounding; `eps` is the relative rounding of the model that gave the gradients, whatever they are in now.
    """
    m = scores.softmax(dim=0)
    weight = m.view(-1, *[1] * (gradients.dim() - 1))
    rooted = (gradients - (weight * gradients).sum(dim=0)) * weight.sqrt()
    whole = float((weight * gradients.square()).sum())
    rounding = negligible(eps) ** 2
    return rooted * float(float(rooted.square().sum()) > rounding * whole), m


def spectrum(matrix: Float[Tensor, "dim dim"]) -> Float[Tensor, " dim"] | None:
    """Eigenvalues of a symmetric matrix without negative ones, as shares of their sum, largest first; None where all are 0."""
    values = torch.linalg.eigvalsh(matrix.double()).clamp(min=0).flip(0)
    return values / values.sum() if float(values.sum()) > 0 else None


def entropy_rank(shares: Float[Tensor, " dim"]) -> float:
    """exp of the entropy of the shares: 1 to their number."""
    return float(torch.special.entr(shares).sum().exp())


def participation_rank(shares: Float[Tensor, " dim"]) -> float:
    """1 / sum of squared shares: 1 to their number."""
    return float(1 / shares.square().sum())


@dataclass(frozen=True, eq=False)
class AlongDisplacements:
    """What one case says of its picture's displacements: by displacement, NaN where there is none, or nothing is felt at all."""

    energy: Float[np.ndarray, " factor"]
    energy_span: Float[np.ndarray, " factor"]
    slope: Float[np.ndarray, " factor"]
    slope_span: Float[np.ndarray, " factor"]


def along(
    rooted: Float[Tensor, "choice coordinate"],
    loss: Float[Tensor, " coordinate"],
    moved: Float[Tensor, "factor coordinate"],
    rng: np.random.Generator,
) -> AlongDisplacements:
    """Energies and slopes along unit displacements, and along random directions in the span of the others.

    `rooted` is from `centred`, `loss` the gradient of the loss, `moved` the displacements, 0 where a factor has none. Energies are relative
    to their expectation over random directions, trace / number of coordinates.
    """
    lengths = moved.norm(dim=1)
    there = lengths > 0
    unit = moved / torch.where(there, lengths, 1.0)[:, None]
    felt = (rooted @ unit.T).double()  # (choice, factor)
    slopes, gram = (unit @ loss).double(), (unit @ unit.T).double()
    mean = float(rooted.double().square().sum()) / rooted.shape[1]
    steepness = float(loss.double().norm())

    def relative(energies: Tensor, scale: float) -> np.ndarray:
        return (energies / scale).numpy() if scale > 0 else np.full(energies.shape, np.nan)

    energy = np.where(there.numpy(), relative(felt.square().sum(dim=0), mean), np.nan)
    slope = np.where(there.numpy(), relative(slopes.abs(), steepness), np.nan)
    spans = np.full((2, len(moved)), np.nan)
    for number in torch.nonzero(there)[:, 0].tolist():
        others = there.clone()
        others[number] = False
        if not others.any():
            continue
        draws = torch.from_numpy(rng.standard_normal((NUM_DRAWS, int(others.sum()))))
        squares = ((draws @ gram[others][:, others]) * draws).sum(dim=1)  # squared lengths
        energies = (draws @ felt[:, others].T).square().sum(dim=1) / squares
        spans[0, number] = relative(energies.mean(), mean)
        spans[1, number] = relative(((draws @ slopes[others]).abs() / squares.sqrt()).mean(), steepness)
    return AlongDisplacements(energy, spans[0], slope, spans[1])


@dataclass
class FisherSums:
    """What has been found so far: the sum of F over tokens and cases, and by case its trace and what lies along displacements."""

    total: Float[Tensor, "dim dim"]
    case: list[int] = field(default_factory=list)
    trace: list[float] = field(default_factory=list)
    found: list[AlongDisplacements] = field(default_factory=list)

    def column(self, name: str) -> Float[np.ndarray, "case factor"]:
        """One of the numbers of `AlongDisplacements`, in the order of the cases."""
        return np.array([getattr(each, name) for each in self.found])[np.argsort(self.case)]


def measure_fisher(context: MeasureContext) -> Fisher | None:
    """Fisher information over the open questions of the first pictures of the first scenes; None where none is asked."""
    everything = open_rows(context.rows)
    rows = first_pictures(everything, NUM_SCENES)
    if rows.is_empty():
        return None
    factors = tuple(context.changes)
    tally, num_tokens = _tally(context, rows, _afters(everything, rows, factors))
    dim = tally.total.shape[0]
    trace = np.array(tally.trace)[np.argsort(tally.case)]
    scenes, about = rows["scene"].to_numpy(), rows["query"].to_numpy()
    queries = rows["query"].unique(maintain_order=True).to_list()
    shares = spectrum(tally.total / len(rows))
    return Fisher(
        num_scenes=rows["scene"].n_unique(),
        num_cases=len(rows),
        num_tokens=num_tokens,
        dim=dim,
        trace=rounded(clustered_mean(trace, scenes, context.confidence)),
        trace_by_query={
            query: rounded(clustered_mean(trace[about == query], scenes[about == query], context.confidence)) for query in queries
        },
        spectrum=() if shares is None else tuple(round(float(share), DIGITS) for share in shares[:NUM_EIGENVALUES]),
        entropy_rank=None if shares is None else round(entropy_rank(shares), DIGITS),
        participation_rank=None if shares is None else round(participation_rank(shares), DIGITS),
        chance_slope=round(float(np.sqrt(2 / (np.pi * num_tokens * dim))), DIGITS),
        energies=_energies(tally, trace, factors, scenes, about, context.confidence),
    )


def _afters(everything: pl.DataFrame, rows: pl.DataFrame, factors: Sequence[str]) -> Int[np.ndarray, "case factor"]:
    """The picture after an intervention on each factor in each case's picture; -1 where there is none."""
    changed = everything.unique(["picture_before", "factor"], keep="first", maintain_order=True)
    columns = changed.select("picture_before", "factor", "picture_after").iter_rows()
    after = {(before, factor): picture for before, factor, picture in columns}
    return np.array([[after.get((before, factor), -1) for factor in factors] for before in rows["picture_before"]], dtype=np.int64)


def _tally(context: MeasureContext, rows: pl.DataFrame, afters: Int[np.ndarray, "case factor"]) -> tuple[FisherSums, int]:
    """One case a row, in batches of like length, halved where memory runs out; a batch's gradients are held at once, and no more."""
    asker = LocalAsker(context.model, context.asker.processor, ROWS_AT_ONCE, share=False)
    cases = cases_of(rows, "before", apart=True)
    pictures, truth, rng = context.plan.pictures[cases.before], truth_in(rows, "before"), context.rng("fisher")
    draws = rng.integers(2**31, size=len(rows))  # by case, whatever the batches
    tally, num_tokens, done = None, 0, 0
    eps = torch.finfo(asker.base.dtype).eps
    kept: dict[int, Tensor] = {}
    for slopes in _slopes(asker, pictures, cases.asks):
        for case, scores, gradients, tokens in slopes.cases():
            moved = kept.get(before := int(cases.before[case]))
            if moved is None:
                moved = _displacements(context, tokens, afters[case])
                if (len(kept) + 1) * moved.numel() * 4 <= MOST_BYTES:
                    kept[before] = moved
            rooted, _ = centred(gradients, scores, eps)
            if tally is None:
                num_tokens = tokens.shape[0]
                tally = FisherSums(torch.zeros(tokens.shape[1], tokens.shape[1], dtype=torch.float64))
            flat = rooted.flatten(0, 1).double()
            tally.total += flat.T @ flat
            tally.case.append(case)
            tally.trace.append(float(flat.square().sum()))
            loss = -gradients[truth[case]].flatten()
            tally.found.append(along(rooted.flatten(1), loss, moved, np.random.default_rng(draws[case])))
        done += len(slopes.batch.questions)
        context.progress(done, len(rows))
    context.asker.notices += [notice for notice in asker.notices if notice not in context.asker.notices]
    assert tally is not None
    return tally, num_tokens


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Within, no parameter needs a gradient, so that none is held for it; each gets its own setting back."""
    needing = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in needing:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in needing:
            parameter.requires_grad_(True)


@dataclass(frozen=True, eq=False)
class ChoiceGradients:
    """Scores of a batch's choices, and by a choice's number within its ask the gradients of these by the connector's tokens; float32."""

    batch: Batch
    scores: Float[Tensor, " choice"]
    gradients: tuple[Float[Tensor, "row token dim"], ...]
    tokens: Float[Tensor, "row token dim"]

    def cases(self) -> Iterator[tuple[int, Float[Tensor, " choice"], Float[Tensor, "choice token dim"], Float[Tensor, "token dim"]]]:
        """Each case's number, scores, their gradients and the tokens."""
        owner, by_row = self.batch.question_of_choice.cpu(), self.batch.pictures.cpu()
        for position, case in enumerate(self.batch.questions):
            own, mine = by_row == case, owner == position  # one row, or one a choice where nothing is shared
            gradients = torch.stack([self.gradients[number][own].sum(dim=0) for number in range(int(mine.sum()))])
            yield case, self.scores[mine], gradients, self.tokens[own][0]


def _slopes(asker: LocalAsker, pictures: np.ndarray, asks: Sequence[Question]) -> Iterator[ChoiceGradients]:
    """Batch by batch; the parameters are as they were whenever one is given."""

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
    # A choice's number within its ask; choices of one ask stand together.
    order = torch.arange(len(owner), device=owner.device) - torch.searchsorted(owner, owner)
    gradients = tuple(
        torch.autograd.grad(scored.choices[order == number].sum(), leaf, retain_graph=True)[0].float().cpu()
        for number in range(int(order.max()) + 1)
    )
    return ChoiceGradients(batch, scored.choices.detach().float().cpu(), gradients, leaf.detach().float().cpu())


def _displacements(
    context: MeasureContext, tokens: Float[Tensor, "token dim"], after: Int[np.ndarray, " factor"]
) -> Float[Tensor, "factor coordinate"]:
    """Tokens after each intervention minus those before, flat; 0 where there is no intervention, or no more than rounding."""
    moved = torch.zeros(len(after), tokens.numel())
    rounding = negligible(torch.finfo(context.asker.base.dtype).eps) * float(tokens.norm())
    there: Bool[np.ndarray, " factor"] = after >= 0
    if there.any():
        with torch.no_grad():
            vision_features = context.asker.encode_pictures(context.plan.pictures[after[there]])
        moved[torch.from_numpy(there)] = (vision_features.tokens.float().cpu() - tokens).flatten(1)
    return torch.where(moved.norm(dim=1, keepdim=True) > rounding, moved, 0.0)


def _energies(
    tally: FisherSums,
    trace: Float[np.ndarray, " case"],
    factors: Sequence[str],
    scenes: Int[np.ndarray, " case"],
    about: np.ndarray,
    confidence: float,
) -> tuple[Energy, ...]:
    columns = {name: tally.column(name) for name in BOUNDS}
    found = []
    for number, factor in enumerate(factors):
        for query in dict.fromkeys(about.tolist()):
            keep = about == query
            numbers = {name: _mean(column[keep, number], scenes[keep], confidence, BOUNDS[name]) for name, column in columns.items()}
            moved = ~np.isnan(columns["slope"][keep, number])
            found.append(
                Energy(factor=factor, query=query, num_flat=int((moved & (trace[keep] == 0)).sum()), num_cases=int(moved.sum()), **numbers)
            )
    return tuple(found)


def _mean(
    values: Float[np.ndarray, " case"], scenes: Int[np.ndarray, " case"], confidence: float, bounds: Bounds | None
) -> Estimate | None:
    there = np.isfinite(values)
    # Rounded first, so that what is 0 but for the machine is 0, and an interval is not of rounding.
    return rounded(clustered_mean(values[there].round(DIGITS), scenes[there], confidence, bounds)) if there.any() else None
