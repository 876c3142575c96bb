"""Sentences whose words in context vision tokens are compared with: those that come with the package, or a user's text file."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from theodolite.records.errors import BadInput

BUILT_IN = "built in"
WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class Sentences:
    """Sentences in order, with the name of their source: `BUILT_IN`, or the file's name without its folder."""

    source: str
    lines: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """SHA-256, in hex, of the sentences, one a line."""
        return hashlib.sha256("".join(f"{line}\n" for line in self.lines).encode()).hexdigest()


def read_sentences(path: Path | None = None) -> Sentences:
    """The sentences of a UTF-8 text file, one a line; without a file those of the package. Empty lines are left out.

    Raises `BadInput` for a file that cannot be read, is not UTF-8, or holds no word.
    """
    own = Path(__file__).with_name("sentences.txt")
    try:
        # Lines end at \n alone: `splitlines` would end them at U+2028 and the like too.
        lines = (own if path is None else path).read_bytes().decode("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} cannot be read as a UTF-8 text file ({error}); give one with a sentence a line") from error
    sentences = tuple(line.strip() for line in lines if WORD.search(line))
    if not sentences:
        raise BadInput(f"{path} holds no words; give a text file with a sentence a line")
    return Sentences(BUILT_IN if path is None else path.name, sentences)


def spans_of(text: str) -> Iterator[tuple[str, int, int]]:
    """The words of a text with their start and end: runs of letters and digits, in the form of `normal_word`."""
    for match in WORD.finditer(text):
        yield normal_word(match.group()), match.start(), match.end()


def words_of(text: str) -> tuple[str, ...]:
    """The words of a text in order: "medium-light" has two."""
    return tuple(word for word, _, _ in spans_of(text))


def normal_word(text: str) -> str:
    """The form in which words are compared: NFKC, stripped and without case. One letter keeps its case: "s" is an ending."""
    plain = unicodedata.normalize("NFKC", text).strip()
    return plain if len(plain) < 2 else plain.casefold()
