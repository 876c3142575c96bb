"""The easy-vqa world: third-party pictures and questions, with factors but no renderer, hence matched pairs only.

A scene is a picture: its nuisance is the picture's number, and its levels are those of that picture. Training scenes are
selected from the 4000 train pictures; pairs are made of the 1000 test pictures, which training never uses.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image

from theodolite.records.errors import BadInput
from theodolite.worlds.easy_vqa.data import (
    NUM_PICTURES,
    SIDE,
    SPACE,
    SPLITS,
    Questions,
    derived_levels,
    measure_pictures,
    neutral_queries,
    official_questions,
    official_texts,
    presumed,
    presuming_queries,
    read_pictures,
)
from theodolite.worlds.factors import Scenes, UnknownName
from theodolite.worlds.prior import Prior
from theodolite.worlds.query import Policy, Query
from theodolite.worlds.world import OfficialSplit, Pairs, World

# The coordinate of the bounding box from which a factor is derived, and which changes with it.
BOX_COLUMN = {"column": 0, "row": 1, "size": 2}


class EasyVQA(World):
    """64 x 64 pictures of one object on a pale ground: 3 shapes, 8 colours; place and size have two levels and no query.

    `sample` selects pictures so that shape, colour and every correlated factor follow the prior. The other factors have the
    distribution of the pictures, close to uniform and independent; the largest deviation is that triangles are 37% of the
    small objects and 27% of the large ones.
    """

    name = "easy_vqa"
    default_correlation = ("shape", "colour")
    official_splits = tuple(SPLITS)

    def __init__(self, prior: Prior | None = None) -> None:
        self.prior = prior or Prior(SPACE)

    def correlate(self, cause: str, effect: str, strength: float) -> EasyVQA:
        return EasyVQA(self.prior.correlate(cause, effect, strength))

    def scenes(self, pictures: Int[np.ndarray, " picture"]) -> Scenes:
        """The scenes of pictures with these numbers, 0 to 4999. Raises `BadInput` on any other number."""
        numbers = np.asarray(pictures, dtype=np.int64)
        outside = numbers[(numbers < 0) | (numbers >= NUM_PICTURES)]
        if len(outside):
            raise BadInput(f"there is no picture {outside[0]}; easy-vqa has 0 to 3999 (train) and 4000 to 4999 (test)")
        return Scenes(self.space, derived_levels()[numbers], numbers)

    def sample(self, num_scenes: int, rng: np.random.Generator, *, eligible: Bool[np.ndarray, " train"] | None = None) -> Scenes:
        """Train pictures without replacement, shuffled, whose shapes and colours follow the prior's table up to rounding.

        `eligible` marks which of the 4000 train pictures may be used. Raises `BadInput` on more scenes than the rarest
        combination allows (see `max_scenes`).
        """
        most = self.max_scenes(eligible=eligible)
        if not 0 <= num_scenes <= most:
            raise BadInput(f"{num_scenes} scenes asked for; under this prior the train pictures allow 0 to {most}: ask for no more")
        cells, mask = self._cells(), _eligible_mask(eligible)
        pictures = []
        for cell, count in enumerate(_counts(self._table(), num_scenes)):
            pictures.append(rng.choice(np.flatnonzero(mask & (cells == cell)), size=count, replace=False))
        return self.scenes(rng.permutation(np.concatenate(pictures)))

    def sample_asked(self, num_scenes: int, policy: Policy, rng: np.random.Generator) -> Scenes:
        """Train pictures for which the package itself has every query of the policy. Raises `BadInput` if they are too few."""
        return self.sample(num_scenes, rng, eligible=self.asked_officially(policy))

    def asked_officially(self, policy: Policy) -> Bool[np.ndarray, " train"]:
        """Whether the package has every query of a policy for each train picture."""
        pictures = np.array(SPLITS["train"])
        eligible = np.ones(len(pictures), dtype=bool)
        for query in policy.queries:
            eligible &= np.isin(pictures, list(official_texts(query.name)))
        return eligible

    def wordings(self, query: Query, scenes: Scenes) -> Sequence[tuple[str, ...]]:
        """The package's own texts of a query for each picture; all wordings where it has none."""
        texts = official_texts(query.name)
        return [texts.get(int(picture), query.wordings) for picture in scenes.nuisance]

    def max_scenes(self, *, eligible: Bool[np.ndarray, " train"] | None = None) -> int:
        """Largest n such that `sample` can return any number of scenes up to n."""
        table = self._table()
        available = np.bincount(self._cells()[_eligible_mask(eligible)], minlength=len(table))
        needed = table > 0
        # Counts are at most rounded up, so this many are always available; rounding may allow a few more.
        most = int(np.floor((available[needed] / table[needed]).min() + 1e-9))
        while (_counts(table, most + 1) <= available).all():
            most += 1
        return most

    def _matched_factors(self) -> tuple[str, ...]:
        """The factors whose joint distribution `sample` matches to the prior."""
        return tuple(name for name in self.space.names if name in ("shape", "colour") or name in self.prior.correlated)

    def _table(self) -> Float[np.ndarray, " cell"]:
        # First factor fastest, so that the scenes left by rounding are spread over all shapes.
        return self.prior.table(self._matched_factors()).flatten(order="F")

    def _cells(self) -> Int[np.ndarray, " train"]:
        """The cell of the table for each train picture."""
        names = self._matched_factors()
        levels = derived_levels()[SPLITS["train"].start : SPLITS["train"].stop]
        columns = tuple(levels[:, self.space.index(name)] for name in names)
        return np.ravel_multi_index(columns, [len(self.space[name].values) for name in names], order="F")

    def render(self, scenes: Scenes, size: int | None = None) -> UInt8[np.ndarray, "scene size size 3"]:
        """The pictures of these scenes, RGB, resized bicubically where size is not 64. Raises `BadInput` on scenes without a picture."""
        changed = np.flatnonzero((self.scenes(scenes.nuisance).levels != scenes.levels).any(axis=1))
        if len(changed):
            first = int(changed[0])
            values, number = dict(scenes.scene(first).values), int(scenes.nuisance[first])
            real = dict(self.scenes(np.array([number])).scene(0).values)
            raise BadInput(
                f"picture {number} shows {real}, not {values}; these are real pictures, in which no factor can be set: "
                "use `pairs` instead of `do`"
            )
        pictures = read_pictures()[scenes.nuisance]
        return pictures if size is None or size == SIDE else _resized(pictures, size)

    def pairs(self, num_scenes: int, rng: np.random.Generator) -> Pairs:
        """Matched pairs of test pictures. Base scenes without a counterpart are left out, so factors can have fewer rows.

        Base scenes: `num_scenes` (up to 1000) different test pictures, with combinations of shape and colour as equal in number
        as possible. For every factor a target value is drawn uniformly from the others. The counterpart has that value, equals the
        base in all other factors, and is the nearest such picture by centre and side (root of area) of the bounding box, in pixels,
        ignoring the coordinate from which the factor is derived. Noise rows (factor ""): the nearest other picture with equal factors.
        `scene_id` is the number of the base scene, 0 to num_scenes - 1; the pool holds each picture once.
        """
        test = SPLITS["test"]
        if not 0 <= num_scenes <= len(test):
            raise BadInput(f"{num_scenes} base scenes asked for; there are {len(test)} test pictures: ask for 0 to {len(test)}")
        base = self._balanced_test_pictures(num_scenes, rng)
        rows: list[tuple[int, str, int, int]] = []
        for factor in (*self.space.names, ""):
            target = self.scenes(base)
            if factor:
                num_values = len(self.space[factor].values)
                step = rng.integers(1, num_values, size=num_scenes)
                target = target.do(factor, (target.of_factor(factor) + step) % num_values)
            for scene, (picture, levels) in enumerate(zip(base, target.levels, strict=True)):
                counterpart = _nearest_picture(int(picture), levels, factor, "test")
                if counterpart is not None:
                    rows.append((scene, factor, int(picture), counterpart))
        before = np.array([row[2] for row in rows], dtype=np.int64)
        after = np.array([row[3] for row in rows], dtype=np.int64)
        pool, position = np.unique(np.concatenate([before, after]), return_inverse=True)
        return Pairs(
            kind="matched",
            pool=self.scenes(pool),
            scene_id=np.array([row[0] for row in rows], dtype=np.int64),
            factor=tuple(row[1] for row in rows),
            before=position[: len(rows)],
            after=position[len(rows) :],
        )

    def counterparts(self, changed: Scenes, factor: Sequence[str]) -> tuple[Scenes, Bool[np.ndarray, " scene"]]:
        """The nearest train picture with these levels, as in `pairs`, for scenes of train pictures of which one factor was set."""
        rows = zip(changed.nuisance.tolist(), changed.levels, factor, strict=True)
        nearest = [_nearest_picture(picture, levels, name, "train") for picture, levels, name in rows]
        is_there = np.array([picture is not None for picture in nearest], dtype=bool)
        pictures = changed.nuisance.copy()
        pictures[is_there] = [picture for picture in nearest if picture is not None]
        return Scenes(self.space, changed.levels, pictures), is_there

    def _balanced_test_pictures(self, num_scenes: int, rng: np.random.Generator) -> Int[np.ndarray, " scene"]:
        """Test pictures drawn in rounds: one per round from every combination of shape and colour that has any left."""
        pictures = rng.permutation(np.array(SPLITS["test"]))
        shape, colour = (self.scenes(pictures).of_factor(name) for name in ("shape", "colour"))
        combination = shape.astype(np.int64) * len(self.space["colour"].values) + colour
        round_of = np.zeros(len(pictures), dtype=np.int64)
        for number in np.unique(combination):
            members = np.flatnonzero(combination == number)
            round_of[members] = np.arange(len(members))
        return pictures[np.argsort(round_of, kind="stable")][:num_scenes]

    @property
    def queries(self) -> tuple[Query, ...]:
        """The 24 queries that can be asked of every scene, without the 11 of `presuming_queries`."""
        return tuple(neutral_queries().values())

    @property
    def presuming_queries(self) -> tuple[Query, ...]:
        """Open queries that mention the other factor's value, for scenes that have it; never for pairs."""
        return tuple(presuming_queries().values())

    @property
    def texts(self) -> tuple[str, ...]:
        queries = (*self.queries, *self.presuming_queries)
        return tuple(text for query in queries for text in (*query.wordings, *query.choices))

    def query(self, name: str) -> Query:
        """A query by name: "shape", "colour=red", "colour!=red", "shape@colour=red". Raises `UnknownName`."""
        queries = {**neutral_queries(), **presuming_queries()}
        if name not in queries:
            raise UnknownName("query", name, tuple(queries))
        return queries[name]

    def policy(self, text: str) -> Policy:
        """A policy from text. Raises `BadInput` on a query with a presupposition, which no region of a policy can guarantee."""

        def neutral_query(name: str) -> Query:
            query = self.query(name)
            if presumed(query.name) is not None:
                raise BadInput(f"{name!r} can only be asked of scenes that have its value; a policy may ask {', '.join(neutral_queries())}")
            return query

        return Policy.parse(text, neutral_query)

    def official(self, split: str) -> Questions:
        """The package's own questions and answers of "train" or "test". Raises `UnknownName`."""
        return official_questions(split)

    def official_split(self, split: str) -> OfficialSplit:
        questions = self.official(split)
        pictures, scene = np.unique(questions.picture, return_inverse=True)
        texts = (tuple(column.tolist()) for column in (questions.text, questions.answer, questions.query))
        return OfficialSplit(self.scenes(pictures), scene, *texts)


