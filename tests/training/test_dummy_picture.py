"""A dummy picture: losses and gradients are those without it, and encoder and connector run."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from helpers import tiny_families
from helpers.conversations import says
from theodolite.data.collate import Collator
from theodolite.data.packing import PackingCollator
from theodolite.data.sources import TrainingExample
from theodolite.models.families import family_of
from theodolite.models.forward import Adaptation, adapt
from theodolite.models.pictures import PictureReader
from theodolite.objectives.laver import LaVer, LaverConfig
from theodolite.objectives.terms import combine
from theodolite.records.errors import BadInput
from theodolite.training.dummy_picture import DummyPicture
from theodolite.training.objective_module import ObjectiveModule
from theodolite.training.teacher_callback import TeacherCallback

TEXTS = (
    TrainingExample("a", (), ((says("user", "what colour is the shape"), says("assistant", "blue round")),)),
    TrainingExample("b", (), ((says("user", "a b"), says("assistant", "yes")),)),
)


def step_of(module: ObjectiveModule, batch: dict[str, Any]) -> tuple[float, dict[str, Any], dict[str, int], dict[str, torch.Tensor | None]]:
    """Loss, terms, counts and gradients of one step, and the sum that would move the centre."""
    objective = module.objective
    module.zero_grad()
    callback = TeacherCallback(module, objective)  # type: ignore[arg-type]
    prepared = dict(objective.prepare(batch, 5, 10))
    counts = dict(objective.counts(prepared))
    terms = module(callback.teach(module, prepared, 5), 5)
    loss = combine(terms, counts)
    loss.backward()
    assert callback._count == 0
    gradients = {name: parameter.grad for name, parameter in module.named_parameters() if parameter.requires_grad}
    return loss.item(), {name: term.count for name, term in terms.items()}, counts, gradients


@pytest.mark.parametrize("branch", ["joint", "separate"])
@pytest.mark.parametrize("name", tiny_families.NAMES)
def test_loss_and_gradients_are_those_without_it(name: str, branch: Any) -> None:
    model, image_processor, words = tiny_families.tiny(name)
    family = family_of(model.config)
    model.get_submodule(family.encoder).requires_grad_(False)
    connector = [each for path in family.connector for each in model.get_submodule(path).requires_grad_(True).modules()]
    adapt(model, Adaptation("mixed", "2d"))
    torch.manual_seed(1)
    module = ObjectiveModule(model, LaVer(model.config, LaverConfig(branch=branch, head_hidden=24, mask_ramp="constant")))
    collator = PackingCollator(words, PictureReader(image_processor, words, model.config), max_length=400)
    batch = collator(TEXTS)
    expected = step_of(module, batch)
    ran: list[Any] = []
    model.get_submodule(family.encoder).register_forward_hook(lambda *_: ran.append(None))
    dummy = DummyPicture.of_collator(collator)
    found = step_of(module, dummy.added_to(batch))
    assert ran
    assert found[0] == pytest.approx(expected[0], abs=2e-6)
    assert found[1:3] == expected[1:3]
    for path, gradient in found[3].items():
        assert gradient is not None, path  # which FSDP2 needs to reduce the same tensors on every process
        before = expected[3][path]
        torch.testing.assert_close(gradient, torch.zeros_like(gradient) if before is None else before, atol=2e-6, rtol=1e-5, msg=path)
    own = {id(parameter) for each in connector for parameter in each.parameters()}
    assert all(bool((parameter.grad == 0).all()) for parameter in module.parameters() if id(parameter) in own)


def test_a_collator_that_reads_no_pictures_is_refused() -> None:
    with pytest.raises(BadInput, match="Collator has no PictureReader"):
        DummyPicture.of_collator(Collator.__new__(Collator))
