"""Coverage of a query policy: which factors its questions alone determine. Exact, by enumeration; needs no model and no torch.

Definitions: docs/reference/measures.md, after the essay "The Coverage Lock" (Y. Cai). Two scenes are *distinguished* if some query
supported at both has different answers. Every array has one axis for each *involved* factor (one that a query or a correlation touches),
of length 1 where it does not depend on it. Any other factor is independent of all answers: its quantities are 0 and it has no axis.
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
from theodolite.worlds.world import World

MAX_SCENES = 10_000_000  # 25 s on one core and 2 GiB, both linear in it
ZERO = 1e-12


@dataclass(frozen=True, eq=False)
class QueryTable:
    """One query of a policy: its answer (index of the choice) and its rate (0 where unsupported) over the involved factors."""

    query: Query
    answer: Int[np.ndarray, "..."]
    rate: Float[np.ndarray, "..."]


class Enumeration:
    """A policy and a prior as arrays over the involved factors; `weights` is p(scene).

    Raises `BadInput` if the involved factors span more than `MAX_SCENES` scenes.
    """

    def __init__(self, prior: Prior, policy: Policy) -> None:
        involved = prior.correlated | policy.depends_on
        self.names = tuple(name for name in prior.space.names if name in involved)
        self.shape = tuple(len(prior.space[name].values) for name in self.names)
        if np.prod(self.shape, dtype=np.int64) > MAX_SCENES:
            raise BadInput(
                f"the policy and the prior touch {int(np.prod(self.shape, dtype=np.int64)):,} scenes; "
                f"at most {MAX_SCENES:,} can be enumerated: ask about fewer factors at once"
            )
        self.prior, self.policy = prior, policy
        self.weights = np.broadcast_to(prior.table(self.names), self.shape)

    @cached_property
    def asked(self) -> tuple[QueryTable, ...]:
        """The distinct queries; the rates of all policy lines with the same query are summed."""

        def merge(query: Query) -> QueryTable:
            lines = [line for line in self.policy.lines if line.query.name == query.name]
            rate = reduce(np.add, [self._rate(line) for line in lines])
            return QueryTable(query, spread(query.answers, query.depends_on, self.names), rate)

        return tuple(merge(query) for query in self.policy.queries)

    def _rate(self, line: PolicyLine) -> Float[np.ndarray, "..."]:
        return line.rate * line.inside_table(self.prior, self.names).astype(float)

    def uniform(self) -> Enumeration:
        """The same policy with equal weights on all scenes of non-zero probability."""
        return self._reweighted((self.weights > 0).astype(float))

    def unrestricted(self) -> Enumeration:
        """Each supported query asked of every scene on which it is defined, under the independent prior."""
        independent = self._reweighted(np.ones(self.shape))
        independent.policy = Policy(tuple(PolicyLine(query) for query in self.policy.supported(self.prior)))
        return independent

    def _reweighted(self, weights: Float[np.ndarray, "..."]) -> Enumeration:
        other = object.__new__(Enumeration)
        other.names, other.shape, other.prior, other.policy = self.names, self.shape, self.prior, self.policy
        other.weights = weights / weights.sum()
        return other


def coverage_of(enumeration: Enumeration, factor: str) -> float:
    """`coverage[k]`: chance that two scenes equal in all but `factor` are distinguished, relative to the best case, 0 to 1."""
    if factor not in enumeration.names:
        return 0.0
    axis = enumeration.names.index(factor)
    num_values = enumeration.shape[axis]
    rest, conditional = split_weights(np.broadcast_to(enumeration.weights, enumeration.shape), axis)
    asked = [(factor_first(item.answer, axis, num_values), factor_first(item.rate > 0, axis, num_values)) for item in enumeration.asked]
    total = 0.0
    for first in range(num_values):
        for second in range(first + 1, num_values):
            distinguished = _distinguished(asked, first, second)
            if distinguished is not None:
                total += 2 * float((rest * conditional[first] * conditional[second] * distinguished).sum())
    return total / (1 - 1 / num_values)


def split_weights(weights: Float[np.ndarray, "..."], axis: int) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "value ..."]]:
    """p(z_-k), and p(z_k | z_-k) with the axis of the factor k first; 0 where p(z_-k) is 0."""
    lines = np.moveaxis(weights, axis, 0)
    rest = np.asarray(lines.sum(axis=0))
    return rest, np.divide(lines, rest, out=np.zeros(lines.shape), where=rest > 0)


def factor_first(table: np.ndarray, axis: int, num_values: int) -> np.ndarray:
    """The table with a factor's axis first and at full length."""
    moved = np.moveaxis(table, axis, 0)
    return np.asarray(np.broadcast_to(moved, (num_values, *moved.shape[1:])))


