"""Fisher information against its definition by automatic derivatives of the whole distribution, and on wired answers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from helpers.measure_contexts import model_context
from helpers.planted_vlm import planted_vlm
from helpers.tiny_llava import tiny_vlm
from theodolite.asking.local import LocalAsker
from theodolite.measurement.internals.fisher import along, centred, entropy_rank, frozen, measure_fisher, participation_rank, spectrum
from theodolite.measurement.internals.reask import ask_edited, cases_of
from theodolite.records.fisher import Energy, Fisher
from theodolite.worlds.shapes.world import Shapes


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


EPS = torch.finfo(torch.float32).eps


def test_centred_gradients_give_the_fisher_information_of_the_answers() -> None:
    gradients, scores = draw(4, 3, 5), draw(4, seed=1)
    rooted, m = centred(gradients, scores, EPS)
    flat = gradients.flatten(1)
    expected = flat.T @ (m.diag() - m[:, None] * m) @ flat
    torch.testing.assert_close(rooted.flatten(1).T @ rooted.flatten(1), expected)
    # By the other definition: the second derivative of the divergence between answers before and after a small move.
    at = torch.zeros(15)

    def divergence(move: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.kl_div((scores + flat @ move).log_softmax(0), m, reduction="sum")

    hessian = torch.autograd.functional.hessian(divergence, at)
    torch.testing.assert_close(expected, hessian, atol=1e-5, rtol=1e-4)


def test_gradients_alike_for_all_choices_are_felt_exactly_0() -> None:
    one = draw(1, 3, 5).repeat(4, 1, 1)
    assert not centred(one * (1 + 1e-7 * draw(4, 1, 1)), draw(4), EPS)[0].any()
    assert centred(one * (1 + 1e-3 * draw(4, 1, 1)), draw(4), EPS)[0].any()


def test_what_a_half_precision_model_rounds_is_not_felt() -> None:
    """Gradients that are equal in bfloat16, then stored in single precision."""
    alike = (draw(1, 3, 5) * (1 + 4e-3 * draw(4, 3, 5, seed=1))).bfloat16().float()
    assert not centred(alike, draw(4), torch.finfo(torch.bfloat16).eps)[0].any()
    assert centred(draw(4, 3, 5), draw(4), torch.finfo(torch.bfloat16).eps)[0].any()


@pytest.mark.parametrize(("dtype", "felt"), [(torch.float32, True), (torch.bfloat16, False)])
def test_rounding_is_that_of_the_model_that_was_asked(dtype: torch.dtype, felt: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Choices whose scores have almost the same gradient, up to a hundredth."""
    context = model_context(*planted_vlm(), "hue", 4)
    own = LocalAsker.score

    def together(self: LocalAsker, batch: Any, vision_features: Any, edits: Any = None) -> Any:
        scored = own(self, batch, vision_features, edits)
        slope = 1 + 0.01 * torch.arange(len(scored.choices)) / len(scored.choices)
        return replace(scored, choices=0 * scored.choices + slope * vision_features.tokens.float().sum())

    monkeypatch.setattr(LocalAsker, "score", together)
    context.model.to(dtype)
    fisher = measure_fisher(context)
    assert fisher is not None and bool(fisher.trace.value) == felt


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
    moved = torch.zeros(3, 10)
    moved[0, 0], moved[1, 3] = 7.0, -2.0
    loss = 2 * moved[0] / 7 + torch.eye(10)[5]
    values = along(rooted, loss, moved, np.random.default_rng(0))
    np.testing.assert_allclose(values.energy, [5 / 0.6, 1 / 0.6, np.nan])
    np.testing.assert_allclose(values.slope, [2 / 5**0.5, 0, np.nan])
    np.testing.assert_allclose(values.energy_span, [1 / 0.6, 5 / 0.6, np.nan], err_msg="of two displacements, the other is the span")
    np.testing.assert_allclose(values.slope_span, [0, 2 / 5**0.5, np.nan], atol=1e-12)
    nothing = along(torch.zeros(2, 10), loss, moved, np.random.default_rng(0))
    assert np.isnan(nothing.energy).all() and nothing.slope[0] > 0


def test_random_directions_have_the_expected_energy_of_1() -> None:
    rooted, moved = draw(3, 200), draw(400, 200, seed=1)
    values = along(rooted, draw(200, seed=2), moved, np.random.default_rng(0))
    assert values.energy.mean() == pytest.approx(1, abs=0.1)
    assert values.slope.mean() == pytest.approx((2 / (np.pi * 200)) ** 0.5, rel=0.1)


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
    assert fisher.trace_by_query["tone"].value == 0
    dropped = table["glow", "hue"]
    assert (dropped.energy, dropped.slope, dropped.num_cases) == (None, None, 0), "the connector gives no displacement"


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
