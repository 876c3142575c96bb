"""Studies: grids keep what is compared alike, differences are paired by seed, and every claim is judged from the runs that are there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from helpers.study_lines import line, lines, locked
from helpers.study_records import moved
from theodolite.cli import app
from theodolite.data.examples import draw_questions
from theodolite.records.errors import BadInput, UnknownName
from theodolite.records.study import RUNS, AnsweredRight, GridRun, PredictedByCoverage, write_runs
from theodolite.stats.claims import Rule, Statement
from theodolite.stats.forecast import (
    COLUMNS,
    calibration_error,
    cells_table,
    error_difference,
    mean_measured,
    predict_rates,
    rank_correlation,
    reliability,
    run_means,
)
from theodolite.studies import flip, flip_controls, forecast, lock
from theodolite.studies.engine.catalogue import STUDIES, command_of, study_named
from theodolite.studies.engine.execute import Run
from theodolite.studies.engine.study import FinishedRuns, claim_level, conclude, difference, point
from theodolite.studies.engine.study import moved_frac_of as moved_by
from theodolite.worlds.registry import world_named

STATEMENT = Statement("name", "Text.", "essay", Rule("above", 0.5), "a share", 3)
LEAK = moved_by("colour", "shape", truth_moves=False)


@pytest.mark.parametrize("study", STUDIES.values(), ids=lambda study: study.name)
@pytest.mark.parametrize("quick", [False, True])
def test_no_run_of_a_grid_stands_there_twice_and_each_seed_has_the_same(study: object, quick: bool) -> None:
    runs = study.grid(range(3), quick)  # type: ignore[attr-defined]
    assert len({run.key for run in runs}) == len(runs)
    arms = [sorted((run.world, run.arm.name, run.arm.strength) for run in runs if run.seed == seed) for seed in range(3)]
    assert arms[0] == arms[1] == arms[2]
    assert len(arms[0]) <= (3 if quick else 50)


@pytest.mark.parametrize("strength", [0.0, 0.8, 0.95])
def test_arms_of_the_flip_ask_every_picture_two_questions_with_answers_of_one_word(strength: float) -> None:
    world = world_named("shapes", strength)
    scenes = world.sample(500, np.random.default_rng(0))
    for name, text in {**flip.policies(), **flip_controls.control_policies()}.items():
        asked = draw_questions(world, scenes, world.policy(text), 0)
        assert {len(items) for items in asked} == {2}, name
        assert {len(item.answer.split()) for items in asked for item in items} == {1}, name


def test_odd_scenes_are_asked_twice_and_four_times_as_often_as_agreeing_ones() -> None:
    world = world_named("shapes", 0.8)
    scenes = world.sample(6000, np.random.default_rng(0))
    agrees = world.prior.agrees(scenes)
    for name, times in (("all", 1), ("odd2", 2), ("odd4", 4)):
        rates = world.policy(flip.policies()[name]).rates(scenes, world.prior)
        target = [index for index, ask in enumerate(world.policy(flip.policies()[name]).lines) if ask.query.name == "shape"]
        asked = rates[target].sum(axis=0)
        assert asked[~agrees].mean() / asked[agrees].mean() == pytest.approx(times), name


def test_conjunctions_are_as_often_true_as_not() -> None:
    world = world_named("shapes", 0.8)
    scenes = world.sample(4000, np.random.default_rng(0))
    asked = draw_questions(world, scenes, world.policy(flip.policies()["conjunctions"]), 0)
    answers = [item.answer for items in asked for item in items if item.answer in ("yes", "no")]
    assert len(answers) == len(scenes)
    assert abs(answers.count("yes") / len(answers) - 0.5) < 0.03


def test_every_claim_of_the_flip_is_judged_and_the_essays_own_world_makes_them_hold() -> None:
    runs = flip.flip_grid(range(5))
    record = conclude(flip.FLIP, runs, lines(runs, locked), command="theodolite study flip --seeds 5", quick=False)
    found = {claim.name: claim.finding for claim in record.claims}
    assert len(found) == 29
    assert found["shadow"] == found["reads"] == found["questions only"] == found["easy-VQA"] == found["inert residue"] == "holds"
    assert found["odd scenes"] == "fails", "this made-up world is free of colour at 0.95 already"
    assert found["conjunctions"] == "undecided", "and its lines hold no conjunctions"
    assert (record.num_runs, record.num_missing) == (len(runs), 0)
    family, known = record.notes
    assert "(Holm)" in family and "shadow" in known and "tower" not in known
    # The made-up lines hold no conjunctions, and no leak of shape into answers about colour.
    assert all(claim.num_independent == 5 for claim in record.claims if not claim.name.startswith(("conjunctions", "salience")))
    assert {figure.name for figure in record.figures} == {"flip", "flip-strength", "flip-easy-vqa", "flip-two-by-two", "flip-towers"}
    assert conclude(flip.FLIP, runs, lines(runs, locked), command="theodolite study flip --seeds 5", quick=False) == record


def test_a_world_in_which_questions_change_nothing_makes_the_claims_fail() -> None:
    runs = flip.flip_grid(range(5))
    same = lines(runs, lambda run: line(run, 0.3 + 0.01 * run.seed, 0.6))
    found = {claim.name: claim.finding for claim in conclude(flip.FLIP, runs, same, command="", quick=False).claims}
    assert {found[name] for name in ("shadow", "reads", "identified", "questions only", "entangled leak")} == {"fails"}


def test_runs_that_are_missing_are_told_and_seeds_without_their_pair_left_out() -> None:
    runs = flip.flip_grid(range(3), quick=True)
    made = lines(runs, locked)
    gone = next(run.key for run in runs if run.arm.name == "all" and run.seed == 1)
    del made[gone]
    record = conclude(flip.FLIP, runs, made, command="", quick=True)
    assert record.num_missing == 1 and gone not in record.keys
    assert any("1 of 6 runs of the grid are missing" in note for note in record.notes)
    assert set(record.claims[0].by_seed) == {0, 2}


def test_a_study_so_far_judges_and_draws_what_is_there_and_runs_nothing(tmp_path: Path) -> None:
    runs = flip.flip_grid(range(2))
    write_runs(tmp_path, [locked(run) for run in runs[:3]])
    before = (tmp_path / RUNS).read_bytes()
    done = CliRunner().invoke(app, ["study", "flip", "--seeds", "2", "--so-far", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert f"{len(runs) - 3} of {len(runs)} runs of the grid are missing" in " ".join(done.output.split())
    assert {path.name for path in tmp_path.iterdir()} == {RUNS, "study.json", "index.html", "flip-strength.png"}
    assert (tmp_path / RUNS).read_bytes() == before
    none = CliRunner().invoke(app, ["study", "flip", "--so-far", "--out", str(tmp_path / "none")])
    assert isinstance(none.exception, BadInput) and "holds no run" in str(none.exception)


def test_comparisons_that_are_not_matched_are_told() -> None:
    runs = flip.flip_grid(range(2), quick=True)
    made = lines(runs, locked)
    odd = runs[0].key
    made[odd] = made[odd].model_copy(update={"facts": made[odd].facts.model_copy(update={"order_sha256": "other"})})
    (note, *_) = conclude(flip.FLIP, runs, made, command="", quick=True).notes
    assert "their order" in note and "seed 0" in note


def test_differences_are_paired_by_seed() -> None:
    runs = flip.flip_grid(range(4), quick=True)
    # Seeds differ widely, arms by the same each time: unpaired, nothing could be told.
    found = FinishedRuns(
        tuple((run, line(run, 0.2 * run.seed + (0.1 + 0.002 * run.seed if run.arm.name == "agree" else 0.0), 0.5)) for run in runs)
    )
    claim = difference(STATEMENT, found.arm("agree"), found.arm("all"), LEAK)
    assert claim.effect == pytest.approx(0.103)
    assert claim.low is not None and claim.high is not None and claim.high - claim.low < 0.05
    alone = claim_level(STATEMENT, found.arm("agree"), LEAK)
    assert alone.low is not None and alone.high is not None and alone.high - alone.low > 0.5


def test_two_runs_of_one_seed_are_not_averaged_silently() -> None:
    runs = flip.flip_grid(range(1), quick=True)
    found = FinishedRuns(tuple((run, locked(run)) for run in runs))
    with pytest.raises(ValueError, match="two runs of seed 0"):
        list(point("panel", "series", "x", found, LEAK))


def test_the_lock_holds_where_scale_does_nothing_and_breaks_where_it_frees() -> None:
    runs = lock.lock_grid(range(5))

    def judged(freed: str) -> dict[str, str]:
        def make(run: Run) -> GridRun:
            free = run.arm.name in (freed, "covered")
            right = 0.8 if run.arm.name == "base" else 0.95
            return line(run, 0.05 if free else 0.95 - 0.005 * run.seed, 0.9 if free else 0.05 + 0.01 * run.seed, right)

        claims = conclude(lock.LOCK, runs, lines(runs, make), command="", quick=False).claims
        return {claim.name: claim.finding for claim in claims}

    found = judged("nothing")
    assert {found[name] for name in ("data unmoved", "steps unmoved", "width unmoved", "linear unmoved", "locked", "unread")} == {"holds"}
    assert found["accuracy rises"] == found["other questions"] == "holds"
    assert found["larger start"] == "fails"
    freed = judged("width x4")
    assert freed["width unmoved"] == freed["locked"] == freed["unread"] == "fails"
    assert freed["data unmoved"] == "holds"


def test_a_scaled_model_that_is_missing_leaves_open_what_is_said_of_all() -> None:
    runs = lock.lock_grid(range(5))
    made = lines(
        [run for run in runs if run.arm.name != "width x4"], lambda run: line(run, 0.95 - 0.005 * run.seed, 0.05 + 0.01 * run.seed)
    )
    found = {claim.name: claim.finding for claim in conclude(lock.LOCK, runs, made, command="", quick=False).claims}
    assert found["locked"] == found["unread"] == found["accuracy rises"] == found["width unmoved"] == "undecided"
    assert found["data unmoved"] == "holds"


def test_a_model_that_never_learned_its_question_says_nothing_of_it() -> None:
    runs = flip.flip_grid(range(3), quick=True)

    def unlearned(run: Run) -> GridRun:
        return line(run, 0.0, 0.0, 0.28) if run.arm.name == "agree" and run.seed == 1 else locked(run)

    record = conclude(flip.FLIP, runs, lines(runs, unlearned), command="", quick=True)
    assert set(record.claims[0].by_seed) == {0, 2}
    assert any("at chance as in training in seed 1," in note for note in record.notes)


def test_runs_of_one_seed_are_surveyed_on_the_same_scenes_and_of_another_on_others() -> None:
    for study in STUDIES.values():
        assert all(run.survey_seed == run.seed for run in study.grid(range(3), False))
        assert len({run.num_scenes for run in study.grid(range(1), False)}) == 1


def test_a_figure_without_points_is_told_and_not_drawn() -> None:
    runs = flip.flip_grid(range(2))
    made = lines([run for run in runs if run.world == "shapes"], locked)
    record = conclude(flip.FLIP, runs, made, command="", quick=False)
    assert {figure.name for figure in record.figures} == {"flip", "flip-strength", "flip-two-by-two", "flip-towers"}
    assert any("flip-easy-vqa" in note for note in record.notes)


def test_the_lock_scales_one_thing_at_a_time() -> None:
    runs = {run.arm.name: run for run in lock.lock_grid(range(1))}
    base = runs.pop("base")
    policies = {name: run.arm.policy for name, run in runs.items() if run.arm.policy != base.arm.policy}
    assert set(policies) == {"covered"}
    for name, run in runs.items():
        changed = [
            field
            for field in ("num_pictures", "policy", "strength")
            if getattr(run.arm, field) != getattr(base.arm, field)
        ] + [field for field in ("steps", "decoder", "connector", "batch", "learning_rate")
             if getattr(run.arm.recipe, field) != getattr(base.arm.recipe, field)]  # fmt: skip
        assert len(changed) == 1, name
    assert runs["width x4"].arm.recipe.decoder.width == 512
    assert runs["data x16"].arm.num_pictures == base.arm.recipe.steps * base.arm.recipe.batch, "each picture is seen once"


def test_drawn_policies_are_the_same_for_everybody_and_ask_something_of_every_scene() -> None:
    drawn = forecast.drawn_policies(10)
    assert drawn == forecast.drawn_policies(10)
    assert drawn[:2] == forecast.drawn_policies(2)
    assert len(set(drawn)) == 10
    for correlation, strength, text in drawn:
        world = world_named("shapes", strength, correlation)
        scenes = world.sample(300, np.random.default_rng(0))
        assert all(draw_questions(world, scenes, world.policy(text), 0))


def told_table(rows: Sequence[tuple[str, int, float, float]], kind: str = "leak") -> pl.DataFrame:
    """Rows of (policy, seed, proxy bits, measured)."""
    blank = {**dict.fromkeys(COLUMNS, 0.0), "about_tied": True}
    made = [
        {**blank, "world": "shapes", "policy": policy, "run": f"{policy} {seed}", "seed": seed, "factor": "a", "query": "b", "kind": kind,
         "proxy_bits": bits, "measured": rate}
        for policy, seed, bits, rate in rows
    ]  # fmt: skip
    return pl.DataFrame(made, schema=COLUMNS)


def test_a_forecast_learns_a_rate_and_its_calibration_is_that_of_the_rate() -> None:
    rng = np.random.default_rng(0)
    bits = rng.uniform(0, 2, 600)
    rate = 1 / (1 + np.exp(-(3 * bits - 3)))
    rows = told_table(
        [(f"p{number % 20}", number % 5, x, y) for number, (x, y) in enumerate(zip(bits.tolist(), rate.tolist(), strict=True))]
    )
    found = predict_rates(rows[:400], rows[400:], ("proxy_bits",))
    measured = rows[400:]["measured"].to_numpy()
    assert np.abs(found - measured).mean() < 0.03
    assert calibration_error(found, measured) < 0.03
    assert calibration_error(np.ones(200), np.zeros(200)) == 1.0
    edges = reliability(np.array([0.0, 0.19, 0.2, 0.99, 1.0]), np.array([0.0, 1.0, 0.4, 0.8, 1.0]))
    assert [mean for _, _, mean in edges] == pytest.approx([0.5, 0.4, 0.9]) and [share for share, _, _ in edges] == [0.4, 0.2, 0.4]
    points = mean_measured(rows[400:], found)
    bins = [(told, mean) for _, told, mean in reliability(found, measured)]
    assert np.allclose([(told, rate.value) for told, rate in points], bins), "policies of equal size weigh as their rows do"
    assert all(rate.low is not None and rate.high is not None and rate.low <= rate.value <= rate.high for _, rate in points)
    better = error_difference(rows[400:], found, np.full(200, 0.5))
    assert better.high is not None and better.high < 0


def test_rank_correlation_is_spearmans_and_policies_are_its_unit() -> None:
    rows = told_table([(f"p{number}", seed, float(number), (number + 0.1 * seed) / 12) for number in range(10) for seed in range(5)])
    found = rank_correlation(rows, "proxy_bits")
    assert found is not None and found.value > 0.95
    assert found.num_scenes == 10
    assert rank_correlation(rows, "coverage") is None, "a column that never varies has no rank"
    few = rank_correlation(rows.with_columns(policy=pl.lit("one")), "proxy_bits")
    assert few is not None and few.low is None


def test_a_forecast_that_looks_at_nothing_is_the_mean_rate_with_policies_alike() -> None:
    rows = told_table([("many", seed, 0.0, 0.2) for seed in range(9)] + [("one", 0, 0.0, 0.8)])
    assert predict_rates(rows, rows[:3], ()) == pytest.approx([0.5] * 3)


def test_what_differs_by_run_alone_is_hidden_among_cells_and_told_by_means_of_runs() -> None:
    # Each run has a cell near 0 and one near 0.9; the rate moves with the run by a little, and the gap with it.
    cells = [(f"p{number}", 0, 0.0, rate + 0.001 * number) for number in range(12) for rate in (0.0, 0.9)]
    rows = told_table(cells).with_columns(gap_last=pl.col("policy").str.strip_chars("p").cast(pl.Float64))
    among, means = rank_correlation(rows, "gap_last"), rank_correlation(run_means(rows), "gap_last")
    assert len(run_means(rows)) == 12
    scaled = rows.with_columns(policy=pl.lit("one"), seed=pl.lit(0, pl.Int64))
    assert len(run_means(scaled)) == forecast._rank(scaled, "proxy bits").num_runs == 12, "arms that differ in scale alone share a policy"
    assert among is not None and means is not None
    assert means.value == pytest.approx(1.0) and among.value < 0.6


def test_a_cell_knows_the_coverage_of_what_is_asked_and_the_proxy_of_what_is_changed() -> None:
    run = flip.flip_grid(range(1), quick=True)[0]
    told = PredictedByCoverage(
        coverage={"shape": 0.25}, coverage_limit={"shape": 1.0}, reach={}, pressure_bits={"shape": 0.5},
        proxy_bits={"colour->shape": 1.2}, asked_frac={"shape": 0.5, "row": 0.5},
    )  # fmt: skip
    table = cells_table([line(run, 0.7, 0.2, 0.63, foretold=told, gap={"connector": 0.4, "layer.4": 0.9})])
    leak = table.filter((pl.col("factor") == "colour") & (pl.col("query") == "shape")).row(0, named=True)
    assert (leak["kind"], leak["measured"], leak["proxy_bits"], leak["coverage"]) == ("leak", 0.7, 1.2, 0.25)
    assert leak["accuracy"] == pytest.approx((0.63 - 0.26) / (1 - 0.26))
    assert (leak["gap_first"], leak["gap_last"], leak["frequency"]) == (0.4, 0.9, 0.5)
    assert (leak["whole"], leak["tied"]) == (1.0, 1.0), "all scenes are asked in the limit, and colour tells of shape"
    read = table.filter(pl.col("kind") == "read").row(0, named=True)
    assert (read["whole"], read["tied"]) == (1.0, 0.0)
    assert "colour" not in table["query"].to_list(), "nobody asked about colour"


def foretold_runs(opposite: bool) -> tuple[list[GridRun], Sequence[Run], dict[str, GridRun]]:
    """Runs of other studies and of forecast's own, in which leak follows proxy bits; or, in its own, the other way round."""
    rng = np.random.default_rng(0)

    def told(run: Run) -> GridRun:
        cause, effect = run.setup.correlation
        bits = float(rng.uniform(0, 2))
        foretold = PredictedByCoverage(
            coverage={cause: 1 - bits / 2}, coverage_limit={}, reach={}, pressure_bits={cause: 2 - bits},
            proxy_bits={f"{effect}->{cause}": bits}, asked_frac={cause: float(rng.uniform(0.3, 0.6))},
        )  # fmt: skip
        drawn = run.arm.name.startswith("drawn") and opposite
        leak = (1 - bits / 2 if drawn else bits / 2) * 0.9 + float(rng.uniform(0, 0.1))
        read = 0.9 * (bits / 2 if drawn else 1 - bits / 2) + float(rng.uniform(0, 0.1))
        noise = tuple(moved(name, cause, False, float(rng.uniform(0, 0.1))) for name in ("size", "letter"))
        right = AnsweredRight(query=cause, form="open", scenes="training", frac=float(rng.uniform(0.8, 1)), low=0.7, chance_frac=0.26)
        gap = {"connector": float(rng.uniform(0, 1)), "layer.4": float(rng.uniform(0, 1))}
        cells = (moved(effect, cause, False, leak), moved(cause, cause, True, read), *noise)
        return line(run, 0.0, 0.0, foretold=foretold, gap=gap, cells=cells, answered=(right,))

    runs = forecast.forecast_grid(range(2))
    return [told(run) for run in flip.flip_grid(range(2))], runs, lines(runs, told)


