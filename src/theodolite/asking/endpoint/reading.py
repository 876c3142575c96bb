"""Answers of an endpoint as probabilities of choices, from the log-probabilities of option letters or from the text."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np

from theodolite.asking.answer import UNANSWERED, Answer
from theodolite.asking.prompts import LETTERS

EDGES = " \t\r\n*_`\"'“”‘’.!,;:"
OPENING = "*_`\"'“ "
MARKS = "\u2581\u0120 \t\r\n"  # how tokenizers write the space before a word
LETTER_TOKEN = re.compile(r"\(?([A-Z])[).:]?")
DELIMITED = re.compile(r"\(?([A-Za-z])(?:[).:]+|\s*$)")
THOUGHT = re.compile(r"^.*</think>", re.DOTALL)  # templates may have written the opening mark themselves
INTRODUCED = re.compile(r"(?i:\b(?:answer|option|choice|letter)\b(?:\s+is)?\s*:?\s*)\**\(?([A-Z])\b(?!['’])")
SET_APART = re.compile(r"\(([A-Za-z])\)|(?:^|[\s*])([A-Z])(?=[).:*]|\s*$|\s+(?:or|and)\b|,|/)")
BARE = re.compile(r"(?<![\w'’])([B-HJ-Z])(?![\w'’])")  # A and I are words, too
DENIAL = re.compile(r"\b(?:not|neither|nor|none)\b|n['’]t\b", re.IGNORECASE)
DOUBT = re.compile(
    r"\b(?:cannot|can['’]t|unable|sure|unsure|certain|uncertain|unclear|maybe|perhaps|impossible|no\s+(?:idea|way)|(?:hard|difficult)\s+to)\b",
    re.IGNORECASE,
)
# Letters with less of the probability than this are no answer: renormalised, they would be rounding and habit of the tokenizer.
LEAST_MASS = 0.001


def answer_of_logprobs(top: Mapping[str, float], num_choices: int) -> Answer:
    """The answer from log-probabilities, in nats, of the likeliest first tokens: the probability of each letter, renormalised.

    Tokens of one letter (after a space, in brackets, with a full stop) are summed; a letter that is not among the likeliest has probability
    0. The rest of the mass is `outside`. Unanswered where all letters together have less than `LEAST_MASS`; `outside` is known even so.
    """
    mass = np.zeros(num_choices)
    for token, logprob in top.items():
        letter = LETTER_TOKEN.fullmatch(token.strip(MARKS))
        position = LETTERS.index(letter[1]) if letter else num_choices
        if position < num_choices and math.isfinite(logprob):
            mass[position] += math.exp(min(logprob, 0.0))
    total = float(mass.sum())
    outside = float(np.clip(1.0 - total, 0.0, 1.0))
    return Answer(None if total < LEAST_MASS else mass / total, outside)


def answer_of_text(text: str | None, choices: Sequence[str], *, lettered: bool = True) -> Answer:
    """The answer from generated text: probability 1 for the choice that `read_choice` reads, else unanswered."""
    chosen = read_choice(text or "", choices, lettered=lettered)
    if chosen is None:
        return UNANSWERED
    probabilities = np.zeros(len(choices))
    probabilities[chosen] = 1.0
    return Answer(probabilities, None)


def read_choice(text: str, choices: Sequence[str], *, lettered: bool = True) -> int | None:
    """Position of the one choice that a text names; None if it names none or several, or contains a denial or doubt.

    A letter alone ("A", "(a)", "B."), a choice alone ("Red."), a letter with its choice ("A. red"), or a sentence that names exactly one
    ("The answer is red"). A letter with the words of another choice is ambiguous, and so is one that is itself the text of another choice.
    Nothing is guessed. Not `lettered`: the prompt showed no letters, so a letter stands for nothing but a choice of that text.
    """
    answer = THOUGHT.sub("", text)
    if "<think>" in answer:
        return None  # cut off before the answer
    answer = answer.strip()
    names = [choice.strip(EDGES).casefold() for choice in choices]
    bare = answer.strip(EDGES)
    exact = {at for at, name in enumerate(names) if name == bare.casefold()}
    letter = re.fullmatch(r"\(?([A-Za-z])\)?", bare) if lettered else None
    if letter:
        exact |= _position(letter[1], len(choices))
    if exact:
        return exact.pop() if len(exact) == 1 else None
    opened = answer.lstrip(OPENING)
    start = DELIMITED.match(opened) if lettered else None
    rest = opened[start.end() :].strip(EDGES).casefold() if start else ""
    if start and rest in names:
        both = {at for at, name in enumerate(names) if name == rest} & _position(start[1], len(choices))
        return both.pop() if both else None
    if DOUBT.search(answer):
        return None
    first = {at for at, name in enumerate(names) if re.match(rf"{re.escape(name)}\s*[,.;\n]", opened.casefold())}
    mentioned = _named(answer, choices, lettered=lettered) | _lettered(answer, choices, lettered=lettered)
    if len(first) == 1 and mentioned == first:
        return first.pop()  # "No, it is not"
    return next(iter(mentioned)) if len(mentioned) == 1 and not DENIAL.search(answer) else None


def _lettered(answer: str, choices: Sequence[str], *, lettered: bool) -> set[int]:
    """Positions of all choices that a text names by a separate letter: those with that letter, and those of which it is the whole text."""
    start = DELIMITED.match(answer.lstrip(OPENING))
    letters = [start[1]] if start else []
    letters += [match[1] for match in INTRODUCED.finditer(answer)]
    letters += [match[1] or match[2] for match in SET_APART.finditer(answer)]
    letters += [match[1] for match in BARE.finditer(answer)]
    texts = [choice.strip(EDGES) for choice in choices]
    own = {at for at, text in enumerate(texts) if text in letters}
    return own.union(*(_position(letter, len(texts)) for letter in letters)) if lettered else own


def _named(answer: str, choices: Sequence[str], *, lettered: bool) -> set[int]:
    """Positions of all choices that a text names by their words.

    A choice of one letter has to have its case; where options have letters it cannot be told from one of them, and A and I are words, too.
    """
    positions: set[int] = set()
    names = [choice.strip(EDGES) for choice in choices]
    for at in sorted(range(len(names)), key=lambda at: -len(names[at])):
        single = len(names[at]) == 1
        if not names[at] or (single and names[at].isalpha() and (lettered or names[at] in "AaIi")):
            continue
        # The longest first, and each match is removed: "light red" does not name red. The s of "it's" is no name.
        pattern = re.compile(rf"(?<!\w)(?<!\w['’]){re.escape(names[at])}(?!\w)(?!['’]\w)", re.NOFLAG if single else re.IGNORECASE)
        if pattern.search(answer):
            # Choices that differ in case alone are all named: the first is not favoured.
            positions |= {at} if single else {other for other, name in enumerate(names) if name.casefold() == names[at].casefold()}
            answer = pattern.sub(" \0 ", answer)
    return positions


def _position(letter: str, num_choices: int) -> set[int]:
    at = LETTERS.index(letter.upper())
    return {at} if at < num_choices else set()
