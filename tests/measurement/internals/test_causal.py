"""Causal measures on a model with wired answers: patch, erase, shuffle and mean, each with its known value."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from helpers.measure_contexts import model_context
from helpers.planted_vlm import planted_vlm
from helpers.tiny_llava import tiny_vlm
from theodolite.asking.answer import Question
from theodolite.asking.local import LocalAsker
from theodolite.measurement.internals.causal import average_tokens, measure_causal, shuffling
from theodolite.measurement.internals.context import MeasureContext
from theodolite.measurement.internals.erasing import ErasureFit, fit_erasers, paired_labels, random_labels, shuffle_levels
from theodolite.measurement.internals.patching import Change, Patcher, patched, random_directions, response, shuffled_basis
from theodolite.measurement.internals.reask import ModelAnswers, ReaskedCases, cases_of, first_pictures, inner_layers, with_others
from theodolite.measurement.pairs.interventions import Interventions
from theodolite.records.causal import PARTNERS, Causal
from theodolite.worlds.shapes.world import Shapes

FELT, SILENT = ("connector", "layer.1"), ("layer.2", "layer.3")  # the answer is copied in the second block


@cache
def context() -> MeasureContext:
    """Answers about hue and about tone depend on that factor; no other answer depends on the picture."""
    return model_context(*planted_vlm({"hue": "hue", "tone": "tone"}), "hue,tone", 30)


@cache
def measured() -> Causal:
    causal = measure_causal(context())
    assert causal is not None
    return causal


def test_putting_in_a_wired_factor_turns_its_answers_and_no_others() -> None:
    assert {(patch.site, patch.factor) for patch in measured().patch} == {
        (site, factor) for site in (*FELT, *SILENT) for factor in ("hue", "tone", "glow")
    }
    for patch in (each for each in measured().patch if each.factor != "glow"):
        felt = float(patch.site in FELT)
        own, others = patch.subspace.own, patch.subspace.others
        assert patch.rank == 1
        assert own is not None and others is not None and patch.whole.own is not None
        assert (own.moved.frac, own.becomes.frac, others.moved.frac) == (felt, felt, 0)
        assert patch.whole.own.moved.frac == felt
        assert patch.by_query == {patch.factor: own.moved, **{name: others.moved for name in patch.by_query if name != patch.factor}}
        assert (own.variation.value > 0.8) == bool(felt)
    for patch in (each for each in measured().patch if each.factor == "glow"):
        assert patch.subspace.own is None and patch.subspace.others is not None, "no question is about glow"
        assert patch.subspace.others.moved.frac == 0


def test_as_much_along_another_factor_turns_its_answers_and_not_these() -> None:
    for patch in (each for each in measured().patch if each.factor != "glow"):
        felt = patch.site in FELT
        assert patch.other_factor == {"hue": "tone", "tone": "hue"}[patch.factor]
        assert patch.other_direction is not None and patch.other_direction.own is not None and patch.other_moved is not None
        assert patch.other_direction.own.moved.frac == 0
        assert (patch.other_moved.frac > 0.3) == felt
        for control in (patch.random_direction, patch.shuffled_direction):
            assert control is not None and control.own is not None and control.own.moved.frac < 0.5
            assert felt or control.own.moved.frac == 0
        assert patch.shuffled_direction is not None and patch.shuffled_direction.own is not None
        assert patch.shuffled_direction.own.moved.frac == 0, "it is orthogonal to the factor's own subspace"


def test_a_shadow_is_patched_though_nobody_asks_about_it() -> None:
    """Tone determines the answer about hue: patching tone's subspace changes the answers, hue's does not."""
    causal = measure_causal(model_context(*planted_vlm({"hue": "tone"}), "hue", 30))
    assert causal is not None
    moved = {patch.factor: patch.by_query["hue"].frac for patch in causal.patch if patch.site == "connector"}
    assert moved == {"hue": 0, "tone": 1, "glow": 0}
    lost = {each.factor: each for each in causal.erase if each.site == "connector"}
    assert lost["tone"].lost is None and lost["tone"].before.accuracy is None, "no question asks for tone"
    assert lost["tone"].moved["hue"].frac > 0.5 and lost["hue"].moved["hue"].frac == 0, "erasing the shadow moves the answer"


def test_erasing_destroys_exactly_the_wired_factor_s_answers() -> None:
    for erasure in (each for each in measured().erase if each.factor != "glow"):
        assert erasure.before.accuracy is not None and erasure.after.accuracy is not None and erasure.lost is not None
        assert (erasure.before.accuracy.frac, erasure.before.others and erasure.before.others.frac, erasure.rank) == (1, 1, 1)
        assert erasure.after.read is not None and erasure.after.others is not None
        assert erasure.after.others.frac == 1, "answers to the other question stay"
        assert {name: lost.value for name, lost in erasure.others_lost.items()} == dict.fromkeys({"hue", "tone"} - {erasure.factor}, 0)
        assert erasure.lost.value == pytest.approx(1 - erasure.after.accuracy.frac, abs=1e-6)
        if erasure.site in FELT:
            assert erasure.after.read.frac == 0
            assert erasure.after.accuracy.frac < 0.5
        else:
            assert (erasure.after.read.frac, erasure.after.accuracy.frac) == (1, 1)


def test_a_fresh_probe_finds_nothing_of_a_factor_that_is_erased_and_everything_of_one_that_is_not() -> None:
    """The planted factor lies in one direction. Its erasure is fitted on other scenes than those that are probed."""
    for erasure in (each for each in measured().erase if each.factor != "glow"):
        assert erasure.probe is not None and erasure.probe.before.frac == 1
        for rate in (erasure.probe.after, erasure.probe.nonlinear):
            assert rate.low is not None and rate.low < erasure.probe.chance_frac


def test_answers_read_from_averages_survive_shuffling_and_averaging() -> None:
    for edit in (measured().shuffle, measured().mean):
        assert [each.site for each in edit] == [*FELT, *SILENT]
        assert all(each.overall.moved.frac == 0 and each.overall.accuracy_after.frac == 1 for each in edit)
        assert all(set(each.by_query) == {"hue", "tone"} for each in edit)


def test_a_random_model_is_measured_twice_alike_and_its_numbers_have_partners() -> None:
    both = [measure_causal(model_context(*tiny_vlm(), Shapes(), "shape,row", 10)) for _ in range(2)]
    assert both[0] == both[1] and both[0] is not None
    assert both[0].sites == ("connector", "layer.1")
    assert {patch.factor for patch in both[0].patch} == set(Shapes().space.names)
    assert {name for names in PARTNERS.values() for name in names} <= set(Causal.model_fields)


def test_without_open_questions_there_is_nothing_causal() -> None:
    surveyed = context()
    none = MeasureContext(surveyed.model, surveyed.asker, surveyed.plan, surveyed.rows.clear(), surveyed.interventions, {}, {}, 0.95, 0)
    assert measure_causal(none) is None


def test_patching_mixes_within_the_subspace_only_and_all_of_space_is_the_picture_after() -> None:
    rng = np.random.default_rng(0)
    basis = torch.from_numpy(np.linalg.qr(rng.standard_normal((6, 2)))[0]).float()
    before, after = torch.from_numpy(rng.standard_normal((2, 3, 5, 6))).float()
    mixed = patched(before, after, basis)
    torch.testing.assert_close(mixed @ basis, after @ basis)
    rest = torch.eye(6) - basis @ basis.T
    torch.testing.assert_close(mixed @ rest, before @ rest)
    torch.testing.assert_close(patched(before, after, torch.eye(6)), after)
    assert torch.equal(patched(before, after, None), after)


@pytest.mark.parametrize(("rank", "within"), [(1, 6), (2, 6), (2, 3), (3, 2)])
def test_controls_add_as_much_at_every_token_and_nothing_outside_their_own_span(rank: int, within: int) -> None:
    """In the whole space (6) or within a span of 3 or 2 directions; the span may be smaller than the factor's subspace."""
    rng = np.random.default_rng(0)
    columns = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    own, other = columns[:, :rank], columns[:, 6 - within :]
    before, after = torch.from_numpy(rng.standard_normal((2, 4, 5, 6)))
    directions = random_directions(4, rank, 6 if within == 6 else other, rng)
    assert directions.shape == (4, rank, 6)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=2), 1)
    patch = patched(before, after.float(), torch.from_numpy(own).float()) - before
    control = patched(before, after.float(), torch.from_numpy(own).float(), torch.from_numpy(directions).float()) - before
    torch.testing.assert_close(control.norm(dim=-1), patch.norm(dim=-1), rtol=1e-5, atol=1e-6)
    assert patch.norm(dim=-1).min() > 0.05 and not torch.allclose(control, patch, atol=0.1)
    rest = torch.eye(6, dtype=torch.float64) - torch.from_numpy(other @ other.T)
    if within < 6:
        torch.testing.assert_close(control @ rest, torch.zeros_like(control), atol=1e-5, rtol=0)
    assert not np.allclose(directions[0], directions[1]), "each pair has its own"


