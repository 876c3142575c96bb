"""OpenMoji galleries: pairs of drawings that differ in skin tone, colour, direction, hair or gender, with questions.

Every pair has questions whose answer the factor must change ("which skin tone is shown?") and questions whose answer it must not
("what is this person doing?"). Drawings are symbols, not photographs: docs/reference/openmoji.md says what follows for conclusions.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import UInt8

from theodolite.records.errors import BadInput, UnknownName
from theodolite.worlds.gallery import TABLE, Gallery
from theodolite.worlds.openmoji.bases import FACTORS, Base, FactorBases, Member
from theodolite.worlds.openmoji.data import ATTRIBUTION, GRID, alpha_of, draw_emoji
from theodolite.worlds.openmoji.names import TONES, choices_beside, drawn_beside, sex_of, topic_of, wordings_of

# Pale, so that black outlines show, and not close to any skin tone.
GROUNDS = ((255, 255, 255), (214, 232, 247), (221, 240, 221), (233, 224, 245), (235, 235, 235))
MAX_SHIFT = 4  # in 72nds of the side; less where the drawing would be cropped
PICTURE = re.compile(r"(?P<hexcode>[0-9A-F-]+)_(?P<ground>[0-9a-f]{6})_(?P<right>-?\d+)_(?P<down>-?\d+)")

Ground = tuple[int, int, int]


@dataclass(frozen=True)
class _Place:
    """Nuisance of a picture: its ground colour, and the drawing's shift right and down in 72nds of the side."""

    ground: Ground
    right: int
    down: int

    def picture(self, member: Member) -> str:
        return picture_name(member.emoji.hexcode, self.ground, self.right, self.down)


@dataclass(frozen=True)
class _Question:
    """One query of a scene: two wordings and the order of its choices, which all rows of the scene share."""

    query: str
    wording: str
    other_wording: str
    choices: tuple[str, ...]


def openmoji_gallery(factor: str, num_scenes: int | None = None, seed: int = 0) -> Gallery:
    """The pairs of OpenMoji drawings that differ in one factor, with questions; deterministic given the seed.

    A scene is a base (see docs/reference/openmoji.md). `num_scenes` of them are drawn, or all for None; the rows of a scene
    do not depend on the number of scenes. Raises `UnknownName` for an unknown factor, `BadInput` where the package is not installed.
    """
    if factor not in FACTORS:
        raise UnknownName("factor of openmoji", factor, tuple(FACTORS))
    if num_scenes is not None and num_scenes < 1:
        raise BadInput(f"{num_scenes} scenes asked for; give 1 or more, or omit the number for all scenes")
    bases = FACTORS[factor]()
    key = [seed, zlib.crc32(factor.encode())]
    order = np.random.default_rng(key).permutation(len(bases.bases))
    scenes = sorted(int(k) for k in order[:num_scenes])
    rows = [row for number in scenes for row in _Scene.of(bases, number, key).rows()]
    return Gallery(
        name=f"openmoji:{factor}",
        kind=bases.kind,
        table=pl.DataFrame(rows, schema=dict(TABLE), orient="row"),
        render=render_openmoji,
        factors=(bases.factor,),
        attribution=ATTRIBUTION,
        left_out=bases.left_out,
    )


@dataclass(frozen=True)
class _Scene:
    """One base with its random choices: two places and its questions; `rng` continues their draws."""

    number: int
    factor: str
    base: Base
    place: _Place
    other_place: _Place
    questions: tuple[_Question, ...]
    rng: np.random.Generator

    @classmethod
    def of(cls, bases: FactorBases, number: int, key: Sequence[int]) -> _Scene:
        base, rng = bases.bases[number], np.random.default_rng([*key, number])
        place, other_place = _places(base, rng)
        questions = tuple(_question(query, bases, base, rng) for query in _queries(bases.factor.name, base))
        return cls(number, bases.factor.name, base, place, other_place, questions, rng)

    def rows(self) -> list[tuple[Any, ...]]:
        """Rows of its pairs, and of the noise floor of each query: nuisance and paraphrase rows of a few of its drawings."""
        rows = []
        for variant in self.base.variants:
            for pair in combinations(variant, 2):
                # In random order, so that no value is tied to "before".
                before, after = pair if self.rng.random() < 0.5 else pair[::-1]
                pictures = (self.place.picture(before), self.place.picture(after))
                for question in self.questions:
                    rows += self._row(question, before, after, question.wording, pictures)
        for member in _noise_members(self.base, self.rng):
            picture = self.place.picture(member)
            for question in self.questions:
                rows += self._row(question, member, member, question.wording, (picture, self.other_place.picture(member)))
                rows += self._row(question, member, member, question.other_wording, (picture, picture))
        return rows

    def _row(
        self, question: _Question, before: Member, after: Member, wording_after: str, pictures: tuple[str, str]
    ) -> list[tuple[Any, ...]]:
        """One row in the order of `TABLE`; none where the query cannot be asked of the drawings."""
        query = question.query
        truths = [_truth(query, self.factor, self.base, member) for member in (before, after)]
        if None in truths:
            return []
        change = (self.factor, before.value, after.value) if before != after else ("", None, None)
        texts = (question.wording, wording_after)
        return [(self.number, *change, query, "open", query, *texts, list(question.choices), *truths, *pictures)]


