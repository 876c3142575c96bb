"""How questions are put to a model and how choices are scored: the words that options, askers and records share."""

from __future__ import annotations

from typing import Literal

PromptStyle = Literal["free", "options", "letters"]
ChoiceScore = Literal["total", "per_token"]

PROMPT_MEANING = (
    "free: the question alone; options: the question, then its choices, one a line; letters: the question, then its choices with letters, "
    "of which one is the answer"
)
SCORE_MEANING = "total: log-probability of all tokens of a choice with the end token; per_token: the same divided by their number"

# Over the template of a bare question. Records from before prompts were recorded were asked so, whatever the templates are by now.
BARE_QUESTION_SHA256 = "28f5b04da4a0c0e7f6c958a0ba7ceceb47b0a01e456e651659ff97b871ee137f"