def test_a_patch_of_nothing_has_controls_of_nothing() -> None:
    tokens, none = torch.ones(2, 3, 6), torch.zeros(6, 0)
    directions = torch.from_numpy(random_directions(2, 0, 6, np.random.default_rng(0))).float()
    torch.testing.assert_close(patched(tokens, tokens + 1, none, directions), tokens)
    torch.testing.assert_close(patched(tokens, tokens, torch.eye(6)[:, :2], torch.eye(6)[None, 3:5].repeat(2, 1, 1)), tokens)


def test_directions_of_shuffled_labels_are_those_in_which_pictures_differ_not_the_factor_s_own() -> None:
    """Channel 0 holds the factor, channel 1 varies ten times as much among scenes."""
    rng = np.random.default_rng(0)
    number = 60
    before = rng.integers(3, size=number)
    after = (before + rng.integers(1, 3, size=number)) % 3
    vectors = rng.standard_normal((2 * number, 8)) * 0.1
    vectors[:, 0] += np.concatenate([before, after])
    vectors[:, 1] += 10 * np.tile(rng.standard_normal(number), 2)
    scenes = np.arange(number)
    pairs = Interventions("f", ("a", "b", "c"), scenes, scenes + number, before, after, scenes)
    basis = shuffled_basis(pairs, vectors, np.eye(8)[:, :1], rng)
    assert basis.shape == (8, 1) and abs(basis[1, 0]) > 0.9 and abs(basis[0, 0]) < 1e-9


