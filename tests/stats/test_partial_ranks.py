"""Partial rank correlation: closed forms, and what it does where nothing is left to correlate."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy.stats import rankdata

from theodolite.stats.forecast import rank_correlation
from theodolite.stats.partial_ranks import partial_rank_correlation


def table(num_policies: int = 12, num_rows: int = 20, **columns: np.ndarray) -> pl.DataFrame:
    names = [f"policy {number}" for number in range(num_policies) for _ in range(num_rows)]
    return pl.DataFrame({"policy": names, **columns})


def drawn(seed: int = 0, size: int = 240) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    given = rng.normal(size=size)
    return {"one": given + rng.normal(size=size), "other": given + rng.normal(size=size), "given": given}


def test_it_is_the_correlation_of_the_residuals_of_ranks() -> None:
    columns = drawn()
    ranks = {name: rankdata(values) for name, values in columns.items()}
    design = np.stack([np.ones(240), ranks["given"]], axis=1)
    rest = [ranks[name] - design @ np.linalg.lstsq(design, ranks[name], rcond=None)[0] for name in ("one", "other")]
    estimate = partial_rank_correlation(table(**columns), "one", "other", "given")
    assert estimate is not None and estimate.value == pytest.approx(np.corrcoef(*rest)[0, 1], abs=1e-12)
    assert estimate.low is not None and estimate.high is not None and estimate.low < estimate.value < estimate.high
    assert abs(estimate.value) < 0.2, "what both share is given"
    assert estimate.num_scenes == 12


def test_without_what_is_given_it_is_spearmans() -> None:
    columns = drawn()
    columns["given"] = np.zeros(240)
    rows = table(**columns)
    estimate = partial_rank_correlation(rows, "one", "other", "given")
    plain = rank_correlation(rows.rename({"other": "measured"}), "one")
    assert estimate is not None and plain is not None and estimate.value == pytest.approx(plain.value)


def test_any_growing_function_of_a_column_gives_the_same() -> None:
    columns = drawn()
    estimates = [
        partial_rank_correlation(table(**{**columns, "given": change(columns["given"])}), "one", "other", "given")
        for change in (np.asarray, np.exp, np.arctan)
    ]
    assert len({estimate.value for estimate in estimates if estimate}) == 1


@pytest.mark.parametrize("changed", [{"one": "constant"}, {"one": "given"}, {"other": "given"}])
def test_where_nothing_is_left_there_is_none(changed: dict[str, str]) -> None:
    columns = drawn()
    columns["constant"] = np.ones(240)
    columns |= {name: columns[source] for name, source in changed.items()}
    assert partial_rank_correlation(table(**columns), "one", "other", "given") is None


def test_rows_that_lack_a_number_are_left_out_and_few_policies_give_no_interval() -> None:
    columns = drawn()
    rows = table(**columns).with_columns(pl.when(pl.col("policy") == "policy 0").then(None).otherwise(pl.col("one")).alias("one"))
    estimate = partial_rank_correlation(rows, "one", "other", "given")
    assert estimate is not None and estimate.num_scenes == 11
    few = partial_rank_correlation(rows.filter(pl.col("policy").is_in(["policy 1", "policy 2"])), "one", "other", "given")
    assert few is not None and few.low is None
    assert partial_rank_correlation(rows.clear(), "one", "other", "given") is None
