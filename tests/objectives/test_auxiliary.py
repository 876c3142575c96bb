"""Auxiliary losses: their formulas, on which families they run, where their gradients go, and what a pass shows them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from helpers import tiny_families
from helpers.tiny_llava import tiny_vlm
from objectives.test_laver import MIXED, batch_of, freeze_encoder
from theodolite.models.families import family_of
from theodolite.models.forward import adapt
from theodolite.models.pass_inputs import plan_of
from theodolite.models.token_features import feature_layer
from theodolite.objectives.align import AlignConfig, cosine_distance
from theodolite.objectives.laver import LaVer, LaverConfig
from theodolite.objectives.pixels import EPSILON, PixelsConfig, pixel_targets
from theodolite.objectives.predict import PredictConfig, regression_loss
from theodolite.objectives.terms import combine
from theodolite.objectives.visual import AuxiliaryConfig, VisualObjective, auxiliary_losses
from theodolite.records.errors import BadInput
from theodolite.training.objective_module import ObjectiveModule
from theodolite.training.teacher_callback import TeacherCallback

SETTINGS: dict[str, Any] = {
    "pixels": PixelsConfig(side=4, head_hidden=24), "align": AlignConfig(head_hidden=24), "predict": PredictConfig(head_hidden=24),
}  # fmt: skip


def learner(name: str, **losses: Any) -> tuple[ObjectiveModule, dict[str, Any]]:
    model, _, _ = tiny_families.tiny(name)
    freeze_encoder(model)
    adapt(model, MIXED)
    torch.manual_seed(1)
    return ObjectiveModule(model, VisualObjective(model, AuxiliaryConfig(mask_ratio=0.4, mask_ramp="constant", **losses))), batch_of(
        name, model
    )


# Pictures in tiles, and a connector without a linear layer.
REFUSED = {"llava_onevision": tuple(SETTINGS), "gemma3": ("align", "predict")}


@pytest.mark.parametrize("loss", SETTINGS)
@pytest.mark.parametrize("name", tiny_families.NAMES)
def test_a_step_is_finite_and_its_gradients_are_where_they_belong(name: str, loss: str) -> None:
    if loss in REFUSED.get(name, ()):
        with pytest.raises(BadInput, match="tiles|no linear layer"):
            module, batch = learner(name, **{loss: SETTINGS[loss]})
            module(module.objective.prepare(batch, 5, 10), 5)
        return
    module, batch = learner(name, **{loss: SETTINGS[loss]})
    prepared = module.objective.prepare(batch, 5, 10)
    terms, counts = module(prepared, 5), module.objective.counts(prepared)
    assert {key: term.count for key, term in terms.items()} == dict(counts)
    visual = [key for key in terms if key != "language"]
    assert all(torch.isfinite(terms[key].total) and float(terms[key].total.detach()) > 0 for key in visual)
    combine({key: terms[key] for key in visual}, counts).backward()
    moved = {key for key, value in module.named_parameters() if value.grad is not None and bool(value.grad.abs().sum() > 0)}
    family = family_of(module.vlm.config)
    assert {f"objective.losses.{loss}.head.layers.{number}.weight" for number in (0, 2, 4)} <= moved
    assert any(key.startswith(f"vlm.{path}") for path in family.connector for key in moved)
    frozen = {f"vlm.{key}" for key, value in module.vlm.named_parameters() if not value.requires_grad}
    assert not frozen & moved
    assert not any(key.startswith(f"vlm.{family.lm_head}") for key in moved) or module.vlm.config.get_text_config().tie_word_embeddings
    layers = [key for key in moved if f"vlm.{family.language_model}.layers.1." in key]
    assert bool(layers) == (loss != "align"), "of two layers align reads the first"