@pytest.mark.parametrize("share", [True, False])
def test_patching_in_parts_and_at_once_gives_the_same_answers(share: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole difference at a layer before the copier is the picture after, whatever the number of pairs at once."""
    surveyed = context()
    asker = LocalAsker(surveyed.model, surveyed.asker.processor, share=share)
    rows = surveyed.rows.filter((pl.col("factor") == "hue") & (pl.col("kind") == "intervention")).head(10)
    cases = cases_of(rows, "before", apart=not share)
    assert len(cases.before) == (len(rows) if not share else rows.n_unique("picture_before"))
    directions = random_directions(len(cases.before), 1, 48, np.random.default_rng(0))
    changes = {"layer.1": {"whole": Change(None), "random": Change(np.eye(48)[:, :1], directions)}}
    whole = Patcher(asker, surveyed.plan.pictures).answers(cases, changes)
    monkeypatch.setattr("theodolite.measurement.internals.patching.MOST_BYTES", 4 * 64 * 48 * 3)
    parts = Patcher(asker, surveyed.plan.pictures).answers(cases, changes)
    for key in whole:
        np.testing.assert_array_equal(whole[key].chosen, parts[key].chosen)
        np.testing.assert_allclose(whole[key].probabilities, parts[key].probabilities, atol=1e-5)
    np.testing.assert_allclose(
        whole["layer.1", "whole"].probabilities, ModelAnswers.of(rows["probabilities_after"].to_list()).probabilities, atol=1e-5
    )


def test_a_response_counts_what_moves_and_what_becomes_only_where_answers_differ() -> None:
    def answers(*chosen: int) -> ModelAnswers:
        return ModelAnswers.of([np.eye(3)[number] for number in chosen])

    changed = response(answers(0, 1, 2, 2), answers(0, 0, 0, 2), answers(0, 1, 1, 2), np.array([0, 1, 2, 3]), 0.95)
    assert changed.becomes is not None
    assert (changed.moved.frac, changed.becomes.frac, changed.becomes.num_pairs, changed.variation.value) == (0.5, 0.5, 2, 0.5)
    assert response(answers(0), answers(0), answers(0), np.array([0]), 0.95).becomes is None


def test_pairs_erase_what_they_change_whatever_goes_with_it_by_chance() -> None:
    """Channel 0 holds the level; channel 1 correlates with it by chance across pairs, but not within them."""
    rng = np.random.default_rng(0)
    before = rng.integers(3, size=40)
    after = (before + rng.integers(1, 3, size=40)) % 3
    tokens = torch.from_numpy(rng.standard_normal((40, 4, 6)))
    tokens = torch.cat([tokens, tokens])
    tokens[..., 1] += torch.from_numpy(np.concatenate([before, before]))[:, None]
    tokens[..., 0] = torch.from_numpy(np.concatenate([before, after]))[:, None] * 1.0
    fit = ErasureFit([paired_labels(before, after, 3), random_labels(before, after, np.arange(40), 3, rng)])
    for part in torch.arange(80).split(32):
        fit.update(tokens[part].float(), part)
    own, random = fit.erasers()
    left = own(tokens.float(), torch.arange(80))
    assert own.rank == 1 and random.rank == 2 and random.first(1).rank == 1
    # Within each pair the change is erased, and the other channel is unchanged.
    torch.testing.assert_close(left[:40].mean(dim=1), left[40:].mean(dim=1), atol=1e-4, rtol=0)
    torch.testing.assert_close(left[..., 2:].double(), tokens[..., 2:], atol=0.3, rtol=0)
    correlation = np.corrcoef(np.repeat(before, 4), left[:40, :, 1].flatten().numpy())[0, 1]
    assert correlation > 0.5


def test_a_batch_that_is_run_again_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory runs out after the sites: tokens of the failed pass are not part of the moments."""
    surveyed = context()
    pictures, sites = surveyed.plan.pictures[:8], ("connector", "layer.1")
    labels = [torch.eye(2)[torch.arange(8) % 2]]
    question = Question(0, "what hue?", ("amber", "beige"))
    whole = fit_erasers(LocalAsker(surveyed.model, surveyed.asker.processor), pictures, question, labels, sites)
    own, sizes = LocalAsker.score, []

    def cramped(self: LocalAsker, batch: Any, vision_features: Any, edits: Any = None) -> Any:
        scored = own(self, batch, vision_features, edits)
        if len(batch.pictures) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return scored

    def counted(self: ErasureFit, tokens: torch.Tensor, numbers: torch.Tensor) -> None:
        sizes.append(len(tokens))
        update(self, tokens, numbers)

    update = ErasureFit.update
    monkeypatch.setattr(LocalAsker, "score", cramped)
    monkeypatch.setattr(ErasureFit, "update", counted)
    halved = fit_erasers(LocalAsker(surveyed.model, surveyed.asker.processor), pictures, question, labels, sites)
    assert sizes == [4, 4, 4, 4], "two sites, two halves"
    for site in sites:
        torch.testing.assert_close(halved[site][0].mean, whole[site][0].mean, atol=1e-5, rtol=1e-5)


def test_random_labels_exchange_whole_pairs_among_scenes() -> None:
    rng = np.random.default_rng(3)
    scenes = np.array([4, 4, 7, 9, 9, 9])
    first, second = np.arange(6), np.arange(6) + 10
    one, other = shuffle_levels(first, second, scenes, rng)
    np.testing.assert_array_equal(other - one, 10)
    for scene in np.unique(scenes):
        assert len({int(scenes[taken]) for taken in one[scenes == scene]}) == 1
    assert any(not np.array_equal(shuffle_levels(first, second, scenes, rng)[0], first) for _ in range(3))


def test_shuffling_keeps_each_picture_s_tokens_and_the_mean_keeps_their_mean() -> None:
    rng = np.random.default_rng(0)
    tokens = torch.from_numpy(rng.standard_normal((3, 5, 2))).float()
    orders = torch.from_numpy(np.stack([rng.permutation(5) for _ in range(4)]))
    numbers = torch.tensor([3, 0, 3])
    moved = shuffling(orders)(tokens, numbers)
    assert torch.equal(moved[0], tokens[0, orders[3]]) and torch.equal(moved[1], tokens[1, orders[0]])
    flat = average_tokens(tokens, numbers)
    torch.testing.assert_close(flat, tokens.mean(dim=1, keepdim=True).expand_as(tokens))


def test_scenes_take_turns_through_the_other_questions() -> None:
    rows = pl.DataFrame([(scene, query) for scene in (3, 5, 8) for query in "abcd"], schema=["scene", "query"], orient="row")
    chosen = with_others(rows, "b", 2)
    assert chosen.group_by("scene", maintain_order=True).agg("query").rows() == [(3, list("abc")), (5, list("abd")), (8, list("bcd"))]
    assert with_others(rows.filter(pl.col("query") == "b"), "b", 2).height == 3


def test_first_pictures_are_one_a_scene_in_the_order_of_scenes() -> None:
    rows = pl.DataFrame(
        {
            "scene": [2, 2, 2, 0, 1],
            "picture_before": [5, 5, 6, 7, 8],
            "name": ["a", "a", "a", "a", "a"],
            "question_before": ["x", "x", "x", "x", "x"],
        }
    )
    assert sorted(first_pictures(rows, 9)["picture_before"]) == [5, 7, 8]
    assert sorted(first_pictures(rows, 2)["scene"]) == [0, 1]


def test_cases_in_parts_keep_their_own_asks() -> None:
    cases = ReaskedCases(
        tuple(Question(number, text, ("a", "b")) for number in range(3) for text in "xy"), np.arange(3) + 5, np.arange(3) + 9
    )
    part, kept = cases.part(1, 3)
    assert kept.tolist() == [2, 3, 4, 5] and part.before.tolist() == [6, 7]
    assert [(ask.picture, ask.question) for ask in part.questions] == [(0, "x"), (0, "y"), (1, "x"), (1, "y")]
    assert [(ask.picture, ask.question) for ask in cases.first_asks()] == [(0, "x"), (1, "x"), (2, "x")]


@pytest.mark.parametrize(("number", "expected"), [(1, "1"), (2, "1"), (3, "12"), (4, "123"), (8, ("1", "4", "7")), (32, ("1", "16", "31"))])
def test_inner_layers_are_first_middle_and_last_but_one(number: int, expected: tuple[str, ...] | str) -> None:
    assert inner_layers([f"layer.{each + 1}" for each in range(number)]) == tuple(f"layer.{each}" for each in expected)
