"""Auxiliary losses: their formulas, on which families they run, where their gradients go, and what a pass shows them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from helpers import tiny_families
from helpers.laver_batches import batch as hand_made
from helpers.tiny_llava import tiny_vlm
from objectives.test_laver import MIXED, batch_of, freeze_encoder
from theodolite.models.exported.grids import picture_grids
from theodolite.models.exported.layout import layout_of
from theodolite.models.families import family_of
from theodolite.models.forward import adapt, run_forward
from theodolite.models.pass_inputs import BatchPlan, plan_of, whole_inputs
from theodolite.models.taps import recording_blocks
from theodolite.models.token_features import feature_layer, recording_features
from theodolite.objectives.align import AlignConfig, cosine_distance
from theodolite.objectives.laver import LaVer, LaverConfig
from theodolite.objectives.pixels import EPSILON, PixelsConfig, pixel_targets
from theodolite.objectives.predict import PredictConfig, regression_loss
from theodolite.objectives.terms import combine
from theodolite.objectives.visual import AuxiliaryConfig, VisualObjective, auxiliary_losses, auxiliary_named
from theodolite.records.errors import BadInput, UnknownName
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
        with pytest.raises(BadInput, match=r"tiles|no linear layer"):
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


def by_hand(patch: torch.Tensor) -> torch.Tensor:
    """Normalised pixels of one token, as MAE's code has it."""
    flat = patch.double().flatten()
    return (flat - flat.mean()) / (flat.var() + EPSILON) ** 0.5


