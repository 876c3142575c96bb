"""Contents of the installed `easy-vqa` package: its questions as queries, its pictures, and factor levels derived from both.

The package has pictures, questions and answers but no annotations, so factors are derived once per process, on first use:
colour from the palette, shape from the questions (where they leave it open, from the fraction of its bounding box that the object
fills), place and size from the bounding box. Picture numbers: 0 to 3999 train, 4000 to 4999 test.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image

from theodolite.records.errors import BadInput
from theodolite.records.reading import read_json
from theodolite.worlds.factors import Factor, FactorSpace, UnknownName
from theodolite.worlds.query import Query, open_query, yes_no_query

SPLITS = {"train": range(4000), "test": range(4000, 5000)}
NUM_PICTURES = 5000
SIDE = 64

# In the order of the colour factor. No channel of a ground colour is below 230, so a ground is none of these.
PALETTE = {
    "black": (0, 0, 0),
    "gray": (128, 128, 128),
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "teal": (0, 128, 128),
    "brown": (165, 42, 42),
}
SPACE = FactorSpace(
    (
        Factor("shape", ("circle", "rectangle", "triangle")),
        Factor("colour", tuple(PALETTE), groups={"warm": ("red", "yellow", "brown"), "cold": ("green", "blue", "teal")}),
        # The package has no question about place or size: every picture has them, and no query can name them. Two levels
        # each: with more, too few test pictures have a counterpart that differs in one factor only.
        Factor("column", ("left", "right"), nameable=False),
        Factor("row", ("top", "bottom"), nameable=False),
        Factor("size", ("small", "large"), nameable=False),
    )
)

# Above the threshold (pixels) a factor has its second value. Each level holds 49 to 51 % of the 5000 pictures.
CENTRE = SIDE / 2  # centre of the bounding box
LARGE = 17.5  # square root of the bounding box's area
# Fraction of its bounding box that an object fills: rectangles 1, circles 49/72 (0.6806) to 0.81, triangles 0.50 to 17/25 (0.68).
# The narrow gap is between the smallest objects, whose shape the questions determine; no other fills between 0.60 and 0.74.
RECTANGLE_FILL, CIRCLE_FILL = 0.9, 0.6803

NEUTRAL_WORDINGS = {
    "shape": ("what shape is in the image?", "what shape does the image contain?", "what shape is present?"),
    "colour": ("what color is the shape?", "what is the color of the shape?"),
}
PRESUMING_WORDINGS = {
    ("shape", "colour"): ("what is the {value} shape?",),
    ("colour", "shape"): ("what color is the {value}?", "what is the color of the {value}?"),
}
PLAIN_WORDINGS = ("is there a {a}?", "is there a {a} in the image?", "does the image contain a {a}?", "is a {a} present?")
NEGATED_WORDINGS = ("is there not a {a}?", "is there not a {a} in the image?", "does the image not contain a {a}?", "is no {a} present?")
PHRASE = {"shape": "{value}", "colour": "{value} shape"}


@dataclass(frozen=True, eq=False)
class Questions:
    """Official questions, one per row: picture number (0 to 4999), text, answer text, and the name of the query that the text words."""

    picture: Int[np.ndarray, " question"]
    text: np.ndarray
    answer: np.ndarray
    query: np.ndarray

    def __len__(self) -> int:
        return len(self.picture)

    def take(self, index: np.ndarray) -> Questions:
        """Rows selected by position or by a boolean mask."""
        return Questions(self.picture[index], self.text[index], self.answer[index], self.query[index])


@dataclass(frozen=True, eq=False)
class MeasuredPictures:
    """Measurements of the object in each picture: colour level, fill (0 to 1), and x, y, side of its bounding box in pixels.

    x and y are the box's centre (0 to 64, from the left and from the top), side is the square root of its area.
    """

    colour: Int[np.ndarray, " picture"]
    fill: Float[np.ndarray, " picture"]
    box: Float[np.ndarray, "picture 3"]


@cache
def neutral_queries() -> dict[str, Query]:
    """The 24 queries without a presupposition: shape and colour, open, and yes/no for each value, plain and negated."""
    queries = []
    for name in SPACE.nameable:
        queries.append(open_query(SPACE, name, NEUTRAL_WORDINGS[name]))
        for value in SPACE[name].values:
            phrase = PHRASE[name].format(value=value)
            for negated, texts in ((False, PLAIN_WORDINGS), (True, NEGATED_WORDINGS)):
                wordings = [text.format(a=phrase) for text in texts]
                queries.append(yes_no_query(SPACE, name, value, wordings, negated=negated))
    return {query.name: query for query in queries}


@cache
def presuming_queries() -> dict[str, Query]:
    """The 11 open queries that mention the other factor's value, such as "shape@colour=blue": "what is the blue shape?".

    They are asked only of scenes that have that value, so they have no place in a survey of pairs: `do(colour=red)`
    makes the text false, and a changed answer would then show nothing about the model.
    """
    queries = []
    for (name, other), texts in PRESUMING_WORDINGS.items():
        for value in SPACE[other].values:
            query = open_query(SPACE, name, [text.format(value=value) for text in texts])
            queries.append(replace(query, name=f"{name}@{other}={value}"))
    return {query.name: query for query in queries}


def presumed(query: str) -> tuple[str, str] | None:
    """The (factor, value) that a query presupposes; None if it presupposes nothing."""
    _, at, condition = query.partition("@")
    factor, _, value = condition.partition("=")
    return (factor, value) if at else None


def package_folder() -> Path:
    """Folder of the installed easy-vqa package, which is not imported. Raises `ModuleNotFoundError`."""
    spec = find_spec("easy_vqa")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("the easy-vqa world reads its pictures from the package easy-vqa, which is missing: pip install easy-vqa")
    return Path(spec.submodule_search_locations[0])


@cache
def official_questions(split: str) -> Questions:
    """The package's own questions of a split, in its order: 38,575 train, 9,673 test. Raises `UnknownName`."""
    if split not in SPLITS:
        raise UnknownName("split", split, tuple(SPLITS))
    rows = read_json(package_folder() / "data" / split / "questions.json")
    name_of = {text: query.name for query in {**neutral_queries(), **presuming_queries()}.values() for text in query.wordings}
    unknown = sorted({text for text, _, _ in rows} - name_of.keys())
    if unknown:
        raise BadInput(f"the {split} questions contain {unknown[0]!r}, which is no question of easy-vqa 1.0; install that version")
    texts, answers, pictures = zip(*rows, strict=True)
    columns = (
        np.array(pictures, dtype=np.int64) + SPLITS[split].start,
        np.array(texts),
        np.array(answers),
        np.array([name_of[text] for text in texts]),
    )
    return Questions(*map(_frozen, columns))


