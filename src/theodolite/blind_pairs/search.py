"""Blind pairs: pictures with similar vectors in one encoder and dissimilar vectors in another (MMVP, arXiv 2401.06209, section 2.1).

All pairs are compared in float32, block against block, which only selects candidates. Qualification and rank depend on cosines in
float64, rounded to nine decimals, so that results depend neither on block size nor on the order of sums in a matrix product.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from theodolite.records.errors import BadInput
from theodolite.records.progress import Progress, silent

DECIMALS = 9  # stored vectors are float32, so further decimals are noise
CHUNK = 4_096  # pairs or vectors computed in float64 at once
ROOM = 4_096  # least number of pairs kept per pass where pairs per picture are limited

Pairs = Int[np.ndarray, " pair"]
Cosines = Float[np.ndarray, " pair"]


@dataclass(frozen=True, eq=False)
class BlindPairs:
    """Pairs of pictures (first < second, by index), best first, with their cosines in both encoders, -1 to 1.

    `num_same` of `num_compared` pairs have a cosine of at least `high` in the first encoder; `num_qualifying` of these have at most `low`
    in the other, which can be more than are listed. `num_zero` pictures have a zero vector, hence no cosine, and are in no pair.
    """

    first: Pairs
    second: Pairs
    same_cos: Cosines
    other_cos: Cosines
    num_compared: int
    num_same: int
    num_qualifying: int
    num_zero: int
    num_passes: int = 1

    def __len__(self) -> int:
        return len(self.first)


class EncoderVectors:
    """Vectors of one encoder, one per picture: `stored[rows]`, or all of `stored`. Memory-mapped vectors stay on disk.

    Raises `BadInput` on a non-finite vector, with the name of its picture.
    """

    def __init__(
        self,
        stored: Float[np.ndarray, "row dim"],
        rows: Int[np.ndarray, " picture"] | None = None,
        name: Callable[[int], str] = "picture {}".format,
    ) -> None:
        self.stored = stored
        self.rows = np.arange(len(stored)) if rows is None else rows
        # Twice the bound on the float32 rounding error of a dot product of unit vectors, for any order of summation.
        self.slack = (stored.shape[1] + 8) * 2.0**-23 + 10.0**-DECIMALS
        self.norms = np.empty(len(self))
        for start in range(0, len(self), CHUNK):
            vectors = self.exact(np.arange(start, min(start + CHUNK, len(self))))
            with np.errstate(over="ignore", invalid="ignore"):
                self.norms[start : start + CHUNK] = np.sqrt((vectors * vectors).sum(axis=1))
        broken = np.flatnonzero(~np.isfinite(self.norms))
        if len(broken):
            raise BadInput(
                f"the vector of {name(int(broken[0]))} holds NaN or infinity ({len(broken)} such vectors in all); remove the pictures, "
                "or embed them in float32"
            )

    def __len__(self) -> int:
        return len(self.rows)

    def exact(self, pictures: Int[np.ndarray, " picture"]) -> Float[np.ndarray, "picture dim"]:
        """Unnormalised vectors of these pictures in float64."""
        return np.asarray(self.stored[self.rows[pictures]], dtype=np.float64)

    def units(self, start: int, stop: int) -> Float[np.ndarray, "picture dim"]:
        """Unit vectors of a block of pictures in float32; zero vectors stay zero."""
        norms = self.norms[start:stop, None]
        return (self.exact(np.arange(start, stop)) / np.where(norms > 0, norms, 1)).astype(np.float32)

    def cosines(self, first: Pairs, second: Pairs) -> Cosines:
        """Cosines of pairs of pictures, -1 to 1, rounded to nine decimals."""
        cosines = np.empty(len(first))
        for start in range(0, len(first), CHUNK):
            one, two = first[start : start + CHUNK], second[start : start + CHUNK]
            cosines[start : start + CHUNK] = (self.exact(one) * self.exact(two)).sum(axis=1) / (self.norms[one] * self.norms[two])
        return np.clip(np.round(cosines, DECIMALS), -1, 1)


def blind_pairs(
    one: EncoderVectors,
    other: EncoderVectors,
    *,
    high: float = 0.95,
    low: float = 0.6,
    most: int = 1000,
    block: int = 2048,
    per_picture: int | None = None,
    progress: Progress = silent,
) -> BlindPairs:
    """The `most` pairs of largest cos(one) - cos(other) among those with cos(one) >= high and cos(other) <= low; ties by index.

    With `per_picture`, pairs are selected in that order, and each picture at most so often. That can take further passes, which skip
    pictures at their limit. Memory is O(block^2 + block dim + most), plus some bytes per picture.

    Raises `BadInput` on fewer than two pictures, different numbers of them, and thresholds outside -1 to 1.
    """
    _check(one, other, most, block, per_picture)
    if not (-1 <= high <= 1 and -1 <= low <= 1):
        raise BadInput(f"thresholds are cosines, -1 to 1; found high {high} and low {low}")
    usable = (one.norms > 0) & (other.norms > 0)
    limit = len(one) if per_picture is None else per_picture
    search = _Search(one, other, block, progress, high, low, lambda a, b: np.subtract(a, b), lambda floor: -2.0)
    room = most if per_picture is None else max(4 * most, ROOM)
    best = search.run(room, usable)
    counts = (best.num_same, best.num_qualifying)
    uses = np.zeros(len(one), dtype=np.int64)
    selected = [_select(best.table, uses, limit, most)]
    while best.is_full and sum(map(len, selected)) < most:
        best = search.run(room, usable & (uses < limit), best.last)
        selected.append(_select(best.table, uses, limit, most - sum(map(len, selected))))
    return _result(np.concatenate(selected), usable, counts, search.num_passes)


def nearest_pairs(
    one: EncoderVectors,
    other: EncoderVectors,
    *,
    high: float = 0.95,
    low: float = 0.6,
    most: int = 5,
    block: int = 2048,
    progress: Progress = silent,
) -> BlindPairs:
    """The pairs nearest to the thresholds, for where none qualifies: smallest max(high - cos(one), cos(other) - low); ties by index.

    Raises as `blind_pairs` does.
    """
    _check(one, other, most, block, None)
    usable = (one.norms > 0) & (other.norms > 0)
    search = _Search(one, other, block, progress, -2.0, 2.0, lambda a, b: np.minimum(a - high, low - b), lambda floor: high + floor)
    return _result(search.run(most, usable).table, usable, (0, 0), 1)


def sample_cosines(one: EncoderVectors, other: EncoderVectors, num: int, seed: int = 0) -> tuple[Cosines, Cosines]:
    """Cosines in both encoders of `num` random pairs of different pictures, with replacement, without zero vectors."""
    usable = np.flatnonzero((one.norms > 0) & (other.norms > 0))
    if len(usable) < 2:
        return np.empty(0), np.empty(0)
    rng = np.random.default_rng(seed)
    first = rng.integers(len(usable), size=num)
    second = (first + rng.integers(1, len(usable), size=num)) % len(usable)
    return one.cosines(usable[first], usable[second]), other.cosines(usable[first], usable[second])


def neighbour_cosines(one: EncoderVectors, other: EncoderVectors, num: int, seed: int = 0, block: int = 2048) -> tuple[Cosines, Cosines]:
    """For at most `num` random pictures, the cosine to the nearest picture in `one`, and the cosine of the same two in `other`."""
    usable = np.flatnonzero((one.norms > 0) & (other.norms > 0))
    if len(usable) < 2:
        return np.empty(0), np.empty(0)
    chosen = np.sort(np.random.default_rng(seed).permutation(usable)[:num])
    units = np.concatenate([one.units(picture, picture + 1) for picture in chosen.tolist()])
    best, nearest = np.full(len(chosen), -np.inf), np.zeros(len(chosen), dtype=np.int64)
    for start in range(0, len(one), block):
        stop = min(start + block, len(one))
        cosines = units @ one.units(start, stop).T
        cosines[:, (other.norms[start:stop] == 0) | (one.norms[start:stop] == 0)] = -np.inf
        inside = np.flatnonzero((chosen >= start) & (chosen < stop))
        cosines[inside, chosen[inside] - start] = -np.inf
        column = cosines.argmax(axis=1)
        value = cosines[np.arange(len(chosen)), column]
        nearest = np.where(value > best, start + column, nearest)
        best = np.maximum(best, value)
    return one.cosines(chosen, nearest), other.cosines(chosen, nearest)


TABLE = np.dtype([("score", "f8"), ("first", "i8"), ("second", "i8"), ("same_cos", "f8"), ("other_cos", "f8")])
Table = Shaped[np.ndarray, " pair"]
Key = tuple[float, int, int]


@dataclass
class _Best:
    """The best pairs so far, at most `room` of them after `cut`."""

    room: int
    table: Table = field(default_factory=lambda: np.empty(0, TABLE))
    floor: float = -np.inf  # pairs with a lower score are dropped
    num_same: int = 0
    num_qualifying: int = 0

    def add(self, pairs: Table) -> None:
        self.table = np.concatenate([self.table, pairs])
        if len(self.table) >= self.room * (2 if self.is_full else 1):
            self.cut()

    def cut(self) -> None:
        order = np.lexsort((self.table["second"], self.table["first"], -self.table["score"]))[: self.room]
        self.table = self.table[order]
        if len(order) == self.room:
            self.floor = float(self.table["score"][-1])

    @property
    def is_full(self) -> bool:
        """Whether pairs may have been dropped for lack of room."""
        return self.floor > -np.inf

    @property
    def last(self) -> Key:
        end = self.table[-1]
        return float(end["score"]), int(end["first"]), int(end["second"])


@dataclass
class _Search:
    """One or more passes over all pairs for those with the best score, a function of their two cosines."""

    one: EncoderVectors
    other: EncoderVectors
    block: int
    progress: Progress
    high: float
    low: float
    score: Callable[[np.ndarray, np.ndarray], np.ndarray]
    # The smallest cosine in `one` with which a score can reach a floor.
    needed: Callable[[float], float]
    num_passes: int = 0

    def run(self, room: int, usable: Bool[np.ndarray, " picture"], after: Key | None = None) -> _Best:
        """The best pairs of usable pictures, only those that rank after the pair `after` of an earlier pass."""
        best = _Best(room)
        starts = range(0, len(self.one), self.block)
        total = len(starts) * (len(starts) + 1) // 2
        done, before = 0, total * self.num_passes
        self.num_passes += 1
        for start in starts:
            stop = min(start + self.block, len(self.one))
            rows_units = self.one.units(start, stop)
            for begin in range(start, len(self.one), self.block):
                end = min(begin + self.block, len(self.one))
                cosines = rows_units @ self.one.units(begin, end).T
                possible = cosines >= max(self.high, self.needed(best.floor)) - self.one.slack
                possible &= usable[start:stop, None] & usable[None, begin:end]
                if begin == start:
                    possible = np.triu(possible, 1)
                if np.count_nonzero(possible) > 4 * self.block:
                    possible = self._candidates(cosines, possible, (start, stop, begin, end), best, after)
                rows, columns = np.nonzero(possible)
                self._decide(rows + start, columns + begin, best, after)
                done += 1
                self.progress(before + done, before + total)
        best.cut()
        return best

    def _candidates(
        self,
        one: Float[np.ndarray, "row column"],
        possible: Bool[np.ndarray, "row column"],
        block: tuple[int, int, int, int],
        best: _Best,
        after: Key | None,
    ) -> Bool[np.ndarray, "row column"]:
        """The possible pairs that need float64: those too close to a threshold for float32, and those that may be among the best.

        The others are only counted.
        """
        start, stop, begin, end = block
        other = self.other.units(start, stop) @ self.other.units(begin, end).T
        slack = self.one.slack + self.other.slack
        score = self.score(one, other)
        different = possible & (other <= self.low + self.other.slack)
        unsure = possible & (one < self.high + self.one.slack)
        unsure |= different & (other > self.low - self.other.slack)
        ceiling = np.inf if after is None else after[0]
        floor = best.floor
        sure = score[different & ~unsure & (score < ceiling - slack)]
        if len(sure) > best.room:
            # At least `room` pairs of this block certainly score this much, less the slack.
            floor = max(floor, float(np.partition(sure, -best.room)[-best.room]) - slack)
        candidates: Bool[np.ndarray, "row column"] = unsure | (different & (score >= floor - slack) & (score <= ceiling + slack))
        best.num_same += int(np.count_nonzero(possible & ~candidates))
        best.num_qualifying += int(np.count_nonzero(different & ~candidates))
        return candidates

    def _decide(self, first: Pairs, second: Pairs, best: _Best, after: Key | None) -> None:
        """Computes pairs in float64, in chunks, and adds those that qualify to `best`."""
        for start in range(0, len(first), 16 * CHUNK):
            pairs = np.empty(len(first[start : start + 16 * CHUNK]), TABLE)
            pairs["first"], pairs["second"] = first[start : start + 16 * CHUNK], second[start : start + 16 * CHUNK]
            pairs["same_cos"] = self.one.cosines(pairs["first"], pairs["second"])
            pairs = pairs[pairs["same_cos"] >= self.high]
            best.num_same += len(pairs)
            pairs["other_cos"] = self.other.cosines(pairs["first"], pairs["second"])
            pairs = pairs[pairs["other_cos"] <= self.low]
            best.num_qualifying += len(pairs)
            pairs["score"] = np.round(self.score(pairs["same_cos"], pairs["other_cos"]), DECIMALS)
            if after is not None:
                pairs = pairs[_ranks_after(pairs, after)]
            best.add(pairs[pairs["score"] >= best.floor])


def _ranks_after(pairs: Table, last: Key) -> Bool[np.ndarray, " pair"]:
    score, first, second = last
    later = (pairs["first"] > first) | ((pairs["first"] == first) & (pairs["second"] > second))
    return np.asarray((pairs["score"] < score) | ((pairs["score"] == score) & later))


def _select(
    table: Shaped[np.ndarray, " pair"], uses: Int[np.ndarray, " picture"], limit: int, most: int
) -> Shaped[np.ndarray, " selected"]:
    """The first `most` pairs in order, each picture at most `limit` times; `uses` counts how often, across calls."""
    rows: list[int] = []
    for row, pair in enumerate(table[["first", "second"]].tolist()):
        if len(rows) == most:
            break
        if (uses[list(pair)] < limit).all():
            uses[list(pair)] += 1
            rows.append(row)
    return table[rows]


def _result(table: Table, usable: Bool[np.ndarray, " picture"], counts: tuple[int, int], num_passes: int) -> BlindPairs:
    number = int(usable.sum())
    return BlindPairs(
        first=table["first"],
        second=table["second"],
        same_cos=table["same_cos"],
        other_cos=table["other_cos"],
        num_compared=number * (number - 1) // 2,
        num_same=counts[0],
        num_qualifying=counts[1],
        num_zero=len(usable) - number,
        num_passes=num_passes,
    )


def _check(one: EncoderVectors, other: EncoderVectors, most: int, block: int, per_picture: int | None) -> None:
    if len(one) != len(other):
        raise BadInput(f"one encoder has vectors of {len(one)} pictures, the other of {len(other)}; embed the same pictures with both")
    if len(one) < 2:
        raise BadInput(f"there is {len(one)} picture; a pair needs two")
    if min(most, block, 1 if per_picture is None else per_picture) < 1:
        raise BadInput(f"most, block and per_picture must be at least 1; found {most}, {block} and {per_picture}")
