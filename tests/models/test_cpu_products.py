"""bf16 products on CPUs without bf16 instructions: the same numbers as the bf16 kernels, from float32 kernels."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from theodolite.models import cpu_products
from theodolite.models.cpu_products import fast_bf16_products

# One rounding to 8 bits of mantissa, twice where sums in another order fall on the other side of a boundary.
ROUNDING = 2**-7


@pytest.fixture
def without_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_products, "has_bf16_products", lambda: False)


def draws(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).bfloat16()


PRODUCTS: dict[str, Callable[[], Tensor]] = {
    "mm": lambda: draws(40, 30) @ draws(30, 20),
    "addmm": lambda: torch.addmm(draws(20), draws(40, 30), draws(30, 20)),
    "bmm": lambda: draws(3, 40, 30) @ draws(3, 30, 20),
    "baddbmm": lambda: torch.baddbmm(draws(3, 40, 20), draws(3, 40, 30), draws(3, 30, 20), beta=0.5),
    "conv2d": lambda: nn.functional.conv2d(draws(2, 3, 16, 16), draws(8, 3, 4, 4), stride=4),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_equal_those_of_the_bf16_kernels(name: str, without_instructions: None) -> None:
    expected = PRODUCTS[name]()
    with fast_bf16_products():
        found = PRODUCTS[name]()
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected, rtol=ROUNDING, atol=ROUNDING)


def test_gradients_under_autocast_equal_those_without_the_context(without_instructions: None) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 4, stride=4), nn.Flatten(), nn.Linear(128, 16), nn.GELU(), nn.Linear(16, 4))
    pictures = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))

    def gradients() -> list[Tensor]:
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(pictures).square().sum()
        loss.backward()
        return [each.grad.clone() for each in model.parameters() if each.grad is not None]

    expected = gradients()
    with fast_bf16_products():
        found = gradients()
    assert len(found) == 6
    for each, other in zip(found, expected, strict=True):
        torch.testing.assert_close(each, other, rtol=0.05, atol=0.02 * float(other.abs().max()))


def test_kernels_are_those_of_float32(without_instructions: None) -> None:
    left, right = draws(4, 4), draws(4, 4)
    with fast_bf16_products(), torch.profiler.profile() as profile:
        left @ right
    assert "aten::_to_copy" in {event.name for event in profile.events()}
    with torch.profiler.profile() as profile:
        left @ right
    assert "aten::_to_copy" not in {event.name for event in profile.events()}


def test_nothing_is_changed_where_the_cpu_has_the_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_products, "has_bf16_products", lambda: True)
    with fast_bf16_products():
        assert not torch.utils._python_dispatch.is_in_torch_dispatch_mode()