@cache
def official_texts(query: str) -> Mapping[int, tuple[str, ...]]:
    """The texts in which the package asks a query of its train pictures, by picture number."""
    rows = official_questions("train")
    texts: dict[int, tuple[str, ...]] = {}
    for number in np.flatnonzero(rows.query == query):
        texts[int(rows.picture[number])] = (*texts.get(int(rows.picture[number]), ()), str(rows.text[number]))
    return texts


@cache
def read_pictures() -> UInt8[np.ndarray, "picture 64 64 3"]:
    """All 5000 pictures, RGB 0 to 255, train first; read-only (61 MB). Raises `BadInput` where some are missing."""
    pictures = np.empty((NUM_PICTURES, SIDE, SIDE, 3), dtype=np.uint8)
    for split, numbers in SPLITS.items():
        folder = package_folder() / "data" / split / "images"
        paths = sorted(folder.glob("*.png"), key=lambda path: int(path.stem))
        if [int(path.stem) for path in paths] != list(range(len(numbers))):
            raise BadInput(f"the package has {len(paths)} {split} pictures, not 0.png to {len(numbers) - 1}.png; install easy-vqa 1.0")
        for number, path in zip(numbers, paths, strict=True):
            with Image.open(path) as image:
                pictures[number] = np.asarray(image.convert("RGB"))
    return _frozen(pictures)


@cache
def measure_pictures() -> MeasuredPictures:
    """Colour, fill and bounding box of the one object in each picture, from its pixels of exact palette colour."""
    colours = np.array(list(PALETTE.values()), dtype=np.int32)
    paint = _packed(colours)
    chunks = [_measure_some(_packed(chunk), paint) for chunk in np.array_split(read_pictures(), 50)]
    colour, fill, box = (np.concatenate(column) for column in zip(*chunks, strict=True))
    return MeasuredPictures(_frozen(colour), _frozen(fill), _frozen(box))


