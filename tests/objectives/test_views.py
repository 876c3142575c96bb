"""Views: their geometry, which cells show the same place, the loss by hand, and the teacher's part."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from helpers import tiny_families
from helpers.laver_batches import batch as hand_made
from helpers.tiny_llava import tiny_vlm
from objectives.test_laver import MIXED, batch_of, freeze_encoder
from theodolite.models.cached_features import MemoryFeatureCache, cached_features
from theodolite.models.families import family_of
from theodolite.models.forward import adapt
from theodolite.models.pass_inputs import plan_of
from theodolite.objectives.pixels import PixelsConfig
from theodolite.objectives.schedules import EMASchedule
from theodolite.objectives.terms import combine
from theodolite.objectives.views import UNMATCHED, View, ViewsConfig, draw_views, patch_info_nce, seen_in
from theodolite.objectives.visual import AuxiliaryConfig, VisualObjective
from theodolite.records.errors import BadInput
from theodolite.training.objective_module import ObjectiveModule
from theodolite.training.teacher_callback import TeacherCallback

SMALL = ViewsConfig(head_hidden=24, head_width=16, ema=EMASchedule(every=1))
SIDE = 8


def views_of(number: int, settings: ViewsConfig = SMALL) -> list[View]:
    bits = np.random.default_rng(0)
    return [View.draw(bits, settings) for _ in range(number)]


def test_a_cell_shows_the_place_that_it_says() -> None:
    """On a picture whose pixels hold their own row and column; half of the views are mirrored."""
    size = 64
    line = (torch.arange(size) + 0.5) / size
    picture = torch.stack([line[:, None].expand(size, size), line[None].expand(size, size), torch.zeros(size, size)])
    views = [replace(view, contrast=1.0, brightness=0.0) for view in views_of(12)]
    assert {view.mirrored for view in views} == {True, False}
    shown = seen_in(picture.expand(len(views), -1, -1, -1), tuple(views))
    for view, pixels in zip(views, shown, strict=True):
        cells = pixels.unfold(1, SIDE, SIDE).unfold(2, SIDE, SIDE).mean(dim=(3, 4))  # of a linear picture a cell's mean is its centre
        places = view.places(SIDE, SIDE)
        assert cells[:2].flatten(1).T.numpy() == pytest.approx(places, abs=2 / size)


def test_matched_cells_show_the_same_place_and_the_others_are_outside_of_the_view() -> None:
    one, other = views_of(2)
    places, centres = one.places(SIDE, SIDE), other.places(SIDE, SIDE)
    cells = other.cells(places, SIDE, SIDE)
    assert UNMATCHED in cells and (cells != UNMATCHED).sum() > 20
    for place, cell in zip(places, cells, strict=True):
        inside = bool(((place >= [other.top, other.left]) & (place < [other.top + other.side, other.left + other.side])).all())
        assert (cell != UNMATCHED) == inside
        if inside:
            assert np.abs(centres[cell] - place).max() <= other.side / SIDE / 2 + 1e-9
            assert cell == np.abs(centres - place).max(axis=1).argmin()
    assert (one.cells(one.places(SIDE, SIDE), SIDE, SIDE) == np.arange(SIDE**2)).all()


def test_contrast_and_brightness_move_the_pixels_as_they_say() -> None:
    picture = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    whole = View(0.0, 0.0, 1.0, mirrored=False, contrast=1.0, brightness=0.0)
    torch.testing.assert_close(seen_in(picture, (whole,)), picture, atol=1e-5, rtol=0)
    torch.testing.assert_close(seen_in(picture, (replace(whole, mirrored=True),)), picture.flip(-1), atol=1e-5, rtol=0)
    changed = seen_in(picture, (replace(whole, contrast=0.5, brightness=0.25),))
    torch.testing.assert_close(changed, 0.5 * picture + 0.5 * picture.mean() + 0.25, atol=1e-5, rtol=0)


def test_the_loss_by_hand_and_its_gradient() -> None:
    draws = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(2, 4, 3, dtype=torch.float64, generator=draws, requires_grad=True) for _ in range(2))
    match = torch.tensor([[2, UNMATCHED, 0, 3], [UNMATCHED, UNMATCHED, 1, 1]])
    total = 0.0
    for picture in range(2):
        for token in range(4):
            if (right := int(match[picture, token])) == UNMATCHED:
                continue
            mine = student[picture, token].detach()
            cosines = [float(mine @ each / (mine.norm() * each.norm())) for each in teacher[picture].detach()]
            total -= cosines[right] / 0.2 - float(np.log(np.exp(np.array(cosines) / 0.2).sum()))
    assert patch_info_nce(student, teacher, match, 0.2).item() == pytest.approx(total)
    assert torch.autograd.gradcheck(lambda x: patch_info_nce(x, teacher, match, 0.2), (student,))
    assert torch.autograd.grad(patch_info_nce(student, teacher, match, 0.2), teacher, allow_unused=True) == (None,)
    (gradient,) = torch.autograd.grad(patch_info_nce(student, teacher, match, 0.2), student)
    assert not gradient[0, 1].any() and not gradient[1, :2].any(), "unmatched tokens learn nothing"


def learner(settings: AuxiliaryConfig, name: str = "llava") -> tuple[ObjectiveModule, TeacherCallback, dict[str, Any]]:
    model, _, _ = tiny_families.tiny(name)
    freeze_encoder(model)
    adapt(model, MIXED)
    torch.manual_seed(1)
    objective = VisualObjective(model, settings)
    module = ObjectiveModule(model, objective)
    return module, TeacherCallback(module, objective), batch_of(name, model)


@pytest.mark.parametrize("name", ["llava", "paligemma", "gemma3", "internvl", "smolvlm", "idefics3"])
def test_a_step_learns_from_a_teacher_that_gets_no_gradient(name: str) -> None:
    module, teacher, batch = learner(AuxiliaryConfig(views=SMALL), name)
    prepared = module.objective.prepare(batch, 0, 10)
    taught = teacher.teach(module, prepared, 0)
    terms, counts = module(taught, 0), module.objective.counts(prepared)
    assert terms["views"].count == counts["views"] > 0 and not taught["teacher_outputs"]["views"].requires_grad
    combine({"views": terms["views"]}, counts).backward()
    moved = {key for key, value in module.named_parameters() if value.grad is not None and bool(value.grad.abs().sum() > 0)}
    assert any(key.startswith("objective.losses.views.head") for key in moved)
    assert any(key.startswith(f"vlm.{family_of(module.vlm.config).language_model}.layers") for key in moved)
    assert not any(key.startswith(f"vlm.{family_of(module.vlm.config).lm_head}") and "embed" not in key for key in moved) or (
        module.vlm.config.get_text_config().tie_word_embeddings
    )


def test_the_teacher_follows_and_has_no_centre() -> None:
    module, callback, batch = learner(AuxiliaryConfig(views=SMALL, pixels=PixelsConfig(side=4, head_hidden=8)))
    name = "objective.losses.views.head.layers.0.weight"
    own = module.objective.losses["views"].head.layers[0].weight
    callback.teach(module, module.objective.prepare(batch, 0, 10), 0)
    before = own.detach().clone()
    with torch.no_grad():
        own.add_(1.0)
    callback.follow(1, 10)
    assert callback.teacher is not None
    torch.testing.assert_close(callback.teacher.shadow[name], before + 0.05)
    assert len(callback.delayed_sums()) == 0
    module.objective.settings = AuxiliaryConfig(pixels=PixelsConfig())
    with pytest.raises(ValueError, match="teacher"):
        TeacherCallback(module, module.objective)  # type: ignore[arg-type]


def test_a_picture_has_the_same_views_in_any_batch() -> None:
    model, _ = tiny_vlm(frontend="patches")
    pixels = {"pixel_values": torch.rand(2, 3, 64, 64)}
    both = plan_of(hand_made([["vt"], ["vt"]], image_token=model.config.image_token_id, vocabulary=20, pixels=pixels, side=SIDE))
    views = draw_views(both, SMALL)
    assert views.first[0] != views.first[1] and views.first[0] != views.second[0]
    alone = replace(both, layout=both.layout, rank=both.rank.clone())
    alone.rank[1] = both.rank[0]
    alone.dither[1] = both.dither[0]
    again = draw_views(alone, SMALL)
    assert again.first[0] == again.first[1] == views.first[0], "the collator's draws of a picture decide its views"
    assert views.num_matched == int((views.match != UNMATCHED).sum())


@pytest.mark.parametrize("name", ["qwen2_5_vl", "llava_onevision"])
def test_pictures_without_an_array_of_their_own_are_refused(name: str) -> None:
    module, callback, batch = learner(AuxiliaryConfig(views=SMALL), name)
    with pytest.raises(BadInput, match=r"views needs"):
        callback.teach(module, module.objective.prepare(batch, 0, 10), 0)


def test_views_pass_the_cache_of_features() -> None:
    """They are new in every step: a cache of them would only grow."""
    module, callback, batch = learner(AuxiliaryConfig(views=SMALL))
    store = MemoryFeatureCache()
    tower = module.vlm.model.vision_tower
    with cached_features(tower, module.vlm.config.vision_feature_layer, store):
        terms = module(callback.teach(module, module.objective.prepare(batch, 0, 10), 0), 0)
    plain = module(callback.teach(module, module.objective.prepare(batch, 0, 10), 0), 0)
    torch.testing.assert_close(terms["views"].total, plain["views"].total)
    assert len(store.features) == len(batch["pixel_values"])


@pytest.mark.parametrize("rows", [[["ttt"], ["tt"]], [["t"]]])
def test_a_batch_without_pictures_has_no_views_and_still_reaches_the_head(rows: Any) -> None:
    model, _ = tiny_vlm(frontend="patches")
    adapt(model, MIXED)
    objective = VisualObjective(model, AuxiliaryConfig(views=SMALL))
    module = ObjectiveModule(model, objective)
    batch = objective.prepare(hand_made(rows, image_token=model.config.image_token_id, vocabulary=20, pixels={}), 0, 1)
    terms = module(TeacherCallback(module, objective).teach(module, batch, 0), 0)
    assert terms["views"].total.item() == 0.0 and terms["views"].count == 0
    combine(terms, objective.counts(batch)).backward()
    assert all(value.grad is not None for value in objective.losses.parameters())


@pytest.mark.parametrize("wrong", [{"temperature": 0.0}, {"least_side": 0.0}, {"least_side": 1.5}, {"jitter": 1.0}])
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(BadInput, match=next(iter(wrong))):
        ViewsConfig(**wrong)
