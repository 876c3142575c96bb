"""Verdicts from answers: models with planted habits and the verdicts that they must get."""

from __future__ import annotations

from itertools import product

import numpy as np
import polars as pl
import pytest

from helpers.planted_answers import VALUES, Look, answered, chance, colour_for_shape, honest, shadows_of, truth, unsteady, wrong
from theodolite.measurement.behaviour.verdicts import decide
from theodolite.records.survey import Cell, Shadows, Thresholds
from theodolite.stats.rates import clustered_rate, rate_difference


def cell(shadows: Shadows, factor: str, query: str, *, truth_moves: bool) -> Cell:
    (only,) = [c for c in shadows.cells if (c.factor, c.query, c.truth_moves) == (factor, query, truth_moves)]
    return only


# The table of verdicts

TABLE = {
    (True, True, False): "identified",
    (True, True, True): "entangled",
    (True, False, False): "blind",
    (True, False, True): "shadow",
    (False, None, True): "shadow",
    (False, None, False): "inert",
}


@pytest.mark.parametrize(("asked", "read", "leak"), list(product([True, False], [True, False, None], [True, False, None])))
def test_every_verdict_is_that_of_the_table(asked: bool, read: bool | None, leak: bool | None) -> None:
    matters = read if asked else None  # what an unasked factor's queries read is nothing
    undecided = leak is None or (asked and read is None)
    assert decide(asked, read, leak) == ("undecided" if undecided else TABLE[asked, matters, leak])


# Planted models


def test_a_model_that_reads_shape_alone_identifies_it_and_the_rest_is_inert() -> None:
    shadows = shadows_of(answered(honest, ["shape", "row"]))
    assert shadows.verdicts == {"shape": "identified", "colour": "inert", "row": "identified"}
    evidence = shadows.evidence["shape"]
    assert evidence.asked and evidence.read is not None and evidence.read.frac == 1 and evidence.leak is not None
    assert evidence.leak.query == "row" and evidence.missing == () and evidence.scenes_more is None
    colour = shadows.evidence["colour"]
    assert not colour.asked and colour.read is None and colour.leak is not None
    noise = colour.leak.noise
    assert (colour.leak.rate.frac, colour.leak.query, colour.leak.source) == (0, "shape", "nuisance") and noise is not None
    assert noise.frac == 0
    read = cell(shadows, "shape", "shape", truth_moves=True)
    assert (read.moved_frac, read.right_frac, read.variation, read.num_pairs, read.num_scenes) == (1, 1, 1, 120, 120)
    assert shadows.outside_mass == 0.25


def test_a_model_that_follows_colour_when_asked_shape_is_caught() -> None:
    shadows = shadows_of(answered(colour_for_shape, ["shape", "row"]))
    assert shadows.verdicts == {"shape": "blind", "colour": "shadow", "row": "identified"}
    leak = shadows.evidence["colour"]
    assert leak.leak is not None and leak.leak.rate.frac == 1 and leak.leak.query == "shape"
    shape = cell(shadows, "shape", "shape", truth_moves=True)
    assert shape.moved_frac == 0 and shape.right_frac == 0
    rates = {(c.query, c.scenes): c.rate.frac for c in shadows.competence}
    assert rates["shape", "training"] > 0.85 and rates["shape", "decorrelated"] < 0.45 and rates["row", "decorrelated"] == 1


def test_a_factor_that_is_asked_and_still_leaks_is_entangled_or_a_shadow() -> None:
    def shape_for_both(query: str, look: Look, wording: int) -> str:
        return look["shape"]

    def crossed(query: str, look: Look, wording: int) -> str:
        return look["colour" if query == "shape" else "shape"]

    assert shadows_of(answered(shape_for_both, ["shape", "colour"])).verdicts == {"shape": "entangled", "colour": "blind", "row": "inert"}
    assert shadows_of(answered(crossed, ["shape", "colour"])).verdicts == {"shape": "shadow", "colour": "shadow", "row": "inert"}


def test_a_query_answered_at_random_cannot_be_asked() -> None:
    def guess(query: str, look: Look, wording: int) -> str:
        return truth(query, look) if query == "row" else VALUES[int(4 * chance("guess", *look.values()))]

    shadows = shadows_of(answered(guess, ["shape", "row"], 600))
    assert shadows.verdicts["shape"] == "cannot_be_asked"
    # Row is read, and the answers about shape move with it no more often than by themselves.
    assert shadows.verdicts["row"] == "identified"
    assert cell(shadows, "shape", "shape", truth_moves=True).moved_frac > 0.6  # though its answers move
    training = next(c for c in shadows.competence if (c.query, c.scenes) == ("shape", "training"))
    assert training.rate.low is not None and training.rate.low < training.chance_frac < 0.35


