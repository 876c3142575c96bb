"""Interventional pairs: the formula, what it knows, that it disturbs no other loss, and that it trains."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.paired_pictures import ASKED, paired_collator, paired_examples
from helpers.tiny_llava import TINY, WORLD, tiny_vlm
from theodolite.data.collate import Collator
from theodolite.data.examples import ExampleSet
from theodolite.models.construction.build import build_vlm
from theodolite.models.forward import STOCK, Adaptation, adapt
from theodolite.models.pass_inputs import BatchPlan
from theodolite.objectives import interventional
from theodolite.objectives.align import AlignConfig
from theodolite.objectives.interventional import InterventionalConfig, pair_sums, symmetric_kl
from theodolite.objectives.language import Language
from theodolite.objectives.laver import LaVer, LaverConfig
from theodolite.objectives.pixels import PixelsConfig
from theodolite.objectives.predict import PredictConfig
from theodolite.objectives.terms import Term, combine
from theodolite.objectives.visual import AuxiliaryConfig, VisualObjective, auxiliary_losses, auxiliary_named
from theodolite.records.errors import BadInput
from theodolite.training.objective_module import ObjectiveModule
from theodolite.training.recipe import Recipe
from theodolite.training.run import Origin, train_on_examples
from theodolite.training.stage_data import stage_data
from theodolite.training.stage_runner import prepare_model, train_stage
from theodolite.training.teacher_callback import TeacherCallback

STILL, MOVING = "interventional_still", "interventional_moving"
MIXED = Adaptation("mixed", "2d")
WIDE = InterventionalConfig(margin=0.8, still_weight=2.0, moving_weight=0.25)


# Of random weights large enough that answers depend on the picture.
LARGE = replace(TINY, initial_std=0.3)


def learner(settings: AuxiliaryConfig | None = None) -> tuple[ObjectiveModule, Collator]:
    model, processor = build_vlm(WORLD.texts, 0, decoder=LARGE)
    adapt(model, MIXED)
    torch.manual_seed(1)
    settings = settings or AuxiliaryConfig(interventional=WIDE)
    return ObjectiveModule(model, VisualObjective(model, replace(settings, adaptation=MIXED))), paired_collator(processor)


def terms_of(module: ObjectiveModule, batch: Mapping[str, Any]) -> dict[str, Term]:
    prepared = module.objective.prepare(batch, 0, 10)
    terms = dict(module(prepared, 0))
    assert {name: term.count for name, term in terms.items()} == dict(module.objective.counts(prepared))
    return terms


def by_hand(p: list[float], q: list[float], moves: bool, margin: float) -> float:
    """One question's summand from two distributions, in loops."""
    forward = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    backward = sum(b * math.log(b / a) for a, b in zip(p, q, strict=True))
    distance = (forward + backward) / 2
    return max(0.0, margin - distance) if moves else distance


def test_the_sums_are_the_formula_and_have_its_gradient() -> None:
    draws = torch.Generator().manual_seed(0)
    one, other = (torch.randn(6, 7, dtype=torch.float64, generator=draws, requires_grad=True) for _ in range(2))
    moves = torch.tensor([True, False, True, False, True, True])
    expected = {True: 0.0, False: 0.0}
    for x, y, move in zip(one.tolist(), other.tolist(), moves.tolist(), strict=True):
        p, q = ([math.exp(value) / sum(map(math.exp, row)) for value in row] for row in (x, y))
        expected[move] += by_hand(p, q, move, 1.3)
    assert pair_sums(one, other, moves, 1.3).tolist() == pytest.approx([expected[False], expected[True]], rel=1e-12)
    assert 0 < int((symmetric_kl(one, other)[moves] < 1.3).sum()) < 4, "some moving question is within the margin, and some is not"
    assert torch.autograd.gradcheck(lambda x, y: pair_sums(x, y, moves, 1.3), (one, other))
    assert symmetric_kl(one.bfloat16(), other.bfloat16()).dtype == torch.float32


