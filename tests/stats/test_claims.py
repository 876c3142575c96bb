"""Claims: effects over seeds, their intervals, and what a rule that was fixed beforehand makes of them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from theodolite.records.part import Estimate
from theodolite.records.study import Claim
from theodolite.stats.claims import Rule, Statement, difference_over_seeds, judge_claim, judge_family, over_seeds

ABOVE, BELOW, WITHIN = Rule("above", 0.5), Rule("below", 0.5), Rule("within", 0.1)


@pytest.mark.parametrize(
    ("rule", "low", "high", "finding"),
    [
        (ABOVE, 0.51, 0.9, "holds"),
        (ABOVE, 0.1, 0.49, "fails"),
        (ABOVE, 0.4, 0.6, "undecided"),
        (ABOVE, 0.5, 0.6, "undecided"),
        (BELOW, 0.51, 0.9, "fails"),
        (BELOW, 0.1, 0.49, "holds"),
        (BELOW, 0.4, 0.6, "undecided"),
        (WITHIN, -0.09, 0.09, "holds"),
        (WITHIN, -0.11, 0.09, "undecided"),
        (WITHIN, 0.11, 0.3, "fails"),
        (WITHIN, -0.3, -0.11, "fails"),
        (WITHIN, -0.3, 0.3, "undecided"),
        (ABOVE, None, None, "undecided"),
    ],
)
def test_a_rule_wants_the_whole_interval_on_one_side(rule: Rule, low: float | None, high: float | None, finding: str) -> None:
    assert rule.judge(low, high) == finding


def test_the_interval_is_students_over_seeds() -> None:
    values = {0: 0.2, 1: 0.5, 2: 0.4, 3: 0.6, 4: 0.3}
    found = over_seeds(values)
    numbers = np.array(list(values.values()))
    low, high = stats.t.interval(0.95, 4, numbers.mean(), stats.sem(numbers))
    assert (found.value, found.low, found.high) == pytest.approx((0.4, low, high))
    assert found.num_scenes == 5


def test_an_interval_stays_within_what_the_number_can_be() -> None:
    found = over_seeds({0: 0.9, 1: 1.0, 2: 1.0})
    assert found.high == 1.0
    assert found.low is not None and found.low < 0.9


def test_one_seed_has_no_interval_and_decides_nothing() -> None:
    found = over_seeds({0: 1.0}, 100)
    assert (found.low, found.high) == (None, None)
    assert ABOVE.judge(found.low, found.high) == "undecided"


def test_where_all_seeds_agree_the_scenes_say_how_far_off_the_number_may_be() -> None:
    # Of 500 scenes none moved: the exact binomial's upper end, where Student's interval would have width 0.
    found = over_seeds(dict.fromkeys(range(5), 0.0), 500)
    assert found.low == 0.0
    assert found.high == pytest.approx(1 - 0.025 ** (1 / 500))
    ceiling = over_seeds(dict.fromkeys(range(5), 1.0), 500)
    assert (ceiling.low, ceiling.high) == pytest.approx((1 - found.high, 1.0))  # type: ignore[operator]
    nobody = over_seeds(dict.fromkeys(range(5), 0.0))
    assert (nobody.low, nobody.high) == (None, None)
    # In between, equal seeds are a chance of rounding: the scenes' own interval, which is wide.
    middle = over_seeds({0: 0.37, 1: 0.37}, 200)
    assert (middle.low, middle.high) == pytest.approx(stats.binomtest(74, 200).proportion_ci(), abs=1e-9)


def test_differences_are_paired_by_seed_and_equal_ones_have_the_width_of_their_scenes() -> None:
    found, by_seed = difference_over_seeds({0: 0.9, 1: 0.8, 2: 0.7}, {2: 0.5, 1: 0.5, 3: 0.1})
    assert found is not None
    assert by_seed == pytest.approx({1: 0.3, 2: 0.2})
    low, high = stats.t.interval(0.95, 1, 0.25, 0.05)
    assert (found.value, found.low, found.high) == pytest.approx((0.25, low, min(high, 1.0)))
    same, _ = difference_over_seeds(dict.fromkeys(range(5), 1.0), dict.fromkeys(range(5), 1.0), 500)
    unseen = 1 - 0.025 ** (1 / 500)
    assert same is not None
    assert (same.value, same.low, same.high) == pytest.approx((0.0, -unseen, unseen))
    assert difference_over_seeds({0: 1.0}, {1: 1.0}) == (None, {})


def test_intervals_over_seeds_hold_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    held = [
        found.low <= 0.5 <= found.high  # type: ignore[operator]
        for draw in rng.normal(0.5, 0.05, (1000, 5))
        for found in [over_seeds(dict(enumerate(draw.tolist())))]
    ]
    assert 0.93 < np.mean(held) < 0.97


def test_a_claim_says_its_rule_and_keeps_every_seed() -> None:
    statement = Statement("name", "Text.", "essay", ABOVE, "a share", 3)
    by_seed = {1: 0.9, 0: 0.8}
    claim = judge_claim(statement, over_seeds(by_seed), by_seed, 4)
    assert claim.by_seed == {0: 0.8, 1: 0.9}
    assert (claim.independent, claim.num_independent, claim.num_runs, claim.essay_question) == ("seed", 2, 4, 3)
    assert claim.rule == "holds if the interval lies above 0.5, fails if it lies below"
    assert str(WITHIN) == "holds if the interval lies within 0.1 of 0, fails if it lies outside"
    nothing = judge_claim(statement, None, {}, 0)
    assert (nothing.finding, nothing.effect, nothing.low) == ("undecided", None, None)


def test_no_seed_has_no_mean() -> None:
    with pytest.raises(ValueError, match="no seed"):
        over_seeds({})


def seeds_of(*values: float) -> Estimate:
    return over_seeds(dict(enumerate(values)))


@pytest.mark.parametrize(("kind", "side"), [("above", "greater"), ("below", "less")])
def test_the_p_of_a_rule_is_that_of_students_test_against_its_line(kind: str, side: str) -> None:
    values = (0.62, 0.58, 0.66, 0.6, 0.7)
    wanted = 2 * min(stats.ttest_1samp(values, 0.5, alternative=each).pvalue for each in ("greater", "less"))
    found = Rule(kind, 0.5).p_value(seeds_of(*values))  # type: ignore[arg-type]
    assert found == pytest.approx(wanted)
    assert found is not None and (found < 0.05) == (Rule(kind, 0.5).judge(seeds_of(*values).low, seeds_of(*values).high) != "undecided")  # type: ignore[arg-type]


def test_the_p_of_within_is_that_of_two_one_sided_tests() -> None:
    values = {0: 0.04, 1: 0.01, 2: 0.03, 3: 0.06}
    estimate, _ = difference_over_seeds(values, dict.fromkeys(values, 0.0))
    assert estimate is not None
    each = list(values.values())
    wanted = 2 * max(stats.ttest_1samp(each, 0.1, alternative="less").pvalue, stats.ttest_1samp(each, -0.1, alternative="greater").pvalue)
    assert Rule("within", 0.1).p_value(estimate) == pytest.approx(wanted)
    assert Rule("within", 0.01).p_value(estimate) == pytest.approx(2 * stats.ttest_1samp(each, 0.01, alternative="greater").pvalue)
    assert Rule("above", 0.5).p_value(over_seeds({0: 0.3})) is None


def test_holm_keeps_what_stands_among_all_claims_and_drops_what_stands_alone_only() -> None:
    rule = Rule("above", 0.5)
    statement = Statement("name", "Text.", "essay", rule, "a share", 3, known=True)

    def claim(*values: float) -> Claim:
        return judge_claim(statement, seeds_of(*values), dict(enumerate(values)), 5)

    strong, weak = claim(0.9, 0.91, 0.92, 0.9), claim(0.56, 0.6, 0.72, 0.66)
    assert strong.known and weak.finding == "holds" and weak.p_value is not None and 0.02 < weak.p_value < 0.05
    none = judge_claim(statement, None, {}, 0)
    kept = judge_family([weak, strong, none])
    assert [each.family_finding for each in kept] == ["holds", "holds", "undecided"], "two claims with an interval: 0.05 and 0.025"
    kept = judge_family([weak, claim(0.3, 0.6, 0.5, 0.7), claim(0.2, 0.9, 0.5, 0.7), strong])
    assert [each.family_finding for each in kept] == ["undecided", "undecided", "undecided", "holds"]
    assert [each.finding for each in kept] == ["holds", "undecided", "undecided", "holds"], "findings one by one stay"
