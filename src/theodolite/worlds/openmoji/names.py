"""Texts of questions about emojis: wordings, true answers, and distractors (the other choices).

Every answer is the package's own name without skin tone, gender and direction. A few are rephrased to fit the question (`REPHRASED`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from theodolite.worlds.openmoji.data import Emoji, entries, openmoji_home

TONES = {"1": "light", "2": "medium-light", "3": "medium", "4": "medium-dark", "5": "dark"}
SEXES = ("man", "woman")
HAIRS = {"red hair": "red hair", "curly hair": "curly hair", "white hair": "white hair", "bald": "no hair", "blond hair": "blond hair"}
SIDES = ("left", "right")
COLOURS = ("red", "pink", "orange", "yellow", "green", "blue", "purple", "brown", "black", "grey", "white")
CLOSED: Mapping[str, tuple[str, ...]] = {
    "skin_tone": tuple(TONES.values()),
    "gender": SEXES,
    "hair": tuple(HAIRS.values()),
    "direction": SIDES,
}
"""Queries with fixed choices."""

WORDINGS: Mapping[str, tuple[str, ...]] = {
    "skin_tone": ("which skin tone is shown?", "what is the skin tone in the picture?", "what skin tone does the picture show?"),
    "gender": ("is this a man or a woman?", "does the picture show a man or a woman?", "who is shown, a man or a woman?"),
    "hair": ("what hair does this person have?", "which hair is shown?", "what is this person's hair like?"),
    "direction": (
        "which way does this person face?",
        "to which side of the picture is this person facing?",
        "in which direction does this person look?",
    ),
    "colour": ("what colour is the {thing}?", "which colour does the {thing} have?", "the {thing} in the picture has what colour?"),
    "doing": ("what is this person doing?", "what is the person in the picture doing?", "which activity is shown?"),
    "doing of people": ("what are these people doing?", "what are the people in the picture doing?", "which activity is shown?"),
    "role": ("who is this person?", "who is shown in the picture?", "what is the role of this person?"),
    "age": ("how old is this person?", "what age is the person in the picture?", "which age is shown?"),
    "gesture": ("what gesture is this?", "which gesture is shown?", "what is the hand in the picture doing?"),
    "shown": ("what is shown?", "what does the picture show?", "what is in the picture?"),
}

# The query whose answers are the names of a subgroup.
QUERIES: Mapping[str, str] = {
    "person-activity": "doing", "person-sport": "doing", "person-gesture": "doing", "person-resting": "doing", "family": "doing",
    "person-role": "role", "person-fantasy": "role",
    "person": "age",
    "hand-fingers-open": "gesture", "hand-fingers-partial": "gesture", "hand-single-finger": "gesture",
    "hand-fingers-closed": "gesture", "hands": "gesture",
    "hand-prop": "shown", "body-parts": "shown",
}  # fmt: skip
HANDS = tuple(subgroup for subgroup, query in QUERIES.items() if query == "gesture")

REPHRASED: Mapping[str, str] = {
    "skier": "skiing", "snowboarder": "snowboarding", "ballet dancer": "dancing ballet",
    "in suit levitating": "levitating", "with bunny ears": "wearing bunny ears", "in steamy room": "sitting in a steamy room",
    "in lotus position": "sitting in lotus position", "in bed": "lying in bed", "taking bath": "taking a bath",
    "with white cane": "using a white cane", "in motorized wheelchair": "using a motorized wheelchair",
    "in manual wheelchair": "using a manual wheelchair", "deaf": "gesturing deaf", "getting massage": "getting a massage",
    "getting haircut": "getting a haircut", "rowing boat": "rowing a boat",
    "tipping hand": "tipping a hand", "raising hand": "raising a hand",
    "kiss": "kissing", "couple with heart": "being in love",
    "pregnant": "pregnant person", "prince": "person with crown", "princess": "person with crown",
    "merman": "merperson", "mermaid": "merperson",
}  # fmt: skip
# Names that may both be true of one drawing although they share no word.
ALIKE = (
    {"raised hand", "hand with fingers splayed", "raised back of hand", "waving hand", "oncoming fist", "raised fist"},
    {"pinched fingers", "pinching hand"},
    {"open hands", "palms up together", "palm up hand", "raising hands"},
    {"leftwards hand", "rightwards hand", "palm down hand", "leftwards pushing hand", "rightwards pushing hand"},
    {"kissing", "being in love"},
    {"health worker", "scientist"},
    {"office worker", "technologist", "person in tuxedo"},
    {"walking", "standing"},
    {"kneeling", "sitting in lotus position"},
    {"skiing", "snowboarding"},
    {"mechanic", "factory worker", "construction worker"},
    {"vampire", "supervillain"},
    {"mage", "genie"},
    {"person with veil", "person with headscarf"},
    {"wrestling", "holding hands"},
    {"frowning", "pouting"},
)
# Words that two mutually exclusive names may share.
COMMON = (
    "a", "in", "with", "of", "person", "people", "hand", "hands", "worker",
    "using", "wearing", "playing", "getting", "sitting", "gesturing",
)  # fmt: skip

_SEX = re.compile(r"\b(wo)?m[ae]n\b")
_ANYBODY = re.compile(r"\b(woman|women|man|men|person|people)\b")
_AGES = {"baby": "baby", "child": "child", "boy": "child", "girl": "child"}


def head_of(emoji: Emoji) -> str:
    """The annotation before its colon: without skin tone, hair and direction."""
    return emoji.annotation.partition(":")[0].strip()


def details_of(emoji: Emoji) -> tuple[str, ...]:
    """The items after the colon of the annotation, without skin tones."""
    items = (item.strip() for item in emoji.annotation.partition(":")[2].split(","))
    return tuple(item for item in items if item and not item.endswith("skin tone"))


def sex_of(emoji: Emoji) -> str | None:
    """ "man" or "woman" where the annotation names exactly one person, by that word; else None."""
    words = [match.group(0) for match in _SEX.finditer(emoji.annotation)]
    return words[0] if len(words) == 1 and words[0] in SEXES and emoji.group == "people-body" and emoji.subgroup != "family" else None


def of_several(emoji: Emoji) -> bool:
    """Whether the drawing shows more than one acting person."""
    return emoji.subgroup == "family" or re.match(r"(people|men|women)\b", emoji.annotation) is not None


def topic_of(emoji: Emoji) -> tuple[str, str] | None:
    """(query, true answer) of an emoji's topic: its one question besides factors. None where the package has no name for it."""
    query = QUERIES.get(emoji.subgroup)
    if query is None or emoji.group != "people-body":
        return None
    head = head_of(emoji)
    if query == "age":
        return query, _AGES.get(head, "older adult" if head.startswith("old") else "adult")
    if query in ("gesture", "shown"):
        return query, head
    bare = re.sub(r"^(and )+", "", " ".join(_ANYBODY.sub(" ", head).split()))
    if bare in ("", "family"):  # names people, not an activity
        return None
    name = REPHRASED.get(bare, bare)
    if query == "role" and re.match(r"(in|with|wearing|feeding)\b", name):
        name = f"person {name}"
    return query, name


