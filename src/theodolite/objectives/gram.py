"""The Gram anchor L_CGA of LaVer (arXiv 2512.06281): keeps a picture's vision tokens from growing more similar than the teacher's.

With the masked latent loss alone, the tokens of a picture collapse onto each other. The published form is clipped: only cosines above the
teacher's cost. The symmetric form, which penalises both directions, and no anchor are the paper's comparisons.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, groupby, pairwise
from math import ceil
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from theodolite.objectives.terms import at_least_single
from theodolite.records.errors import UnknownName

Form = Literal["clipped", "symmetric", "none"]

SHORTEST = 1e-12  # a row of smaller norm counts as zeros: cosine 0 with all rows (itself too) and no gradient


def gram_loss(
    student: Float[Tensor, "token dim"],
    teacher: Float[Tensor, "token dim"],
    sizes: Sequence[int],
    form: Form = "clipped",
    tile: int = 256,
    by_picture: Literal["sum", "mean"] = "sum",
) -> Float[Tensor, ""]:
    """Squared excess of the student's cosines over the teacher's, 0 or more, summed over pictures and all ordered token pairs of each.

    With `G(Z)` the cosines between the rows of Z in one picture, "clipped" sums `max(0, G(student) - G(teacher))^2`, the squared
    Frobenius norm of L_CGA (arXiv 2512.06281); "symmetric" sums `(G(student) - G(teacher))^2`; "none" is 0, on the graph. `sizes` are
    the numbers of tokens of each picture, in the order of the rows. Divide by `gram_pairs(sizes)` for a mean over entries. With
    `by_picture` "mean" each picture adds the mean over its own pairs, so that pictures of many tokens weigh no more than others.

    Computed in single precision for any input, autocast or not (float64 stays). The teacher gets no gradient. Differentiable once. Memory
    beyond the inputs is linear in the tokens: at most `tile` rows of pairs exist at a time.

    Raises `ValueError` if the shapes differ, the sizes do not add up to the rows, or `tile` is below 1; `UnknownName` for other forms.
    """
    if form not in get_args(Form):
        raise UnknownName("form of the Gram loss", form, get_args(Form))
    _check(student, teacher, sizes, tile)
    if form == "none":
        return at_least_single(student[:0]).sum()
    teacher, order = teacher.detach(), _order(sizes, tile)
    if order is not None:
        student, teacher = _reorder(student, sizes, order), _reorder(teacher, sizes, order)
        sizes = [sizes[picture] for picture in order]
    if not (student.requires_grad and torch.is_grad_enabled()):
        return _walk(student, teacher, sizes, form == "clipped", tile, by_picture == "mean", with_gradient=False)[0]
    options = (tuple(sizes), form == "clipped", tile, by_picture == "mean")
    loss: Tensor = _GramLoss.apply(student, teacher, *options)  # type: ignore[no-untyped-call]
    return loss


def gram_pairs(sizes: Sequence[int]) -> int:
    """Number of ordered token pairs within pictures, each token with itself included: the number of terms that `gram_loss` sums."""
    return sum(size * size for size in sizes)


class _GramLoss(torch.autograd.Function):
    """Computes the gradient in the forward pass, so that cosines are neither stored nor recomputed."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, *options: Any) -> Tensor:
        loss, ctx.gradient = _walk(student, teacher, *options, with_gradient=True)
        ctx.options = options
        ctx.save_for_backward(student, teacher)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        student, teacher = ctx.saved_tensors
        # Not copied: at thousands of tokens it is most of the loss's memory. A second backward pass (retain_graph) recomputes it.
        gradient, ctx.gradient = ctx.gradient, None
        if gradient is None:
            gradient = _walk(student, teacher, *ctx.options, with_gradient=True)[1]
        return gradient.mul_(outer).to(student.dtype), None, None, None, None, None


@torch.no_grad()
def _walk(
    student: Tensor, teacher: Tensor, sizes: Sequence[int], clipped: bool, tile: int, mean: bool, *, with_gradient: bool
) -> tuple[Float[Tensor, ""], Float[Tensor, "token dim"] | None]:
    """The loss, and its gradient for the student if `with_gradient`."""
    with torch.autocast(student.device.type, enabled=False):
        loss = at_least_single(student[:0]).sum()
        gradient = student.new_zeros(student.shape, dtype=loss.dtype) if with_gradient else None
        for first, count, size in _batches(sizes, tile):
            rows = slice(first, first + count * size)
            into = None if gradient is None else gradient[rows].view(count, size, -1)
            one, other = _Rows(student[rows], count, size), _Rows(teacher[rows], count, size)
            scale = 1 / size**2 if mean else 1.0
            loss += scale * _pictures(one, other, clipped, tile, into)
            if into is not None and mean:
                into.mul_(scale)
    return loss, gradient


