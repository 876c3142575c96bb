"""Blind pairs of given vectors: the same list for every size of block, and that of comparing all pairs one by one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from theodolite.blind_pairs.search import BlindPairs, EncoderVectors, blind_pairs, nearest_pairs, neighbour_cosines, sample_cosines
from theodolite.records.errors import BadInput

Row = tuple[int, int, float, float]


def clusters(num: int, seed: int, dim: int = 12) -> np.ndarray:
    """Vectors in groups, some of them equal to the bit."""
    draw = np.random.default_rng(seed)
    centres = draw.normal(size=(max(num // 9, 2), dim))
    found = centres[draw.integers(len(centres), size=num)] + draw.choice([0.0, 0.15], size=(num, 1)) * draw.normal(size=(num, dim))
    return found.astype(np.float32)


def all_pairs(one: np.ndarray, other: np.ndarray) -> list[Row]:
    """Every pair with its cosines, by the definition."""

    def cos(vectors: np.ndarray, first: int, second: int) -> float:
        a, b = (vectors[at].astype(np.float64) for at in (first, second))
        return float(np.clip(np.round(a @ b / (np.sqrt(a @ a) * np.sqrt(b @ b)), 9), -1, 1))

    kept = [at for at in range(len(one)) if one[at].any() and other[at].any()]
    return [(a, b, cos(one, a, b), cos(other, a, b)) for at, a in enumerate(kept) for b in kept[at + 1 :]]


def by_margin(rows: list[Row], high: float, low: float) -> list[Row]:
    found = [row for row in rows if row[2] >= high and row[3] <= low]
    return sorted(found, key=lambda row: (-round(row[2] - row[3], 9), row[0], row[1]))


def listed(found: BlindPairs) -> list[Row]:
    return list(zip(*(column.tolist() for column in (found.first, found.second, found.same_cos, found.other_cos)), strict=True))


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("high", "low"), [(0.95, 0.6), (0.9, 0.2), (-1.0, 1.0)])
def test_the_list_is_that_of_comparing_all_pairs_for_every_block(seed: int, high: float, low: float) -> None:
    one, other = clusters(90, seed), clusters(90, seed + 100)
    one[17] = 0
    other[40] = 0
    rows = all_pairs(one, other)
    truth = by_margin(rows, high, low)
    assert len(truth) > 30
    for block in (7, 32, 89, 90, 1000):
        for most in (1, 25, 5000):
            found = blind_pairs(EncoderVectors(one), EncoderVectors(other), high=high, low=low, most=most, block=block)
            assert listed(found) == truth[:most], (block, most)
            counts = (len(rows), sum(row[2] >= high for row in rows), len(truth), 2)
            assert (found.num_compared, found.num_same, found.num_qualifying, found.num_zero) == counts
    assert listed(blind_pairs(EncoderVectors(one[:20]), EncoderVectors(other[:20]), high=high, low=low, block=1)) == [
        row for row in truth if row[1] < 20
    ]


def test_ties_go_by_index() -> None:
    """Two groups, equal within to the bit: all pairs across have the same margin."""
    one, other = np.ones((40, 3), np.float32), np.zeros((40, 2), np.float32)
    other[::2, 0], other[1::2, 1] = 2, 3
    across = [(a, b) for a in range(40) for b in range(a + 1, 40) if (a + b) % 2]
    for block in (3, 16, 64):
        found = blind_pairs(EncoderVectors(one), EncoderVectors(other), high=1.0, low=0.0, most=150, block=block)
        assert list(zip(found.first.tolist(), found.second.tolist(), strict=True)) == across[:150]
        assert (found.num_same, found.num_qualifying) == (780, 400)
        assert set(found.same_cos.tolist()) == {1.0} and set(found.other_cos.tolist()) == {0.0}


@pytest.mark.parametrize("per_picture", [1, 3])
def test_a_picture_occurs_only_so_often_and_the_best_pairs_come_first(per_picture: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("theodolite.blind_pairs.search.ROOM", 8)
    one, other = clusters(90, 5), clusters(90, 6)
    taken: list[Row] = []
    for row in by_margin(all_pairs(one, other), -1.0, 1.0):
        ends = [end for pair in taken for end in pair[:2]]
        if ends.count(row[0]) < per_picture and ends.count(row[1]) < per_picture:
            taken.append(row)
    passes = set()
    for block in (11, 64, 200):
        for most in (2, 40, 4000):
            found = blind_pairs(
                EncoderVectors(one), EncoderVectors(other), high=-1.0, low=1.0, most=most, block=block, per_picture=per_picture
            )
            assert listed(found) == taken[:most]
            passes.add(found.num_passes)
    assert len(taken) > 20 and (max(passes) > 1) == (per_picture == 1)


def test_the_nearest_pairs_are_those_that_miss_the_thresholds_by_least() -> None:
    one, other = clusters(70, 1), clusters(70, 2)

    def missed(row: Row) -> tuple[float, int, int]:
        return (round(max(0.99 - row[2], row[3] + 0.9), 9), row[0], row[1])

    truth = sorted(all_pairs(one, other), key=missed)[:6]
    for block in (5, 33, 70):
        assert listed(nearest_pairs(EncoderVectors(one), EncoderVectors(other), high=0.99, low=-0.9, most=6, block=block)) == truth


def test_vectors_are_read_from_disk_in_any_order(tmp_path: Path) -> None:
    one, other = clusters(60, 3), clusters(60, 4)
    order = np.random.default_rng(0).permutation(60)
    np.save(tmp_path / "one.npy", one[order])
    stored = EncoderVectors(np.load(tmp_path / "one.npy", mmap_mode="r"), np.argsort(order))
    seen: list[tuple[int, int]] = []
    found = blind_pairs(
        stored, EncoderVectors(other), high=0.8, low=0.5, block=16, progress=lambda done, total, note="": seen.append((done, total))
    )
    assert listed(found) == listed(blind_pairs(EncoderVectors(one), EncoderVectors(other), high=0.8, low=0.5))
    assert seen == [(done, 10) for done in range(1, 11)]


def test_samples_and_neighbours_are_cosines_of_real_pairs() -> None:
    one, other = clusters(50, 7), clusters(50, 8)
    one[3] = 0
    rows = all_pairs(one, other)
    a, b = sample_cosines(EncoderVectors(one), EncoderVectors(other), 4000)
    assert {*zip(a.tolist(), b.tolist(), strict=True)} <= {row[2:] for row in rows}
    assert abs(a.mean() - np.mean([row[2] for row in rows])) < 0.03  # about three standard errors
    near, there = neighbour_cosines(EncoderVectors(one), EncoderVectors(other), 50, block=9)
    best = [max(row[2] for row in rows if at in row[:2]) for at in range(50) if at != 3]
    assert near.tolist() == best and {*zip(near.tolist(), there.tolist(), strict=True)} <= {row[2:] for row in rows}


def test_what_has_no_cosine_is_refused_or_left_out() -> None:
    good = clusters(6, 0)
    broken = good.copy()
    broken[4, 2] = np.nan
    with pytest.raises(BadInput, match=r"the vector of cat\.png holds NaN or infinity \(1 such"):
        EncoderVectors(broken, name=lambda at: {4: "cat.png"}[at])
    with pytest.raises(BadInput, match="1 picture; a pair needs two"):
        blind_pairs(EncoderVectors(good[:1]), EncoderVectors(good[:1]))
    with pytest.raises(BadInput, match="one encoder has vectors of 6 pictures, the other of 5"):
        blind_pairs(EncoderVectors(good), EncoderVectors(good[:5]))
    with pytest.raises(BadInput, match=r"high 95\.0 and low 0\.6"):
        blind_pairs(EncoderVectors(good), EncoderVectors(good), high=95.0)
    empty = blind_pairs(EncoderVectors(np.zeros((5, 3), np.float32)), EncoderVectors(np.ones((5, 3), np.float32)), high=-1.0, low=1.0)
    assert (len(empty), empty.num_compared, empty.num_zero) == (0, 0, 5)


def test_pictures_alike_in_both_encoders_never_qualify() -> None:
    draw = np.random.default_rng(0)
    one = draw.normal(size=(8, 5)).astype(np.float32)
    one[1] = one[0] * 1.5
    found = blind_pairs(EncoderVectors(one), EncoderVectors(one), high=0.95, low=0.6)
    assert (len(found), found.num_same, found.num_qualifying) == (0, 1, 0)
