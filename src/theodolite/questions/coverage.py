"""What the questions alone pin down: exact by enumeration over the factors they touch. Needs no model and no torch.

Definitions: design of this project, after the essay "The Coverage Lock" (Y. Cai). Every array here has one axis for each
*involved* factor, of length 1 where it does not depend on that factor. A factor that no query and no correlation touches is
independent of every answer, so all its quantities are 0 and it needs no axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, reduce

import numpy as np
from jaxtyping import Bool, Float, Int

from theodolite.questions.distinguishability import measure_distinguishability
from theodolite.records.coverage import Coverage
from theodolite.records.errors import BadInput
from theodolite.worlds.prior import Prior, spread
from theodolite.worlds.query import Policy, PolicyLine, Query

MAX_SCENES = 4_000_000
ZERO = 1e-12


@dataclass(frozen=True, eq=False)
class QueryTable:
    """One query of a policy over the involved factors: its answer and how often it is asked (0 where unsupported)."""

    query: Query
    answer: Int[np.ndarray, "..."]
    rate: Float[np.ndarray, "..."]


class Enumeration:
    """A policy under a prior, laid out over the involved factors.

    Raises `BadInput` if the involved factors span more than `MAX_SCENES` scenes.
    """

    def __init__(self, prior: Prior, policy: Policy) -> None:
        involved = prior.correlated | policy.depends_on
        self.names = tuple(name for name in prior.space.names if name in involved)
        self.shape = tuple(len(prior.space[name].values) for name in self.names)
        if np.prod(self.shape, dtype=np.int64) > MAX_SCENES:
            raise BadInput(
                f"the policy and the prior touch {int(np.prod(self.shape, dtype=np.int64)):,} scenes; "
                f"enumeration is made for up to {MAX_SCENES:,}: ask about fewer factors at once"
            )
        self.prior, self.policy = prior, policy
        self.weights = np.broadcast_to(prior.table(self.names), self.shape)

    @cached_property
    def asked(self) -> tuple[QueryTable, ...]:
        """The distinct queries with their rates; lines of the policy that name the same query are added."""

        def merge(query: Query) -> QueryTable:
            lines = [ask for ask in self.policy.asks if ask.query.name == query.name]
            rate = reduce(np.add, [self._rate(ask) for ask in lines])
            return QueryTable(query, spread(query.answers, query.depends_on, self.names), rate)

        return tuple(merge(query) for query in self.policy.queries)

    def _rate(self, ask: PolicyLine) -> Float[np.ndarray, "..."]:
        return ask.rate * ask.inside_table(self.prior, self.names).astype(float)

    def uniform(self) -> Enumeration:
        """The same with equal weights on all scenes of non-zero probability."""
        return self._reweighted((self.weights > 0).astype(float))

    def unrestricted(self) -> Enumeration:
        """The queries that are asked at all, each of every scene on which it is defined, under the independent prior."""
        other = self._reweighted(np.ones(self.shape))
        other.policy = Policy(tuple(PolicyLine(query) for query in self.policy.supported(self.prior)))
        return other

    def _reweighted(self, weights: Float[np.ndarray, "..."]) -> Enumeration:
        other = object.__new__(Enumeration)
        other.names, other.shape, other.prior, other.policy = self.names, self.shape, self.prior, self.policy
        other.weights = weights / weights.sum()
        return other


def coverage_of(enumeration: Enumeration, factor: str) -> float:
    """Chance that two scenes alike in all but `factor` are told apart, relative to the best case, 0 to 1 (`coverage[k]`)."""
    if factor not in enumeration.names:
        return 0.0
    axis = enumeration.names.index(factor)
    num_values = enumeration.shape[axis]
    lines = np.moveaxis(np.broadcast_to(enumeration.weights, enumeration.shape), axis, 0)
    rest = lines.sum(axis=0)
    conditional = np.divide(lines, rest, out=np.zeros(lines.shape), where=rest > 0)
    asked = [_along(item, axis, num_values) for item in enumeration.asked]
    total = 0.0
    for first in range(num_values):
        for second in range(first + 1, num_values):
            told = _told(asked, first, second)
            if told is not None:
                total += 2 * float((rest * conditional[first] * conditional[second] * told).sum())
    return total / (1 - 1 / num_values)


def _along(asked: QueryTable, axis: int, num_values: int) -> tuple[np.ndarray, np.ndarray]:
    """Answer and support of a query with the factor's axis first and at full length."""

    def lay(table: np.ndarray) -> np.ndarray:
        moved = np.moveaxis(table, axis, 0)
        return np.broadcast_to(moved, (num_values, *moved.shape[1:]))

    return lay(asked.answer), lay(asked.rate > 0)


def _told(asked: list[tuple[np.ndarray, np.ndarray]], first: int, second: int) -> Bool[np.ndarray, "..."] | None:
    told: np.ndarray | None = None
    for answer, support in asked:
        here = np.asarray((answer[first] != answer[second]) & support[first] & support[second])
        if here.any():
            told = here if told is None else np.asarray(told | here)
    return told


