"""LaVer on every family: finite losses, gradients where they belong, masked content invisible, student = teacher without masks."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import nn

from helpers import tiny_families
from helpers.laver_batches import batch as hand_made
from helpers.tiny_llava import tiny_vlm
from theodolite.models.encoder_output import EncoderOutput
from theodolite.models.exported.grids import picture_grids
from theodolite.models.exported.layout import layout_of
from theodolite.models.exported.positions import axis_positions
from theodolite.models.families import family_of, image_token_id
from theodolite.models.forward import STOCK, Adaptation, adapt, run_forward
from theodolite.models.freezing import set_trainable
from theodolite.models.pass_inputs import layout_in, whole_inputs
from theodolite.objectives.language import Language
from theodolite.objectives.laver import LaVer, LaverConfig
from theodolite.objectives.masking import draw_ranks
from theodolite.objectives.terms import combine
from theodolite.records.errors import BadInput
from theodolite.training.objective_module import ObjectiveModule
from theodolite.training.teacher_callback import TeacherCallback

NAMES = tiny_families.NAMES
BRANCHES = ("separate", "joint")
MIXED = Adaptation("mixed", "2d")


def batch_of(name: str, model: Any, seed: int = 0) -> dict[str, Any]:
    """Two rows (one with two pictures, one padded) as the collator gives them, all text behind the first picture predicted."""
    given = tiny_families.inputs(name, model, seed=seed)
    pixels = {key: given[key] for key in family_of(model.config).pixel_inputs if key in given}
    ids, attention = given["input_ids"], given["attention_mask"]
    place = layout_of(ids, image_token_id(model.config), picture_grids(model.config, pixels), attention)
    rank, dither = torch.full_like(ids, -1), torch.zeros(ids.shape, dtype=torch.float64)
    for number, size in enumerate(place.sizes()):
        ranks, start = draw_ranks(size, seed, "sample", 0, number)
        rank[place.picture == number], dither[place.picture == number] = torch.as_tensor(ranks), start
    follows = torch.zeros_like(place.vision)
    started = place.vision.cumsum(dim=1) > 0
    follows[:, :-1] = started[:, :-1] & place.real[:, 1:] & ~place.vision[:, 1:]
    predicts = follows.flatten().nonzero()[:, 0]
    fields = {"sample": place.sample, "branch": place.branch, "picture": place.picture, "cell": place.cell, "rank": rank, "dither": dither}
    return {"input_ids": ids, **fields, "predicts": predicts, "labels": ids.flatten()[predicts + 1], **pixels}


def freeze_encoder(model: Any) -> None:
    """As recipes do: the encoder frozen, the connector trained, also where it lies within the encoder."""
    family = family_of(model.config)
    model.get_submodule(family.encoder).requires_grad_(False)
    for path in family.connector:
        model.get_submodule(path).requires_grad_(True)


def learner_of(name: str, **settings: Any) -> tuple[ObjectiveModule, TeacherCallback, dict[str, Any]]:
    model, _, _ = tiny_families.tiny(name)
    freeze_encoder(model)
    chosen = LaverConfig(head_hidden=24, mask_ramp="constant", **{"adaptation": MIXED, **settings})
    adapt(model, chosen.adaptation)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        objective = LaVer(model.config, chosen)
    objective_module = ObjectiveModule(model, objective)
    return objective_module, TeacherCallback(objective_module, objective), batch_of(name, model)


def step(objective_module: ObjectiveModule, teacher_callback: TeacherCallback, batch: Mapping[str, Any]) -> tuple[Any, Any]:
    prepared = objective_module.objective.prepare(batch, 5, 10)
    taught = teacher_callback.teach(objective_module, prepared, 5)
    return objective_module(taught, 5), taught


@pytest.mark.contract("own forward")
@pytest.mark.parametrize("name", NAMES)
def test_the_unadapted_pass_is_the_stock_forward_to_the_bit(name: str) -> None:
    model, _, _ = tiny_families.tiny(name)
    batch = batch_of(name, model)
    given = tiny_families.inputs(name, model)
    with torch.no_grad():
        # The prompt of a prefix language model ends where the first answer token is predicted; tell the stock forward the same.
        inputs = whole_inputs(model.config, batch)
        if inputs.suffix is not None:
            given["token_type_ids"] = inputs.suffix.long()
        stock = model(**given, use_cache=False).logits.flatten(0, 1)[batch["predicts"]]
        assert torch.equal(run_forward(model, inputs, STOCK).logits, stock)


@pytest.mark.contract("LaVer")
@pytest.mark.parametrize("branch", BRANCHES)
@pytest.mark.parametrize("name", NAMES)
def test_a_step_is_finite_and_its_gradients_are_where_they_belong(name: str, branch: str) -> None:
    objective_module, teacher_callback, batch = learner_of(name, branch=branch, mask_ratio=0.4)
    terms, _ = step(objective_module, teacher_callback, batch)
    counts = objective_module.objective.counts(objective_module.objective.prepare(batch, 5, 10))
    assert {name: term.count for name, term in terms.items()} == dict(counts)
    assert counts["masked_latent"] > 0
    assert all(torch.isfinite(term.total) for term in terms.values())
    combine(terms, counts).backward()
    family = family_of(objective_module.vlm.config)
    assert teacher_callback.teacher is not None
    for path, parameter in objective_module.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, path
    for path in (*family.connector, family.language_model):
        assert any(
            value.grad is not None and value.grad.abs().max() > 0 for value in objective_module.vlm.get_submodule(path).parameters()
        ), path
    assert all(value.grad.abs().max() > 0 for value in objective_module.objective.parameters() if value.grad is not None)
    assert all(value.grad is None and not value.requires_grad for value in teacher_callback.teacher.shadow.values())


@pytest.mark.contract("LaVer")
@pytest.mark.parametrize("branch", BRANCHES)
@pytest.mark.parametrize("attention", ["mixed", "native"])
@pytest.mark.parametrize("name", NAMES)
def test_without_masks_and_with_equal_weights_student_and_teacher_agree(name: str, branch: str, attention: str) -> None:
    objective_module, teacher_callback, batch = learner_of(name, branch=branch, mask_ratio=0.0, adaptation=Adaptation(attention, "native"))  # type: ignore[arg-type]
    seen: list[torch.Tensor] = []
    objective_module.objective.head.register_forward_hook(lambda module, args, output: seen.append(output.detach()))
    terms, _ = step(objective_module, teacher_callback, batch)
    teacher, student = seen
    torch.testing.assert_close(student, teacher, atol=1e-5, rtol=1e-4)
    assert terms["masked_latent"].count == 0 and terms["masked_latent"].total.item() == 0.0
    assert terms["gram"].total.item() < 1e-6


def stand_in(batch: Mapping[str, Any]) -> dict[str, Any]:
    """The same batch with other pixels."""
    generator = torch.Generator().manual_seed(9)
    pixels = batch["pixel_values"]
    return {**batch, "pixel_values": torch.rand(pixels.shape, generator=generator).to(pixels.dtype)}


@pytest.mark.contract("masks")
@pytest.mark.parametrize("branch", BRANCHES)
@pytest.mark.parametrize("name", NAMES)
def test_what_is_masked_cannot_be_seen(name: str, branch: str) -> None:
    """With every vision token masked the student knows nothing of the pixels, whatever way they could take (deepstack too)."""
    objective_module, teacher_callback, batch = learner_of(name, branch=branch, mask_ratio=1.0)
    outputs: list[torch.Tensor] = []
    objective_module.objective.head.register_forward_hook(lambda module, args, output: outputs.append(output.detach()))
    step(objective_module, teacher_callback, batch)
    step(objective_module, teacher_callback, stand_in(batch))
    teacher, student, other_teacher, other_student = outputs
    assert torch.equal(student, other_student)
    assert (teacher - other_teacher).abs().max() > 1e-4


@pytest.mark.contract("mixed, 2D")
@pytest.mark.parametrize("name", NAMES)
def test_mixed_attention_lets_a_picture_see_itself_and_nothing_later(name: str) -> None:
    """Another second picture moves no token before it; another tail of the first picture moves the picture's head."""
    model, _, _ = tiny_families.tiny(name)
    adapt(model, MIXED)
    batch = batch_of(name, model)
    place = layout_in(batch)
    row, column = (place.picture == place.picture.max()).nonzero()[-1].tolist()
    mine = (place.picture == place.picture[row, column]).nonzero()
    first = mine[0, 1].item()
    moved: list[torch.Tensor] = []

    class Nudge(nn.Module):
        def forward(self, embeddings: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
            return embeddings + masked[..., None] * 0.5

    with torch.no_grad():
        for which in (False, True):
            masked = torch.zeros_like(place.vision)
            masked[row, column] = which
            moved.append(run_forward(model, whole_inputs(model.config, batch, masked=masked), MIXED, Nudge()).hidden)
    change = (moved[1] - moved[0]).abs().amax(dim=-1)
    assert change[row, first] > 1e-6
    assert first > (place.picture[row] == place.picture[row, column] - 1).sum() > 0, "another picture stands before it"
    assert change[row, :first].max().item() == 0.0
    others = torch.arange(len(change)) != row
    assert change[others].max().item() == 0.0
    assert change[row][place.real[row] & (place.picture[row] == -1) & (torch.arange(change.shape[1]) > column)].min() > 0


@pytest.mark.parametrize("trained", [("language_model",), ("connector", "language_model")])
@pytest.mark.parametrize("branch", BRANCHES)
@pytest.mark.parametrize("name", NAMES)
def test_a_frozen_encoder_runs_once_a_step_and_changes_no_term(
    name: str, branch: str, trained: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With adapters on the language model the encoder is wholly frozen; Qwen-VL's holds the connector, and its blocks run once."""
    objective_module, teacher_callback, batch = learner_of(name, branch=branch, mask_ratio=0.5)
    set_trainable(objective_module.vlm, trained)
    family = family_of(objective_module.vlm.config)
    blocks = objective_module.vlm.get_submodule(family.encoder_blocks or family.encoder)
    runs: list[Any] = []
    block = blocks[0] if family.encoder_blocks else blocks
    stock = block.forward
    block.forward = lambda *args, **kwargs: (runs.append(1), stock(*args, **kwargs))[1]
    terms, _ = step(objective_module, teacher_callback, batch)
    assert len(runs) == 1
    monkeypatch.setattr(EncoderOutput, "around", lambda self, base, family: nullcontext())
    apart, _ = step(objective_module, teacher_callback, batch)
    assert len(runs) == (4 if branch == "separate" else 3)
    for name_of_term, term in terms.items():
        torch.testing.assert_close(term.total, apart[name_of_term].total)


def test_language_alone_on_an_adapted_model_is_the_control() -> None:
    model, _, _ = tiny_families.tiny("llava")
    adapt(model, MIXED)
    batch = batch_of("llava", model)
    plain, mixed = (Language(adaptation)(model, batch, 0)["language"] for adaptation in (STOCK, MIXED))
    assert plain.count == mixed.count == len(batch["labels"])
    assert abs(plain.total.item() - mixed.total.item()) > 1e-4


def test_m_rope_positions_are_those_of_the_stock_model() -> None:
    model, _, _ = tiny_families.tiny("qwen2_5_vl")
    given = tiny_families.inputs("qwen2_5_vl", model)
    place = layout_in(batch_of("qwen2_5_vl", model))
    named = {name: given[name] for name in ("input_ids", "mm_token_type_ids", "image_grid_thw", "attention_mask")}
    stock, _ = model.model.get_rope_index(**named)
    real = place.real.expand(3, -1, -1)
    assert torch.equal(axis_positions(place, two_d=True)[real], stock[real])


@pytest.mark.parametrize("branch", BRANCHES)
def test_pixels_under_a_masked_token_move_nothing_and_those_beside_it_do(branch: str) -> None:
    """On raw patches, where a token is its own pixels and no encoder spreads them."""
    model, _ = tiny_vlm(frontend="patches")
    objective = LaVer(model.config, LaverConfig(head_hidden=24, branch=branch, mask_ramp="constant", adaptation=MIXED))  # type: ignore[arg-type]
    adapt(model, MIXED)
    objective_module = ObjectiveModule(model, objective)
    teacher_callback = TeacherCallback(objective_module, objective)
    pixels = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    batch = hand_made([["vttt"]], image_token=model.config.image_token_id, vocabulary=20, pixels={"pixel_values": pixels}, side=8)
    outputs: list[torch.Tensor] = []
    objective.head.register_forward_hook(lambda module, args, output: outputs.append(output.detach()))
    hidden = int(objective.prepare(batch, 0, 1)["masked"].flatten().nonzero()[0])
    for token in (hidden, (hidden + 1) % 64):
        row, column = divmod(token, 8)
        other = pixels.clone()
        other[:, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 0.0
        outputs.clear()
        language = [
            step(objective_module, teacher_callback, {**batch, "pixel_values": part})[0]["language"].total.item()
            for part in (pixels, other)
        ]
        teacher, student, other_teacher, other_student = outputs
        assert (teacher - other_teacher).abs().max() > 1e-5
        assert torch.equal(student, other_student) is (token == hidden)
        # The plain pass of the separate branch sees the picture as it is.
        assert (language[0] == language[1]) is (token == hidden and branch == "joint")


@pytest.mark.parametrize("branch", BRANCHES)
@pytest.mark.parametrize("rows", [[["ttt"], ["tt"]], [["t"]]])
def test_a_batch_without_pictures_has_no_visual_loss_and_still_reaches_every_visual_parameter(branch: str, rows: Any) -> None:
    model, _ = tiny_vlm(frontend="patches")
    adapt(model, MIXED)
    objective = LaVer(model.config, LaverConfig(head_hidden=24, branch=branch, adaptation=MIXED))  # type: ignore[arg-type]
    objective_module = ObjectiveModule(model, objective)
    batch = hand_made(rows, image_token=model.config.image_token_id, vocabulary=20, pixels={})
    terms, taught = step(objective_module, TeacherCallback(objective_module, objective), batch)
    assert len(taught["teacher_outputs"].outputs) == 0
    assert terms["language"].count == len(batch["labels"])
    assert terms["masked_latent"].total.item() == terms["gram"].total.item() == 0.0
    combine(terms, objective.counts(taught)).backward()
    assert all(value.grad is not None for value in objective.parameters())
    assert any(value.grad is not None for value in model.model.language_model.parameters())


@pytest.mark.parametrize("branch", BRANCHES)
def test_a_model_in_half_precision_takes_its_step(branch: str) -> None:
    objective_module, teacher_callback, batch = learner_of("llava", branch=branch, mask_ratio=0.4)
    objective_module.vlm.to(torch.bfloat16)
    terms, _ = step(objective_module, teacher_callback, {**batch, "pixel_values": batch["pixel_values"].bfloat16()})
    assert all(torch.isfinite(term.total) for term in terms.values())


@pytest.mark.parametrize(
    "wrong", [{"branch": "seperate"}, {"gram_reduction": "entry"}, {"mask_ramp": "linear"}, {"gram": "clip"}, {"mask_ratio": 1.5}]
)
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, Any]) -> None:
    ((name, value),) = wrong.items()
    settings = LaverConfig()
    object.__setattr__(settings, name, value)  # as if nobody checked types
    with pytest.raises(BadInput, match=name):
        settings.__post_init__()


def test_a_teacher_drops_nothing_out_and_the_student_goes_on_as_it_was() -> None:
    objective_module, teacher_callback, batch = learner_of("llava", mask_ratio=0.4)
    objective_module.train()
    objective_module.vlm.model.vision_tower.eval()
    modes = [part.training for part in objective_module.modules()]
    seen: list[bool] = []
    handle = objective_module.vlm.model.language_model.register_forward_pre_hook(lambda module, args: seen.append(module.training))
    step(objective_module, teacher_callback, batch)
    handle.remove()
    assert seen == [False, True, True]
    assert [part.training for part in objective_module.modules()] == modes