def wordings_of(query: str, emoji: Emoji, thing: str = "") -> tuple[str, ...]:
    """The wordings of a query about an emoji, three or more."""
    key = "doing of people" if query == "doing" and of_several(emoji) else query
    return tuple(wording.format(thing=thing) for wording in WORDINGS[key])


def choices_beside(query: str, truth: str, subgroup: str, rng: np.random.Generator) -> tuple[str, ...]:
    """The true answer and its distractors: the fixed choices of a query, else three random names of the same subgroup.

    No distractor shares a content word with the true name or may be true of the same drawing (`ALIKE`). Where the subgroup has
    too few, names of other subgroups with the same query are used.
    """
    if query in CLOSED:
        return CLOSED[query]
    if query == "age":
        # An adult with white hair may look old, so these two are never choices of one question.
        return "baby", "child", "older adult" if truth == "older adult" else "adult"
    pools = _names(openmoji_home())
    near = list(pools[subgroup])
    if subgroup in HANDS:
        near = [name for hands in HANDS for name in pools.get(hands, ())]
    far = [name for other, names in pools.items() if QUERIES[other] == query for name in names]
    return (truth, *drawn_beside(truth, near, far, rng))


def drawn_beside(truth: str, near: Sequence[str], far: Sequence[str], rng: np.random.Generator) -> tuple[str, ...]:
    """Up to three random distractors for a true name, all different: from `near` first, then from `far`."""
    distractors: list[str] = []
    for names in (near, far):
        candidates = sorted({name for name in names if excludes(truth, name)} - set(distractors))
        distractors += [candidates[k] for k in rng.permutation(len(candidates))[: 3 - len(distractors)]]
    return tuple(distractors)


def excludes(one: str, other: str) -> bool:
    """Whether at most one of two names can be true of a drawing."""
    if one == other or _words(one) & _words(other):
        return False
    return not any(one in names and other in names for names in ALIKE)


def _words(name: str) -> set[str]:
    words = (word.rstrip("s") for word in re.findall(r"[a-z]+", name.lower()) if word not in COMMON)
    # Reduces "pointing" and "pointed" to one word.
    return {word.removesuffix("ing").removesuffix("ed") for word in words}


@lru_cache(maxsize=4)
def _names(home: Path) -> dict[str, tuple[str, ...]]:
    """All names of each subgroup in `QUERIES`, in the package's order."""
    pools: dict[str, dict[str, None]] = {}
    for emoji in entries():
        topic = topic_of(emoji)
        if topic is not None and not emoji.skintone:
            pools.setdefault(emoji.subgroup, {})[topic[1]] = None
    return {subgroup: tuple(names) for subgroup, names in pools.items()}