def entropy_bits(table: Float[np.ndarray, "..."]) -> float:
    """Shannon entropy of a table of probabilities that sum to 1, in bits."""
    positive = table[table > 0]
    return float(-(positive * np.log2(positive)).sum())


def _joint(enumeration: Enumeration, asked: QueryTable) -> Float[np.ndarray, "choice ..."]:
    """p(answer, scene | query), the answer on the first axis; sums to p(query's share), so normalise before use."""
    weights = enumeration.weights * asked.rate
    choices = np.arange(len(asked.query.choices)).reshape(-1, *(1,) * len(enumeration.shape))
    return np.asarray(weights * (asked.answer == choices))


def _information_bits(joint: Float[np.ndarray, "choice ..."], axes: tuple[int, ...]) -> float:
    """I(answer ; the factors on `axes`), in bits; axes count the answer's as 0."""
    others = tuple(axis for axis in range(1, joint.ndim) if axis not in axes)
    pair = joint.sum(axis=others, keepdims=True)
    answer = pair.sum(axis=tuple(range(1, joint.ndim)))
    return max(0.0, entropy_bits(answer) + entropy_bits(pair.sum(axis=0)) - entropy_bits(pair))


def pressure_bits_of(enumeration: Enumeration, factor: str) -> float:
    """sum over q of p(q) I(A_q ; Z_k | Z_-k) under p(s|q), in bits: how strongly one asked question feels the factor.

    An answer is a function of the scene, so the information is H(A_q | Z_-k).
    """
    if factor not in enumeration.names:
        return 0.0
    axis = enumeration.names.index(factor) + 1
    total, bits = 0.0, 0.0
    for asked in enumeration.asked:
        share = float((enumeration.weights * asked.rate).sum())
        total += share
        if share > 0 and factor in asked.query.depends_on:
            joint = _joint(enumeration, asked) / share
            given_rest = joint.sum(axis=axis, keepdims=True)
            bits += share * (entropy_bits(given_rest) - entropy_bits(given_rest.sum(axis=0)))
    return max(0.0, bits / total) if total > 0 else 0.0


def proxies(enumeration: Enumeration) -> tuple[dict[str, float], dict[str, float]]:
    """I(A_q ; Z_j) in bits for each factor j that q's answer does not depend on, and jointly for all such j."""
    single: dict[str, float] = {}
    joint_bits: dict[str, float] = {}
    for asked in enumeration.asked:
        share = float((enumeration.weights * asked.rate).sum())
        if share == 0:
            continue
        joint = _joint(enumeration, asked) / share
        others = [name for name in enumeration.names if name not in asked.query.depends_on]
        for name in others:
            single[f"{name}->{asked.query.name}"] = _information_bits(joint, (enumeration.names.index(name) + 1,))
        axes = tuple(enumeration.names.index(name) + 1 for name in others)
        joint_bits[asked.query.name] = _information_bits(joint, axes) if axes else 0.0
    return single, joint_bits


def asked_fracs(prior: Prior, policy: Policy) -> dict[str, float]:
    """p(q): the share, 0 to 1, of the asked questions that each query of a policy is, by its name. Raises `BadInput`."""
    here = Enumeration(prior, policy)
    weights = {item.query.name: float((here.weights * item.rate).sum()) for item in here.asked}
    total = sum(weights.values())
    return {name: weight / total if total else 0.0 for name, weight in weights.items()}


def measure_coverage(prior: Prior, policy: Policy) -> Coverage:
    """All coverage quantities of a policy under a prior, exact (`resolved_frac` says if it had to be estimated).

    Raises `BadInput` if the factors involved span too many scenes to enumerate.
    """
    here = Enumeration(prior, policy)
    limit, free = here.uniform(), here.unrestricted()
    names = prior.space.names
    covered = {name: coverage_of(here, name) for name in names}
    reach = {name: coverage_of(free, name) for name in names}
    single, joint = proxies(here)
    agree = prior.agreement(here.names)
    resolved = measure_distinguishability(here.weights, [(item.answer, item.rate > 0) for item in here.asked])
    return Coverage(
        coverage=_rounded(covered),
        coverage_limit=_rounded({name: coverage_of(limit, name) for name in names}),
        reach=_rounded(reach),
        pressure_bits=_rounded({name: pressure_bits_of(here, name) for name in names}),
        proxy_bits=_rounded(single),
        joint_proxy_bits=_rounded(joint),
        resolved_frac=resolved.value,
        resolved_low=resolved.low,
        resolved_high=resolved.high,
        resolved_exact=resolved.exact,
        cause={name: "unasked" if reach[name] <= ZERO else "confounded" for name in names if covered[name] <= ZERO},
        agreement_frac=float((here.weights * agree).sum()),
        policy=str(policy),
    )


def _rounded(values: dict[str, float]) -> dict[str, float]:
    """Exact zeros and ones as such: what enumeration leaves of rounding is below 1e-12."""
    return {name: round(value, 12) + 0.0 for name, value in values.items()}
