"""Prompts: a question and its choices as the text that a model reads, the same for a model in this process and behind an endpoint."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase

from theodolite.records.asking import PromptStyle
from theodolite.records.errors import BadInput

LETTERS = ascii_uppercase
# Of each style: the template of the prompt, and that of one option.
TEMPLATES: Mapping[PromptStyle, tuple[str, str]] = {
    "free": ("{question}", ""),
    "options": ("{question}\n{options}\nAnswer with one of these options only.", "- {choice}"),
    "letters": ("{question}\n{options}\nAnswer with the letter only.", "{letter}. {choice}"),
}
# The one style that every model can be asked in: the small trained models have no words for lists of options.
DEFAULT: PromptStyle = "free"


@dataclass(frozen=True)
class Prompt:
    """The text that a model reads, and the answer that stands for each choice, in the order of the choices."""

    text: str
    answers: tuple[str, ...]


def write_prompt(style: PromptStyle, question: str, choices: Sequence[str]) -> Prompt:
    """The prompt of a question. With letters the answers are the letters, else the choices themselves.

    Raises `BadInput` for more choices than letters.
    """
    template, option = TEMPLATES[style]
    if style == "letters" and len(choices) > len(LETTERS):
        raise BadInput(f"{question!r} has {len(choices)} choices, but there are only {len(LETTERS)} letters; ask with another --prompt")
    letters = (*LETTERS, *[""] * len(choices))
    options = "\n".join(option.format(letter=letter, choice=choice) for letter, choice in zip(letters, choices, strict=False))
    return Prompt(template.format(question=question, options=options), tuple((LETTERS if style == "letters" else choices)[: len(choices)]))


def added_text(style: PromptStyle, num_choices: int) -> str:
    """What a prompt of this many choices writes besides the question and the choices."""
    num = min(num_choices, len(LETTERS)) if style == "letters" else num_choices
    return write_prompt(style, "", ("",) * num).text


def prompt_hash(style: PromptStyle) -> str:
    """SHA-256, in hex, of the template of a style and of its options."""
    return hashlib.sha256("\0".join(TEMPLATES[style]).encode()).hexdigest()
