"""The Gram anchor: vision tokens of a picture must not grow more alike than their teacher has them (LaVer, arXiv 2512.06281, L_CGA).

The masked-latent loss alone lets the tokens of a picture fall together. The published form is clipped: a student may tell tokens apart
better than its teacher does. The symmetric form, which ties it both ways, and no anchor at all are the paper's comparisons.
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

from theodolite.records.errors import UnknownName

Form = Literal["clipped", "symmetric", "none"]

SHORTEST = 1e-12  # a shorter row counts as zeros: no direction, so cosine 0 with all (itself too) and no gradient


def gram_loss(
    student: Float[Tensor, "token dim"],
    teacher: Float[Tensor, "token dim"],
    sizes: Sequence[int],
    form: Form = "clipped",
    tile: int = 256,
) -> Float[Tensor, ""]:
    """Squared excess of the student's cosines over the teacher's, 0 or more, summed over pictures and all ordered token pairs of each.

    Where `G(Z)` are the cosines between the rows of Z in one picture, "clipped" sums `max(0, G(student) - G(teacher))^2`, which is
    the squared Frobenius norm of L_CGA (arXiv 2512.06281); "symmetric" sums `(G(student) - G(teacher))^2`; "none" is 0, on the graph.
    `sizes` are the tokens of each picture, in the order of the rows. Divide by `gram_pairs(sizes)` for a mean over entries.

    Single precision whatever comes in, autocast or not (float64 stays). The teacher gets no gradient. Differentiable once. Memory
    beyond the inputs grows with the tokens, not with their pairs: of those, `tile` rows are held at a time.

    Raises `ValueError` if the shapes differ, the sizes do not add up to the rows, or `tile` is below 1; `UnknownName` for other forms.
    """
    if form not in get_args(Form):
        raise UnknownName("form of the Gram loss", form, get_args(Form))
    _check(student, teacher, sizes, tile)
    if form == "none":
        return _precise(student[:0]).sum()
    teacher, order = teacher.detach(), _order(sizes, tile)
    if order is not None:
        student, teacher = _reorder(student, sizes, order), _reorder(teacher, sizes, order)
        sizes = [sizes[picture] for picture in order]
    if not (student.requires_grad and torch.is_grad_enabled()):
        return _walk(student, teacher, sizes, form == "clipped", tile, with_gradient=False)[0]
    loss: Tensor = _GramLoss.apply(student, teacher, tuple(sizes), form == "clipped", tile)  # type: ignore[no-untyped-call]
    return loss


def gram_pairs(sizes: Sequence[int]) -> int:
    """Ordered token pairs within pictures, each token with itself among them: the number of terms that `gram_loss` sums."""
    return sum(size * size for size in sizes)


class _GramLoss(torch.autograd.Function):
    """The gradient is found on the way forward, while the cosines are there, so that none are kept or made again."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, sizes: tuple[int, ...], clipped: bool, tile: int) -> Tensor:
        loss, ctx.gradient = _walk(student, teacher, sizes, clipped, tile, with_gradient=True)
        ctx.options = (sizes, clipped, tile)
        ctx.save_for_backward(student, teacher)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        student, teacher = ctx.saved_tensors
        # Handed out, not copied: at thousands of tokens it is most of what the loss takes. Whoever kept the graph and comes
        # again gets it anew.
        gradient, ctx.gradient = ctx.gradient, None
        if gradient is None:
            sizes, clipped, tile = ctx.options
            gradient = _walk(student, teacher, sizes, clipped, tile, with_gradient=True)[1]
        return gradient.mul_(outer).to(student.dtype), None, None, None, None


@torch.no_grad()
def _walk(
    student: Tensor, teacher: Tensor, sizes: Sequence[int], clipped: bool, tile: int, with_gradient: bool
) -> tuple[Float[Tensor, ""], Float[Tensor, "token dim"] | None]:
    """The loss, and its gradient for the student if wanted."""
    with torch.autocast(student.device.type, enabled=False):
        loss = _precise(student[:0]).sum()
        gradient = student.new_zeros(student.shape, dtype=loss.dtype) if with_gradient else None
        for first, count, size in _batches(sizes, tile):
            rows = slice(first, first + count * size)
            into = None if gradient is None else gradient[rows].view(count, size, -1)
            one, other = _Rows(student[rows], count, size), _Rows(teacher[rows], count, size)
            loss += _pictures(one, other, clipped, tile, into)
    return loss, gradient


