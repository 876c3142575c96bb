"""The study laver: arms differ in one part of LaVer each, and its claims can fail."""

from __future__ import annotations

from dataclasses import replace

import pytest

from helpers.study_lines import line, lines
from theodolite.records.study import GridRun
from theodolite.studies import flip, laver, rivals
from theodolite.studies.engine.execute import Run
from theodolite.studies.engine.study import conclude

RUNS = laver.laver_grid(range(3))
BY_ARM = {run.arm.name: run for run in RUNS if run.seed == 0}


def test_arms_differ_from_plain_training_in_what_their_names_say() -> None:
    plain = next(run.arm for run in flip.first_grid(range(1)) if run.arm.name == "agree" and run.arm.strength == 0.8)
    assert BY_ARM["plain"].arm.recipe == plain.recipe
    for name, run in BY_ARM.items():
        bare = replace(run.arm.recipe, laver=None, adaptation=plain.recipe.adaptation, frontend=plain.recipe.frontend)
        assert (run.arm.policy, run.arm.num_pictures, bare) == (plain.policy, plain.num_pictures, plain.recipe), name
        assert (run.arm.recipe.frontend == "patches") is name.endswith("-patches")
    settings = {name: run.arm.recipe.laver for name, run in BY_ARM.items() if run.arm.recipe.laver is not None}
    assert {name: (each.gram, each.branch, each.head_init) for name, each in settings.items()} == {
        "mim": ("none", "joint", "default"), "symmetric": ("symmetric", "joint", "default"), "joint": ("clipped", "joint", "default"),
        "separate": ("clipped", "separate", "default"), "joint-kaiming": ("clipped", "joint", "kaiming"),
        "separate-kaiming": ("clipped", "separate", "kaiming"), "joint-patches": ("clipped", "joint", "default"),
    }  # fmt: skip
    changes = {name: run.arm.recipe.adaptation for name, run in BY_ARM.items()}
    assert [(changes[name].attention, changes[name].positions) for name in ("mixed-1d", "2d", "mixed", "joint")] == [
        ("mixed", "native"), ("native", "2d"), ("mixed", "2d"), ("mixed", "2d"),
    ]  # fmt: skip
    assert BY_ARM["joint"].arm.recipe == next(run for run in rivals.rivals_grid([0]) if run.arm.name == "laver").arm.recipe
    assert len({run.key for run in RUNS}) == len(RUNS)


def made(run: Run, residue: dict[str, float], cosine: dict[str, float], loss: dict[str, float], leak: float) -> GridRun:
    name = run.arm.name
    wobble = 0.0004 * run.seed * (1 + laver.ARMS.index(name))
    rung = residue.get(name, residue["else"]) + wobble
    return line(
        run, leak - wobble, 0.1,
        decoded={factor: {"layer.4": rung} for factor in flip.INERT},
        cosine={"layer.4": cosine.get(name, cosine["else"]) + wobble, "connector": 0.3},
        final_loss=loss.get(name, loss["else"]) + wobble / 100,
    )  # fmt: skip


def findings(residue: dict[str, float], cosine: dict[str, float], loss: dict[str, float], leak: float) -> dict[str, str]:
    record = conclude(laver.LAVER, RUNS, lines(RUNS, lambda run: made(run, residue, cosine, loss, leak)), command="", quick=False)
    assert record.figures[0].name == "laver"
    return {claim.name: claim.finding for claim in record.claims}


def test_the_claims_hold_where_laver_does_as_said_and_fail_where_not() -> None:
    gains = {"else": 0.2, "mixed": 0.4, **dict.fromkeys(laver.KEEPING, 0.6), "symmetric": 0.5, "joint-patches": 0.5}
    as_said = findings(gains, {"else": 0.6, "mim": 0.9}, {"else": 0.5}, leak=0.95)
    assert set(as_said.values()) == {"holds"} and len(as_said) == 12
    other = findings(
        {"else": 0.4, "plain": 0.1, "symmetric": 0.7}, {"else": 0.1, "mim": 0.05}, {"else": 0.5, "separate": 0.6}, leak=0.05,
    )  # fmt: skip
    assert set(other.values()) == {"fails"}, other


def test_a_quick_grid_judges_one_leak() -> None:
    runs = laver.laver_grid(range(2), quick=True)
    record = conclude(laver.LAVER, runs, lines(runs, lambda run: line(run, 0.9 - 0.01 * run.seed, 0.1)), command="", quick=True)
    assert [(claim.name, claim.known) for claim in record.claims] == [("joint cures nothing", True)]


@pytest.mark.parametrize("loss", [0.4, 0.6])
def test_the_language_claim_is_about_a_ratio(loss: float) -> None:
    made_lines = lines(RUNS, lambda run: made(run, {"else": 0.3}, {"else": 0.3}, {"else": 0.5, "separate": loss}, 0.9))
    (claim,) = (claim for claim in conclude(laver.LAVER, RUNS, made_lines, command="", quick=False).claims if claim.name == "language kept")
    assert claim.effect == pytest.approx(loss / 0.5 - 1, abs=1e-3) and claim.num_runs == 6
