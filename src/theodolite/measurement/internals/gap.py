"""The geometric modality gap: how far text and vision tokens lie apart at each site, one random token of each kind a picture.

Distance of centroids after Liang et al., "Mind the Gap" (arXiv 2203.02053), section 2, here without normalising each token, and
beside it relative to the size of the tokens. A gap does not say that nothing is mapped across it: the ladder and the causal
measures say what is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Bool, Float, Int
from sklearn.linear_model import RidgeClassifierCV

from theodolite.measurement.internals.context import MeasureContext
from theodolite.measurement.internals.directions import pictures_by_scene
from theodolite.measurement.pairs.interventions import split_scenes
from theodolite.records.gap import Gap, SiteGap
from theodolite.records.part import Estimate, Rate
from theodolite.stats.jackknife import DIGITS, rounded
from theodolite.stats.rates import bootstrap, clustered_rate, partition

MAX_PICTURES = 2_000
MAX_CLASSIFIED = 400
NUM_RESAMPLES = 400
NUM_EXCHANGES = 200
ALPHAS = tuple(10.0**power for power in range(-6, 3))  # of tokens whose mean square norm is 1


def measure_gap(context: MeasureContext) -> Gap | None:
    """The gap at the connector (text side: input embeddings) and after each layer; at most `MAX_PICTURES` pictures, drawn by the seed.

    None where there are no pictures or the model has no such site.
    """
    pictures, scenes = pictures_by_scene(context.changes)
    sites = [site for site in context.activations.sites if site != "encoder"]
    if not len(pictures) or not sites:
        return None
    rng = context.rng("gap")
    drawn = np.sort(rng.permutation(len(pictures))[:MAX_PICTURES])
    pictures, scenes = pictures[drawn], scenes[drawn]
    training = split_scenes(scenes, rng)
    found = {}
    for done, site in enumerate(sites):
        context.progress(done, len(sites))
        vision = context.activations.one_vision(site)[pictures]
        text = context.activations.one_text(site)[pictures]
        found[site] = site_gap(vision, text, scenes, training, context.rng(f"gap.{site}"), context.confidence)
    context.progress(len(sites), len(sites))
    return Gap(sites=found)


def site_gap(
    vision: Float[np.ndarray, "picture dim"],
    text: Float[np.ndarray, "picture dim"],
    scenes: Int[np.ndarray, " picture"],
    training: Bool[np.ndarray, " picture"],
    rng: np.random.Generator,
    confidence: float,
) -> SiteGap:
    """All numbers of one site, from one token of each kind a picture."""
    products = scene_products(vision, text, scenes)
    every = np.arange(len(products.sizes))

    def estimate(statistic: str) -> Estimate | None:
        measure = partial(_statistic, products, statistic)
        if not np.isfinite(measure(every)):
            return None
        return rounded(bootstrap(measure, (every,), every, rng, NUM_RESAMPLES, confidence))

    distance = estimate("distance")
    assert distance is not None, "a distance of centroids is finite where activations are"
    chance = chance_relative(products, rng)
    few = np.sort(rng.permutation(len(scenes))[:MAX_CLASSIFIED])
    return SiteGap(
        distance=distance,
        relative=estimate("relative"),
        chance_relative=None if chance is None else round(chance, DIGITS),
        cosine=estimate("cosine"),
        separable=separability(vision[few], text[few], scenes[few], training[few], confidence),
        num_pictures=len(scenes),
    )


@dataclass(frozen=True, eq=False)
class SceneProducts:
    """Products of scenes' sums of vision tokens, of text tokens and of their differences; resampling scenes needs nothing else."""

    vision: Float[np.ndarray, "scene scene"]
    text: Float[np.ndarray, "scene scene"]
    difference: Float[np.ndarray, "scene scene"]
    squares: Float[np.ndarray, " scene"]
    sizes: Float[np.ndarray, " scene"]

    def centroids(self, weights: Float[np.ndarray, " scene"]) -> dict[str, float]:
        """Distance, relative distance and cosine of the centroids, each scene weighted; what cannot be had is NaN."""
        number = float(weights @ self.sizes)
        vision, text, apart = (max(float(weights @ gram @ weights), 0.0) / number**2 for gram in (self.vision, self.text, self.difference))
        scale = (float(weights @ self.squares) / (2 * number)) ** 0.5
        lengths = (vision * text) ** 0.5
        return {
            "distance": apart**0.5,
            "relative": apart**0.5 / scale if scale > 0 else np.nan,
            "cosine": float(np.clip((vision + text - apart) / (2 * lengths), -1, 1)) if lengths > 0 else np.nan,
        }


def scene_products(
    vision: Float[np.ndarray, "picture dim"], text: Float[np.ndarray, "picture dim"], scenes: Int[np.ndarray, " picture"]
) -> SceneProducts:
    """Products by scene, in double precision."""
    groups = partition(scenes)
    indicator = (groups.member[None, :] == np.arange(groups.num_scenes)[:, None]).astype(np.float64)
    one, other = vision.astype(np.float64), text.astype(np.float64)
    by_vision, by_text, apart = indicator @ one, indicator @ other, indicator @ (one - other)
    return SceneProducts(
        vision=by_vision @ by_vision.T,
        text=by_text @ by_text.T,
        difference=apart @ apart.T,
        squares=groups.totals(np.square(one).sum(axis=1) + np.square(other).sum(axis=1)),
        sizes=groups.totals(np.ones(len(scenes))),
    )


def _statistic(products: SceneProducts, name: str, scenes: Int[np.ndarray, " drawn"]) -> float:
    return products.centroids(np.bincount(scenes, minlength=len(products.sizes)).astype(np.float64))[name]


def chance_relative(products: SceneProducts, rng: np.random.Generator) -> float | None:
    """Relative distance, 0 and up, with text and vision exchanged at random, all pictures of a scene together; mean over draws."""
    number = products.sizes.sum()
    scale = (products.squares.sum() / (2 * number)) ** 0.5
    signs = rng.integers(0, 2, (NUM_EXCHANGES, len(products.sizes))) * 2.0 - 1.0
    apart = np.sqrt(np.maximum(np.einsum("is,st,it->i", signs, products.difference, signs, optimize=True), 0)) / number
    return float(apart.mean() / scale) if scale > 0 else None


def separability(
    vision: Float[np.ndarray, "picture dim"],
    text: Float[np.ndarray, "picture dim"],
    scenes: Int[np.ndarray, " picture"],
    training: Bool[np.ndarray, " picture"],
    confidence: float,
) -> Rate | None:
    """Accuracy of a linear classifier of text against vision on held-out scenes, 0 to 1; as many tokens of each, so chance is 0.5.

    Ridge regression on the sign of the class, penalty chosen by leave-one-out inside the training scenes. Tokens are scaled as a whole and
    not by channel: a gap is most of the variance of its own channels, and dividing by it would hide it among hundreds of others. None
    where training or held-out scenes are missing.
    """
    if training.all() or training.sum() < 2:
        return None
    tokens = np.concatenate([vision, text]).astype(np.float64)
    kind = np.repeat([0, 1], len(scenes))
    split, both = np.tile(training, 2), np.tile(scenes, 2)
    tokens -= tokens[split].mean(axis=0)
    size = float(np.square(tokens[split]).sum(axis=1).mean()) ** 0.5
    tokens /= size if size > 0 else 1.0
    model = RidgeClassifierCV(alphas=ALPHAS).fit(tokens[split], kind[split])
    right = (model.predict(tokens[~split]) == kind[~split]).astype(np.float64)
    return clustered_rate(right, both[~split], confidence)