def _distinguished(asked: list[tuple[np.ndarray, np.ndarray]], first: int, second: int) -> Bool[np.ndarray, "..."] | None:
    """Where some query (answer, support) distinguishes two values of the factor; None: nowhere."""
    distinguished: np.ndarray | None = None
    for answer, support in asked:
        differs = np.asarray((answer[first] != answer[second]) & support[first] & support[second])
        if differs.any():
            distinguished = differs if distinguished is None else np.asarray(distinguished | differs)
    return distinguished


def entropy_bits(table: Float[np.ndarray, "..."]) -> float:
    """Shannon entropy of a table of probabilities that sum to 1, in bits."""
    positive = table[table > 0]
    return float(-(positive * np.log2(positive)).sum())


def _joint(enumeration: Enumeration, asked: QueryTable) -> Float[np.ndarray, "choice ..."]:
    """p(answer, scene) of one query, the answer on the first axis; sums to the query's share of the questions: normalise before use."""
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
    """`pressure_bits[k]`: sum over q of p(q) I(A_q ; Z_k | Z_-k) under p(s|q), in bits, mean over the asked questions.

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
            answer_rest = joint.sum(axis=axis, keepdims=True)
            bits += share * (entropy_bits(answer_rest) - entropy_bits(answer_rest.sum(axis=0)))
    return max(0.0, bits / total) if total > 0 else 0.0


def proxies(enumeration: Enumeration) -> tuple[dict[str, float], dict[str, float]]:
    """I(A_q ; Z_j) in bits for each factor j that q's answer does not depend on (key `j->q`), and jointly for all such j (key q)."""
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
    """p(q): each query's share of the asked questions, 0 to 1, by its name. Raises `BadInput` as `Enumeration` does."""
    enumeration = Enumeration(prior, policy)
    weights = {item.query.name: float((enumeration.weights * item.rate).sum()) for item in enumeration.asked}
    total = sum(weights.values())
    return {name: weight / total if total else 0.0 for name, weight in weights.items()}


def measure_coverage(source: World | Prior, policy: Policy | str) -> Coverage:
    """All coverage quantities of a policy under a world's prior, exact; only `resolved_frac` may be estimated (see `resolved_exact`).

    A policy as text, such as "shape:agree,row", needs a world to look its queries up. Raises `UnknownName` on a query that the world does
    not have, `BadInput` if the involved factors span too many scenes to enumerate.
    """
    prior = source.prior if isinstance(source, World) else source
    if isinstance(policy, str):
        if not isinstance(source, World):
            raise TypeError("a policy as text needs a world, which knows its queries; give the world, or a Policy")
        policy = source.policy(policy)
    enumeration = Enumeration(prior, policy)
    limit, unrestricted = enumeration.uniform(), enumeration.unrestricted()
    names = prior.space.names
    covered = {name: coverage_of(enumeration, name) for name in names}
    reach = {name: coverage_of(unrestricted, name) for name in names}
    single, joint = proxies(enumeration)
    agree = prior.agreement(enumeration.names)
    resolved = measure_distinguishability(enumeration.weights, [(item.answer, item.rate > 0) for item in enumeration.asked])
    return Coverage(
        coverage=_rounded(covered),
        coverage_limit=_rounded({name: coverage_of(limit, name) for name in names}),
        reach=_rounded(reach),
        pressure_bits=_rounded({name: pressure_bits_of(enumeration, name) for name in names}),
        proxy_bits=_rounded(single),
        joint_proxy_bits=_rounded(joint),
        resolved_frac=resolved.value,
        resolved_low=resolved.low,
        resolved_high=resolved.high,
        resolved_exact=resolved.exact,
        cause={name: "unasked" if reach[name] <= ZERO else "confounded" for name in names if covered[name] <= ZERO},
        agreement_frac=float((enumeration.weights * agree).sum()),
        policy=str(policy),
    )


def _rounded(values: dict[str, float]) -> dict[str, float]:
    """Rounded to 12 digits, so that exact zeros and ones stay exact: rounding errors of enumeration are below 1e-12."""
    return {name: round(value, 12) + 0.0 for name, value in values.items()}