def _eligible_mask(eligible: Bool[np.ndarray, " train"] | None) -> Bool[np.ndarray, " train"]:
    num_train = len(SPLITS["train"])
    if eligible is None:
        return np.ones(num_train, dtype=bool)
    if eligible.shape != (num_train,) or eligible.dtype != bool:
        actual = f"{eligible.dtype} of shape {eligible.shape}"
        raise BadInput(f"eligible is {actual}; give one boolean for each of the {num_train} train pictures")
    return eligible


def _counts(table: Float[np.ndarray, " cell"], num_scenes: int) -> Int[np.ndarray, " cell"]:
    """Number of scenes for each cell by largest remainders, ties to the first cell; sums to `num_scenes`."""
    exact = np.round(table * num_scenes, 9)  # float noise must not break ties
    counts = np.floor(exact).astype(np.int64)
    spare = num_scenes - int(counts.sum())
    counts[np.argsort(counts - exact, kind="stable")[:spare]] += 1
    return counts


def _nearest_picture(picture: int, levels: Int[np.ndarray, " factor"], factor: str, split: str) -> int | None:
    """The other picture of a split with these levels whose bounding box is nearest; None if there is no other."""
    start, stop = SPLITS[split].start, SPLITS[split].stop
    candidates = start + np.flatnonzero((derived_levels()[start:stop] == levels).all(axis=1))
    candidates = candidates[candidates != picture]
    if not len(candidates):
        return None
    offsets = measure_pictures().box[candidates] - measure_pictures().box[picture]
    if factor in BOX_COLUMN:
        offsets = np.delete(offsets, BOX_COLUMN[factor], axis=1)
    return int(candidates[(offsets**2).sum(axis=1).argmin()])


def _resized(pictures: UInt8[np.ndarray, "scene 64 64 3"], size: int) -> UInt8[np.ndarray, "scene size size 3"]:
    if size < 1:
        raise BadInput(f"size is {size}; give the side of the picture in pixels, 1 or more")
    resized = np.empty((len(pictures), size, size, 3), dtype=np.uint8)
    for row, picture in enumerate(pictures):
        resized[row] = np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.BICUBIC))
    return resized
