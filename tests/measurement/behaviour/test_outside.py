"""The gate on the mass outside the choices: which queries it withholds, counted by hand."""

from __future__ import annotations

import polars as pl
import pytest

from helpers.tiny_llava import WORLD, tiny_vlm
from theodolite.measurement.behaviour.outside import withheld_queries
from theodolite.measurement.survey.session import survey_model
from theodolite.records.survey import Thresholds


def row(query: str, pictures: tuple[int, int], outside: tuple[float | None, float | None], **more: object) -> dict[str, object]:
    plain = {"name": query, "kind": "intervention", "query": query, "form": "open", "choices": ["a", "b"]}
    plain |= {"question_before": f"{query}?", "question_after": f"{query}?", "picture_before": pictures[0], "picture_after": pictures[1]}
    return {**plain, "outside_before": outside[0], "outside_after": outside[1], **more}


def table(*rows: dict[str, object]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema_overrides={"outside_before": pl.Float64, "outside_after": pl.Float64})


def test_a_query_is_withheld_where_its_mean_mass_outside_is_above_the_limit() -> None:
    rows = table(row("shape", (0, 1), (0.9, 0.5)), row("colour", (0, 1), (0.1, 0.4)), row("shape", (0, 1), (0.2, 0.2), form="yes_no"))
    assert withheld_queries(rows) == {("shape", "open"): pytest.approx(0.7)}
    assert withheld_queries(rows, 0.2) == {("shape", "open"): pytest.approx(0.7), ("colour", "open"): pytest.approx(0.25)}
    assert withheld_queries(rows, 0.7) == {}


def test_exactly_the_limit_is_not_above_it() -> None:
    assert Thresholds().outside_frac == 0.5 and withheld_queries(table(row("shape", (0, 1), (0.25, 0.75)))) == {}


def test_a_question_about_a_picture_counts_once_whatever_rows_contain_it() -> None:
    """Picture 0, at 0.1, is in three pairs."""
    rows = table(*(row("shape", (0, after), (0.1, 0.9)) for after in (1, 2, 3)))
    assert withheld_queries(rows) == {("shape", "open"): pytest.approx((0.1 + 3 * 0.9) / 4)}
    other = table(row("shape", (0, 0), (0.1, 0.9), question_after="what shape?"), row("shape", (0, 1), (0.2, 0.8), choices=["b", "a"]))
    assert withheld_queries(other, 0.4) == {("shape", "open"): pytest.approx(0.5)}  # another wording or order is another question


def test_unknown_masses_and_training_rows_do_not_count() -> None:
    rows = table(
        row("shape", (0, 1), (None, 0.9)),
        row("colour", (0, 1), (None, None)),
        row("row", (0, 1), (0.2, 0.2)),
        row("row", (7, 7), (1.0, 1.0), kind="training"),
    )
    assert withheld_queries(rows) == {("shape", "open"): pytest.approx(0.9)}
    assert withheld_queries(rows.clear()) == {}


def test_an_untrained_model_is_withheld_in_every_query_of_a_survey() -> None:
    """It spreads its mass over the whole vocabulary."""
    rows = survey_model(tiny_vlm(), WORLD, policy="shape,shape=round", title="m", num_scenes=2).rows
    found = withheld_queries(rows)
    assert found.keys() == set(rows.select("query", "form").iter_rows())
    assert all(0.9 < mass <= 1 for mass in found.values())
