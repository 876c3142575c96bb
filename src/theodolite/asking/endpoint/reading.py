"""Answers of an endpoint as probabilities of choices: from the log-probabilities of option letters, or from the text alone."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np

from theodolite.asking.answer import UNANSWERED, Answer
from theodolite.asking.endpoint.prompt import LETTERS

EDGES = " \t\r\n*_`\"'“”‘’.!,;:"
OPENING = "*_`\"'“ "
MARKS = "\u2581\u0120 \t\r\n"  # how tokenizers write the space before a word
LETTER_TOKEN = re.compile(r"\(?([A-Z])[).:]?")
DELIMITED = re.compile(r"\(?([A-Za-z])(?:[).:]+|\s*$)")
THOUGHT = re.compile(r"<think>.*?</think>", re.DOTALL)
INTRODUCED = re.compile(r"(?i:\b(?:answer|option|choice|letter)\b(?:\s+is)?\s*:?\s*)\**\(?([A-Z])\b(?!['’])")
SET_APART = re.compile(r"\(([A-Za-z])\)|(?:^|[\s*])([A-Z])(?=[).:*]|\s*$|\s+(?:or|and)\b|,|/)")
BARE = re.compile(r"(?<![\w'’])([B-HJ-Z])(?![\w'’])")  # A and I are words, too
DENIAL = re.compile(r"\b(?:not|neither|nor|none)\b|n['’]t\b", re.IGNORECASE)
DOUBT = re.compile(r"\b(?:cannot|can['’]t|unable|sure|unsure|certain|uncertain|unclear|maybe|perhaps)\b", re.IGNORECASE)


def answer_of_logprobs(top: Mapping[str, float], num_choices: int) -> Answer:
    """An answer from the log-probabilities in nats of the likeliest first tokens: each letter's mass, renormalised.

    Tokens that write one letter (with a space before it, in brackets, with a full stop) count together; a letter that is not among the
    likeliest has mass 0. What lies on no letter is `outside`. No letter at all is unanswered.
    """
    mass = np.zeros(num_choices)
    for token, logprob in top.items():
        found = LETTER_TOKEN.fullmatch(token.strip(MARKS))
        position = LETTERS.index(found[1]) if found else num_choices
        if position < num_choices and math.isfinite(logprob):
            mass[position] += math.exp(min(logprob, 0.0))
    total = float(mass.sum())
    if total <= 0:
        return UNANSWERED
    return Answer(mass / total, float(np.clip(1.0 - total, 0.0, 1.0)))


def answer_of_text(text: str | None, choices: Sequence[str]) -> Answer:
    """An answer from what was written: probability 1 for the choice it says, which at temperature 0 is all there is; else unanswered."""
    chosen = read_choice(text or "", choices)
    if chosen is None:
        return UNANSWERED
    probabilities = np.zeros(len(choices))
    probabilities[chosen] = 1.0
    return Answer(probabilities, None)


def read_choice(text: str, choices: Sequence[str]) -> int | None:
    """Position of the one choice that a text says; None where it says none, several, or denies something.

    A letter alone ("A", "(a)", "B."), a choice alone ("Red."), a letter with its choice ("A. red"), or a sentence that names exactly one
    ("The answer is red"). A letter beside another choice's words is ambiguous. Nothing is guessed.
    """
    said = THOUGHT.sub("", text)
    if "<think>" in said:
        return None  # it was cut off before it said anything
    said = said.strip()
    names = [choice.strip(EDGES).casefold() for choice in choices]
    bare = said.strip(EDGES)
    exact = {at for at, name in enumerate(names) if name == bare.casefold()}
    letter = re.fullmatch(r"\(?([A-Za-z])\)?", bare)
    if letter:
        exact |= _position(letter[1], len(choices))
    if exact:
        return exact.pop() if len(exact) == 1 else None
    opened = said.lstrip(OPENING)
    lettered = DELIMITED.match(opened)
    rest = opened[lettered.end() :].strip(EDGES).casefold() if lettered else ""
    if lettered and rest in names:
        return names.index(rest) if _position(lettered[1], len(choices)) == {names.index(rest)} else None
    if DOUBT.search(said):
        return None
    first = {at for at, name in enumerate(names) if re.match(rf"{re.escape(name)}\s*[,.;\n]", opened.casefold())}
    if len(first) == 1 and _mentions(said, names) == first:
        return first.pop()  # "No, it is not"
    return None if DENIAL.search(said) else _only(_mentions(said, names))


def _mentions(said: str, names: Sequence[str]) -> set[int]:
    """Positions of all choices that a text names, by their words or by a letter that is set apart."""
    found: set[int] = set()
    start = DELIMITED.match(said.lstrip(OPENING))
    letters = [start[1]] if start else []
    letters += [match[1] for match in INTRODUCED.finditer(said)]
    letters += [match[1] or match[2] for match in SET_APART.finditer(said)]
    letters += [match[1] for match in BARE.finditer(said)]
    for letter in letters:
        found |= _position(letter, len(names))
    rest = said.casefold()
    for at in sorted(range(len(names)), key=lambda at: -len(names[at])):
        # The longest first, and what was found is taken out: "light red" does not say red.
        pattern = rf"(?<!\w){re.escape(names[at])}(?!\w)"
        if len(names[at]) > 1 and re.search(pattern, rest):
            found.add(at)
            rest = re.sub(pattern, " \0 ", rest)
    return found


def _only(found: set[int]) -> int | None:
    return next(iter(found)) if len(found) == 1 else None


def _position(letter: str, num_choices: int) -> set[int]:
    at = LETTERS.index(letter.upper())
    return {at} if at < num_choices else set()
