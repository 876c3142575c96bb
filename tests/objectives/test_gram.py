"""The Gram loss against its formula written out, and what its tiles must not change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from jaxtyping import TypeCheckError
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from theodolite.objectives.gram import Form, gram_loss, gram_pairs
from theodolite.records.errors import UnknownName

UNEQUAL = (7, 1, 12, 5, 5, 0, 12, 33)
TILES = (1, 3, 4, 5, 12, 16, 512)


def dense_gram_loss(student: Tensor, teacher: Tensor, sizes: Sequence[int], form: Form = "clipped") -> Tensor:
    """G(Z) = norm(Z) norm(Z)^T by picture; the squared Frobenius norm of (max(0,) G(student) - G(teacher))."""
    total = student.new_zeros(())
    for z, y in zip(student.split(list(sizes)), teacher.detach().split(list(sizes)), strict=True):
        z, y = F.normalize(z, dim=1), F.normalize(y, dim=1)
        difference = z @ z.T - y @ y.T
        difference = difference - difference.diagonal().diag()  # 1 - 1, but for rounding
        total = total + (difference.clamp(min=0) if form == "clipped" else difference).square().sum()
    return total


def rows(sizes: Sequence[int] = UNEQUAL, dim: int = 6, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """A student that wants a gradient, and a teacher, both with a common direction, so that cosines lie on either side."""
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn(sum(sizes), dim, generator=generator, dtype=torch.float64) + shift for shift in (0.5, 0.4))
    return student.to(dtype).requires_grad_(), teacher.to(dtype)


def with_gradient(loss: Tensor, student: Tensor) -> tuple[Tensor, Tensor]:
    return loss.detach(), torch.autograd.grad(loss, student)[0]


@pytest.mark.parametrize("form", ["clipped", "symmetric"])
@pytest.mark.parametrize("tile", TILES)
def test_value_and_gradient_equal_the_formula_with_any_tile(tile: int, form: Form) -> None:
    student, teacher = rows()
    wanted = with_gradient(dense_gram_loss(student, teacher, UNEQUAL, form), student)
    found = with_gradient(gram_loss(student, teacher, UNEQUAL, form, tile), student)
    assert wanted[0] > 1 and wanted[1].abs().max() > 0.1
    torch.testing.assert_close(found, wanted, atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("sizes", [(8, 8, 8, 8, 8), (2, 9, 2, 9, 2), (3,) * 40, (1, 1, 1), (), (0,)])
def test_pictures_taken_together_equal_the_formula(sizes: tuple[int, ...]) -> None:
    student, teacher = rows(sizes)
    wanted = with_gradient(dense_gram_loss(student, teacher, sizes) + 0 * student.sum(), student)
    torch.testing.assert_close(with_gradient(gram_loss(student, teacher, sizes, tile=18), student), wanted, atol=1e-12, rtol=1e-10)


def test_pictures_of_one_size_go_through_one_product_even_when_others_stand_between() -> None:
    sizes = (16, 8) * 8
    counted = CountProducts()
    with counted:
        gram_loss(*rows(sizes, dtype=torch.float32), sizes, tile=128).backward()
    assert counted.products <= 2 * 3  # two sizes; student, teacher and gradient


def test_single_precision_is_close_to_the_formula_at_many_tokens() -> None:
    student, teacher = rows((700,), dim=48, dtype=torch.float32)
    wanted = with_gradient(dense_gram_loss(student.double(), teacher.double(), (700,)), student)
    found = with_gradient(gram_loss(student, teacher, (700,), tile=256), student)
    torch.testing.assert_close(found[0].double(), wanted[0].double(), rtol=1e-5, atol=0)
    torch.testing.assert_close(found[1], wanted[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sizes", [(13,), (6, 6), UNEQUAL])
def test_rows_may_lie_in_memory_as_they_like(sizes: tuple[int, ...]) -> None:
    student, teacher = rows(sizes)
    wanted = with_gradient(gram_loss(student, teacher, sizes, tile=6), student)
    across = student.detach().T.contiguous().T.requires_grad_()
    assert not across.is_contiguous()
    torch.testing.assert_close(with_gradient(gram_loss(across, teacher, sizes, tile=6), across), wanted)


@pytest.mark.parametrize("form", ["clipped", "symmetric"])
def test_the_gradient_is_that_of_finite_differences(form: Form) -> None:
    student, teacher = rows((4, 5), dim=3)
    assert torch.autograd.gradcheck(lambda z: gram_loss(z, teacher, (4, 5), form, 3), student)


def test_a_student_less_alike_than_its_teacher_pays_exactly_nothing() -> None:
    student, teacher = torch.eye(9, requires_grad=True), torch.eye(9) + 0.3
    for tile in (4, 512):
        loss, gradient = with_gradient(gram_loss(student, teacher, (9,), tile=tile), student)
        assert loss == 0 and torch.equal(gradient, torch.zeros(9, 9))
    other_way, pull = with_gradient(gram_loss(teacher.requires_grad_(), student, (9,)), teacher)
    assert other_way > 0.1 and pull.abs().max() > 0
    torch.testing.assert_close(gram_loss(student, teacher, (9,), "symmetric").detach(), other_way)


def test_a_student_equal_to_its_teacher_pays_exactly_nothing() -> None:
    student = rows((600,), dim=40, dtype=torch.float32)[0]
    for form in ("clipped", "symmetric"):
        loss, gradient = with_gradient(gram_loss(student, student.detach().clone(), (600,), form, 256), student)
        assert loss == 0 and torch.equal(gradient, torch.zeros_like(student))


def test_one_pair_has_its_closed_form() -> None:
    """Two rows at cosine 1 against two at cosine 0.6: one excess of 0.4, twice, for (a, b) and (b, a)."""
    student, teacher = torch.tensor([[2.0, 0.0], [5.0, 0.0]]), torch.tensor([[1.0, 0.0], [3.0, 4.0]])
    assert float(gram_loss(student, teacher, (2,))) == pytest.approx(2 * 0.4**2)
    assert float(gram_loss(teacher, student, (2,))) == 0
    assert float(gram_loss(teacher, student, (2,), "symmetric")) == pytest.approx(2 * 0.4**2)
    assert float(gram_loss(student, teacher, (1, 1))) == 0
    assert gram_pairs((2,)) == 4 and gram_pairs((1, 3, 2)) == 14 and gram_pairs(()) == 0


def test_rotation_and_length_of_either_side_change_nothing() -> None:
    student, teacher = rows(dim=6)
    generator = torch.Generator().manual_seed(1)
    turn, other = (torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64, generator=generator))[0] for _ in range(2))
    wanted, slope = with_gradient(gram_loss(student, teacher, UNEQUAL), student)
    torch.testing.assert_close(gram_loss(student @ turn, teacher, UNEQUAL), wanted)
    torch.testing.assert_close(gram_loss(student @ turn, teacher @ other, UNEQUAL), wanted)
    lengths = torch.linspace(0.1, 20, len(student), dtype=torch.float64)[:, None]
    torch.testing.assert_close(gram_loss(student * lengths, teacher / lengths, UNEQUAL), wanted)
    torch.testing.assert_close((slope * student).sum(1), torch.zeros_like(slope[:, 0]))  # nothing along a row


def test_pictures_are_held_apart() -> None:
    student, teacher = rows((6, 6), dtype=torch.float64)
    parts = [gram_loss(student[part], teacher[part], (6,)) for part in (slice(0, 6), slice(6, 12))]
    together = gram_loss(student, teacher, (6, 6))
    torch.testing.assert_close(together, parts[0] + parts[1])
    assert not torch.isclose(together, gram_loss(student, teacher, (12,)))


def test_the_teacher_gets_no_gradient_and_no_anchor_gives_zero_on_the_graph() -> None:
    student, teacher = rows((4, 3))
    teacher.requires_grad_()
    gram_loss(student, teacher, (4, 3)).backward()
    assert teacher.grad is None and student.grad is not None
    loss, gradient = with_gradient(gram_loss(student, teacher, (4, 3), "none"), student)
    assert loss == 0 and torch.equal(gradient, torch.zeros_like(student))


def test_rows_of_zeros_are_like_nothing_and_feel_nothing() -> None:
    student, teacher = rows((6,), dtype=torch.float32)
    with torch.no_grad():
        student[2], teacher[4] = 0, 0
    loss, gradient = with_gradient(gram_loss(student, teacher, (6,), "symmetric"), student)
    assert loss.isfinite() and gradient.isfinite().all() and not gradient[2].any() and gradient[3].any()
    assert gradient.abs().max() < 100


def test_a_student_that_is_not_a_number_shows() -> None:
    student, teacher = rows((6,), dtype=torch.float32)
    student = student.detach().clone()
    student[1, 1] = float("nan")
    assert gram_loss(student, teacher, (6,)).isnan() and gram_loss(student[1:2], teacher[1:2], (1,)).isnan()


def test_half_precision_and_autocast_are_computed_in_single() -> None:
    student, teacher = rows((40, 9), dtype=torch.bfloat16)
    single = student.detach().float().requires_grad_()
    wanted = with_gradient(gram_loss(single, teacher.float(), (40, 9), tile=16), single)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, gradient = with_gradient(gram_loss(student, teacher, (40, 9), tile=16), student)
        cast = with_gradient(gram_loss(single, teacher.float(), (40, 9), tile=16), single)
    assert loss.dtype == torch.float32 and gradient.dtype == torch.bfloat16
    torch.testing.assert_close((loss, gradient.float()), wanted, rtol=1e-2, atol=1e-3)
    torch.testing.assert_close(loss, wanted[0], rtol=1e-6, atol=0)
    assert all(torch.equal(one, other) for one, other in zip(cast, wanted, strict=True))


def test_a_kept_graph_gives_the_same_gradient_again_and_scales_with_what_comes_after() -> None:
    student, teacher = rows((9, 4))
    wanted = torch.autograd.grad(dense_gram_loss(student, teacher, (9, 4)), student)[0]
    loss = gram_loss(student, teacher, (9, 4), tile=4)
    for factor in (3.0, 0.0, -2.0, 1.0):
        torch.testing.assert_close(torch.autograd.grad(factor * loss, student, retain_graph=True)[0], factor * wanted)


def test_the_gradient_cannot_be_differentiated_again() -> None:
    student, teacher = rows((5,))
    slope = torch.autograd.grad(gram_loss(student, teacher, (5,)).square(), student, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


def test_what_does_not_fit_together_is_refused() -> None:
    student, teacher = rows((5,))
    with pytest.raises(ValueError, match=r"add up to 4, but there are 5"):
        gram_loss(student, teacher, (1, 3))
    with pytest.raises(ValueError, match="sizes"):
        gram_loss(student, teacher, (6, -1))
    with pytest.raises(ValueError, match="tile is 0"):
        gram_loss(student, teacher, (5,), tile=0)
    bare: Callable[..., Any] = gram_loss.__wrapped__  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="same tokens"):
        bare(student, teacher[:4], (5,))
    with pytest.raises(UnknownName, match="clipped, symmetric, none"):
        bare(student, teacher, (5,), "clamped")
    with pytest.raises(TypeCheckError):
        gram_loss(student, teacher[:4], (5,))


class Watch(TorchDispatchMode):
    """Numbers in the largest tensor that any operation made."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        self.largest = max([self.largest, *(each.numel() for each in torch.utils._pytree.tree_leaves(made) if isinstance(each, Tensor))])
        return made