def test_equal_distributions_give_0_and_exactly_the_margin_and_no_gradient() -> None:
    logits = torch.randn(3, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    moves = torch.tensor([False, True, True])
    sums = pair_sums(logits, logits + 2.5, moves, 0.75)  # a constant changes no distribution
    assert sums[0].item() == pytest.approx(0, abs=1e-6) and pair_sums(logits, logits, moves, 0.75).tolist() == [0.0, 1.5]
    sums.sum().backward()
    torch.testing.assert_close(logits.grad, torch.zeros(3, 5), atol=1e-6, rtol=0)
    nothing = pair_sums(logits[:0], logits[:0], moves[:0], 0.75)
    assert nothing.tolist() == [0.0, 0.0] and nothing.requires_grad


def test_the_terms_are_the_formula_on_each_question_asked_of_both_pictures_alone() -> None:
    """The model's own forward on a prompt and one picture at a time, and loops over the vocabulary."""
    module, make = learner()
    adapt(module.vlm, STOCK)
    module.objective.settings = replace(module.objective.settings, adaptation=STOCK)
    partners = make.examples.partners
    assert partners is not None
    expected, counts = {STILL: 0.0, MOVING: 0.0}, {STILL: 0, MOVING: 0}
    for index in range(8):
        number = partners.of(index)
        assert number is not None
        pixels = make.pixels(np.stack([make.examples.pictures[index], partners.pictures[number]]))
        for item, moves in zip(make.examples.questions[index], partners.moves[number], strict=True):
            asked = make.tokenizer.tokenize(item.question, item.answer)
            ids = torch.tensor([asked.prefix + asked.question])
            with torch.no_grad():
                logits = [module.vlm(input_ids=ids, pixel_values=each[None]).logits[0, -1].double() for each in pixels]
            p, q = (each.softmax(dim=0).tolist() for each in logits)
            name = MOVING if moves else STILL
            expected[name] += by_hand(p, q, moves, WIDE.margin)
            counts[name] += 1
    terms = terms_of(module, make(list(range(8))))
    assert min(counts.values()) >= 2 and min(expected.values()) > 0.01
    for name in (STILL, MOVING):
        assert terms[name].total.item() == pytest.approx(expected[name], rel=1e-4), name
        assert terms[name].count == counts[name]
    assert (terms[STILL].weight, terms[MOVING].weight) == (2.0, 0.25)


def with_answers(examples: ExampleSet, word: str) -> ExampleSet:
    return replace(examples, questions=tuple(tuple(replace(item, answer=word) for item in items) for items in examples.questions))


def test_no_answer_is_known_and_only_whether_the_truth_moves() -> None:
    module, make = learner()
    terms = terms_of(module, make([0, 1, 2, 3]))
    assert make.examples.partners is not None
    other = paired_collator(make.tokenizer.processor, with_answers(make.examples, "green"))
    changed = terms_of(module, other([0, 1, 2, 3]))
    assert changed["language"].total.item() != pytest.approx(terms["language"].total.item(), rel=1e-3)
    for name in (STILL, MOVING):
        torch.testing.assert_close(changed[name].total, terms[name].total, atol=1e-5, rtol=1e-5)
    turned = replace(make.examples.partners, moves=tuple(tuple(not move for move in items) for items in make.examples.partners.moves))
    swapped = terms_of(module, paired_collator(make.tokenizer.processor, replace(make.examples, partners=turned))([0, 1, 2, 3]))
    assert (swapped[STILL].count, swapped[MOVING].count) == (terms[MOVING].count, terms[STILL].count)
    assert torch.equal(swapped["language"].total, terms["language"].total)


@pytest.mark.parametrize("frac", [0.5, 1.0])
def test_the_language_term_is_the_same_to_the_bit_and_its_gradient_too(frac: float) -> None:
    module, _ = learner()
    make = paired_collator(tiny_vlm()[1], paired_examples(frac))
    plain = paired_collator(make.tokenizer.processor, replace(make.examples, partners=None))
    draws = list(range(6))
    language = Language(MIXED)(module.vlm, plain(draws), 0)["language"].total
    term = terms_of(module, make(draws))["language"]
    assert torch.equal(term.total, language)
    weight = module.vlm.model.language_model.layers[0].mlp.up_proj.weight
    ours, theirs = (torch.autograd.grad(value, weight)[0] for value in (term.total, language))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_logits_in_parts_give_the_same_terms_and_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    grads, sums = [], []
    for most in (interventional.MOST_LOGITS, 14 * len(tiny_vlm()[1].tokenizer)):
        monkeypatch.setattr(interventional, "MOST_LOGITS", most)
        module, make = learner()
        terms = terms_of(module, make([0, 1, 2, 3]))
        (terms[STILL].total + terms[MOVING].total).backward()
        sums.append(torch.stack([terms[name].total.detach() for name in (STILL, MOVING)]))
        grads.append(module.vlm.lm_head.weight.grad)
    torch.testing.assert_close(sums[0], sums[1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(grads[0], grads[1], atol=1e-4, rtol=1e-4)
    assert grads[0] is not None and float(grads[0].abs().sum()) > 0


@pytest.mark.parametrize("branch", ["separate", "joint"])
def test_beside_laver_it_runs_in_the_same_passes_and_counts(branch: Any) -> None:
    """In the separate branch on the unmasked pass, with the terms that there are without LaVer; in the joint one under its mask."""
    plain, make = learner()
    batch = make([0, 1, 2, 3])
    alone = terms_of(plain, batch)
    settings = LaverConfig(head_hidden=24, mask_ratio=0.4, mask_ramp="constant", branch=branch, adaptation=MIXED)
    torch.manual_seed(2)
    objective = LaVer(plain.vlm.config, settings, auxiliary_losses(plain.vlm, AuxiliaryConfig(interventional=WIDE)))
    module = ObjectiveModule(plain.vlm, objective)
    prepared = objective.prepare(batch, 5, 10)
    calls: list[None] = []
    terms = module(TeacherCallback(module, objective).teach(module, prepared, 5), 5)
    with torch.no_grad():
        hook = plain.vlm.lm_head.register_forward_hook(lambda *args: calls.append(None))
        taught = TeacherCallback(module, objective).teach(module, prepared, 5)
        calls.clear()
        module(taught, 5)
        hook.remove()
    assert len(calls) == (1 if branch == "joint" else 2)
    assert {name: term.count for name, term in terms.items()} == dict(objective.counts(prepared))
    assert terms["masked_latent"].count == int(prepared["masked"].sum()) > 0 and prepared["plan"].num_pairs is not None
    assert torch.equal(prepared["masked"][:4], prepared["masked"][4:])
    for name in (STILL, MOVING):
        same = terms[name].total.item() == pytest.approx(alone[name].total.item(), rel=1e-5)
        assert same == (branch == "separate") and terms[name].total.requires_grad
    combine(terms, objective.counts(prepared)).backward()


def test_the_sum_with_every_other_loss_is_each_of_them() -> None:
    """What the others give with partners in the batch, they give beside this loss too."""
    others = {"pixels": PixelsConfig(head_hidden=24), "align": AlignConfig(head_hidden=24), "predict": PredictConfig(head_hidden=24)}
    masks: dict[str, Any] = {"mask_ratio": 0.4, "mask_ramp": "constant"}
    results = []
    for beside in ({}, {"interventional": WIDE}):
        module, make = learner(AuxiliaryConfig(**others, **masks, **beside))
        results.append(terms_of(module, make([0, 1, 2])))
    apart, summed = results
    assert summed.keys() - apart.keys() == {STILL, MOVING}
    assert all(torch.equal(term.total, summed[name].total) for name, term in apart.items())
    assert auxiliary_named("align+interventional") == AuxiliaryConfig(align=AlignConfig(), interventional=InterventionalConfig())


def test_a_batch_without_pairs_is_refused_and_one_without_a_partner_gives_0() -> None:
    module, make = learner()
    plain = paired_collator(make.tokenizer.processor, replace(make.examples, partners=None))
    with pytest.raises(BadInput, match="no pairs"):
        module.objective.counts(module.objective.prepare(plain([0]), 0, 1))
    few = paired_collator(make.tokenizer.processor, paired_examples(0.1))
    assert few.examples.partners is not None
    batch = few([int(few.examples.partners.number.argmin())])
    terms = terms_of(module, batch)
    assert [(terms[name].total.item(), terms[name].count) for name in (STILL, MOVING)] == [(0.0, 0), (0.0, 0)]
    combine(terms, module.objective.counts(module.objective.prepare(batch, 0, 1))).backward()
    batch.pop("plan")
    assert BatchPlan.of(batch).num_pairs == (0, 0)


@pytest.mark.parametrize("wrong", [{"pair_frac": 0.0}, {"pair_frac": 1.5}, {"margin": -0.1}])
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(BadInput):
        InterventionalConfig(**wrong)


ORIGIN = Origin(arm="a", comparison="c", world="shapes", strength=0.8, source="policy", policy=ASKED)


def whole_loss(module: ObjectiveModule, make: Collator) -> dict[str, float]:
    with torch.no_grad():
        return {name: term.total.item() / max(term.count, 1) for name, term in terms_of(module, make(list(range(24)))).items()}


def test_a_short_run_of_an_arm_lowers_both_terms() -> None:
    """From a model whose answers depend on the picture, with the language loss beside."""
    module, make = learner()
    before = whole_loss(module, make)
    recipe = Recipe(
        "test", steps=30, batch=8, precision="fp32", decoder=TINY, learning_rate=3e-3, auxiliary=AuxiliaryConfig(interventional=WIDE)
    )
    outcome = train_on_examples(module.vlm, make.tokenizer.processor, make.examples, recipe, origin=ORIGIN, seed=0)
    module.objective.settings = replace(module.objective.settings, adaptation=STOCK)
    after = whole_loss(module, make)
    assert outcome.losses[-1][1] < outcome.losses[0][1]
    assert after["language"] < before["language"]
    weighted = [WIDE.still_weight * each[STILL] + WIDE.moving_weight * each[MOVING] for each in (before, after)]
    assert weighted[1] < 0.8 * weighted[0], (before, after)


def test_adapters_alone_are_trained_under_lora(tmp_path: Path) -> None:
    model, processor = tiny_vlm()
    recipe = Recipe("test", steps=3, batch=8, precision="fp32", decoder=TINY, auxiliary=AuxiliaryConfig(interventional=WIDE))
    stage = replace(recipe.stage, lora_rank=2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    prepared = prepare_model(model, recipe.staged, stage)
    data = stage_data(paired_examples(), stage, model, processor, 0)
    trainer, monitor = train_stage(prepared, processor, recipe.staged, stage, data, seed=0, folder=tmp_path)
    moved = {name for name, value in trainer.objective_module.vlm.named_parameters() if value.requires_grad}
    assert any("lora_" in name for name in moved) and all("lora_" in name or "multi_modal_projector" in name for name in moved)
    log = [entry for entry in trainer.state.log_history if f"loss/{STILL}" in entry]
    assert log and all(math.isfinite(entry[f"loss/{name}"]) for entry in log for name in (STILL, MOVING))
    after = trainer.objective_module.vlm.state_dict()
    base = next(name for name in after if name.endswith("layers.0.self_attn.q_proj.base_layer.weight"))
    assert torch.equal(after[base], before["model.language_model.layers.0.self_attn.q_proj.weight"])
    assert len(monitor.losses) == 3