class _Rows:
    """Rows of pictures of one size, with what their normalisation needs; never a normalised copy of them all."""

    def __init__(self, values: Float[Tensor, "token dim"], count: int, size: int) -> None:
        self.values = values.reshape(count, size, -1)
        precision = _precise(values[:0]).dtype
        lengths: Tensor = torch.linalg.vector_norm(self.values, dim=-1, dtype=precision)
        short = lengths < SHORTEST
        self.scales = lengths.reciprocal().masked_fill_(short, 0)
        # A row's cosine with itself: exactly 1, where a product rounds, so that the diagonal adds exactly nothing. NaN stays NaN.
        self.own = (lengths / lengths).masked_fill_(short, 0)

    def raw(self, part: slice) -> Float[Tensor, "picture token dim"]:
        return _precise(self.values[:, part])

    def unit(self, part: slice) -> Float[Tensor, "picture token dim"]:
        return self.raw(part) * self.scales[:, part, None]


def _pictures(student: _Rows, teacher: _Rows, clipped: bool, tile: int, gradient: Tensor | None) -> Float[Tensor, ""]:
    """The loss of pictures of one size. Writes their gradient into `gradient`, which holds zeros."""
    size = student.values.shape[1]
    count = ceil(size / tile)  # as few blocks of rows as may be, of one size but for rounding
    edges = [size * number // count for number in range(count + 1)]
    return torch.stack([_block(student, teacher, clipped, slice(*edge), gradient) for edge in pairwise(edges)]).sum()


def _block(student: _Rows, teacher: _Rows, clipped: bool, here: slice, gradient: Tensor | None) -> Float[Tensor, ""]:
    """The part of the loss that a block of rows has with itself and, both ways, with the rows below it.

    With D the (clipped) difference of cosines and U the student's unit rows, the loss is `sum D^2` and its slope for U is `4 D U`.
    D is symmetric, so the columns from the block on are enough. Blocks come in order: after its own, a block's slope is complete.
    """
    width, right, below = here.stop - here.start, slice(here.start, None), slice(here.stop, None)
    unit, raw = student.unit(here), student.raw(right)
    # Columns are normalised after the product, so that no normalised copy of all rows is made.
    excess = torch.bmm(unit, raw.mT).mul_(student.scales[:, None, right])
    excess -= torch.bmm(teacher.unit(here), teacher.raw(right).mT).mul_(teacher.scales[:, None, right])
    excess[..., :width].diagonal(dim1=1, dim2=2).copy_(student.own[:, here] - teacher.own[:, here])
    if clipped:
        excess.clamp_(min=0)
    loss = _squares(excess[..., :width]) + 2 * _squares(excess[..., width:])
    if gradient is not None:
        if excess.shape[2] > width:
            gradient[:, below].baddbmm_(excess[..., width:].mT, unit)
        gradient[:, here].baddbmm_(excess.mul_(student.scales[:, None, right]), raw)
        _through_norm(gradient[:, here], unit, student.scales[:, here])
    return loss


def _squares(values: Float[Tensor, "picture row column"]) -> Float[Tensor, ""]:
    """The sum of squares, row by row: exact enough at any number, and no copy of the values."""
    lengths: Tensor = torch.linalg.vector_norm(values, dim=-1)
    return lengths.square().sum()


def _through_norm(slope: Tensor, unit: Tensor, scales: Tensor) -> None:
    """Turns `slope`, a quarter of the gradient for the unit rows, into the gradient for the rows themselves, in place."""
    along = (slope * unit).sum(-1, keepdim=True)
    slope.addcmul_(unit, along, value=-1).mul_(4 * scales[..., None])


def _precise(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def _batches(sizes: Sequence[int], tile: int) -> Iterator[tuple[int, int, int]]:
    """First row, number and size of the pictures to take at once: neighbours of one size, up to twice `tile` rows."""
    first = 0
    for size, run in groupby(sizes):
        left = len(list(run)) if size else 0
        while left:
            count = min(left, max(2 * tile // size, 1))
            yield first, count, size
            first, left = first + count * size, left - count


def _order(sizes: Sequence[int], tile: int) -> list[int] | None:
    """An order of pictures that lets those of one size go together; None if they do already, or are too large to."""
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
