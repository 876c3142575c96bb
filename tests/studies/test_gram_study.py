"""The study gram: arms learn from pictures alone and differ in anchoring, width and data, and its claims can fail."""

from __future__ import annotations

from dataclasses import replace

import pytest

from helpers.study_lines import line, lines
from theodolite.models.construction.build import DecoderSize
from theodolite.records.study import GridRun
from theodolite.studies import flip, gram
from theodolite.studies.engine.execute import Run, execute, train_run
from theodolite.studies.engine.study import conclude

SEEDS = range(3)
RUNS = gram.gram_grid(SEEDS)
BY_ARM = {run.arm.name: run for run in RUNS if run.seed == 0}


def test_arms_differ_in_anchoring_width_and_pictures_alone() -> None:
    assert len(BY_ARM) == 3 * 5 + 3 and len({run.key for run in RUNS}) == len(RUNS)
    settings = {
        (run.arm.recipe.laver.gram, run.arm.recipe.decoder.width, run.arm.num_pictures, run.arm.recipe.steps)
        for run in BY_ARM.values()
        if run.arm.recipe.laver
    }
    assert len(settings) == len(BY_ARM)
    for run in BY_ARM.values():
        recipe = run.arm.recipe
        assert recipe.laver is not None and recipe.laver.language_weight == 0 and recipe.frontend == "patches"
        assert recipe.laver.head_hidden / recipe.decoder.width == pytest.approx(294 / 128, rel=0.01)
        assert recipe.decoder.width // recipe.decoder.num_heads == 32
        assert (recipe.steps == 1) is run.arm.name.startswith("start")


def test_training_moves_the_model_without_any_loss_on_answers() -> None:
    """Two steps: what the answers alone would train, the embeddings of their words, gets no gradient from pictures."""
    run = BY_ARM[gram.gram_arm(gram.BASE, "clipped")]
    recipe = replace(run.arm.recipe, steps=2, batch=4, decoder=DecoderSize(num_layers=1, width=32, num_heads=2))
    trained = train_run(replace(run, arm=replace(run.arm, recipe=recipe, num_pictures=12)))
    start = train_run(replace(run, arm=replace(run.arm, recipe=replace(recipe, steps=1), num_pictures=12)))
    losses = [loss for _, loss in trained.record.losses]
    assert all(loss > 0 for loss in losses), "the loss of answers is measured all the same"
    weights = [dict(each.model.named_parameters()) for each in (trained, start)]
    moved = {name for name, value in weights[0].items() if not value.equal(weights[1][name])}
    assert any("layers.0" in name for name in moved)


def made(run: Run, cosine: dict[str, float], residue: dict[str, float]) -> GridRun:
    form = run.arm.name.partition(",")[0]
    wobble = 0.001 * run.seed * (1 + [*gram.FORMS, "start"].index(form)) * (1 + run.arm.recipe.decoder.width / 1000)
    width = run.arm.recipe.decoder.width
    rung = residue.get(f"{form} {width}", residue[form]) + wobble
    return line(
        run, 0.1, 0.1, right=0.2,
        decoded={factor: {"layer.4": rung} for factor in flip.INERT}, cosine={"layer.4": cosine[form] + wobble},
    )  # fmt: skip


def findings(cosine: dict[str, float], residue: dict[str, float]) -> dict[str, str]:
    record = conclude(gram.GRAM, RUNS, lines(RUNS, lambda run: made(run, cosine, residue)), command="", quick=False)
    assert not [note for note in record.notes if "at chance as in training" in note]
    (figure,) = record.figures
    assert {point.series for point in figure.points} == {*gram.FORMS, "start"}
    return {claim.name: claim.finding for claim in record.claims}


def test_the_claims_hold_where_anchoring_does_as_said_and_fail_where_not() -> None:
    as_said = findings(
        {"none": 0.95, "symmetric": 0.5, "clipped": 0.4, "start": 0.3},
        {"none": 0.2, "symmetric": 0.4, "clipped": 0.5, "clipped 256": 0.7, "start": 0.3},
    )
    assert set(as_said.values()) == {"holds"} and len(as_said) == 4 * 5 + 2
    other = findings(
        {"none": 0.4, "symmetric": 0.4, "clipped": 0.95, "start": 0.3},
        {"none": 0.6, "symmetric": 0.5, "clipped": 0.2, "clipped 256": 0.1, "start": 0.3},
    )
    assert set(other.values()) == {"fails"}, other


def test_a_quick_grid_judges_likeness_alone() -> None:
    runs = gram.gram_grid(range(2), quick=True)
    record = conclude(
        gram.GRAM, runs, lines(runs, lambda run: made(run, {"none": 0.9, "clipped": 0.4}, {"none": 0.2, "clipped": 0.3})),
        command="", quick=True,
    )  # fmt: skip
    assert [claim.name.partition(",")[0] for claim in record.claims] == ["needed", "enough"]


def test_a_run_leaves_probes_and_likeness() -> None:
    run = BY_ARM[gram.gram_arm(gram.BASE, "none")]
    recipe = replace(run.arm.recipe, steps=2, batch=4, decoder=DecoderSize(num_layers=1, width=32, num_heads=2))
    done = execute(replace(run, arm=replace(run.arm, recipe=recipe, num_pictures=12), num_scenes=6, inside_scenes=12)).line
    assert {"encoder", "layer.1"} <= done.cosine.keys() and {"encoder", "layer.1"} <= done.decoded["tilt"].keys()