def test_pixels_are_those_of_the_tokens_part_of_the_picture() -> None:
    """On raw patches of 8 x 8, two pictures of 64 x 64 in two rows."""
    model, _ = tiny_vlm(frontend="patches")
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    batch = hand_made([["vttt"], ["tvt"]], image_token=model.config.image_token_id, vocabulary=20, pixels={"pixel_values": pixels}, side=8)
    targets = pixel_targets({"pixel_values": pixels}, plan_of(batch), model.config, 8, pixels.device)
    for token in range(2 * 64):
        number, cell = divmod(token, 64)
        row, column = divmod(cell, 8)
        expected = by_hand(pixels[number, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8])
        torch.testing.assert_close(targets[token].double(), expected, atol=1e-5, rtol=0)
    half = pixel_targets({"pixel_values": pixels}, plan_of(batch), model.config, 4, pixels.device)
    first = F.avg_pool2d(pixels[0, :, :8, :8], 2)
    torch.testing.assert_close(half[0].double(), by_hand(first), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_pixels_of_qwen_vl_are_those_of_the_picture_that_its_processor_was_given(name: str) -> None:
    """Its processor cuts a picture into patches in an order of its own; the picture here needs no resizing."""
    model, image_processor, _ = tiny_families.tiny(name)
    vision = model.config.vision_config
    side = vision.patch_size * vision.spatial_merge_size
    array = np.random.default_rng(0).integers(0, 256, (3 * side, 5 * side, 3), dtype=np.uint8)
    given = image_processor(Image.fromarray(array), return_tensors="pt", size={"shortest_edge": side**2, "longest_edge": 10**7})
    assert given["image_grid_thw"].tolist() == [[1, 3 * vision.spatial_merge_size, 5 * vision.spatial_merge_size]]
    ids = torch.tensor([[model.config.image_token_id] * 15])
    place = layout_of(ids, model.config.image_token_id, picture_grids(model.config, given))
    plan = BatchPlan(replace(place, known=(place.facts, place.vision_index)), ids, ids.double())
    targets = pixel_targets(given, plan, model.config, side, ids.device)
    mean, std = (np.array(getattr(image_processor, f"image_{kind}")) for kind in ("mean", "std"))
    picture = torch.from_numpy((array / 255 - mean) / std).permute(2, 0, 1)
    for token in range(15):
        row, column = divmod(token, 5)
        expected = by_hand(picture[:, row * side : (row + 1) * side, column * side : (column + 1) * side])
        torch.testing.assert_close(targets[token].double(), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", [name for name in tiny_families.NAMES if name not in REFUSED])
def test_features_are_what_each_token_was_made_of(name: str) -> None:
    """The rest of the connector, applied to a token's features by hand, gives the token; Qwen2.5-VL computes them in another order."""
    model, _, _ = tiny_families.tiny(name)
    batch = batch_of(name, model)
    inputs = whole_inputs(model.config, batch)
    embedded: list[torch.Tensor] = []
    language_model = model.get_submodule(family_of(model.config).language_model)
    hook = language_model.register_forward_pre_hook(lambda module, args, kwargs: embedded.append(kwargs["inputs_embeds"]), with_kwargs=True)
    with torch.no_grad(), recording_features(model) as features:
        run_forward(model, inputs)
    hook.remove()
    vision = embedded[0].flatten(0, 1)[inputs.layout.vision_index]
    values = features.by_token(inputs, len(vision))
    connector = model.get_submodule(family_of(model.config).connector[0])
    linear = feature_layer(model)
    behind = next(index for index, module in enumerate(connector.modules()) if module is linear)
    with torch.no_grad():
        tokens = linear(values)
        for module in list(connector.modules())[behind + 1 :]:
            if not list(module.children()):
                tokens = module(tokens)
    torch.testing.assert_close(tokens, vision, atol=1e-4, rtol=1e-4)


def test_a_trained_encoder_is_no_fixed_target() -> None:
    model, _, _ = tiny_families.tiny("llava")
    with pytest.raises(BadInput, match="encoder is trained"):
        auxiliary_losses(model, AuxiliaryConfig(align=AlignConfig()))


def test_the_distance_of_align_at_its_ends_and_its_gradient() -> None:
    one = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0], [0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    for sign, distance in ((1.0, 0.0), (-1.0, 2.0)):
        assert cosine_distance(one[:3], 5 * sign * one[:3]).item() == pytest.approx(3 * distance, abs=1e-12)
    assert cosine_distance(one[:2], one[[1, 0]]).item() == pytest.approx(2.0) and cosine_distance(one[3:], one[:1]).item() == 1.0
    draws = torch.Generator().manual_seed(0)
    one, other = (torch.randn(5, 4, dtype=torch.float64, generator=draws, requires_grad=True) for _ in range(2))
    by_hand = sum(1 - float(a @ b / (a.norm() * b.norm())) for a, b in zip(one.detach(), other.detach(), strict=True))
    assert cosine_distance(one, other).item() == pytest.approx(by_hand)
    assert torch.autograd.gradcheck(lambda x: cosine_distance(x, other), (one,))
    assert torch.autograd.grad(cosine_distance(one, other), other, allow_unused=True) == (None,)


def test_the_loss_of_predict_by_hand_and_its_gradient() -> None:
    draws = torch.Generator().manual_seed(0)
    output, features = (torch.randn(3, 6, dtype=torch.float64, generator=draws, requires_grad=True) for _ in range(2))
    total = 0.0
    for mine, theirs in zip(output.detach(), features.detach(), strict=True):
        normal = (theirs - theirs.mean()) / (theirs.var(unbiased=False) + 1e-5) ** 0.5
        total += float(((mine - normal) ** 2).sum() / 6)
    assert regression_loss(output, features).item() == pytest.approx(total)
    assert torch.autograd.gradcheck(lambda x: regression_loss(x, features), (output,))
    assert torch.autograd.grad(regression_loss(output, features), features, allow_unused=True) == (None,)
    assert regression_loss(output[:0], features[:0]).item() == 0.0


def test_the_terms_of_a_pass_are_their_formulas_on_its_hidden_states() -> None:
    module, batch = learner("llava", **SETTINGS)
    prepared = module.objective.prepare(batch, 5, 10)
    with torch.no_grad():
        terms = module(prepared, 5)
        masked = prepared["masked"].flatten()[plan_of(prepared).layout.vision_index]
        inputs = whole_inputs(module.vlm.config, batch, masked=prepared["masked"])
        with recording_blocks(module.vlm, ["layer.1"]) as blocks, recording_features(module.vlm) as features:
            last = run_forward(module.vlm, inputs, MIXED, module.objective.mask_embedding).hidden
        last, middle = (each.flatten(0, 1)[inputs.layout.vision_index] for each in (last, blocks.hidden["layer.1"]))
        target = features.by_token(inputs, len(last))
        losses = module.objective.losses
        errors = losses["pixels"].head(last) - pixel_targets(inputs.pixels, plan_of(prepared), module.vlm.config, 4, last.device)
        errors = (errors**2).mean(dim=1)
        expected = {
            "pixels_masked": errors[masked].sum(), "pixels_unmasked": errors[~masked].sum(),
            "align": cosine_distance(losses["align"].head(middle), target),
            "predict": regression_loss(losses["predict"].head(last)[masked], target[masked]),
        }  # fmt: skip
    assert 0 < int(masked.sum()) < len(masked)
    for name, value in expected.items():
        assert terms[name].total.item() == pytest.approx(value.item(), rel=1e-5), name
    assert [terms[name].weight for name in expected] == [1.0, 1.0, 0.5, 1.0]


def test_with_every_token_masked_no_picture_is_seen() -> None:
    """On raw patches: what predict's head gives is then the same for any picture, and without masks it is not."""
    model, _ = tiny_vlm(frontend="patches")
    adapt(model, MIXED)
    objective = VisualObjective(model, AuxiliaryConfig(predict=PredictConfig(head_hidden=8), mask_ramp="constant", mask_ratio=1.0))
    module, outputs = ObjectiveModule(model, objective), []
    objective.losses["predict"].head.register_forward_hook(lambda module, args, output: outputs.append(output.detach()))
    for ratio in (1.0, 0.0):
        objective.settings = replace(objective.settings, mask_ratio=ratio)
        for seed in (0, 1):
            pixels = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(seed))
            batch = hand_made([["vttt"]], image_token=model.config.image_token_id, vocabulary=20, pixels={"pixel_values": pixels}, side=8)
            module(objective.prepare(batch, 0, 1), 0)
    assert torch.equal(outputs[0], outputs[1]) and not torch.equal(outputs[2], outputs[3])


@pytest.mark.parametrize("branch", ["separate", "joint"])
def test_beside_laver_the_pass_is_shared_and_no_term_of_laver_changes(branch: Any) -> None:
    """For a family with a connector within its encoder too, once with that trained and once frozen: it then runs in one pass alone."""
    settings = LaverConfig(head_hidden=24, mask_ratio=0.4, mask_ramp="constant", branch=branch, adaptation=MIXED)
    chosen = AuxiliaryConfig(**SETTINGS)
    for name, frozen in (("llava", False), ("qwen2_5_vl", False), ("qwen2_5_vl", True)):
        terms = []
        for with_losses in (False, True):
            model, _, _ = tiny_families.tiny(name)
            freeze_encoder(model)
            for path in family_of(model.config).connector if frozen else ():
                model.get_submodule(path).requires_grad_(False)
            adapt(model, MIXED)
            torch.manual_seed(1)
            losses = auxiliary_losses(model, chosen) if with_losses else {}
            torch.manual_seed(2)
            objective = LaVer(model.config, settings, losses)
            module = ObjectiveModule(model, objective)
            batch = TeacherCallback(module, objective).teach(module, objective.prepare(batch_of(name, model), 5, 10), 5)
            with counted_passes(model) as passes:
                terms.append(module(batch, 5))
            assert len(passes) == (1 if branch == "joint" else 2)
            assert {key: term.count for key, term in terms[-1].items()} == dict(objective.counts(batch))
        plain, summed = terms
        assert summed.keys() - plain.keys() == {"pixels_masked", "pixels_unmasked", "align", "predict"}
        assert all(torch.equal(plain[key].total, summed[key].total) for key in plain)


@contextmanager
def counted_passes(model: Any) -> Iterator[list[None]]:
    """A list that grows with each pass through the language model."""
    passes: list[None] = []
    hook = model.get_submodule(family_of(model.config).language_model).register_forward_hook(lambda *args: passes.append(None))
    yield passes
    hook.remove()


@pytest.mark.parametrize("rows", [[["ttt"], ["tt"]], [["t"]]])
def test_a_batch_without_pictures_has_no_visual_loss_and_still_reaches_every_head(rows: Any) -> None:
    model, _ = tiny_vlm(frontend="patches")
    model.model.vision_tower.requires_grad_(False)
    adapt(model, MIXED)
    objective = VisualObjective(model, AuxiliaryConfig(**SETTINGS))
    batch = objective.prepare(hand_made(rows, image_token=model.config.image_token_id, vocabulary=20, pixels={}), 0, 1)
    terms = ObjectiveModule(model, objective)(batch, 0)
    assert terms["pixels_masked"].total.item() == terms["pixels_unmasked"].total.item() == 0.0
    combine(terms, objective.counts(batch)).backward()
    assert all(value.grad is not None for value in objective.parameters())


@pytest.mark.parametrize("wrong", [{"mask_ratio": 1.5, "pixels": PixelsConfig()}, {}])
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        AuxiliaryConfig(**wrong)


def test_names_of_losses() -> None:
    assert auxiliary_named("") is None
    assert auxiliary_named("pixels + predict") == AuxiliaryConfig(pixels=PixelsConfig(), predict=PredictConfig())
    with pytest.raises(UnknownName, match="pixel"):
        auxiliary_named("pixel")
    model, _, _ = tiny_families.tiny("llava")
    model.requires_grad_(False)
    with pytest.raises(BadInput, match="layers 1 to 2"):
        auxiliary_losses(model, AuxiliaryConfig(align=AlignConfig(layer=3)))
