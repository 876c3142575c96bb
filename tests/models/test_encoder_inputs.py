"""What Qwen-VL's encoders are given beforehand: the same outputs and gradients to the bit as where the library derives it in each pass."""

from __future__ import annotations

import pytest
import torch

from helpers import tiny_families
from helpers.conversations import IMAGE, says
from theodolite.data.packing import PackingCollator
from theodolite.data.sources import TrainingExample
from theodolite.models.encoder_inputs import encoder_inputs
from theodolite.models.families import FAMILIES, family_of
from theodolite.models.forward import Adaptation, adapt, run_forward
from theodolite.models.pass_inputs import whole_inputs
from theodolite.models.pictures import PictureReader

PLANNED = sorted(name for name, family in FAMILIES.items() if family.plans)


@pytest.mark.parametrize("name", PLANNED)
def test_a_planned_pass_is_the_librarys_own_to_the_bit(name: str) -> None:
    """Pictures of different sizes, two in one sample."""
    model, image_processor, words = tiny_families.tiny(name)
    adapt(model, Adaptation("mixed", "2d"))
    pictures = [tiny_families.picture(number, size) for number, size in enumerate(tiny_families.SIZES[:3])]
    turns = (says("user", IMAGE, IMAGE, "what colour"), says("assistant", "red")), (says("user", IMAGE, "a b"), says("assistant", "yes no"))
    data = [TrainingExample("two", tuple(pictures[:2]), turns[:1]), TrainingExample("one", tuple(pictures[2:]), turns[1:])]
    batch = PackingCollator(words, PictureReader(image_processor, words, model.config), max_length=400)(data)
    results = []
    for given in (batch, {key: value for key, value in batch.items() if key != "plan"}):
        inputs = whole_inputs(model.config, given)
        assert ("image_position_ids" in inputs.pixels) == ("plan" in given)
        logits = run_forward(model, inputs, Adaptation("mixed", "2d")).logits
        model.zero_grad()
        logits.square().sum().backward()
        gradients = [value.grad for path in family_of(model.config).connector for value in model.get_submodule(path).parameters()]
        results.append((logits.detach(), *(value.clone() for value in gradients if value is not None)))
    planned, own = results
    assert len(planned) == len(own) > 1
    assert all(torch.equal(one, other) for one, other in zip(planned, own, strict=True))


def test_other_families_are_given_nothing() -> None:
    model, *_ = tiny_families.tiny("llava")
    assert encoder_inputs(model.config, {"pixel_values": torch.zeros(1)}) == {}