def test_competence_is_judged_on_the_training_distribution_where_there_is_one() -> None:
    rows = answered(colour_for_shape, ["shape", "row"])
    assert shadows_of(rows).verdicts["shape"] == "blind"
    assert shadows_of(rows.filter(pl.col("kind") != "training")).verdicts["shape"] == "cannot_be_asked"


def test_chance_is_the_commonest_true_answer_of_each_question() -> None:
    rows = answered(honest, ["shape=a", "shape!=a", "shape"])  # "no" is commonest of the one, "yes" of the other
    shares = rows.filter((pl.col("kind") == "nuisance") & (pl.col("name") == "shape"))["truth_before"].value_counts(normalize=True)
    commonest, of_a = shares["proportion"].max(), shares.filter(pl.col("truth_before") == "a")["proportion"][0]
    chances = {(c.form, c.scenes): c.chance_frac for c in shadows_of(rows).competence}
    assert chances["open", "decorrelated"] == pytest.approx(commonest, abs=0.05)
    assert chances["yes_no", "decorrelated"] == pytest.approx(1 - of_a, abs=0.05)


# Leaks against noise


def test_a_model_that_moves_as_much_under_nuisance_has_no_shadow() -> None:
    noisy, steady = (shadows_of(answered(unsteady(*seen), ["shape"], 400)) for seen in (("colour", "nuisance"), ("colour", "scene")))
    for shadows in (noisy, steady):
        leak = shadows.evidence["colour"].leak
        assert leak is not None and leak.rate.low is not None and leak.rate.low > 0.2  # far more than the line of a steady model
    assert noisy.verdicts["colour"] == "inert" and noise_of(noisy) == pytest.approx(0.48, abs=0.1)
    assert steady.verdicts["colour"] == "shadow" and noise_of(steady) == 0


def noise_of(shadows: Shadows) -> float:
    """The noise that the leak of colour is compared with."""
    leak = shadows.evidence["colour"].leak
    assert leak is not None and leak.noise is not None
    return leak.noise.frac


def test_a_leak_between_pictures_is_compared_with_the_noise_of_pictures_and_that_of_the_wording_is_recorded() -> None:
    def by_wording(query: str, look: Look, wording: int) -> str:
        return wrong(truth(query, look)) if wording else truth(query, look)

    shadows = shadows_of(answered(by_wording, ["shape", "row"]))
    assert {(c.query, c.source): c.rate.frac for c in shadows.noise_cells} == {
        ("shape", "nuisance"): 0,
        ("shape", "paraphrase"): 1,
        ("row", "nuisance"): 0,
        ("row", "paraphrase"): 1,
    }
    assert noise_of(shadows) == 0
    of_wording = shadows_of(answered(by_wording, ["shape", "row"]).filter(pl.col("kind") != "nuisance"))
    assert noise_of(of_wording) == 1  # where nothing else was measured


def test_noise_is_of_rows_whose_truth_stands_still() -> None:
    rows = answered(honest, ["shape"])
    moving = rows.filter(pl.col("factor") == "shape").with_columns(kind=pl.lit("nuisance"), factor=pl.lit(""))
    assert noise_of(shadows_of(pl.concat([rows, moving]))) == 0


def test_a_leak_is_held_against_the_noise_of_its_own_query() -> None:
    """The answer about the row moves as much by nuisance as by colour; that about shape by colour alone, a little less often."""

    def model(query: str, look: Look, wording: int) -> str:
        seen = (look["colour"], look["nuisance" if query == "row" else "scene"])
        return wrong(truth(query, look)) if chance(query, *seen) < (0.4 if query == "row" else 0.2) else truth(query, look)

    rows = answered(model, ["shape", "row"], 400)
    assert shadows_of(rows.filter(pl.col("name") == "shape")).verdicts["colour"] == "shadow"
    assert shadows_of(rows.filter(pl.col("name") == "row")).verdicts["colour"] == "inert"
    assert shadows_of(rows).verdicts["colour"] == "shadow"


def test_the_largest_leak_counts_with_an_interval_adjusted_for_taking_it() -> None:
    def model(query: str, look: Look, wording: int) -> str:
        often = {"shape": 0.05, "row": 0.25}[query]
        return wrong(truth(query, look)) if chance(query, look["colour"], look["scene"]) < often else truth(query, look)

    rows = answered(model, ["shape", "row"])
    leaks = {leak.query: leak for leak in shadows_of(rows).leaks if leak.factor == "colour"}
    by_colour = rows.filter((pl.col("kind") == "intervention") & (pl.col("factor") == "colour"))
    rates = {}
    for name in ("shape", "row"):
        part = by_colour.filter(pl.col("name") == name)
        for confidence in (0.95, 0.975):
            rates[name, confidence] = clustered_rate(part["moved"].cast(pl.Float64).to_numpy(), part["scene"].to_numpy(), confidence)
    assert rates["row", 0.95].frac > rates["shape", 0.95].frac > 0
    none = np.zeros(120), np.arange(120)
    part = by_colour.filter(pl.col("name") == "row")
    moved = part["moved"].cast(pl.Float64).to_numpy(), part["scene"].to_numpy()
    row = leaks["row"]
    assert row.rate == rates["row", 0.95] and shadows_of(rows).evidence["colour"].leak == row
    assert row.above_noise == rate_difference(*moved, *none, 0.95) and row.adjusted == rate_difference(*moved, *none, 0.975)
    alone = shadows_of(rows, asked=["row"]).evidence["colour"].leak
    assert alone is not None and alone.adjusted == alone.above_noise == row.above_noise  # one query: nothing to adjust