class CountProducts(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.products = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.products += func.overloadpacket in (torch.ops.aten.bmm, torch.ops.aten.baddbmm_, torch.ops.aten.baddbmm)
        return func(*args, **(kwargs or {}))


def test_nothing_made_on_the_way_grows_with_the_pairs() -> None:
    largest = {}
    for size in (512, 1024):
        student, teacher = rows((size,), dim=32, dtype=torch.float32)
        with Watch() as watch:
            gram_loss(student, teacher, (size,), tile=64).backward()
        largest[size] = watch.largest
    assert largest == {512: 512 * 64, 1024: 1024 * 64}
    with Watch() as watch:
        dense_gram_loss(*rows((512,), dim=32), (512,)).backward()
    assert watch.largest == 512 * 512


def test_what_waits_for_the_way_back_grows_with_the_tokens() -> None:
    kept = {}
    for size in (512, 1024):
        student, teacher = rows((size,), dim=32, dtype=torch.float32)
        saved: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda each, saved=saved: (saved.append(each.numel()), each)[1], lambda each: each):
            gram_loss(student, teacher, (size,), tile=64)
        kept[size] = sum(saved)
    assert kept == {512: 2 * 512 * 32, 1024: 2 * 1024 * 32}


def test_without_a_gradient_to_find_only_the_two_products_are_made() -> None:
    student, teacher = rows((8,), dtype=torch.float32)
    with torch.no_grad(), CountProducts() as counted:
        gram_loss(student, teacher, (8,))
    assert counted.products == 2


@pytest.mark.parametrize("tile", TILES)
def test_with_means_each_picture_counts_once(tile: int) -> None:
    student, teacher = rows()
    starts = [sum(UNEQUAL[:number]) for number in range(len(UNEQUAL))]
    means = [
        dense_gram_loss(student[start : start + size], teacher[start : start + size], (size,)) / size**2
        for start, size in zip(starts, UNEQUAL, strict=True)
        if size
    ]
    wanted = with_gradient(torch.stack(means).sum(), student)
    found = with_gradient(gram_loss(student, teacher, UNEQUAL, tile=tile, by_picture="mean"), student)
    torch.testing.assert_close(found, wanted, atol=1e-12, rtol=1e-10)
    again = gram_loss(student, teacher, UNEQUAL, tile=tile, by_picture="mean")
    again.backward(retain_graph=True)
    first = student.grad.clone()  # type: ignore[union-attr]
    student.grad = None
    again.backward()
    torch.testing.assert_close(student.grad, first)
