"""Which words name which value of a factor. The rule:

* Words are runs of letters and digits, without case, white space at their ends and compatibility forms (one letter keeps its case): " Red"
  and "RED" are the word red. There is no stemming: "reddish" and "circles" are other words than red and circle.
* A value is named by a vision token if *every* word of the value is among the token's top words: red hair needs both red and hair.
* In the vocabulary (logit lens) a token is a word if its decoded text is; of a single letter also the one token into which the tokenizer
  turns it (a vocabulary without capitals has "e" for E). A word that no single token spells counts as said by its first
  piece, if that has three letters or more, is no word of the factor's values itself, and begins no other word of them: " tri" is
  triangular where no other shape begins so. Values with a word that has neither cannot be named.
* In text (LatentLens) a state is the whole word that it stands in, whatever its pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int

from theodolite.measurement.internals.sentences import normal_word, words_of

LEAST_LETTERS = 3  # of a first piece that stands for its word
SIGNS = {"\n": "↵", "\r": "↵", "\t": "⇥"}


@dataclass(frozen=True, eq=False)
class Naming:
    """Table of what names the values of factors among the entries of a lens: the tokens of a vocabulary, or the states of a text.

    `says[i, j]`: entry i says word j of `words`; `values` are those of each factor.
    """

    values: Mapping[str, tuple[str, ...]]
    words: tuple[str, ...]
    says: Bool[np.ndarray, "entry word"]

    @cached_property
    def sayable(self) -> Bool[np.ndarray, " word"]:
        """Whether any entry says the word."""
        return np.asarray(self.says.any(axis=0))

    def needs(self, value: str) -> list[int]:
        """The numbers of a value's words, each once."""
        return [self.words.index(word) for word in dict.fromkeys(words_of(value))]

    def can_name(self, value: str) -> bool:
        """Whether the lens has every word of a value, and the value has words at all."""
        needs = self.needs(value)
        return bool(needs) and bool(self.sayable[needs].all())

    def said(self, top: Int[np.ndarray, "... k"]) -> Bool[np.ndarray, "... word"]:
        """Whether one of the k entries of a vision token says each word."""
        said: np.ndarray = self.says[top[..., 0]]
        for place in range(1, top.shape[-1]):
            said |= self.says[top[..., place]]
        return said

    def named(self, said: Bool[np.ndarray, "... word"], factor: str) -> Bool[np.ndarray, "... value"]:
        """Whether a vision token names each value of a factor, from the words that it says."""
        named = [said[..., self.needs(value)].all(axis=-1) & self.can_name(value) for value in self.values[factor]]
        return np.stack(named, axis=-1)

    def shares(self, top: Int[np.ndarray, "picture token k"]) -> dict[str, Float[np.ndarray, "picture value"]]:
        """By factor, the share of each picture's vision tokens that name each value, 0 to 1."""
        said = self.said(top)
        return {factor: self.named(said, factor).mean(axis=1) for factor in self.values}


def value_words(values: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """All words of the factors' values, each once."""
    return tuple(dict.fromkeys(word for own in values.values() for value in own for word in words_of(value)))


def text_naming(values: Mapping[str, tuple[str, ...]], states: Sequence[str]) -> Naming:
    """The table of text states, given the word of each."""
    words = value_words(values)
    return Naming(values, words, np.array([[state == word for word in words] for state in states], dtype=bool).reshape(-1, len(words)))


def vocabulary_naming(values: Mapping[str, tuple[str, ...]], tokens: Sequence[str], pieces_of: Callable[[str], Sequence[int]]) -> Naming:
    """The table of a vocabulary, given each token's decoded text and the tokenizer's ids of a text, without special tokens."""
    words = value_words(values)
    number = {word: place for place, word in enumerate(words)}
    says = np.zeros((len(tokens), len(words)), dtype=bool)
    for token, text in enumerate(tokens):
        if (place := number.get(normal_word(text))) is not None:
            says[token, place] = True
    for place, word in enumerate(words):
        if len(word) == 1:
            says[_own_tokens(word, tokens, pieces_of), place] = True
    whole = np.asarray(says.any(axis=0))
    for place, word in enumerate(words):
        if not whole[place]:
            rivals = {other for own in values.values() for other in value_words({"": own}) if word in value_words({"": own})} - {word}
            for piece in _first_pieces(word, tokens, pieces_of):
                if not any(other.startswith(normal_word(tokens[piece])) for other in rivals):
                    says[piece, place] = True
    return Naming(values, words, says)


def _own_tokens(letter: str, tokens: Sequence[str], pieces_of: Callable[[str], Sequence[int]]) -> list[int]:
    """The tokens into which a letter is turned whole, with and without a space before it, in either case."""
    spelled = [pieces_of(spelling) for spelling in (letter, f" {letter}")]
    return [ids[-1] for ids in spelled if ids and ids[-1] < len(tokens) and tokens[ids[-1]].strip().casefold() == letter.casefold()]


def _first_pieces(word: str, tokens: Sequence[str], pieces_of: Callable[[str], Sequence[int]]) -> list[int]:
    """First tokens of the word's spellings (with and without a space and a capital) that are a beginning of it, long enough to stand for
    it."""
    first = []
    for spelling in (word, f" {word}", word.capitalize(), f" {word.capitalize()}"):
        texts = [(piece, normal_word(tokens[piece])) for piece in pieces_of(spelling) if piece < len(tokens)]
        piece, text = next(((piece, text) for piece, text in texts if text), (-1, ""))
        if len(text) >= LEAST_LETTERS and word.startswith(text):
            first.append(piece)
    return list(dict.fromkeys(first))


def shown_token(text: str) -> str:
    """A token's text for reading, without white space in it: that at its ends is cut, other white space is a sign, and nothing is a dot."""
    inner = text.strip()
    if not inner:
        return "".join(SIGNS.get(sign, "␣") for sign in dict.fromkeys(text)) or "·"
    return "".join(SIGNS.get(sign, "␣") if sign.isspace() else sign for sign in inner)
