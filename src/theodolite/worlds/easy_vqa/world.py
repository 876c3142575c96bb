"""The easy-vqa world: third-party pictures and questions, with factors but no renderer, hence matched pairs only.

A scene is a picture: its nuisance is the picture's number, and its levels are what that picture shows. Training scenes are
chosen among the 4000 train pictures; pairs are made of the 1000 test pictures, which no training sees.
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
    measure,
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

# The coordinate of the bounding box that a factor is read from: free to change when that factor changes.
BOX_COLUMN = {"column": 0, "row": 1, "size": 2}


class EasyVQA(World):
    """64 x 64 pictures of one object on a pale ground: 3 shapes, 8 colours; place and size are coarse and in no query.

    The prior describes shape and colour (and any other factor that it ties): `sample` chooses pictures so that these follow
    it. The other factors come as the pictures have them, close to uniform and independent; the largest departure is that
    triangles are 37% of the small objects and 27% of the large ones.
    """

    name = "easy_vqa"
    default_correlation = ("shape", "colour")
    official_splits = tuple(SPLITS)

    def __init__(self, prior: Prior | None = None) -> None:
        self.prior = prior or Prior(SPACE)

    def correlate(self, cause: str, effect: str, strength: float) -> EasyVQA:
        return EasyVQA(self.prior.correlate(cause, effect, strength))

    def scenes(self, pictures: Int[np.ndarray, " picture"]) -> Scenes:
        """The scenes of pictures by number, 0 to 4999. Raises `BadInput` on any other number."""
        numbers = np.asarray(pictures, dtype=np.int64)
        outside = numbers[(numbers < 0) | (numbers >= NUM_PICTURES)]
        if len(outside):
            raise BadInput(f"there is no picture {outside[0]}; easy-vqa has 0 to 3999 (train) and 4000 to 4999 (test)")
        return Scenes(self.space, derived_levels()[numbers], numbers)

    def sample(self, num_scenes: int, rng: np.random.Generator, *, eligible: Bool[np.ndarray, " train"] | None = None) -> Scenes:
        """Train pictures, each at most once, shuffled, whose shapes and colours follow the prior's table up to rounding.

        `eligible` says which of the 4000 train pictures may be chosen. Raises `BadInput` on more scenes than the scarcest
        combination allows (see `max_scenes`).
        """
        most = self.max_scenes(eligible=eligible)
        if not 0 <= num_scenes <= most:
            raise BadInput(f"{num_scenes} scenes asked for; under this prior the train pictures allow 0 to {most}: ask for no more")
        cell, free = self._cells(), _eligible(eligible)
        chosen = []
        for number, count in enumerate(_counts(self._table(), num_scenes)):
            chosen.append(rng.choice(np.flatnonzero(free & (cell == number)), size=count, replace=False))
        return self.scenes(rng.permutation(np.concatenate(chosen)))

    def sample_asked(self, num_scenes: int, policy: Policy, rng: np.random.Generator) -> Scenes:
        """Train pictures of which the package itself asks every query of the policy. Raises `BadInput` if they are too few."""
        return self.sample(num_scenes, rng, eligible=self.asked_officially(policy))

    def asked_officially(self, policy: Policy) -> Bool[np.ndarray, " train"]:
        """Whether the package asks each train picture every query of a policy."""
        pictures = np.array(SPLITS["train"])
        eligible = np.ones(len(pictures), dtype=bool)
        for query in policy.queries:
            eligible &= np.isin(pictures, list(official_texts(query.name)))
        return eligible

    def wordings(self, query: Query, scenes: Scenes) -> Sequence[tuple[str, ...]]:
        """The texts in which the package asks a query of each picture; all of them where it does not."""
        texts = official_texts(query.name)
        return [texts.get(int(picture), query.wordings) for picture in scenes.nuisance]

    def max_scenes(self, *, eligible: Bool[np.ndarray, " train"] | None = None) -> int:
        """Largest n such that `sample` can give any number of scenes up to n."""
        table = self._table()
        available = np.bincount(self._cells()[_eligible(eligible)], minlength=len(table))
        needed = table > 0
        # Every count is at most rounded up, so this many are safe; rounding may allow a few more.
        most = int(np.floor((available[needed] / table[needed]).min() + 1e-9))
        while (_counts(table, most + 1) <= available).all():
            most += 1
        return most

    def _chosen_by(self) -> tuple[str, ...]:
        """The factors whose joint distribution `sample` keeps."""
        return tuple(name for name in self.space.names if name in ("shape", "colour") or name in self.prior.correlated)

    def _table(self) -> Float[np.ndarray, " cell"]:
        # First factor fastest: spare scenes, dealt in this order, then go to all shapes alike.
        return self.prior.table(self._chosen_by()).flatten(order="F")

    def _cells(self) -> Int[np.ndarray, " train"]:
        """Which cell of the table each train picture falls in."""
        names = self._chosen_by()
        levels = derived_levels()[SPLITS["train"].start : SPLITS["train"].stop]
        columns = tuple(levels[:, self.space.index(name)] for name in names)
        return np.ravel_multi_index(columns, [len(self.space[name].values) for name in names], order="F")

    def render(self, scenes: Scenes, size: int | None = None) -> UInt8[np.ndarray, "scene size size 3"]:
        """The pictures of these scenes, RGB, resized bicubically where size is not 64. Raises `BadInput` on a scene that is none."""
        strange = np.flatnonzero((self.scenes(scenes.nuisance).levels != scenes.levels).any(axis=1))
        if len(strange):
            first = int(strange[0])
            found, number = dict(scenes.scene(first).values), int(scenes.nuisance[first])
            real = dict(self.scenes(np.array([number])).scene(0).values)
            raise BadInput(
                f"picture {number} shows {real}, not {found}; these are real pictures, in which no factor can be set: "
                "use `pairs` instead of `do`"
            )
        pictures = read_pictures()[scenes.nuisance]
        return pictures if size is None or size == SIDE else _resized(pictures, size)

    def pairs(self, num_scenes: int, rng: np.random.Generator) -> Pairs:
        """Matched pairs of test pictures; a pair for which there is no partner is left out, so factors can have fewer rows.

        Base scenes: `num_scenes` (up to 1000) different test pictures, all combinations of shape and colour as equal in number
        as they can be. For every factor a target value is drawn uniformly from the others; the partner has it, equals the
        base in all other factors, and is the nearest such picture by centre and side (root of area) of the bounding box, in pixels,
        without the coordinate that the factor itself is read from. Noise rows (factor ""): nearest other picture equal in all.
        `scene_id` is the number of the base scene, 0 to num_scenes - 1; the pool holds each picture once.
        """
        test = SPLITS["test"]
        if not 0 <= num_scenes <= len(test):
            raise BadInput(f"{num_scenes} base scenes asked for; there are {len(test)} test pictures: ask for 0 to {len(test)}")
        base = self._balanced_test_pictures(num_scenes, rng)
        rows: list[tuple[int, str, int, int]] = []
        for factor in (*self.space.names, ""):
            wanted = self.scenes(base)
            if factor:
                num_values = len(self.space[factor].values)
                step = rng.integers(1, num_values, size=num_scenes)
                wanted = wanted.do(factor, (wanted.of_factor(factor) + step) % num_values)
            for scene, (picture, levels) in enumerate(zip(base, wanted.levels, strict=True)):
                partner = _nearest_test_picture(int(picture), levels, factor)
                if partner is not None:
                    rows.append((scene, factor, int(picture), partner))
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

    def _balanced_test_pictures(self, num_scenes: int, rng: np.random.Generator) -> Int[np.ndarray, " scene"]:
        """Dealt in rounds: each combination of shape and colour gives one picture a round for as long as it has any."""
        pictures = rng.permutation(np.array(SPLITS["test"]))
        shape, colour = (self.scenes(pictures).of_factor(name) for name in ("shape", "colour"))
        combination = shape.astype(np.int64) * len(self.space["colour"].values) + colour
        turn = np.zeros(len(pictures), dtype=np.int64)
        for number in np.unique(combination):
            members = np.flatnonzero(combination == number)
            turn[members] = np.arange(len(members))
        return pictures[np.argsort(turn, kind="stable")][:num_scenes]

    @property
    def queries(self) -> tuple[Query, ...]:
        """The 24 queries that can be asked of every scene. The 11 presuming ones are not among them: see `presuming_queries`."""
        return tuple(neutral_queries().values())

    @property
    def presuming_queries(self) -> tuple[Query, ...]:
        """Open queries that mention the other factor's value, for scenes in which it holds (see `askable`); never for pairs."""
        return tuple(presuming_queries().values())

    @property
    def texts(self) -> tuple[str, ...]:
        asked = (*self.queries, *self.presuming_queries)
        return tuple(text for query in asked for text in (*query.wordings, *query.choices))

    def query(self, name: str) -> Query:
        """A query by name: "shape", "colour=red", "colour!=red", "shape@colour=red". Raises `UnknownName`."""
        known = {**neutral_queries(), **presuming_queries()}
        if name not in known:
            raise UnknownName("query", name, tuple(known))
        return known[name]

    def policy(self, text: str) -> Policy:
        """A policy from text. Raises `BadInput` on a presuming query: no region of a policy says where its text is true."""

        def known(name: str) -> Query:
            found = self.query(name)
            if presumed(found.name) is not None:
                raise BadInput(f"{name!r} can only be asked where what it presumes holds; a policy may ask {', '.join(neutral_queries())}")
            return found

        return Policy.parse(text, known)

    def askable(self, query: str, scenes: Scenes) -> Bool[np.ndarray, " scene"]:
        """Whether what a query presumes holds in each scene: all True but for "shape@colour=red" and its like. Raises `UnknownName`."""
        condition = presumed(self.query(query).name)
        if condition is None:
            return np.ones(len(scenes), dtype=bool)
        factor, value = condition
        return np.asarray(scenes.of_factor(factor) == self.space[factor].level(value))

    def official(self, split: str) -> Questions:
        """The package's own questions and answers of "train" or "test". Raises `UnknownName`."""
        return official_questions(split)

    def official_split(self, split: str) -> OfficialSplit:
        found = self.official(split)
        pictures, scene = np.unique(found.picture, return_inverse=True)
        texts = (tuple(column.tolist()) for column in (found.text, found.answer, found.query))
        return OfficialSplit(self.scenes(pictures), scene, *texts)


