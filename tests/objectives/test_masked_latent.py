"""The masked-latent loss against the formula of iBOT written out, and the parts that it trains."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from theodolite.objectives.masked_latent import Centre, MaskEmbedding, VisionHead, masked_latent_loss
from theodolite.records.errors import BadInput


def outputs(tokens: int = 7, prototypes: int = 5, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(tokens, prototypes, generator=generator, dtype=torch.float64).to(dtype) for _ in range(2))
    centre = torch.randn(prototypes, generator=generator, dtype=torch.float64).to(dtype)
    return student.requires_grad_(), teacher.requires_grad_(), centre


def written_out(student: Tensor, teacher: Tensor, centre: Tensor, student_temperature: float, teacher_temperature: float) -> Tensor:
    """iBOT: sum over masked tokens of -sum_k p_t[k] log p_s[k], each distribution by its own definition."""
    total = torch.zeros((), dtype=torch.float64)
    for s, t in zip(student, teacher, strict=True):
        target = ((t - centre) / teacher_temperature).exp()
        guess = (s / student_temperature).exp()
        total = total - (target / target.sum() * (guess / guess.sum()).log()).sum()
    return total


@pytest.mark.parametrize(("student_temperature", "teacher_temperature"), [(0.1, 0.04), (1.0, 1.0), (0.3, 0.7)])
def test_value_and_gradient_equal_the_formula(student_temperature: float, teacher_temperature: float) -> None:
    student, teacher, centre = outputs()
    wanted = written_out(student, teacher.detach(), centre, student_temperature, teacher_temperature)
    found = masked_latent_loss(student, teacher, centre, student_temperature, teacher_temperature)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(torch.autograd.grad(found, student), torch.autograd.grad(wanted, student))


def test_the_published_temperatures_are_the_default() -> None:
    student, teacher, centre = outputs()
    assert torch.equal(masked_latent_loss(student, teacher, centre), masked_latent_loss(student, teacher, centre, 0.1, 0.04))


def test_a_student_that_agrees_pays_the_entropy_and_feels_nothing() -> None:
    _, teacher, centre = outputs()
    agreeing = ((teacher.detach() - centre) * 0.1 / 0.04).requires_grad_()
    loss = masked_latent_loss(agreeing, teacher, centre)
    entropy = torch.distributions.Categorical(logits=(teacher.detach() - centre) / 0.04).entropy().sum()
    torch.testing.assert_close(loss.detach(), entropy)
    torch.testing.assert_close(torch.autograd.grad(loss, agreeing)[0], torch.zeros_like(agreeing))


def test_only_the_student_gets_a_gradient_and_nothing_is_changed() -> None:
    student, teacher, _ = outputs(dtype=torch.float32)
    centre = Centre(5)
    centre.update(torch.arange(5.0), 2)
    before = [each.detach().clone() for each in (student, teacher, centre.value)]
    first = masked_latent_loss(student, teacher, centre.value)
    assert torch.equal(first, masked_latent_loss(student, teacher, centre.value))
    first.backward()
    assert student.grad is not None and student.grad.any() and teacher.grad is None
    assert all(torch.equal(one, other) for one, other in zip(before, (student, teacher, centre.value), strict=True))


def test_parts_add_up_to_the_whole_and_no_token_gives_zero_on_the_graph() -> None:
    student, teacher, centre = outputs()
    parts = [masked_latent_loss(student[part], teacher[part], centre) for part in (slice(0, 2), slice(2, 7), slice(7, 7))]
    torch.testing.assert_close(torch.stack(parts).sum(), masked_latent_loss(student, teacher, centre))
    assert str(parts[2].item()) == "0.0"
    assert torch.equal(torch.autograd.grad(parts[2], student)[0], torch.zeros_like(student))


def test_half_precision_and_autocast_are_computed_in_single() -> None:
    student, teacher, centre = outputs(tokens=30, prototypes=64, dtype=torch.bfloat16)
    wanted = masked_latent_loss(student.detach().float(), teacher.float(), centre.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = masked_latent_loss(student, teacher, centre.float())
    assert found.dtype == torch.float32 and torch.autograd.grad(found, student)[0].dtype == torch.bfloat16
    torch.testing.assert_close(found.detach(), wanted, rtol=1e-6, atol=0)


def test_outputs_far_from_zero_stay_finite() -> None:
    student, teacher = torch.tensor([[0.0, 900.0]], requires_grad=True), torch.tensor([[900.0, 0.0]])
    loss = masked_latent_loss(student, teacher, torch.zeros(2))
    assert float(loss.detach()) == pytest.approx(9000)
    torch.testing.assert_close(torch.autograd.grad(loss, student)[0], torch.tensor([[-10.0, 10.0]]))


def test_a_temperature_of_zero_is_refused() -> None:
    student, teacher, centre = outputs()
    with pytest.raises(BadInput, match=r"above 0; found 0\.1 .* and 0\.0 "):
        masked_latent_loss(student, teacher, centre, 0.1, 0.0)


def test_the_centre_has_its_closed_form_and_stands_still_without_tokens() -> None:
    centre, generator = Centre(3, momentum=0.9), torch.Generator().manual_seed(0)
    totals, counts = torch.randn(6, 3, generator=generator), [4, 1, 7, 2, 9, 3]
    for total, count in zip(totals, counts, strict=True):
        centre.update(total, count)
        still = centre.value.clone()
        centre.update(torch.full((3,), float("nan")), 0)
        assert torch.equal(centre.value, still)
    wanted = sum(0.1 * 0.9 ** (5 - step) * total / count for step, (total, count) in enumerate(zip(totals, counts, strict=True)))
    torch.testing.assert_close(centre.value, wanted)


def test_one_mean_over_the_step_is_not_the_mean_of_its_parts() -> None:
    whole, parts = Centre(1, momentum=0.0), Centre(1, momentum=0.0)
    whole.update(torch.tensor([1.0 + 8.0]), 1 + 3)
    parts.update(torch.tensor([1.0]), 1)
    parts.update(torch.tensor([8.0]), 3)
    assert whole.value.item() == pytest.approx(9 / 4) != parts.value.item()


def test_the_centre_moves_with_the_weights_but_is_neither_trained_nor_in_the_state_dict() -> None:
    """accelerate takes each entry of a state dict for a sharded parameter; `TeacherCallback` saves the centre."""
    centre = Centre(3)
    assert [name for name, _ in centre.named_buffers()] == ["value"] and list(centre.parameters()) == []
    assert not centre.state_dict()
    assert torch.equal(centre.value, torch.zeros(3))
    with pytest.raises(ValueError, match="-1"):
        centre.update(torch.zeros(3), -1)
    for momentum in (1.0, -0.1):
        with pytest.raises(BadInput, match="momentum"):
            Centre(3, momentum)


def test_the_head_is_three_layers_with_gelu_between_them() -> None:
    torch.manual_seed(0)
    head, states = VisionHead(4, 8, 6), torch.randn(2, 5, 4)
    (a, p), (b, q), (c, r) = (tuple(layer.parameters()) for layer in head.layers if isinstance(layer, torch.nn.Linear))
    gelu = torch.nn.functional.gelu
    torch.testing.assert_close(head(states), gelu(gelu(states @ a.T + p) @ b.T + q) @ c.T + r)
    assert (a.shape, b.shape, c.shape) == ((8, 4), (8, 8), (6, 8)) and head(states).shape == (2, 5, 6)


def test_the_mask_embedding_stands_where_masked_and_nowhere_else() -> None:
    torch.manual_seed(0)
    mask, embeddings = MaskEmbedding(4), torch.randn(2, 3, 4, requires_grad=True)
    masked = torch.tensor([[True, False, False], [False, True, True]])
    out = mask(embeddings, masked)
    assert torch.equal(out[masked], mask.value.expand(3, 4)) and torch.equal(out[~masked], embeddings[~masked])
    out.sum().backward()
    assert torch.equal(mask.value.grad, torch.full((4,), 3.0))
    assert torch.equal(embeddings.grad, (~masked)[..., None].expand(2, 3, 4).float())


def test_the_mask_embedding_is_on_the_graph_even_where_nothing_is_masked() -> None:
    mask, embeddings = MaskEmbedding(4), torch.randn(5, 4, dtype=torch.bfloat16)
    out = mask(embeddings, torch.zeros(5, dtype=torch.bool))
    assert out.dtype == torch.bfloat16 and torch.equal(out, embeddings)
    out.sum().backward()
    assert torch.equal(mask.value.grad, torch.zeros(4))


def test_the_mask_embedding_starts_with_the_deviation_asked_for() -> None:
    torch.manual_seed(0)
    assert MaskEmbedding(20_000).value.std().item() == pytest.approx(0.02, rel=0.03)
    assert MaskEmbedding(20_000, 0.5).value.std().item() == pytest.approx(0.5, rel=0.03)