def test_the_forecast_study_is_judged_on_what_it_was_not_fitted_on() -> None:
    others, runs, own = foretold_runs(opposite=False)
    record = conclude(forecast.FORECAST, runs, own, others, command="", quick=False)
    found = {claim.name: claim.finding for claim in record.claims}
    assert found["proxy bits"] == found["coverage"] == "holds", "factors that are only noise do not hide it"
    assert {found[f"{kind}, policies: {rival}"] for kind in ("read", "leak") for rival in ("accuracy", "frequency", "gap")} == {"holds"}
    assert found["leak, world: gap"] == "undecided", "three policies are too few"
    assert all(claim.independent == "policy" for claim in record.claims)
    ranks, errors, calibration = record.figures
    assert [figure.name for figure in record.figures] == ["forecast-ranks", "forecast", "forecast-calibration"]
    by_claim = {claim.name: (claim.effect, claim.low, claim.high) for claim in record.claims}
    drawn = {(mark.panel, mark.series, mark.x): mark for mark in ranks.points}
    mark = drawn["leak", "all cells", "proxy bits"]
    assert (mark.value, mark.low, mark.high) == pytest.approx(by_claim["proxy bits"], abs=1e-5), "the figure is what the claim is judged on"
    assert ("leak", "all runs", "gap, last") in drawn and ("read", "all cells", "proxy bits") not in drawn
    assert ("read", "cells of the drawn policies alone", "coverage") in drawn
    assert [claim.num_runs for claim in record.claims if claim.name == "proxy bits"] == [len(others) + len(own)], "each run counts once"
    assert {mark.x for mark in errors.points} == {"questions", "accuracy", "frequency", "gap", "yes or no", "constant"}
    assert errors.y_range is not None and errors.y_range[0] == 0
    assert all((point.high or point.value) <= errors.y_range[1] for point in errors.points), "no bar is cut"
    assert calibration.diagonal and calibration.x_range == calibration.y_range == (0.0, 1.0)
    own_rows = [point for point in calibration.points if point.panel == "leak, unseen policies"]
    assert any(point.low is not None and point.low <= point.value <= (point.high or 0) for point in own_rows)
    assert all(point.low is None for point in calibration.points if point.panel.endswith("world")), "three policies give no interval"


