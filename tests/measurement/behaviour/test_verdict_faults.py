"""Faults that verdicts had: each kind, with the value that is right."""

from __future__ import annotations

import polars as pl
import pytest

from helpers.planted_answers import FACTORS, Look, answered, chance, honest, shadows_of, truth, unsteady, wrong
from theodolite.measurement.behaviour.competence import state_of
from theodolite.measurement.behaviour.dependence import infer_dependence
from theodolite.measurement.behaviour.shadows import measure_shadows
from theodolite.records.survey import Thresholds


def test_every_form_counts_where_there_is_no_open_question() -> None:
    """A manifest of yes/no rows in which every answer that should stay moves was *identified*."""

    def by_colour(query: str, look: Look, wording: int) -> str:
        return truth(query, look) if query.startswith("colour") else "yes" if look["colour"] in "ab" else "no"

    rows = answered(by_colour, ["row=a", "colour=a", "colour=b"])
    moved = rows.filter((pl.col("kind") == "intervention") & (pl.col("factor") == "colour") & (pl.col("name") == "row=a"))["moved"]
    assert moved.sum() > 60
    shadows = shadows_of(rows)
    leak = shadows.evidence["colour"].leak
    assert shadows.verdicts["colour"] == "entangled" and leak is not None and (leak.query, leak.form) == ("row", "yes_no")


@pytest.mark.parametrize(
    ("kinds", "missing"),
    [
        (("intervention",), "noise of row (open)"),
        (("intervention", "training"), "noise of row (open)"),
        (("intervention", "paraphrase"), None),
        (("intervention", "nuisance"), None),
    ],
)
def test_without_noise_rows_the_leak_is_not_measured(kinds: tuple[str, ...], missing: str | None) -> None:
    """No noise rows counted as no noise: at 30 % noise an identified factor became *entangled* with certainty."""

    def noisy(query: str, look: Look, wording: int) -> str:
        often = chance("noisy", query, *(look[name] for name in FACTORS), look["nuisance"], str(wording)) < 0.2
        return wrong(truth(query, look)) if often else truth(query, look)

    rows = answered(noisy, ["shape", "row"], 400).filter(pl.col("kind").is_in(kinds))
    evidence = shadows_of(rows).evidence["shape"]
    assert evidence.verdict == ("not_measured" if missing else "identified")
    assert evidence.missing == ((missing,) if missing else ())
    assert evidence.leak is not None and (evidence.leak.noise is None) == (missing is not None)


def test_where_no_row_could_leak_the_leak_is_not_measured() -> None:
    evidence = shadows_of(answered(honest, ["shape"])).evidence["shape"]
    assert evidence.verdict == "not_measured" and evidence.leak is None
    assert evidence.missing == ("leak, which needs a question whose true answer the change leaves alone",)


def test_a_model_that_is_always_right_can_be_asked_though_all_bases_are_alike() -> None:
    """Forty pictures of red things, recoloured: the commonest truth of the bases alone gave a chance of 1."""
    rows = answered(honest, ["colour", "row"], 200).filter(pl.col("kind") != "training")
    red = rows.filter(pl.col("scene").is_in(rows.filter((pl.col("name") == "colour") & (pl.col("truth_before") == "a"))["scene"].implode()))
    assert red.filter(pl.col("name") == "colour")["truth_before"].n_unique() == 1 and red["scene"].n_unique() > 36
    shadows = shadows_of(red)
    [colour] = [cell for cell in shadows.competence if cell.query == "colour"]
    assert colour.chance_frac <= 0.8 and colour.state == "fit" and shadows.verdicts["colour"] == "identified"


@pytest.mark.parametrize(("right", "state"), [(1.0, "fit"), (0.5, "at_chance"), (0.62, "unknown")])
def test_competence_is_fit_at_chance_or_unknown(right: float, state: str) -> None:
    """Accuracy 0.6 against 0.5 at 56 rows touches chance and is not *at chance*: more rows would show which."""

    def model(query: str, look: Look, wording: int) -> str:
        answer = truth(query, look)
        return answer if chance("able", query, *look.values()) < right else {"yes": "no", "no": "yes"}[answer]

    rows = answered(model, ["shape=a"], 15 if state == "unknown" else 300).filter(pl.col("kind") != "training")
    [cell] = shadows_of(rows).competence
    expected = {"fit": 1.0, "at_chance": 0.5, "unknown": 0.62}[state]
    assert cell.rate.frac == pytest.approx(expected, abs=0.12)
    assert state_of(cell.rate, 0.5) == state