def _eligible(eligible: Bool[np.ndarray, " train"] | None) -> Bool[np.ndarray, " train"]:
    num_train = len(SPLITS["train"])
    if eligible is None:
        return np.ones(num_train, dtype=bool)
    if eligible.shape != (num_train,) or eligible.dtype != bool:
        found = f"{eligible.dtype} of shape {eligible.shape}"
        raise BadInput(f"eligible is {found}; give one boolean for each of the {num_train} train pictures")
    return eligible


def _counts(table: Float[np.ndarray, " cell"], num_scenes: int) -> Int[np.ndarray, " cell"]:
    """How many of `num_scenes` go to each cell: largest remainders, the first cell first where they are equal."""
    exact = np.round(table * num_scenes, 9)  # else float noise would break ties
    counts = np.floor(exact).astype(np.int64)
    spare = num_scenes - int(counts.sum())
    counts[np.argsort(counts - exact, kind="stable")[:spare]] += 1
    return counts


def _nearest_test_picture(picture: int, levels: Int[np.ndarray, " factor"], factor: str) -> int | None:
    """The other test picture with just these levels whose bounding box is nearest, or None if there is no other."""
    start, stop = SPLITS["test"].start, SPLITS["test"].stop
    alike = start + np.flatnonzero((derived_levels()[start:stop] == levels).all(axis=1))
    alike = alike[alike != picture]
    if not len(alike):
        return None
    apart = measure().box[alike] - measure().box[picture]
    if factor in BOX_COLUMN:
        apart = np.delete(apart, BOX_COLUMN[factor], axis=1)
    return int(alike[(apart**2).sum(axis=1).argmin()])


def _resized(pictures: UInt8[np.ndarray, "scene 64 64 3"], size: int) -> UInt8[np.ndarray, "scene size size 3"]:
    if size < 1:
        raise BadInput(f"size is {size}; give the side of the picture in pixels, 1 or more")
    resized = np.empty((len(pictures), size, size, 3), dtype=np.uint8)
    for row, picture in enumerate(pictures):
        resized[row] = np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.BICUBIC))
    return resized
