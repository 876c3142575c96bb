"""Counterfactuals in the package `openmoji`: for each factor its bases, sets of drawings that differ in that factor only."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from theodolite.worlds.factors import Factor
from theodolite.worlds.openmoji.data import GRID, Emoji, alpha_of, by_hexcode, draw_emoji, drawing_text, entries
from theodolite.worlds.openmoji.names import COLOURS, HAIRS, SEXES, SIDES, TONES, details_of, head_of, sex_of
from theodolite.worlds.world import PairKind

MAX_CHANGED_FRAC = 0.05
"""Man and woman: the largest fraction of 72 x 72 pixels in which the two drawings of a pair may differ."""
MAX_OPACITY_CHANGE = 64
"""Colour: the largest difference in opacity (0 to 255) of any of 72 x 72 pixels. Beyond it, drawings have different outlines."""

FACING_RIGHT = "-200D-27A1-FE0F"  # ending of the hexcode of a drawing that faces right


@dataclass(frozen=True)
class Member:
    """One drawing of a base, and its value of the factor."""

    value: str
    emoji: Emoji


@dataclass(frozen=True)
class Base:
    """One subject that is drawn with several values of a factor: the unit of independence.

    Each of `variants` is a set of drawings that differ in the factor only; variants of one base differ in skin tone.
    `thing` is its name in questions about colour.
    """

    variants: tuple[tuple[Member, ...], ...]
    thing: str = ""
    outline_is_shared: bool = False  # all drawings are opaque in the same pixels

    @property
    def num_pairs(self) -> int:
        return sum(len(variant) * (len(variant) - 1) // 2 for variant in self.variants)


@dataclass(frozen=True)
class FactorBases:
    """All bases of a factor, in the package's order, and the number of pairs or drawings left out, by reason."""

    factor: Factor
    kind: PairKind
    bases: tuple[Base, ...]
    left_out: Mapping[str, int]


def skin_tone_bases() -> FactorBases:
    """Subjects drawn in all five skin tones. Many heads also change the colour of their hair: see `skin_tone_alone_bases`."""
    toned: dict[str, dict[str, Emoji]] = {}
    of_two: set[str] = set()
    for emoji in entries():
        if emoji.skintone in TONES:
            toned.setdefault(emoji.skintone_base_hexcode, {})[emoji.skintone] = emoji
        elif emoji.skintone:
            of_two.add(emoji.hexcode)
    complete = [tones for tones in toned.values() if len(tones) == len(TONES)]
    bases = tuple(Base((tuple(Member(TONES[tone], tones[tone]) for tone in TONES),), outline_is_shared=True) for tones in complete)
    left_out = {"drawings of two people of different skin tones": len(of_two), "bases without all five tones": len(toned) - len(complete)}
    return FactorBases(_SKIN_TONE, "exact", bases, _nonzero(left_out))


def skin_tone_alone_bases() -> FactorBases:
    """Bases in which skin tone changes only the skin; most heads of the package change the colour of their hair with the tone."""
    skin_tone = skin_tone_bases()
    bases = tuple(base for base in skin_tone.bases if _only_skin_changes(base))
    num_dropped = sum(base.num_pairs for base in skin_tone.bases) - sum(base.num_pairs for base in bases)
    left_out = {**skin_tone.left_out, "pairs whose hair changes colour with the skin": num_dropped}
    return FactorBases(_SKIN_TONE, "exact", bases, _nonzero(left_out))


# The package's colours of skin and of its shadow, from light to dark (data/color-palette.json).
_SKIN = ("#fadcbc", "#debb90", "#c19a65", "#a57939", "#6a462f")
_SHADOW = ("#debb90", "#c19a65", "#a57939", "#6a462f", "#352318")


def _only_skin_changes(base: Base) -> bool:
    """Whether the SVG texts are equal after skin colours are masked. Compares the two lightest tones only: hair differs between
    them, and the browns of darker skins are also used for props."""
    texts = set()
    for member, skin, shadow in list(zip(base.variants[0], _SKIN, _SHADOW, strict=True))[:2]:
        text = drawing_text(member.emoji.hexcode).lower()
        texts.add(re.sub("|".join((skin, shadow)), "skin", text))
    return len(texts) == 1


def direction_bases() -> FactorBases:
    """People drawn facing left and, mirrored, facing right, in every skin tone and without one."""
    by_code = by_hexcode()
    bases: dict[str, list[tuple[Member, ...]]] = {}
    left_out: Counter[str] = Counter()
    for right in entries():
        if not right.hexcode.endswith(FACING_RIGHT):
            continue
        stem = right.hexcode.removesuffix(FACING_RIGHT)
        left = by_code.get(stem) or by_code.get(f"{stem}-FE0F")
        if left is None:
            left_out["drawings that face right and have no other side"] += 1
        elif "cane" in right.annotation:
            left_out["pairs in which only the cane changes sides (the body faces the viewer)"] += 1
        else:
            pair = (Member(SIDES[0], left), Member(SIDES[1], right))
            bases.setdefault(right.skintone_base_hexcode or right.hexcode, []).append(pair)
    return FactorBases(Factor("direction", SIDES), "exact", tuple(Base(tuple(variants)) for variants in bases.values()), _nonzero(left_out))