def _truth(query: str, factor: str, base: Base, member: Member) -> str | None:
    """The true answer to a query about a drawing; None where the query cannot be asked of it."""
    if query == factor:
        return member.value
    if query == "skin_tone":
        return TONES.get(member.emoji.skintone)
    if query == "gender":
        return sex_of(member.emoji)
    topic = topic_of(member.emoji)
    return base.thing or (topic[1] if topic is not None else None)


def _queries(factor: str, base: Base) -> list[str]:
    """Queries of a base: its factor, its topic, and gender where the tone changes, or the tone where hair or gender does."""
    first = base.variants[0][0]
    topic = topic_of(first.emoji)
    queries = [factor]
    if base.thing:
        queries.append("shown")
    elif topic is not None:
        queries.append(topic[0])
    if factor in ("hair", "gender"):
        queries.append("skin_tone")
    if factor == "skin_tone" and sex_of(first.emoji) is not None:
        queries.append("gender")
    return queries


def _question(query: str, bases: FactorBases, base: Base, rng: np.random.Generator) -> _Question:
    """A query in two random wordings, with its choices in random order."""
    first = base.variants[0][0]
    wordings = wordings_of(query, first.emoji, base.thing)
    one, other = (wordings[k] for k in rng.permutation(len(wordings))[:2])
    if query == "colour":
        choices = _colours(bases, base, rng)
    elif base.thing:
        things = [other_base.thing for other_base in bases.bases]
        choices = (base.thing, *drawn_beside(base.thing, things, (), rng))
    else:
        choices = choices_beside(query, _truth(query, bases.factor.name, base, first) or "", first.emoji.subgroup, rng)
    return _Question(query, one, other, tuple(choices[k] for k in rng.permutation(len(choices))))


def _colours(bases: FactorBases, base: Base, rng: np.random.Generator) -> tuple[str, ...]:
    """The colours of a base, filled up to four with random others."""
    own = tuple(member.value for member in base.variants[0])
    others = [colour for colour in bases.factor.values if colour not in own]
    return *own, *(others[k] for k in rng.permutation(len(others))[: max(0, 4 - len(own))])


def _noise_members(base: Base, rng: np.random.Generator) -> list[Member]:
    """Random drawings for the noise floor: one of each variant, or two where there is one variant."""
    if len(base.variants) > 1:
        return [variant[int(rng.integers(len(variant)))] for variant in base.variants]
    return [base.variants[0][k] for k in rng.permutation(len(base.variants[0]))[:2]]


def _places(base: Base, rng: np.random.Generator) -> tuple[_Place, _Place]:
    """Two places with different grounds and shifts that crop none of the base's drawings."""
    one, other = (GROUNDS[k] for k in rng.permutation(len(GROUNDS))[:2])
    shifts = _shifts(base)
    first, second = (shifts[k] for k in rng.permutation(len(shifts))[[0, -1]])
    return _Place(one, *first), _Place(other, *second)


def _shifts(base: Base) -> list[tuple[int, int]]:
    """Every shift, in 72nds of the side, that crops none of a base's drawings (except for the anti-aliased fringe of a line)."""
    members = [member for variant in base.variants for member in variant]
    if base.outline_is_shared:
        members = members[:1]
    inked = np.any([alpha_of(member.emoji.hexcode, GRID) > 0 for member in members], axis=0)
    rows, columns = np.flatnonzero(inked.any(axis=1)), np.flatnonzero(inked.any(axis=0))
    if not len(rows):
        raise BadInput(f"the drawing of {members[0].emoji.annotation!r} is empty; install the package again: theodolite fetch openmoji")
    rights, downs = (range(-min(MAX_SHIFT, int(line[0])), min(MAX_SHIFT, GRID - 1 - int(line[-1])) + 1) for line in (columns, rows))
    return [(right, down) for right in rights for down in downs]


def picture_name(hexcode: str, ground: Ground, right: int, down: int) -> str:
    """Name of a picture for `render_openmoji`: drawing, ground, shift right and down in 72nds of the side."""
    return f"{hexcode}_{bytes(ground).hex()}_{right}_{down}"


def render_openmoji(names: Sequence[str], size: int) -> UInt8[np.ndarray, "picture size size 3"]:
    """RGB pictures by names from `picture_name`. Raises `BadInput` on a malformed name or an unknown drawing."""
    hexcodes, grounds, shifts = [], [], []
    for name in names:
        match = PICTURE.fullmatch(name)
        if match is None:
            raise BadInput(f"{name!r} is not a picture name of OpenMoji; names look like {picture_name('1F44B', GROUNDS[1], 2, -1)}")
        hexcodes.append(match["hexcode"])
        red, green, blue = bytes.fromhex(match["ground"])
        grounds.append((red, green, blue))
        shifts.append((_pixels(int(match["right"]), size), _pixels(int(match["down"]), size)))
    return draw_emoji(hexcodes, size, grounds, shifts)


def _pixels(shift: int, size: int) -> int:
    """A shift in 72nds of the side as whole pixels, rounded half up, so that both pictures of a pair shift equally."""
    return (2 * shift * size + GRID) // (2 * GRID)