# Too little evidence, and rows that do not count


def test_few_scenes_leave_verdicts_undecided() -> None:
    for num_scenes in (1, 2, 5):
        assert set(shadows_of(answered(honest, ["shape", "row"], num_scenes)).verdicts.values()) == {"undecided"}
    assert "undecided" not in shadows_of(answered(honest, ["shape", "row"], 60)).verdicts.values()


def test_lines_lie_where_the_thresholds_say() -> None:
    rows = answered(unsteady("colour", "scene"), ["shape", "row"], 400)  # moves under colour in about 0.48 of pairs
    for line, verdict in ((0.3, "shadow"), (0.48, "undecided"), (0.7, "inert")):
        assert shadows_of(rows, thresholds=Thresholds(leak_above_noise_frac=line)).verdicts["colour"] == verdict
    read = shadows_of(rows).evidence["shape"].read
    assert read is not None
    for line, verdict in ((read.frac - 0.1, "identified"), (read.frac, "undecided"), (read.frac + 0.1, "blind")):
        assert shadows_of(rows, thresholds=Thresholds(read_frac=line)).verdicts["shape"] == verdict


def test_queries_that_the_policy_does_not_support_do_not_enter_verdicts() -> None:
    rows = answered(colour_for_shape, ["shape", "row"])
    shadows = shadows_of(rows, asked=["row"])
    assert shadows.verdicts == {"shape": "inert", "colour": "inert", "row": "not_measured"}
    assert shadows.evidence["row"].missing == ("leak, which needs a question whose true answer the change leaves alone",)
    assert cell(shadows, "colour", "shape", truth_moves=False).moved_frac == 1  # but they have their cells


def test_yes_no_pairs_are_split_by_whether_their_truth_moves() -> None:
    rows = answered(honest, ["shape=a", "row"])
    shadows = shadows_of(rows)
    moves, stays = (cell(shadows, "shape", "shape", truth_moves=moves) for moves in (True, False))
    assert moves.form == stays.form == "yes_no" and (moves.moved_frac, stays.moved_frac) == (1, 0)
    assert moves.num_pairs + stays.num_pairs == 120 and min(moves.num_pairs, stays.num_pairs) > 20
    assert [c.truth_moves for c in shadows.cells if (c.factor, c.query) == ("colour", "shape")] == [False]
    read = shadows.evidence["shape"].read
    assert read is not None and read.num_pairs == moves.num_pairs and shadows.verdicts["shape"] == "identified"
    assert {(leak.factor, leak.query, leak.form) for leak in shadows.leaks if leak.factor == "colour"} == {
        ("colour", "shape", "yes_no"),
        ("colour", "row", "open"),
    }


def test_an_open_question_whose_truth_stands_still_in_some_pairs_is_read_by_the_others_alone() -> None:
    """The question "is it a?" as an open question, as manifests may have it: a right answer moves only where the truth does."""
    rows = answered(honest, ["shape=a", "colour"]).with_columns(form=pl.lit("open"))
    shadows = shadows_of(rows)
    assert shadows.verdicts["shape"] == "identified" and shadows.evidence["shape"].read is not None
    assert shadows.evidence["shape"].read.frac == 1.0
    still = rows.filter((pl.col("factor") == "shape") & (pl.col("name") == "shape=a") & (pl.col("truth_before") == pl.col("truth_after")))
    assert len(still) > 20


def test_chance_is_guessing_where_every_scene_has_choices_of_its_own() -> None:
    """A model that guesses among four names of a hundred is at chance, though no name is common."""
    rng = np.random.default_rng(1)
    rows = answered(honest, ["shape", "colour"])
    names = [f"name {number}" for number in range(100)]
    choices = [list(rng.choice(names, 4, replace=False)) for _ in range(len(rows))]
    guessed = rows.with_columns(
        choices=pl.Series(choices),
        truth_before=pl.Series([each[0] for each in choices]),
        answer_before=pl.Series([each[int(rng.integers(4))] for each in choices]),
    ).with_columns(answer_after="answer_before", truth_after="truth_before")
    cells = [cell for cell in shadows_of(guessed).competence if cell.query == "shape"]
    assert {cell.chance_frac for cell in cells} == {0.25}
    assert "at_chance" in {cell.state for cell in cells} and "fit" not in {cell.state for cell in cells}