def _packed(colours: np.ndarray) -> Int[np.ndarray, "*grid"]:
    """RGB colours packed into one integer each, so that equality takes one comparison."""
    red, green, blue = (colours[..., channel].astype(np.int32) for channel in range(3))
    return np.asarray(red << 16 | green << 8 | blue)


def _measure_some(
    codes: Int[np.ndarray, "picture 64 64"], paint: Int[np.ndarray, " colour"]
) -> tuple[Int[np.ndarray, " picture"], Float[np.ndarray, " picture"], Float[np.ndarray, "picture 3"]]:
    painted = np.stack([(codes == code).any(axis=(1, 2)) for code in paint], axis=1)
    wrong_counts = painted.sum(axis=1)[painted.sum(axis=1) != 1]
    if len(wrong_counts):
        raise BadInput(f"a picture has {wrong_counts[0]} palette colours; each of easy-vqa 1.0 has 1: install that version")
    colour = painted.argmax(axis=1)
    # Edges are anti-aliased; only pixels of exact palette colour count, so that box and fill need no threshold.
    full = codes == paint[colour][:, None, None]
    (left, right), (top, bottom) = _extent(full.any(axis=1)), _extent(full.any(axis=2))
    area = (right - left) * (bottom - top)
    box = np.stack([(left + right) / 2, (top + bottom) / 2, np.sqrt(area)], axis=1)
    return colour, full.sum(axis=(1, 2)) / area, box


def _extent(line: Bool[np.ndarray, "picture 64"]) -> tuple[Int[np.ndarray, " picture"], Int[np.ndarray, " picture"]]:
    """First and last True of each line as pixel edges: 0 to 63 and 1 to 64."""
    return line.argmax(axis=1), line.shape[1] - line[:, ::-1].argmax(axis=1)


@cache
def possible_levels(name: str) -> Bool[np.ndarray, "picture value"]:
    """Values of shape or colour that are consistent with the official answers about each picture."""
    possible = np.ones((NUM_PICTURES, len(SPACE[name].values)), dtype=bool)
    queries = {**neutral_queries(), **presuming_queries()}
    for split in SPLITS:
        questions = official_questions(split)
        for query in queries.values():
            rows = questions.take(questions.query == query.name)
            condition = presumed(query.name)
            if query.depends_on == (name,):
                answers = np.array([query.choices.index(answer) for answer in rows.answer], dtype=np.int64)
                # `at`, because a picture can be asked one query in several wordings.
                np.logical_and.at(possible, rows.picture, query.answers == answers[:, None])
            elif condition is not None and condition[0] == name:
                possible[rows.picture] &= np.arange(possible.shape[1]) == SPACE[name].level(condition[1])
    return _frozen(possible)


def shape_by_fill(fill: Float[np.ndarray, " picture"]) -> Int[np.ndarray, " picture"]:
    """Level of shape, estimated from the fraction of its bounding box that the object fills (0 to 1)."""
    rectangle, circle, triangle = (SPACE["shape"].level(name) for name in ("rectangle", "circle", "triangle"))
    return np.where(fill > RECTANGLE_FILL, rectangle, np.where(fill > CIRCLE_FILL, circle, triangle))


@cache
def derived_levels() -> Int[np.ndarray, "picture factor"]:
    """Level of every factor in each of the 5000 pictures. Raises `BadInput` where questions and pixels contradict each other."""
    measured, possible = measure_pictures(), possible_levels("shape")
    # Questions take precedence: they are the official labels, and fill is unreliable for objects of five pixels.
    shape = np.where(possible.sum(axis=1) == 1, possible.argmax(axis=1), shape_by_fill(measured.fill))
    for name, level in (("shape", shape), ("colour", measured.colour)):
        wrong = np.flatnonzero(~possible_levels(name)[np.arange(NUM_PICTURES), level])
        if len(wrong):
            value = SPACE[name].values[level[wrong[0]]]
            raise BadInput(f"picture {wrong[0]} looks {value}, which contradicts its questions; install easy-vqa 1.0")
    coarse = measured.box > np.array([CENTRE, CENTRE, LARGE])
    return _frozen(np.column_stack([shape, measured.colour, coarse]).astype(np.int16))


def _frozen(array: np.ndarray) -> np.ndarray:
    """The array, made read-only because cached results are shared by all callers."""
    array.flags.writeable = False
    return array
