"""Coverage and its kin: the closed forms, every pair of scenes counted by hand, and what asking more can do."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from functools import cache
from itertools import product

import numpy as np
import pytest

from theodolite.cli import main
from theodolite.questions.coverage import Coverage, measure_coverage
from theodolite.records.errors import BadInput
from theodolite.worlds.easy_vqa.world import EasyVQA
from theodolite.worlds.factors import Factor, FactorSpace
from theodolite.worlds.prior import Prior
from theodolite.worlds.query import Policy, PolicyLine, Query, open_query
from theodolite.worlds.shapes.world import Shapes


@cache
def world() -> Shapes:
    return Shapes()  # once, since it writes out hundreds of queries


def covered(ask: str, strength: float) -> Coverage:
    return measure_coverage(world().prior.correlate("shape", "colour", strength), world().policy(ask))


# Closed forms: shape and colour have four values, strength 0.9 means agreement 0.925.

SHAPES = ("round", "square", "triangular", "crossed")
YES_NO = ",".join(f"shape={value}" for value in SHAPES)
ONLY_YES = ",".join(f"shape={value}:yes" for value in SHAPES)
TWICE = "shape,shape:odd"
# Of shape: coverage, limit, pressure and cause; of colour: coverage and cause. A pressure of None has no short closed form.
CLOSED_FORMS = [
    (0.9, "shape", 0.19, 1, 0.5032, None, 0, "unasked"),
    (0.9, "shape:agree", 0, 0, 0, "confounded", 0, "unasked"),
    (0.9, "shape:odd", 0.005, 0.5, 1.5850, None, 0, "unasked"),
    (0.9, TWICE, 0.19, 1, 0.8042, None, 0, "unasked"),
    (0.9, "shape=round", 0.095, 0.5, None, None, 0, "unasked"),
    (0.0, "shape=round", 0.5, 0.5, 0.8113, None, 0, "unasked"),
    (0.9, YES_NO, 0.19, 1, None, None, 0, "unasked"),
    (0.9, ONLY_YES, 0, 0, 0, "confounded", 0, "unasked"),
    (0.9, "shape,colour:odd", 0.19, 1, None, None, 0.005, None),
    (0.0, "shape,colour", 1, 1, 1, None, 1, None),
    (1.0, "shape", 0, 0, 0, "confounded", 0, "unasked"),
    (1.0, "shape,colour", 0, 0, 0, "confounded", 0, "confounded"),
    (1.0, "shape:odd", 0, 0, 0, "unasked", 0, "unasked"),  # there are no odd scenes, so nothing is asked
]


@pytest.mark.parametrize(("strength", "ask", "shape", "limit", "pressure", "cause", "colour", "colour_cause"), CLOSED_FORMS)
def test_closed_forms_of_coverage(
    strength: float,
    ask: str,
    shape: float,
    limit: float,
    pressure: float | None,
    cause: str | None,
    colour: float,
    colour_cause: str | None,
) -> None:
    found = covered(ask, strength)
    assert (found.coverage["shape"], found.coverage_limit["shape"]) == pytest.approx((shape, limit), abs=5e-5)
    if pressure is not None:
        assert found.pressure_bits["shape"] == pytest.approx(pressure, abs=5e-5)
    assert found.cause.get("shape") == cause
    assert found.coverage["colour"] == pytest.approx(colour, abs=5e-5)
    assert found.cause.get("colour") == colour_cause
    assert found.agreement_frac == pytest.approx(0.25 + 0.75 * strength, abs=5e-5)


@pytest.mark.parametrize(
    ("strength", "ask", "proxy", "bits"),
    [
        (0.9, "shape", "colour->shape", 1.4968),
        (0.9, "shape:agree", "colour->shape", 2),
        (0.9, "shape:odd", "colour->shape", 0.4150),
        (0.9, TWICE, "colour->shape", 1.1958),
        (0.9, "shape,colour:odd", "colour->shape", 1.4968),
        (0.9, "shape,colour:odd", "shape->colour", 0.4150),
        (0.9, ONLY_YES, "colour->shape=round", 0),
        (0.0, "shape", "colour->shape", 0),
        (1.0, "shape", "colour->shape", 2),
    ],
)
def test_closed_forms_of_what_a_shadow_could_earn(strength: float, ask: str, proxy: str, bits: float) -> None:
    assert covered(ask, strength).proxy_bits[proxy] == pytest.approx(bits, abs=5e-5)


def test_every_other_factor_is_exactly_zero_and_unasked() -> None:
    found = covered("shape", 0.9)
    for name in set(found.coverage) - {"shape"}:
        assert found.coverage[name] == found.coverage_limit[name] == found.reach[name] == found.pressure_bits[name] == 0
        assert found.cause[name] == "unasked"
    assert found.reach["shape"] == 1 and "shape" not in found.cause
    assert found.resolved_frac == 0.75 and found.resolved_exact
    assert found.joint_proxy_bits == {"shape": pytest.approx(1.4968, abs=5e-5)}


def test_limit_does_not_depend_on_how_rare_odd_scenes_are() -> None:
    assert [covered("shape,colour:odd", strength).coverage_limit["colour"] for strength in (0.5, 0.99)] == [0.5, 0.5]


def test_factors_of_different_sizes_follow_the_map() -> None:
    """3 shapes set 8 colours in runs of 3, 3 and 2: p(shape | colour) worked out colour by colour."""
    strength, runs = 0.9, (3, 3, 2)
    told = 0.0
    for run in runs:
        match, other = strength / run + (1 - strength) / 8, (1 - strength) / 8
        joint = np.array([match, other, other]) / 3
        told += run * (joint.sum() - (joint**2).sum() / joint.sum())
    easy = EasyVQA().correlate("shape", "colour", strength)
    found = measure_coverage(easy.prior, easy.policy("shape"))
    assert found.coverage["shape"] == pytest.approx(told / (1 - 1 / 3), abs=1e-9)
    assert found.coverage["colour"] == 0 and found.coverage_limit["shape"] == 1
    only_agreeing = measure_coverage(easy.prior, easy.policy("colour:agree"))
    # A shape sets a run of colours, so within a run colour is felt even where all agree: as 3 or 2 of 8.
    expected = sum(((strength + (1 - strength) * run / 8) ** 2) * (1 - 1 / run) for run in runs) / 3 / (1 - 1 / 8)
    assert only_agreeing.coverage["colour"] == pytest.approx(expected, abs=1e-9)


# Brute force: every quantity from its definition, over all pairs of scenes.


def random_space(rng: np.random.Generator, sizes: tuple[int, ...]) -> tuple[Prior, list[Query]]:
    names = "abcdefgh"[: len(sizes)]
    space = FactorSpace(tuple(Factor(name, tuple(f"{name}{i}" for i in range(size))) for name, size in zip(names, sizes, strict=True)))
    prior = Prior(space)
    first, second, third = rng.permutation(list(names))[:3]
    prior = prior.correlate(str(first), str(second), float(rng.choice([0, 0.3, 0.9, 1])))
    if rng.random() < 0.5:
        prior = prior.correlate(str(second), str(third), float(rng.choice([0.5, 1])))
    queries = []
    for number in range(4):
        depends_on = tuple(str(name) for name in rng.permutation(list(names))[: int(rng.integers(1, 4))])
        shape = tuple(len(space[name].values) for name in depends_on)
        num_choices = int(rng.integers(2, 4))
        choices = tuple(f"answer-{i}" for i in range(num_choices))
        queries.append(Query(f"q{number}", "open", depends_on[0], ("?",), choices, depends_on, rng.integers(0, num_choices, shape)))
    return prior, queries


def random_ask(query: Query, rng: np.random.Generator) -> PolicyLine:
    region = str(rng.choice(["all", "agree", "odd", *query.choices]))
    return PolicyLine(query, region, float(rng.choice([0.5, 1, 2])))


class ByHand:
    """A policy written out scene by scene: `rate[q][s]` is how often query q is asked of scene s."""

    def __init__(self, prior: Prior, policy: Policy) -> None:
        self.space = prior.space
        self.names = self.space.names
        self.scenes = list(product(*(range(size) for size in self.space.sizes)))
        self.queries = {ask.query.name: ask.query for ask in policy.lines}
        self.prior = prior
        table = np.broadcast_to(prior.table(self.names), self.space.sizes)
        self.p = {s: float(table[s]) for s in self.scenes}
        self.rate = {
            name: {s: sum(self._asks(ask, s) for ask in policy.lines if ask.query.name == name) for s in self.scenes}
            for name in self.queries
        }

    def answer(self, name: str, scene: tuple[int, ...]) -> int:
        query = self.queries[name]
        return int(query.answers[tuple(scene[self.names.index(factor)] for factor in query.depends_on)])

    def _asks(self, ask: PolicyLine, scene: tuple[int, ...]) -> float:
        if ask.region in ("agree", "odd"):
            agrees = all(
                known.follows(self.space)[scene[self.names.index(known.cause)], scene[self.names.index(known.effect)]]
                for known in self.prior.correlations
            )
            return ask.rate * (agrees == (ask.region == "agree"))
        return ask.rate * (ask.region == "all" or ask.query.choices[self.answer(ask.query.name, scene)] == ask.region)

    def told(self, s: tuple[int, ...], t: tuple[int, ...]) -> bool:
        return any(self.rate[q][s] > 0 and self.rate[q][t] > 0 and self.answer(q, s) != self.answer(q, t) for q in self.queries)

    def coverage(self, factor: str, p: dict[tuple[int, ...], float]) -> float:
        k = self.names.index(factor)
        total = 0.0
        for s, t in product(self.scenes, repeat=2):
            if s[k] != t[k] and s[:k] + s[k + 1 :] == t[:k] + t[k + 1 :] and self.told(s, t):
                line = sum(p[u] for u in self.scenes if u[:k] + u[k + 1 :] == s[:k] + s[k + 1 :])
                total += p[s] * p[t] / line if line > 0 else 0
        return total / (1 - 1 / self.space.sizes[k])

    def limit(self, factor: str) -> float:
        possible = [s for s in self.scenes if self.p[s] > 0]
        return self.coverage(factor, {s: (self.p[s] > 0) / len(possible) for s in self.scenes})

    def reach(self, factor: str) -> float:
        supported = [name for name in self.queries if any(self.p[s] * self.rate[name][s] > 0 for s in self.scenes)]
        free = ByHand(Prior(self.space), Policy(tuple(PolicyLine(self.queries[name]) for name in supported)))
        return free.coverage(factor, free.p)

    def resolved(self) -> float:
        return sum(self.p[s] * self.p[t] * self.told(s, t) for s, t in product(self.scenes, repeat=2))

    def information(self, name: str, seen: list[int], given: list[int]) -> float:
        """I(A_q ; factors seen | factors given) in bits under p(s|q)."""
        share = sum(self.p[s] * self.rate[name][s] for s in self.scenes)
        sums: dict[str, dict[tuple[object, ...], float]] = {"azg": {}, "ag": {}, "zg": {}, "g": {}}
        for s in self.scenes:
            weight = self.p[s] * self.rate[name][s] / share
            a, z, g = self.answer(name, s), tuple(s[i] for i in seen), tuple(s[i] for i in given)
            for which, key in (("azg", (a, z, g)), ("ag", (a, g)), ("zg", (z, g)), ("g", (g,))):
                sums[which][key] = sums[which].get(key, 0) + weight
        return sum(
            sums["azg"][a, z, g] * np.log2(sums["azg"][a, z, g] * sums["g"][g,] / (sums["ag"][a, g] * sums["zg"][z, g]))
            for a, z, g in sums["azg"]
            if sums["azg"][a, z, g] > 0
        )

    def shares(self) -> dict[str, float]:
        found = {name: sum(self.p[s] * self.rate[name][s] for s in self.scenes) for name in self.queries}
        return {name: share for name, share in found.items() if share > 0}

    def pressure(self, factor: str) -> float:
        k, shares = self.names.index(factor), self.shares()
        rest = [i for i in range(len(self.names)) if i != k]
        return sum(share * self.information(name, [k], rest) for name, share in shares.items()) / sum(shares.values())


def random_policy(queries: list[Query], rng: np.random.Generator) -> Policy:
    asks = [random_ask(query, rng) for query in queries[:3]]
    return Policy((*asks, PolicyLine(queries[0], "odd", 2.0), random_ask(queries[3], rng)))


@pytest.mark.parametrize("seed", range(6))
def test_every_quantity_is_that_of_all_pairs_of_scenes_counted_by_hand(seed: int) -> None:
    rng = np.random.default_rng([11, seed])
    prior, queries = random_space(rng, ((3, 2, 2), (2, 3, 2), (2, 2, 2, 3))[seed % 3])
    policy = random_policy(queries, rng)
    found, hand = measure_coverage(prior, policy), ByHand(prior, policy)
    for factor in prior.space.names:
        assert found.coverage[factor] == pytest.approx(hand.coverage(factor, hand.p), abs=1e-9)
        assert found.coverage_limit[factor] == pytest.approx(hand.limit(factor), abs=1e-9)
        assert found.reach[factor] == pytest.approx(hand.reach(factor), abs=1e-9)
        assert found.pressure_bits[factor] == pytest.approx(hand.pressure(factor), abs=1e-9)
    assert found.resolved_exact and found.resolved_frac == pytest.approx(hand.resolved(), abs=1e-9)
    assert set(found.joint_proxy_bits) == set(hand.shares())
    for name in hand.shares():
        others = [factor for factor in prior.space.names if factor not in hand.queries[name].depends_on]
        for factor in others:
            bits = hand.information(name, [hand.names.index(factor)], [])
            assert found.proxy_bits.get(f"{factor}->{name}", 0) == pytest.approx(bits, abs=1e-9)
        joint = hand.information(name, [hand.names.index(factor) for factor in others], [])
        assert found.joint_proxy_bits[name] == pytest.approx(joint, abs=1e-9)
    assert not any(proxy.split("->")[0] in hand.queries[proxy.split("->")[1]].depends_on for proxy in found.proxy_bits)


def test_with_many_patterns_of_support_the_interval_holds_the_truth() -> None:
    rng = np.random.default_rng(5)
    sizes = (5, 5, 4)
    space = FactorSpace(tuple(Factor(name, tuple(f"{name}{i}" for i in range(size))) for name, size in zip("abc", sizes, strict=True)))
    prior = Prior(space).correlate("a", "b", 0.6)
    asks = []
    for number in range(8):
        answers = rng.integers(0, 3, sizes)
        asks.append(PolicyLine(Query(f"q{number}", "open", "a", ("?",), ("x", "y", "z"), ("a", "b", "c"), answers), "x"))
        asks.append(PolicyLine(asks[-1].query, "y"))
    answers = np.stack([asks[i].query.answers.ravel() for i in range(0, 16, 2)])
    support = answers < 2
    assert len(np.unique(support.T, axis=0)) > 64
    told = ((answers[:, :, None] != answers[:, None, :]) & support[:, :, None] & support[:, None, :]).any(axis=0)
    p = np.broadcast_to(prior.table(space.names), sizes).ravel()
    truth = float(p @ told @ p)
    found = measure_coverage(prior, Policy(tuple(asks)))
    assert not found.resolved_exact
    for value in (truth, found.resolved_frac):
        assert found.resolved_low < value < found.resolved_high < found.resolved_low + 0.01


# What asking more can do


def test_asking_more_never_lowers_coverage_and_gains_diminish() -> None:
    grew = 0
    for seed in range(6):
        rng = np.random.default_rng([13, seed])
        prior = random_space(rng, (3, 2, 2))[0]
        queries = [query for _ in range(2) for query in random_space(rng, (3, 2, 2))[1]]
        pool = [random_ask(replace(query, name=f"q{number}"), rng) for number, query in enumerate(queries)]
        order = rng.permutation(len(pool))
        few, many, new = list(order[:2]), list(order[:5]), order[6]
        found = [measure_coverage(prior, Policy(tuple(pool[i] for i in lines))) for lines in (few, [*few, new], many, [*many, new])]
        for get in (lambda c, k: c.coverage[k], lambda c, k: c.coverage_limit[k], lambda c, k: c.resolved_frac):
            for factor in "abc":
                small, small_more, large, large_more = (get(one, factor) for one in found)
                assert small <= large + 1e-9 and large <= large_more + 1e-9
                assert small_more - small >= large_more - large - 1e-9
                grew += large_more > large + 1e-6
    assert grew > 5  # else the inequalities would be of zeros


def numbers(found: Coverage) -> dict[str, object]:
    return {name: value for name, value in found.model_dump().items() if name != "policy"}


def test_the_order_of_lines_changes_nothing() -> None:
    for seed in range(2):
        rng = np.random.default_rng([17, seed])
        prior, queries = random_space(rng, (3, 2, 2))
        policy = random_policy(queries, rng)
        one, other = (numbers(measure_coverage(prior, Policy(asks))) for asks in (policy.lines, policy.lines[::-1]))
        for name, value in one.items():
            assert other[name] == (pytest.approx(value, abs=1e-9) if name != "cause" else value)


def test_lines_that_name_the_same_query_add_up() -> None:
    twice, split, scaled = (numbers(covered(ask, 0.9)) for ask in (TWICE, "shape:agree,shape:odd*2", "shape*0.5,shape:odd*0.5"))
    assert twice == split == scaled


def test_a_policy_that_touches_too_many_scenes_is_refused() -> None:
    space = FactorSpace(tuple(Factor(f"f{i}", ("a", "b", "c", "d")) for i in range(12)))
    with pytest.raises(BadInput, match=r"touch 16,777,216 scenes.*ask about fewer factors"):
        measure_coverage(Prior(space), Policy(tuple(PolicyLine(open_query(space, name, ["?"])) for name in space.names)))


# The command line

CLOSED_FORMS_AS_JSON = [  # of shape: coverage, limit, pressure; and what a shadow of colour could earn
    ("0.9", "shape", (0.19, 1, 0.5032, 1.4968)),
    ("0.9", "shape:agree", (0, 0, 0, 2)),
    ("0.9", "shape:odd", (0.005, 0.5, 1.5850, 0.4150)),
    ("0", "shape", (1, 1, 2, 0)),
    ("1", "shape,colour", (0, 0, 0, 2)),
]


def check_json(text: str, expected: tuple[float, ...]) -> None:
    found = json.loads(text)
    of_shape = (*(found[name]["shape"] for name in ("coverage", "coverage_limit", "pressure_bits")), found["proxy_bits"]["colour->shape"])
    assert of_shape == pytest.approx(expected, abs=5e-5)
    assert all(value == 0 for name, value in found["coverage"].items() if name != "shape")


@pytest.mark.parametrize(("strength", "ask", "expected"), CLOSED_FORMS_AS_JSON)
def test_the_command_line_prints_the_closed_forms_as_json(
    strength: str, ask: str, expected: tuple[float, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["theodolite", "coverage", "shapes", "--strength", strength, "--ask", ask, "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    check_json(capsys.readouterr().out, expected)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("shape", "--ask", "shape"), ("no world is called 'shape'", "shapes, easy_vqa")),
        (("shapes", "--ask", "form"), ("no query is called 'form'", "shape, colour, size")),
        (("shapes", "--ask", "shape:even"), ("'even' scenes", "all, agree, odd, round, square, triangular, crossed")),
        (("shapes", "--ask", "sheen"), ("no query can name 'sheen'", "shape, colour, size")),
        (("shapes", "--ask", "shape", "--strength", "1.5"), ("strength is 1.5", "from 0 to 1")),
    ],
)
def test_a_wrong_name_ends_with_status_2_and_says_the_right_ones(
    arguments: tuple[str, ...], told: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["theodolite", "coverage", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert ended.value.code == 2 and said.out == ""
    assert all(text in said.err for text in told) and len(said.err.splitlines()) == 1


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("more", [["--json"], []])
def test_coverage_is_a_process_that_never_imports_torch(more: list[str]) -> None:
    done = run("-X", "importtime", "-m", "theodolite", "coverage", "shapes", "--strength", "0.9", "--ask", "shape", *more)
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert done.returncode == 0 and {"theodolite", "numpy"} <= imported
    assert not imported & {"torch", "transformers", "accelerate"}
    if more:
        check_json(done.stdout, CLOSED_FORMS_AS_JSON[0][2])
    else:
        assert "0.1900" in done.stdout and "colour->shape: a shadow could earn 1.4968 bits" in done.stdout


def test_a_process_given_a_wrong_name_prints_no_traceback() -> None:
    done = run("-m", "theodolite", "coverage", "shapes", "--ask", "form")
    assert done.returncode == 2 and done.stdout == "" and "Traceback" not in done.stderr
    assert done.stderr.startswith("theodolite: no query is called 'form'; there is shape")
