"""Every measure, end to end, on a model whose weights make its answer depend on one factor, against known values."""

from __future__ import annotations

from functools import cache

import pytest

from helpers.planted_vlm import Planted, planted_vlm
from helpers.survey_records import UNTRAINED
from theodolite.measurement.internals.registry import MEASURES
from theodolite.measurement.survey.result import SurveyResult
from theodolite.measurement.survey.session import survey_model
from theodolite.records.inside import Inside

NUM_SCENES = 40


@cache
def surveyed(answered_from: str) -> SurveyResult:
    """The question about hue is answered from this factor; the connector drops glow."""
    model, processor, world = planted_vlm({"hue": answered_from})
    policy = world.policy("hue,tone")
    return survey_model(
        (model, processor), world, policy=policy, title="planted", num_scenes=NUM_SCENES, thresholds=UNTRAINED, measures=tuple(MEASURES)
    )


def inside(answered_from: str = "hue") -> Inside:
    record = surveyed(answered_from).record.inside
    assert record is not None
    return record


def moved(answered_from: str) -> dict[tuple[str, str], float]:
    cells = surveyed(answered_from).record.shadows.cells
    return {(cell.factor, cell.query): cell.moved_frac for cell in cells if cell.form == "open"}


def test_reads_and_leaks_are_all_or_nothing() -> None:
    hue, tone = moved("hue"), moved("tone")
    # Nothing is planted for the question about tone: its choices tie, which is no answer.
    assert [each.query for each in surveyed("hue").record.shadows.unanswered] == ["tone"]
    assert hue == {(factor, "hue"): float(factor == "hue") for factor in ("hue", "tone", "glow")}
    assert tone["tone", "hue"] == 1 and tone["hue", "hue"] == 0, "do(tone) leaks into the answer about hue, do(hue) is not read"


def test_the_ladder_names_the_step_at_which_each_factor_is_lost() -> None:
    ladder = inside().ladder
    assert ladder is not None
    steps = {name: each.loss for name, each in ladder.factors.items()}
    assert steps["hue"].step == "said"
    assert (steps["glow"].step, steps["glow"].kept_at, steps["glow"].lost_at) == ("not kept", "encoder", "connector")
    for name in ("hue", "tone"):
        accuracy = {rung.site: rung.accuracy.frac for rung in ladder.factors[name].rungs}
        assert all(accuracy[site] == 1 for site in ("encoder", "connector", "layer.1", "layer.4"))
    glow = {rung.site: rung for rung in ladder.factors["glow"].rungs}
    assert glow["encoder"].accuracy.frac == 1
    assert glow["connector"].normalised.low is not None and glow["connector"].normalised.low <= 0


def test_what_vision_tokens_hold_and_the_answer_position_never_takes_up_is_named() -> None:
    ladder = inside("tone").ladder
    assert ladder is not None
    loss = ladder.factors["hue"].loss
    assert (loss.step, loss.kept_at, loss.lost_at) == ("not kept", "layer.4", "answer"), "the answer about hue is made of tone"
    spoken = next(rung for rung in ladder.factors["hue"].rungs if rung.site == "spoken")
    assert spoken.normalised.high is not None and spoken.normalised.high < 0.5


def test_the_directions_of_a_factor_are_the_same_in_every_scene() -> None:
    geometry = inside().geometry
    assert geometry is not None
    shape = geometry.sites["connector"].euclidean
    for name in ("hue", "tone"):
        consistency = shape.factors[name].consistency
        assert consistency is not None and consistency.estimate.value == pytest.approx(1, abs=0.01)
    overlap = next(each for each in shape.overlaps if {each.first, each.second} == {"hue", "tone"})
    assert overlap.overlap.estimate.value == pytest.approx(0, abs=0.01)


def test_the_answer_feels_one_direction_and_no_other() -> None:
    fisher = inside().fisher
    assert fisher is not None
    assert fisher.entropy_rank == pytest.approx(1, abs=1e-3) and fisher.participation_rank == pytest.approx(1, abs=1e-3)
    energies = {(each.factor, each.query): each for each in fisher.energies}
    wired, silent = energies["hue", "hue"].energy, energies["tone", "hue"].energy
    assert wired is not None and wired.value == pytest.approx(48 * 64, rel=1e-4), "all of it lies along hue: one coordinate of all"
    assert silent is not None and silent.value == 0
    for query in ("hue", "tone"):
        slope = energies["tone", query].slope
        assert slope is not None and slope.value == 0, "along a factor that no answer is made of the loss is flat: zero, not small"
    assert energies["hue", "tone"].energy is None, "nothing moves the answer about tone, so it has no share to give"


def test_erasing_and_patching_turn_exactly_the_wired_answers() -> None:
    for wired, other in (("hue", "tone"), ("tone", "hue")):
        causal = inside(wired).causal
        assert causal is not None
        patched = {each.factor: each.by_query["hue"].frac for each in causal.patch if each.site == "connector"}
        assert (patched[wired], patched[other], patched["glow"]) == (1, 0, 0)
    causal = inside("hue").causal
    assert causal is not None
    erased = {each.factor: each for each in causal.erase if each.site == "connector"}
    hue, tone = erased["hue"], erased["tone"]
    assert hue.before.read is not None and hue.after.read is not None and (hue.before.read.frac, hue.after.read.frac) == (1, 0)
    assert tone.others_lost["hue"].value == 0, "erasing tone leaves the answers about hue"


def test_attention_is_where_it_was_put_and_averages_do_no_harm() -> None:
    record = inside()
    assert record.allocation is not None and record.causal is not None
    for layer in record.allocation.layers.values():
        assert layer.share.value == pytest.approx(layer.baseline.value, abs=1e-4), "uniform"
    assert all(each.overall.moved.frac == 0 for each in (*record.causal.mean, *record.causal.shuffle))


def test_vision_and_text_lie_apart_and_factors_are_linear_in_the_tokens() -> None:
    record = inside()
    assert record.gap is not None and record.identifiability is not None and record.likeness is not None
    separable = record.gap.sites["connector"].separable
    assert separable is not None and separable.frac == 1
    connector = record.identifiability.sites["connector"]
    for name in ("hue", "tone"):
        factor = connector.factors[name]
        assert (factor.matched, factor.completeness, factor.informativeness) == (1, 1, 1), "one axis each"
    assert connector.factors["glow"].matched == 0 and connector.factors["glow"].linear_r2.value < 0.1
    assert isinstance(planted_vlm()[2], Planted) and set(record.likeness.sites) == set(record.gap.sites) | {"encoder"}


def test_position_maps_hold_the_pictures_whose_tokens_fit_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens of 60 of 160 pictures are stored: those are probed, and the others do not count as wrong (chance is about 0.3)."""
    monkeypatch.setattr("theodolite.measurement.internals.activations.MOST_TOKEN_BYTES", 60 * 64 * 48 * 4)
    model, processor, world = planted_vlm()
    result = survey_model(
        (model, processor), world, policy="hue", title="planted", num_scenes=NUM_SCENES, thresholds=UNTRAINED, measures=("ladder",)
    )
    record = result.record.inside
    assert record is not None and record.ladder is not None
    maps = record.ladder.factors["hue"].positions
    assert [each.site for each in maps] == ["connector", "layer.2", "layer.4"]
    for each in maps:
        assert (
            each.num_pictures == 60
            and min(each.accuracy_frac) > (0.9 if each.site == "connector" else 0.6)
            and each.cells is not None
            and len(each.cells) == 64
        )
