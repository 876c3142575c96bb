"""The answers' loss in parts: the same loss and gradients, and never more logits at a time than asked for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from helpers import tiny_families
from theodolite.models.exported.grids import picture_grids
from theodolite.models.exported.layout import layout_of
from theodolite.models.families import family_of, image_token_id
from theodolite.models.forward import run_forward
from theodolite.models.pass_inputs import PassInputs
from theodolite.objectives.language import answer_loss, chunked_loss, next_token_loss

VOCABULARY, DIM, POSITIONS = 97, 6, 23


class LargestTensor(TorchDispatchMode):
    """The most elements of any tensor that was made, in forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        self.elements = max([self.elements, *(each.numel() for each in tree_leaves(output) if isinstance(each, torch.Tensor))])
        return output


def parts() -> tuple[nn.Linear, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    head = nn.Linear(DIM, VOCABULARY)
    labels = torch.randint(0, VOCABULARY, (POSITIONS,))
    labels[3] = -100
    return head.double(), torch.randn(POSITIONS, DIM, dtype=torch.float64, requires_grad=True), labels


@pytest.mark.parametrize("most_logits", [1, VOCABULARY, 5 * VOCABULARY, 10**9])
def test_loss_and_gradients_are_those_of_all_logits_at_once(most_logits: int) -> None:
    head, states, labels = parts()
    found = [chunked_loss(head, states, labels, VOCABULARY, most_logits)]
    found += torch.autograd.grad(found[0], (states, head.weight, head.bias))
    wanted = [next_token_loss(head(states), labels)]
    wanted += torch.autograd.grad(wanted[0], (states, head.weight, head.bias))
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)


def test_no_more_logits_exist_than_asked_for() -> None:
    head, states, labels = parts()
    with LargestTensor() as largest:
        chunked_loss(head, states, labels, VOCABULARY, 5 * VOCABULARY).backward()
    assert largest.elements == max(5 * VOCABULARY, VOCABULARY * DIM)
    with LargestTensor() as largest:
        chunked_loss(head, states, labels, VOCABULARY).backward()
    assert largest.elements == POSITIONS * VOCABULARY


@pytest.mark.parametrize("name", tiny_families.NAMES)
def test_the_answers_loss_is_that_of_the_stock_logits(name: str) -> None:
    model, _, _ = tiny_families.tiny(name)
    given = tiny_families.inputs(name, model)
    pixels = {key: given[key] for key in family_of(model.config).pixel_inputs if key in given}
    layout = layout_of(given["input_ids"], image_token_id(model.config), picture_grids(model.config, pixels), given["attention_mask"])
    wanted = (layout.real & ~layout.vision).flatten().nonzero()[:-1, 0]
    labels = given["input_ids"].flatten()[wanted]
    inputs = PassInputs(given["input_ids"], layout, pixels, wanted=wanted)
    with torch.no_grad():
        answers = answer_loss(model, inputs, {"labels": labels})
        logits = run_forward(model, inputs).logits
    assert answers.output.logits.shape == (1, 1) and answers.at_head == {}
    torch.testing.assert_close(answers.loss, next_token_loss(logits, labels))
