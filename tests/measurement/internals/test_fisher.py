"""Fisher information against its definition by automatic derivatives of the whole distribution, and on wired answers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from helpers.measure_contexts import model_context
from helpers.planted_vlm import NOISE, planted_vlm
from helpers.tiny_llava import tiny_vlm
from theodolite.asking.local import LocalAsker
from theodolite.measurement.internals.fisher import frozen, measure_fisher
from theodolite.measurement.internals.reask import ask_edited, cases_of
from theodolite.measurement.internals.sensitivity import along, centred, entropy_rank, is_rounding, participation_rank, spectrum
from theodolite.measurement.pairs.interventions import first_scenes
from theodolite.records.fisher import DirectionGradient, Energy, Fisher
from theodolite.worlds.shapes.world import Shapes


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


EPS = torch.finfo(torch.float32).eps


def test_centred_gradients_give_the_fisher_information_of_the_answers() -> None:
    gradients, scores = draw(4, 3, 5), draw(4, seed=1)
    rooted, m = centred(gradients, scores)
    flat = gradients.flatten(1)
    expected = flat.T @ (m.diag() - m[:, None] * m) @ flat
    torch.testing.assert_close(rooted.flatten(1).T @ rooted.flatten(1), expected)
    # By the other definition: the second derivative of the divergence between answers before and after a small move.
    at = torch.zeros(15)

    def divergence(move: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.kl_div((scores + flat @ move).log_softmax(0), m, reduction="sum")

    hessian = torch.autograd.functional.hessian(divergence, at)
    torch.testing.assert_close(expected, hessian, atol=1e-5, rtol=1e-4)


def rounds_away(gradients: torch.Tensor, scores: torch.Tensor, eps: float) -> bool:
    rooted, m = centred(gradients, scores)
    assert rooted.any(), "small, and not set to 0"
    return is_rounding(rooted, gradients, m, eps)


def test_gradients_alike_for_all_choices_are_rounding_and_kept() -> None:
    one = draw(1, 3, 5).repeat(4, 1, 1)
    assert rounds_away(one * (1 + 1e-7 * draw(4, 1, 1)), draw(4), EPS)
    assert not rounds_away(one * (1 + 1e-3 * draw(4, 1, 1)), draw(4), EPS)


def test_rounding_of_half_precision_is_coarser() -> None:
    """Gradients that are equal in bfloat16, then stored in single precision."""
    alike = (draw(1, 3, 5) * (1 + 4e-3 * draw(4, 3, 5, seed=1))).bfloat16().float()
    assert rounds_away(alike, draw(4), torch.finfo(torch.bfloat16).eps) and not rounds_away(alike, draw(4), EPS)
    assert not rounds_away(draw(4, 3, 5), draw(4), torch.finfo(torch.bfloat16).eps)


def nearly_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Choices whose scores have almost the same gradient, up to a hundredth."""
    own = LocalAsker.score

    def together(self: LocalAsker, batch: Any, vision_features: Any, edits: Any = None) -> Any:
        scored = own(self, batch, vision_features, edits)
        slope = 1 + 0.01 * torch.arange(len(scored.choices)) / len(scored.choices)
        return replace(scored, choices=0 * scored.choices + slope * vision_features.tokens.sum())

    monkeypatch.setattr(LocalAsker, "score", together)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_half_precision_model_is_measured_in_single_precision(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """A remainder of a hundredth of the gradient is below 3 %, the rounding of bfloat16, and is measured all the same."""
    context = model_context(*planted_vlm(), "hue", 4)
    nearly_alike(monkeypatch)
    context.model.to(dtype)
    before = [(each, each.dtype, each.detach().clone()) for each in (*context.model.parameters(), *context.model.buffers())]
    fisher = measure_fisher(context)
    assert fisher is not None and fisher.precision == "float32" and fisher.trace.value > 0
    assert all(each.num_flat == 0 for each in fisher.energies)
    for each, kind, values in before:
        assert each.dtype == kind and torch.equal(each, values), "weights have their own dtype and values again"


def test_where_single_precision_does_not_fit_the_record_and_a_notice_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    context = model_context(*planted_vlm(), "hue", 4)
    nearly_alike(monkeypatch)
    monkeypatch.setattr("theodolite.measurement.internals.fisher.fits_in_single_precision", lambda model: False)
    context.model.to(torch.bfloat16)
    fisher = measure_fisher(context)
    assert fisher is not None and fisher.precision == "bfloat16" and fisher.rounding == pytest.approx(0.03125)
    assert fisher.trace.value > 0 and all(each.energy is None and each.num_flat == each.num_cases for each in fisher.energies)
    assert "half precision" in context.asker.notices[0]


def test_memory_that_runs_out_halves_the_rows_and_changes_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    context = model_context(*tiny_vlm(), Shapes(), "shape,row", 4)
    whole, own = measure_fisher(context), LocalAsker.score

    def cramped(self: LocalAsker, batch: Any, vision_features: Any, edits: Any = None) -> Any:
        scored = own(self, batch, vision_features, edits)
        if len(batch.pictures) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return scored

    monkeypatch.setattr(LocalAsker, "score", cramped)
    halved = measure_fisher(context)
    assert whole is not None and halved is not None
    assert (halved.num_cases, halved.trace.num_scenes) == (whole.num_cases, whole.trace.num_scenes)
    assert halved.trace.value == pytest.approx(whole.trace.value, rel=1e-4)
    assert context.asker.notices[0].startswith("8 rows at once did not fit") and len(context.asker.notices) == 2


def test_parameters_need_no_gradient_in_the_pass_and_get_their_own_setting_back(monkeypatch: pytest.MonkeyPatch) -> None:
    context = model_context(*tiny_vlm(), Shapes(), "shape", 2)
    parameters = list(context.model.parameters())
    for parameter in parameters[::3]:
        parameter.requires_grad_(False)
    before = [parameter.requires_grad for parameter in parameters]
    own, within = LocalAsker.score, []

    def looked_at(self: LocalAsker, batch: Any, vision_features: Any, edits: Any = None) -> Any:
        within.append(any(parameter.requires_grad for parameter in parameters))
        return own(self, batch, vision_features, edits)

    monkeypatch.setattr(LocalAsker, "score", looked_at)
    assert measure_fisher(context) is not None and within and not any(within)
    assert [parameter.requires_grad for parameter in parameters] == before
    with pytest.raises(RuntimeError, match="stopped"), frozen(context.model):
        raise RuntimeError("stopped")
    assert [parameter.requires_grad for parameter in parameters] == before


@pytest.mark.parametrize("rank", [1, 4])
def test_effective_ranks_count_equal_directions(rank: int) -> None:
    basis = torch.linalg.qr(draw(6, 6))[0][:rank]
    shares = spectrum(3 * basis.T @ basis)
    assert shares is not None
    assert (entropy_rank(shares), participation_rank(shares)) == (pytest.approx(rank), pytest.approx(rank))
    shares = spectrum(torch.diag(torch.tensor([3.0, 1.0, 0.0])))
    assert shares is not None
    assert (entropy_rank(shares), participation_rank(shares)) == (pytest.approx(4 / 3**0.75), pytest.approx(1.6))
    assert spectrum(torch.zeros(3, 3)) is None


def test_energy_and_slope_along_displacements_have_their_closed_form() -> None:
    rooted = torch.zeros(2, 10)
    rooted[0, 0], rooted[1, 0], rooted[0, 3] = 2.0, 1.0, 1.0  # F = 5 at coordinate 0, 1 at coordinate 3, 2 between
    moved = torch.zeros(4, 10)
    moved[0, 0], moved[1, 3], moved[3, 5] = 7.0, -2.0, 4.0  # the last is the nuisance's
    loss = 2 * moved[0] / 7 + torch.eye(10)[5]
    values = along(rooted, loss, moved, 3.0, np.random.default_rng(0))
    np.testing.assert_allclose(values.energy, [5 / 0.6, 1 / 0.6, np.nan])
    np.testing.assert_allclose(values.slope, [2 / 5**0.5, 0, np.nan])
    np.testing.assert_allclose(values.energy_span, [1 / 0.6, 5 / 0.6, np.nan], err_msg="of two displacements, the other is the span")
    np.testing.assert_allclose(values.slope_span, [0, 2 / 5**0.5, np.nan], atol=1e-12)
    np.testing.assert_allclose(values.energy_nuisance, [0, 0, np.nan])
    np.testing.assert_allclose(values.slope_nuisance, [1 / 5**0.5, 1 / 5**0.5, np.nan])
    np.testing.assert_allclose(values.gradient, [6, 0, np.nan], err_msg="nats for a step of the tokens' length")
    np.testing.assert_allclose(values.gradient_nuisance, [3, 3, np.nan])
    np.testing.assert_allclose(values.gradient_random[:2], 3 * 5**0.5 * (2 / (np.pi * 10)) ** 0.5)
    nothing = along(None, loss, moved, 3.0, np.random.default_rng(0))
    assert np.isnan(nothing.energy).all() and nothing.slope[0] > 0


def test_random_directions_have_the_expected_energy_slope_and_gradient() -> None:
    rooted, moved = draw(3, 200), draw(401, 200, seed=1)
    values = along(rooted, draw(200, seed=2), moved, 5.0, np.random.default_rng(0))
    assert values.energy.mean() == pytest.approx(1, abs=0.1)
    assert values.slope.mean() == pytest.approx((2 / (np.pi * 200)) ** 0.5, rel=0.1)
    assert np.abs(values.gradient).mean() == pytest.approx(values.gradient_random[0], rel=0.1)


def energies(fisher: Fisher) -> dict[tuple[str, str], Energy]:
    return {(each.factor, each.query): each for each in fisher.energies}


def test_one_wired_factor_gives_rank_1_all_energy_and_exactly_none_along_another() -> None:
    fisher = measure_fisher(model_context(*planted_vlm(), "hue,tone", 12))
    assert fisher is not None
    assert (fisher.num_tokens, fisher.dim, fisher.num_cases, fisher.num_scenes) == (64, 48, 24, 12)
    assert fisher.spectrum[0] == 1 and not any(fisher.spectrum[1:])
    assert (fisher.entropy_rank, fisher.participation_rank) == (pytest.approx(1, abs=1e-5), pytest.approx(1, abs=1e-5))
    table = energies(fisher)
    hue, tone = table["hue", "hue"], table["tone", "hue"]
    assert hue.energy is not None and hue.energy.value == pytest.approx(64 * 48, rel=1e-4), "all of the trace lies along one displacement"
    assert hue.energy_span is not None and hue.energy_span.value == 0
    assert tone.energy is not None and (tone.energy.value, tone.energy.high) == (0, None)
    assert tone.slope is not None and tone.slope.value == 0, "not small: zero"
    assert hue.slope is not None and hue.slope.value == pytest.approx(1, abs=1e-5)
    unasked = table["hue", "tone"]
    assert (unasked.energy, unasked.num_flat, unasked.num_cases) == (None, 12, 12), "answers alike whatever the picture feel nothing"
    assert 0 <= fisher.trace_by_query["tone"].value < 1e-9 * fisher.trace_by_query["hue"].value
    dropped = table["glow", "hue"]
    assert (dropped.energy, dropped.slope, dropped.num_cases) == (None, None, 0), "the connector gives no displacement"


def gradients(fisher: Fisher) -> dict[str, DirectionGradient]:
    return {each.factor: each for each in fisher.gradients}


def test_the_loss_is_steep_along_what_a_question_needs_and_exactly_flat_along_the_rest() -> None:
    fisher = measure_fisher(model_context(*planted_vlm(), "hue", 12))
    assert fisher is not None
    hue, tone = gradients(fisher)["hue"], gradients(fisher)["tone"]
    assert hue.asked and not tone.asked
    assert hue.size.value > 10 * hue.random.value and hue.excess_random.low is not None and hue.excess_random.low > 0
    assert hue.share_of_asked is not None and hue.share_of_asked.value == 1
    assert (tone.size.value, tone.gradient.value) == (0, 0) and tone.excess_random.value < 0
    assert tone.share_of_asked is not None and tone.share_of_asked.value == 0
    assert "glow" not in gradients(fisher), "the connector gives no displacement"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_faint_gradient_along_an_unasked_factor_is_measured_and_not_set_to_0(dtype: torch.dtype) -> None:
    """A leak of a thousandth of tone into the answer about hue: below the rounding of bfloat16, above nothing."""
    model, processor, world = planted_vlm()
    context = model_context(model, processor, world, "hue", 12)
    exact = measure_fisher(context)
    attention = model.model.language_model.layers[1].self_attn
    attention.v_proj.weight.data[0, 1] = 1e-3  # the copy of hue takes this share of tone
    context.model.to(dtype)
    leaky = measure_fisher(context)
    assert exact is not None and leaky is not None
    assert gradients(exact)["tone"].size.value == 0
    faint = gradients(leaky)["tone"]
    assert faint.share_of_asked is not None and faint.share_of_asked.value == pytest.approx(1e-3, rel=0.7)
    assert faint.size.low is not None and faint.size.low > 0


def test_the_nuisance_displacement_is_the_baseline_and_is_missing_where_no_pair_is() -> None:
    context = model_context(*tiny_vlm(), Shapes(), "shape,row", 6)
    fisher = measure_fisher(context)
    assert fisher is not None
    for each in fisher.energies:
        assert each.energy_nuisance is not None and each.slope_nuisance is not None and each.energy_excess is not None
        assert each.energy is not None
        assert each.energy_excess.value == pytest.approx(each.energy.value - each.energy_nuisance.value, abs=1e-4)
    bare = measure_fisher(replace(context, rows=context.rows.filter(context.rows["kind"] != "nuisance")))
    assert bare is not None
    assert all((each.energy_nuisance, each.slope_nuisance, each.energy_excess) == (None,) * 3 for each in bare.energies)
    assert all(each.nuisance is None and each.excess_nuisance is None for each in bare.gradients)
    assert [each.energy for each in bare.energies] == [each.energy for each in fisher.energies]


def test_an_answer_made_of_noise_responds_to_the_nuisance_as_much_as_to_a_factor() -> None:
    """The control fails where it should: energy far above random directions, and no more than the nuisance's."""
    model, processor, world = planted_vlm()
    clean = measure_fisher(model_context(model, processor, world, "hue", 12))
    model.model.language_model.layers[1].self_attn.v_proj.weight.data[0] = 0
    model.model.language_model.layers[1].self_attn.v_proj.weight.data[0, NOISE] = 1.0
    noisy = measure_fisher(model_context(model, processor, world, "hue", 12))
    assert clean is not None and noisy is not None
    own, made_of_noise = energies(clean)["hue", "hue"], energies(noisy)["hue", "hue"]
    assert own.energy_excess is not None and own.energy_excess.low is not None and own.energy_excess.low > 0
    assert made_of_noise.energy_nuisance is not None and made_of_noise.energy_nuisance.value > 0.1
    assert made_of_noise.energy_excess is not None and made_of_noise.energy_excess.value < 0


def test_nuisance_pairs_of_the_first_scenes_stay_in_the_plan_and_move_no_other_picture() -> None:
    context = model_context(*planted_vlm(), "hue", 6)
    plan, rows = first_scenes(context.plan, context.rows, 4)
    assert set(rows["kind"]) == {"intervention", "nuisance"} and rows["scene"].n_unique() == 4
    whole = context.rows.filter((pl.col("scene") < 4) & pl.col("kind").is_in(["intervention", "nuisance"]))
    for small, large in zip(rows.iter_rows(named=True), whole.iter_rows(named=True), strict=True):
        for side in ("picture_before", "picture_after"):
            assert (plan.pictures[small[side]] == context.plan.pictures[large[side]]).all()
    changed = rows.filter(rows["kind"] == "intervention")
    used = np.unique(np.concatenate([changed["picture_before"], changed["picture_after"]]))
    assert used.tolist() == list(range(len(used))), "pictures of interventions come first"
    assert len(plan.pictures) == len(used) + 4


def test_the_trace_is_that_of_small_moves_of_the_answers() -> None:
    """Against differences of probabilities under small random moves of the tokens: E |dp / sqrt(m)|^2 = trace F * step^2."""
    context = model_context(*tiny_vlm(), Shapes(), "shape", 2)
    fisher = measure_fisher(context)
    assert fisher is not None and fisher.spectrum
    row = context.rows.filter(context.rows["kind"] == "intervention").head(1)
    first = measure_fisher(replace(context, rows=row))
    assert first is not None
    cases = cases_of(row, "before", apart=False)
    pictures = context.plan.pictures[cases.before]
    generator, step = torch.Generator().manual_seed(0), 2e-4
    plain = ask_edited(context.asker, pictures, cases.questions).probabilities[0]

    def nudged(sign: float, noise: torch.Tensor) -> np.ndarray:
        edits = {"connector": lambda tokens, numbers: tokens + sign * noise}
        return ask_edited(context.asker, pictures, cases.questions, edits).probabilities[0]

    moves = []
    for _ in range(200):
        noise = step * torch.randn(1, fisher.num_tokens, fisher.dim, generator=generator)
        change = (nudged(1, noise) - nudged(-1, noise)) / 2
        moves.append((change**2 / plain).sum() / step**2)
    assert np.mean(moves) == pytest.approx(first.trace.value, rel=0.25)


def test_measuring_twice_gives_the_same_and_nothing_asked_gives_none() -> None:
    context = model_context(*tiny_vlm(), Shapes(), "shape,row", 4)
    assert measure_fisher(context) == measure_fisher(context)
    assert measure_fisher(replace(context, rows=context.rows.clear())) is None