class _Rows:
    """Rows of pictures of one size, with their inverse norms; the normalised rows are never stored."""

    def __init__(self, values: Float[Tensor, "token dim"], count: int, size: int) -> None:
        self.values = values.reshape(count, size, -1)
        precision = at_least_single(values[:0]).dtype
        lengths: Tensor = torch.linalg.vector_norm(self.values, dim=-1, dtype=precision)
        short = lengths < SHORTEST
        self.scales = lengths.reciprocal().masked_fill_(short, 0)
        # A row's cosine with itself: exactly 1 (a product would round), so that the diagonal adds exactly 0. NaN stays NaN.
        self.own = (lengths / lengths).masked_fill_(short, 0)

    def raw(self, rows: slice) -> Float[Tensor, "picture token dim"]:
        return at_least_single(self.values[:, rows])

    def unit(self, rows: slice) -> Float[Tensor, "picture token dim"]:
        return self.raw(rows) * self.scales[:, rows, None]


def _pictures(student: _Rows, teacher: _Rows, clipped: bool, tile: int, gradient: Tensor | None) -> Float[Tensor, ""]:
    """The loss of pictures of one size. Adds their gradient to `gradient`, zeros at first."""
    size = student.values.shape[1]
    count = ceil(size / tile)  # as few blocks of rows as possible, of equal size up to rounding
    edges = [size * number // count for number in range(count + 1)]
    return torch.stack([_block(student, teacher, clipped, slice(*edge), gradient) for edge in pairwise(edges)]).sum()


def _block(student: _Rows, teacher: _Rows, clipped: bool, rows: slice, gradient: Tensor | None) -> Float[Tensor, ""]:
    """The loss of a block of rows with itself and, both ways, with the rows below it.

    With D the (clipped) difference of cosines and U the student's unit rows, the loss is `sum D^2` and its gradient for U is `4 D U`.
    D is symmetric, so the columns from the block on suffice. Blocks are processed in order: each completes its own rows' gradient.
    """
    width, right, below = rows.stop - rows.start, slice(rows.start, None), slice(rows.stop, None)
    unit, raw = student.unit(rows), student.raw(right)
    # Columns are normalised after the product, to avoid a normalised copy of all rows.
    excess = torch.bmm(unit, raw.mT).mul_(student.scales[:, None, right])
    excess -= torch.bmm(teacher.unit(rows), teacher.raw(right).mT).mul_(teacher.scales[:, None, right])
    excess[..., :width].diagonal(dim1=1, dim2=2).copy_(student.own[:, rows] - teacher.own[:, rows])
    if clipped:
        excess.clamp_(min=0)
    loss = _squares(excess[..., :width]) + 2 * _squares(excess[..., width:])
    if gradient is not None:
        if excess.shape[2] > width:
            gradient[:, below].baddbmm_(excess[..., width:].mT, unit)
        gradient[:, rows].baddbmm_(excess.mul_(student.scales[:, None, right]), raw)
        _through_norm(gradient[:, rows], unit, student.scales[:, rows])
    return loss


def _squares(values: Float[Tensor, "picture row column"]) -> Float[Tensor, ""]:
    """The sum of squares by way of row norms: accurate for many values, and without a copy of them."""
    lengths: Tensor = torch.linalg.vector_norm(values, dim=-1)
    return lengths.square().sum()


def _through_norm(slope: Tensor, unit: Tensor, scales: Tensor) -> None:
    """Turns `slope`, a quarter of the gradient for the unit rows, into the gradient for the rows, in place."""
    along = (slope * unit).sum(-1, keepdim=True)
    slope.addcmul_(unit, along, value=-1).mul_(4 * scales[..., None])


def _batches(sizes: Sequence[int], tile: int) -> Iterator[tuple[int, int, int]]:
    """First row, number and size of the pictures in each batch: neighbours of one size, up to twice `tile` rows."""
    first = 0
    for size, run in groupby(sizes):
        remaining = len(list(run)) if size else 0
        while remaining:
            count = min(remaining, max(2 * tile // size, 1))
            yield first, count, size
            first, remaining = first + count * size, remaining - count


def _order(sizes: Sequence[int], tile: int) -> list[int] | None:
    """An order of pictures that makes those of one size neighbours; None if they are already, or are too large for batches."""
    small = [size for size, _ in groupby(sizes) if size <= tile]
    return sorted(range(len(sizes)), key=sizes.__getitem__) if len(small) > len(set(small)) else None


def _reorder(rows: Tensor, sizes: Sequence[int], order: Sequence[int]) -> Tensor:
    starts = [0, *accumulate(sizes)]
    return torch.cat([rows[starts[picture] : starts[picture + 1]] for picture in order])


def _check(student: Tensor, teacher: Tensor, sizes: Sequence[int], tile: int) -> None:
    if student.shape != teacher.shape:
        raise ValueError(
            f"student and teacher differ in shape: {tuple(student.shape)} and {tuple(teacher.shape)}; give the same tokens of both"
        )
    if sum(sizes) != len(student) or min(sizes, default=0) < 0:
        raise ValueError(f"the pictures' sizes {list(sizes)[:8]} add up to {sum(sizes)}, but there are {len(student)} tokens")
    if tile < 1:
        raise ValueError(f"tile is {tile}; it must be 1 or more")