def test_a_law_that_turns_round_on_what_was_held_out_makes_the_forecast_fail() -> None:
    others, runs, own = foretold_runs(opposite=True)
    found = {claim.name: claim.finding for claim in conclude(forecast.FORECAST, runs, own, others, command="", quick=False).claims}
    assert {found[f"{kind}, policies: {rival}"] for kind in ("read", "leak") for rival in ("accuracy", "frequency", "gap")} == {"fails"}
    assert found["leak, policies: calibration"] == "fails"


def test_nothing_is_both_fitted_on_and_held_out() -> None:
    others, _, own = foretold_runs(opposite=False)
    splits = list(forecast._splits(cells_table(own.values()), cells_table(others)))
    assert {name for name, *_ in splits} == {"policies", "world"}
    for name, kind, fitted, unseen in splits:
        column = "world" if name == "world" else "policy"
        assert len(fitted) and len(unseen)
        assert set(fitted["kind"]) == set(unseen["kind"]) == {kind}
        assert not set(fitted[column]) & set(unseen[column]), name


def test_studies_are_known_by_name() -> None:
    with pytest.raises(UnknownName, match="flip"):
        study_named("flop")
    assert command_of("flip", range(5), False) == "theodolite study flip --seeds 5"
    assert command_of("flip", range(1), True) == "theodolite study flip --quick"
