"""Geometry of factors at each site: consistency, orthogonality and regularity of their directions, tested against shuffled differences.

Directions come from interventions (after - before), on the mean of a picture's vision tokens, under the Euclidean product and, where
hidden vectors are as wide as the unembedding, the causal one. These are similarities of directions; whether the model uses them is
tested by the causal measures.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TypeVar

import numpy as np
from jaxtyping import Float

from theodolite.measurement.internals.context import MeasureContext
from theodolite.measurement.internals.directions import Differences, Weights, consistency, differences, draw_weights, place_values, span
from theodolite.measurement.internals.hierarchy import measure_hierarchy
from theodolite.measurement.internals.inner_product import CausalProduct, causal_product
from theodolite.measurement.internals.overlap import judge_overlap, overlap, shows_signal, split_overlap
from theodolite.measurement.internals.simplex import simplex_parts, simplex_regularity, split_regularity
from theodolite.measurement.internals.split_products import FactorProducts, SplitProducts, split_products
from theodolite.records.geometry import Directions, Geometry, Hierarchy, Overlap, Shape, Simplex, SiteGeometry, Tested
from theodolite.records.part import Estimate
from theodolite.stats.jackknife import DIGITS, jackknife_ends, rounded
from theodolite.stats.rates import benjamini_hochberg, permutation_p

NUM_SHUFFLES = 200
# Values in the difference vectors of one factor: 488 interventions at 4,096 channels, 2,000 at 1,000.
MAX_NUMBERS = 2_000_000
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, eq=False)
class Replicates:
    """A statistic for each row of the weights, its range, and its number of scenes."""

    values: Float[np.ndarray, " replicate"]
    range: tuple[float, float]
    num_scenes: int


def measure_geometry(context: MeasureContext) -> Geometry | None:
    """Geometry of all factors that interventions move, by site; None where there are no interventions."""
    interventions = {factor: each for factor, each in sorted(context.interventions.items()) if len(each.scene)}
    if not interventions:
        return None
    most = max(2, MAX_NUMBERS // context.unembedding.shape[1])
    for factor, each in interventions.items():
        interventions[factor] = each.take(np.sort(context.rng(f"geometry.{factor}").permutation(len(each))[:most]))
    scenes = np.unique(np.concatenate([each.scene for each in interventions.values()]))
    weights = draw_weights(len(scenes), NUM_SHUFFLES, context.rng("geometry"))
    product = causal_product(context.unembedding)
    groups = {
        factor: tuple(tuple(each.values.index(value) for value in values if value in each.values) for values in named.values())
        for factor, each in interventions.items()
        if (named := context.groups.get(factor))
    }
    sites: dict[str, SiteGeometry] = {}
    for done, site in enumerate(context.activations.sites):
        context.progress(done, len(context.activations.sites))
        vectors = context.activations.mean(site)
        by_factor = {factor: differences(each, vectors, scenes) for factor, each in interventions.items()}
        sites[site] = SiteGeometry(
            euclidean=describe(by_factor, weights, groups, context.confidence, context.rng("geometry.split")),
            causal=None if site == "encoder" else _causal(by_factor, product, weights, groups, context),
        )
    context.progress(len(sites), len(sites))
    return Geometry(
        pooling="mean of vision tokens", num_shuffles=NUM_SHUFFLES, num_words=product.num_words, unembedding_rank=product.rank, sites=sites
    )


def _causal(
    by_factor: Mapping[str, Differences],
    product: CausalProduct,
    weights: Weights,
    groups: Mapping[str, Sequence[tuple[int, ...]]],
    context: MeasureContext,
) -> Shape | None:
    if any(each.vectors.shape[1] != product.width for each in by_factor.values()):
        return None
    weighted = {name: each.replaced(product.apply(each.vectors)) for name, each in by_factor.items()}
    return describe(weighted, weights, groups, context.confidence, context.rng("geometry.split"))


def describe(
    by_factor: Mapping[str, Differences],
    weights: Weights,
    groups: Mapping[str, Sequence[tuple[int, ...]]],
    confidence: float,
    rng: np.random.Generator,
) -> Shape:
    """All statistics of one site under one inner product; `groups` are positions of values, by factor. `rng` draws quarters of scenes."""
    consistent: dict[str, Replicates] = {}
    bases: dict[str, Float[np.ndarray, "replicate direction dim"]] = {}
    plug_in: dict[str, float | None] = {}
    for name, each in by_factor.items():
        placed = place_values(each, weights)
        if (values := consistency(each, weights)) is not None:
            consistent[name] = Replicates(values, (-1.0, 1.0), each.num_scenes)
        bases[name] = span(placed, each.num_values - 1).astype(each.vectors.dtype)
        regularity = simplex_regularity(placed[:1])
        plug_in[name] = None if regularity is None or not np.isfinite(regularity[0]) else round(float(regularity[0]), DIGITS)
    split = split_products(by_factor, weights, rng, groups)
    shown = {name: shows_signal(each, confidence) for name, each in split.factors.items()}
    consistency_tests = settle(consistent, weights, confidence)

    def levels(name: str) -> Hierarchy | None:
        products = split.factors[name].products
        return None if products is None or not shown[name] else measure_hierarchy(products, groups[name], confidence)

    return Shape(
        factors={
            name: Directions(
                consistency=consistency_tests.get(name),
                rank=_rank(bases[name]),
                num_differences=len(each.scene),
                simplex=_simplex(split.factors[name], shown[name], plug_in[name], each.num_scenes, confidence),
                hierarchy=levels(name),
            )
            for name, each in by_factor.items()
        },
        overlaps=_overlaps(by_factor, bases, weights, split, shown, confidence),
    )


def _rank(basis: Float[np.ndarray, "replicate direction dim"]) -> int:
    return int(np.any(basis[0] != 0, axis=1).sum())


def _simplex(products: FactorProducts, shown: bool, plug_in: float | None, num_scenes: int, confidence: float) -> Simplex | None:
    """None below three values, where nothing moves, or where too few scenes join all values."""
    regularity = split_regularity(products)
    if regularity is None or plug_in is None or not np.isfinite(products.signal[0]):
        return None

    def estimate(values: Float[np.ndarray, " replicate"], range_: tuple[float, float]) -> Estimate:
        return jackknife(Replicates(values, range_, num_scenes), len(values) - 1, confidence)

    cosine_gap, norm_spread = simplex_parts(products.gram[0])
    return Simplex(
        regularity=estimate(regularity, (0.0, 1.0)) if shown and np.isfinite(regularity[0]) else None,
        plug_in=plug_in,
        signal_frac=estimate(products.signal, (0.0, 1.0)),
        cosine_gap=round(cosine_gap, DIGITS),
        norm_spread=round(norm_spread, DIGITS),
    )


def _overlaps(
    by_factor: Mapping[str, Differences],
    bases: Mapping[str, Float[np.ndarray, "replicate direction dim"]],
    weights: Weights,
    split: SplitProducts,
    shown: Mapping[str, bool],
    confidence: float,
) -> tuple[Overlap, ...]:
    ranks = {name: _rank(basis) for name, basis in bases.items()}
    pairs = [pair for pair in combinations(sorted(by_factor), 2) if ranks[pair[0]] and ranks[pair[1]]]
    num_scenes = {(one, other): len(np.union1d(by_factor[one].scene, by_factor[other].scene)) for one, other in pairs}
    replicates = {pair: Replicates(overlap(bases[pair[0]], bases[pair[1]]), (0.0, 1.0), num_scenes[pair]) for pair in pairs}
    tests = settle(replicates, weights, confidence)
    return tuple(
        Overlap(
            first=one,
            second=other,
            overlap=tests[one, other],
            random=round(max(ranks[one], ranks[other]) / bases[one].shape[2], DIGITS),
            equivalence=judge_overlap(
                split_overlap(split.cross[one, other], split.factors[one], split.factors[other]),
                shown[one] and shown[other],
                num_scenes[one, other],
                confidence,
            ),
        )
        for one, other in pairs
        if (one, other) in tests
    )


def settle(statistics: Mapping[Key, Replicates], weights: Weights, confidence: float) -> dict[Key, Tested]:
    """Value, interval, chance and p of each statistic, with p adjusted over all; statistics without value or shuffles are left out."""
    # Rounded first, so that values that differ only by the order of summation tie.
    nulls = {key: each.values[1 + weights.num_groups :].round(DIGITS) for key, each in statistics.items()}
    shuffles = {
        key: null[np.isfinite(null)] for key, null in nulls.items() if np.isfinite(null).any() and np.isfinite(statistics[key].values[0])
    }
    if not shuffles:
        return {}
    chances = [permutation_p(round(float(statistics[key].values[0]), DIGITS), null) for key, null in shuffles.items()]
    adjusted = benjamini_hochberg(np.asarray(chances))
    return {
        key: Tested(
            estimate=jackknife(statistics[key], weights.num_groups, confidence),
            chance=round(float(null.mean()), DIGITS),
            p=round(p, DIGITS),
            p_adjusted=round(float(p_adjusted), DIGITS),
        )
        for (key, null), p, p_adjusted in zip(shuffles.items(), chances, adjusted, strict=True)
    }


def jackknife(replicates: Replicates, num_groups: int, confidence: float) -> Estimate:
    """The observed value with its interval by `jackknife_ends`, cut to its range."""
    lowest, highest = replicates.range
    value = float(replicates.values[0].clip(lowest, highest))
    low, high = jackknife_ends(value, replicates.values[1 : 1 + num_groups], replicates.range, confidence)
    return rounded(Estimate(value=value, low=low, high=high, num_scenes=replicates.num_scenes))