def test_the_evidence_is_that_of_the_query_that_decided() -> None:
    """The largest point excess was shown: 0.50 [0.01, 0.99] of 6 rows, where another query decided."""

    def model(query: str, look: Look, wording: int) -> str:
        often = {"shape": 1.0, "row": 0.5}[query]
        return wrong(truth(query, look)) if chance(query, look["colour"], look["scene"]) < often and query == "row" else truth(query, look)

    rows = answered(model, ["shape", "row"])
    few = rows.filter((pl.col("name") != "shape") | (pl.col("scene") < 6) | (pl.col("kind") == "training"))
    leaky = few.with_columns(
        moved=pl.when((pl.col("name") == "shape") & (pl.col("factor") == "colour")).then(pl.col("scene") < 4).otherwise(pl.col("moved"))
    )
    shadows = shadows_of(leaky)
    points = {leak.query: leak.rate.frac for leak in shadows.leaks if leak.factor == "colour"}
    decided = shadows.evidence["colour"].leak
    assert points["shape"] > points["row"] and decided is not None and decided.query == "row"


def test_one_wrong_label_does_not_change_a_verdict_and_is_listed() -> None:
    """One wrong label in 300 made a query depend on the factor, which turned *entangled* into *identified*."""

    def leaky(query: str, look: Look, wording: int) -> str:
        seen = chance(query, look["colour"], look["scene"]) < 0.3
        return wrong(truth(query, look)) if query == "shape" and seen else truth(query, look)

    rows = answered(leaky, ["shape", "colour"], 300).filter(pl.col("kind") != "training")
    at = (pl.col("kind") == "intervention") & (pl.col("factor") == "colour") & (pl.col("name") == "shape") & (pl.col("scene") == 7)
    wrong_label = rows.with_columns(truth_after=pl.when(at).then(pl.lit("d")).otherwise(pl.col("truth_after")))
    wrong_label = wrong_label.with_columns(truth_before=pl.when(at).then(pl.lit("a")).otherwise(pl.col("truth_before")))
    dependence = infer_dependence(wrong_label, {})
    assert dependence == {"shape": {"shape"}, "colour": {"colour"}}
    shadows = measure_shadows(wrong_label, FACTORS, dependence, frozenset(dependence), Thresholds())
    assert shadows.verdicts["colour"] == "entangled"
    assert shadows.num_mislabelled == 1 and [(pair.scene, pair.query) for pair in shadows.mislabelled] == [(7, "shape")]
    assert infer_dependence(wrong_label, {"shape": frozenset()})["shape"] == frozenset()


def test_an_undecided_verdict_says_how_many_more_scenes_would_decide_it() -> None:
    still = shadows_of(answered(honest, ["shape", "row"], 20)).evidence["row"]
    assert still.verdict == "undecided" and still.scenes_more == 16  # no leak and no noise: 36 scenes
    assert shadows_of(answered(honest, ["shape", "row"], 36)).verdicts["row"] == "identified"
    assert shadows_of(answered(honest, ["shape", "row"], 35)).verdicts["row"] == "undecided"


def test_verdicts_that_other_thresholds_would_change_are_listed() -> None:
    shadows = shadows_of(answered(unsteady("colour", "scene"), ["shape", "row"], 400), thresholds=Thresholds(leak_above_noise_frac=0.45))
    changed = {(other.factor, other.read_frac, other.leak_above_noise_frac): other.verdict for other in shadows.sensitivity}
    assert changed["colour", 0.5, 0.05] == changed["colour", 0.5, 0.2] == "shadow" and shadows.verdicts["colour"] == "undecided"
    assert ("row", 0.5, 0.2) not in changed


def test_rates_of_a_model_that_answers_with_something_else_are_withheld() -> None:
    """A survey with 0.999999 of the probability outside the choices reported rates as results."""
    rows = answered(honest, ["shape", "row"], 60)
    outside = [pl.when(pl.col("query") == "row").then(0.97).otherwise(0.02).alias(f"outside_{side}") for side in ("before", "after")]
    shadows = shadows_of(rows.with_columns(outside))
    assert shadows.withheld == {"row (open)": pytest.approx(0.97)} and not [cell for cell in shadows.cells if cell.query == "row"]
    need = "answers to row (open) among its choices (97% of the probability lies outside them)"
    assert shadows.evidence["row"].missing == (f"read, which needs {need}",)
    assert shadows.evidence["shape"].missing == (f"leak, which needs {need}",)
    assert set(shadows.verdicts.values()) == {"not_measured"}
