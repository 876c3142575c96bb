"""The modality gap: closed forms of centroids, chance without a gap, and a classifier that is not trained on held-out scenes."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from helpers.measure_contexts import array_context
from theodolite.measurement.internals.gap import measure_gap, scene_products, separability, site_gap
from theodolite.measurement.pairs.interventions import Interventions
from theodolite.records.gap import SiteGap
from theodolite.records.progress import silent


def tokens(shift: float, number: int = 120, dim: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vision tokens about shift on the first axis, text tokens about minus shift, and scenes of two pictures."""
    rng = np.random.default_rng(seed)
    at = shift * np.eye(1, dim)
    return rng.standard_normal((number, dim)) + at, rng.standard_normal((number, dim)) - at, np.arange(number) // 2


def gap(vision: np.ndarray, text: np.ndarray, scenes: np.ndarray, seed: int = 0) -> SiteGap:
    return site_gap(vision, text, scenes, scenes % 5 < 3, np.random.default_rng(seed), 0.9)


def test_distances_are_those_of_the_centroids() -> None:
    vision, text, scenes = tokens(0.8)
    site = gap(vision, text, scenes)
    one, other = vision.mean(axis=0), text.mean(axis=0)
    distance = np.linalg.norm(one - other)
    scale = np.sqrt(np.square(np.concatenate([vision, text])).sum(axis=1).mean())
    assert site.relative is not None and site.cosine is not None
    assert site.distance.value == pytest.approx(distance, abs=1e-6)
    assert site.relative.value == pytest.approx(distance / scale, abs=1e-6)
    assert site.cosine.value == pytest.approx(one @ other / np.linalg.norm(one) / np.linalg.norm(other), abs=1e-6)
    assert (site.distance.num_scenes, site.num_pictures) == (60, 120)
    assert site.distance.low is not None and site.distance.high is not None
    assert site.distance.low < distance < site.distance.high


def test_scaling_moves_the_distance_and_not_the_relative_one() -> None:
    vision, text, scenes = tokens(0.8)
    one, ten = gap(vision, text, scenes), gap(10 * vision, 10 * text, scenes)
    assert ten.distance.value == pytest.approx(10 * one.distance.value, rel=1e-5)
    assert (ten.relative, ten.cosine, ten.chance_relative) == (one.relative, one.cosine, one.chance_relative)


def test_a_scene_drawn_twice_weighs_twice() -> None:
    vision, text, _ = tokens(0.3, number=5)
    scenes = np.array([0, 0, 1, 2, 2])
    drawn = np.array([0, 1, 0, 1, 3, 4])
    centroids = scene_products(vision, text, scenes).centroids(np.array([2.0, 0.0, 1.0]))
    assert centroids["distance"] == pytest.approx(np.linalg.norm(vision[drawn].mean(axis=0) - text[drawn].mean(axis=0)))


def test_without_a_gap_distance_is_chance_and_nothing_is_separable() -> None:
    site = gap(*tokens(0.0, number=600))
    assert site.relative is not None and site.chance_relative is not None and site.separable is not None
    assert 0.4 < site.relative.value / site.chance_relative < 1.7
    assert site.separable.low is not None and site.separable.high is not None
    assert site.separable.low < 0.5 < site.separable.high
    wide = gap(*tokens(2.5))
    assert wide.relative is not None and wide.chance_relative is not None and wide.relative.value > 5 * wide.chance_relative


@pytest.mark.parametrize("dim", [6, 144, 600])
def test_far_kinds_are_separable_also_where_channels_outnumber_tokens(dim: int) -> None:
    vision, text, scenes = tokens(4.0, dim=dim)
    rate = separability(vision, text, scenes, scenes % 5 < 3, 0.9)
    assert rate is not None and rate.frac > 0.99 and (rate.num_pairs, rate.num_scenes) == (96, 24)


def test_the_classifier_is_scored_on_scenes_it_never_saw() -> None:
    """Kinds separated by a random sign of each scene: it can be memorised within a scene, and is worthless across scenes."""
    rng = np.random.default_rng(3)
    scenes = np.repeat(np.arange(40), 6)
    own = rng.standard_normal((40, 300))[scenes]
    rate = separability(own, -own, scenes, scenes % 2 == 0, 0.9)
    assert rate is not None and 0.3 < rate.frac < 0.7
    seen = separability(own, -own, scenes, np.arange(240) % 2 == 0, 0.9)
    assert seen is not None and seen.frac == 1.0


def test_what_cannot_be_had_is_missing() -> None:
    zeros = np.zeros((4, 3))
    nothing = gap(zeros, zeros, np.arange(4))
    assert (nothing.distance.value, nothing.relative, nothing.cosine, nothing.chance_relative) == (0, None, None, None)
    vision, text, _ = tokens(1.0, number=4)
    alone = gap(vision, text, np.zeros(4, dtype=np.int64))
    assert alone.distance.low is None and alone.separable is None


def test_the_measure_leaves_out_the_encoder_and_repeats_to_the_byte() -> None:
    vision, text, scenes = tokens(1.0)
    level = np.zeros(60, dtype=np.int64)
    change = Interventions("a", ("x", "y"), np.arange(0, 120, 2), np.arange(1, 120, 2), level, level + 1, scenes[::2])
    activations = SimpleNamespace(sites=("encoder", "connector", "layer.1"), one_vision=lambda site: vision, one_text=lambda site: text)
    context = array_context(
        interventions={"a": change}, activations=activations, rng=lambda name: np.random.default_rng(sum(map(ord, name))), progress=silent
    )
    record, again = measure_gap(context), measure_gap(context)
    assert record is not None and again is not None and record.model_dump_json() == again.model_dump_json()
    assert tuple(record.sites) == ("connector", "layer.1")
    assert record.sites["connector"].num_pictures == 120
    context.activations = SimpleNamespace(sites=("encoder",))
    assert measure_gap(context) is None