def hair_bases() -> FactorBases:
    """Heads with up to five kinds of hair; a base is a man, a woman or a person, with one skin tone or none."""
    heads: dict[tuple[str, str], list[Member]] = {}
    left_out: Counter[str] = Counter()
    for emoji in entries():
        details = details_of(emoji)
        if emoji.subgroup == "person" and details and details[0] in HAIRS:
            heads.setdefault((head_of(emoji), emoji.skintone), []).append(Member(HAIRS[details[0]], emoji))
    bases = []
    for (_, tone), members in heads.items():
        # Curls are orange on heads without tone and blond on heads of tone 2: two answers would be right.
        unambiguous = tuple(member for member in members if not (member.value == "curly hair" and tone in ("", "2")))
        left_out["pairs with curls that are also blond or red"] += _num_pairs(len(members)) - _num_pairs(len(unambiguous))
        if len(unambiguous) > 1:
            bases.append(Base((unambiguous,)))
    return FactorBases(Factor("hair", tuple(HAIRS.values())), "matched", tuple(bases), _nonzero(left_out))


def gender_bases() -> FactorBases:
    """A man and a woman of the same name otherwise, in drawings that differ in at most `MAX_CHANGED_FRAC` of 72 x 72 pixels."""
    by_name: dict[str, dict[str, dict[str, Emoji]]] = {}
    for emoji in entries():
        sex = sex_of(emoji)
        if sex is not None:
            name = " ".join((head_of(emoji).replace(sex, "*", 1), *details_of(emoji)))
            by_name.setdefault(name, {}).setdefault(emoji.skintone, {})[sex] = emoji
    bases = []
    left_out: Counter[str] = Counter()
    for tones in by_name.values():
        variants = []
        for pair in tones.values():
            if len(pair) < len(SEXES):
                left_out["drawings of a man or a woman without the other"] += 1
            elif changed_frac(pair["man"].hexcode, pair["woman"].hexcode) > MAX_CHANGED_FRAC:
                left_out[f"pairs that differ in more than {MAX_CHANGED_FRAC:.0%} of the pixels"] += 1
            else:
                variants.append(tuple(Member(sex, pair[sex]) for sex in SEXES))
        if variants:
            bases.append(Base(tuple(variants)))
    return FactorBases(Factor("gender", SEXES), "matched", tuple(bases), _nonzero(left_out))


def colour_bases() -> FactorBases:
    """Things drawn in several colours with one outline (see `MAX_OPACITY_CHANGE`): hearts, circles, squares, jars and the like."""
    things: dict[str, list[Member]] = {}
    left_out: Counter[str] = Counter()
    for emoji in entries():
        if emoji.group in ("people-body", "component") or emoji.skintone:
            continue
        # Only hearts have "light blue", beside a dark "blue": neither would be the only right answer.
        match = re.search(rf"\b({'|'.join(COLOURS)})\b", emoji.annotation)
        if match is None or "light blue" in emoji.annotation:
            continue
        rest = f"{emoji.annotation[: match.start()]}*{emoji.annotation[match.end() :]}"
        things.setdefault(rest, []).append(Member(match.group(1), emoji))
    bases = []
    for rest, members in things.items():
        if rest.endswith((" book", " button")):
            left_out["pairs in which more than the colour changes (numbers on books, buttons of two colours)"] += _num_pairs(len(members))
            continue
        outlines = _by_outline(members)
        left_out["pairs with different outlines"] += _num_pairs(len(members)) - sum(_num_pairs(len(group)) for group in outlines)
        bases += [Base((group,), _thing(rest)) for group in outlines if len(group) > 1]
    return FactorBases(Factor("colour", COLOURS), "exact", tuple(bases), _nonzero(left_out))


def _by_outline(members: list[Member]) -> list[tuple[Member, ...]]:
    """The members grouped by outline, every colour once per group."""
    groups: list[list[Member]] = []
    for member in members:
        alpha = alpha_of(member.emoji.hexcode, GRID).astype(int)
        for group in groups:
            change = max(int(np.abs(alpha - alpha_of(other.emoji.hexcode, GRID)).max()) for other in group)
            if change <= MAX_OPACITY_CHANGE and member.value not in {other.value for other in group}:
                group.append(member)
                break
        else:
            groups.append([member])
    return [tuple(group) for group in groups]


def _thing(rest: str) -> str:
    """Name of a thing in questions: "large * square" is a square, "jar with * content" a jar."""
    words = [
        word for word in re.sub(r" with .*", "", rest).split() if word not in ("*", "deep", "large", "medium", "medium-small", "small")
    ]
    return " ".join(words)


def changed_frac(one: str, other: str, size: int = GRID) -> float:
    """Fraction of pixels, 0 to 1, in which two drawings on white differ."""
    first, second = draw_emoji([one, other], size, [(255, 255, 255)] * 2)
    return float((first != second).any(axis=-1).mean())


def _num_pairs(num_members: int) -> int:
    return num_members * (num_members - 1) // 2


def _nonzero(left_out: Mapping[str, int]) -> dict[str, int]:
    return {reason: count for reason, count in left_out.items() if count}


_SKIN_TONE = Factor("skin_tone", tuple(TONES.values()))
FACTORS: Mapping[str, Callable[[], FactorBases]] = {
    "skin_tone": skin_tone_bases,
    "skin_tone_alone": skin_tone_alone_bases,
    "colour": colour_bases,
    "direction": direction_bases,
    "hair": hair_bases,
    "gender": gender_bases,
}
