"""The teacher: closed form, exactly the trained parameters, and a student that is the same to the bit after teaching."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from theodolite.objectives.teacher import Teacher
from theodolite.records.errors import BadInput


def student(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).to(dtype)
    model[0].weight.requires_grad_(False)
    return model


def test_after_n_updates_it_has_its_closed_form() -> None:
    model = student()
    teacher = Teacher.of(model)
    start, seen = model[1].weight.detach().clone(), []
    for number in range(5):
        with torch.no_grad():
            model[1].weight.add_(0.1 * (number + 1))
        seen.append(model[1].weight.detach().clone())
        teacher.update(model, decay=0.95)
    expected = 0.95**5 * start + sum(0.05 * 0.95 ** (4 - number) * value for number, value in enumerate(seen))
    torch.testing.assert_close(teacher.shadow["1.weight"], expected)


def test_it_follows_exactly_what_is_trained() -> None:
    assert set(Teacher.of(student()).shadow) == {"0.bias", "1.weight", "1.bias"}


def test_while_teaching_its_weights_are_in_place_and_afterwards_the_students_to_the_bit() -> None:
    model = student()
    teacher = Teacher.of(model)
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    before = model(x)
    with torch.no_grad():
        model[1].weight.mul_(2)
    after, held, kept = model(x), model[1].weight, model[1].weight.detach().clone()
    with teacher.teaching(model):
        found = model(x)
        assert torch.equal(found, before)
        assert not found.requires_grad
        assert model[1].weight is held
    assert torch.equal(model[1].weight, kept)
    assert torch.equal(model(x), after)


def test_an_error_while_teaching_leaves_the_student_as_it_was() -> None:
    model = student()
    teacher = Teacher.of(model)
    with torch.no_grad():
        model[1].weight.mul_(2)
    kept = model[1].weight.detach().clone()
    with pytest.raises(RuntimeError, match="in the middle"), teacher.teaching(model):
        raise RuntimeError("in the middle")
    assert torch.equal(model[1].weight, kept)


def test_gradients_under_autocast_do_not_depend_on_whether_a_teacher_taught_before() -> None:
    """autocast keeps the casts of weights; kept from the teacher's pass they would be its weights, without a gradient."""
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    gradients = []
    for teaching in (False, True):
        model = student()
        teacher = Teacher.of(model)
        with torch.no_grad():
            model[1].weight.mul_(2)
        with torch.autocast("cpu", torch.bfloat16):
            if teaching:
                with teacher.teaching(model):
                    model(x)
            model(x).square().sum().backward()
        assert model[1].weight.grad is not None
        gradients.append(model[1].weight.grad.clone())
    assert torch.equal(*gradients)


def test_a_teacher_of_bf16_weights_is_kept_in_fp32_and_moves_by_small_steps() -> None:
    model = student(torch.bfloat16)
    teacher = Teacher.of(model)
    assert all(value.dtype == torch.float32 for value in teacher.shadow.values())
    start = teacher.shadow["1.weight"].clone()
    with torch.no_grad():
        model[1].weight.add_(model[1].weight.abs() / 64)
    for _ in range(3):
        teacher.update(model, decay=0.95)
    moved = (teacher.shadow["1.weight"] - start) / (model[1].weight.float() - start)
    torch.testing.assert_close(moved, torch.full_like(moved, 1 - 0.95**3), atol=1e-3, rtol=0)
    with teacher.teaching(model):
        assert model[1].weight.dtype == torch.bfloat16


def test_empty_partitioned_parameters_are_refused() -> None:
    """What DeepSpeed ZeRO-3 leaves in each parameter's place."""
    model = student()
    model[1].weight.data = torch.empty(0)
    with pytest.raises(BadInput, match=r"1\.weight first: DeepSpeed ZeRO-3.*use FSDP2 or DDP"):
        Teacher.of(model)


def test_a_frozen_model_and_a_changed_set_of_parameters_are_refused() -> None:
    with pytest.raises(BadInput, match="unfreeze a part"):
        Teacher.of(student().requires_grad_(False))
    model = student()
    teacher = Teacher.of(model)
    model[1].bias.requires_grad_(False)
    with pytest.raises(BadInput, match=r"1\.bias"):
        teacher.update(model, 0.95)


def test_it_is_saved_and_loaded_whole() -> None:
    model = student()
    teacher = Teacher.of(model)
    state = {name: value + 1 for name, value in teacher.state_dict().items()}
    teacher.load_state_dict(state)
    assert all(torch.equal(teacher.shadow[name], value) for name, value in state.items())
    with pytest.raises(BadInput, match="resume with the recipe"):
        teacher.load_state_dict({"1.weight": state["1.weight"]})
