"""Rank correlation of two numbers given a third, with an interval over policies."""

from __future__ import annotations

import numpy as np
import polars as pl
from jaxtyping import Float

from theodolite.records.part import Estimate
from theodolite.stats.forecast import over_policies, policy_weights, weighted_ranks


def partial_rank_correlation(table: pl.DataFrame, one: str, other: str, given: str, seed: int = 0) -> Estimate | None:
    """Spearman's partial rho of two columns given a third, -1 to 1, policies weighted equally, with its interval by policy.

    That of the ranks (`weighted_ranks`): (r_xy - r_xz r_yz) / sqrt((1 - r_xz^2)(1 - r_yz^2)), Kendall and Stuart, The Advanced Theory of
    Statistics 2, section 27.5. Rows that lack one of the three are left out. None where one of the two is constant, or one of them has the
    ranks of the third.
    """
    rows = table.drop_nulls([one, other, given])
    if rows.is_empty():
        return None
    arrays = (rows[one].to_numpy(), rows[other].to_numpy(), rows[given].to_numpy(), policy_weights(rows))
    return over_policies(_partial_rho, arrays, rows, seed) if np.isfinite(_partial_rho(*arrays)) else None


def _partial_rho(
    one: Float[np.ndarray, " row"], other: Float[np.ndarray, " row"], given: Float[np.ndarray, " row"], weights: Float[np.ndarray, " row"]
) -> float:
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    ranks = [weighted_ranks(values, weights) for values in (one, other, given)]
    joint = np.cov(ranks, aweights=weights)
    if joint[2, 2] == 0:  # a constant tells nothing
        return float(joint[0, 1] / np.sqrt(joint[0, 0] * joint[1, 1]))
    scale = np.sqrt(np.diag(joint))
    of_two, first, second = joint[0, 1] / scale[0] / scale[1], joint[0, 2] / scale[0] / scale[2], joint[1, 2] / scale[1] / scale[2]
    rest = (1 - first**2) * (1 - second**2)
    return float("nan") if rest < 1e-12 else float((of_two - first * second) / np.sqrt(rest))
