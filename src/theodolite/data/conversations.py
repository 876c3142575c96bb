"""Conversations in the form that chat templates take, from the forms in which data sets keep them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from theodolite.models.conversation_tokenizer import Conversation, Message

# What data sets write in a text where a picture stands; line breaks beside it are the chat template's business.
MARK = "<image>"
_MARK = re.compile(rf"\n*{MARK}\n*")
ROLES: Mapping[str, str] = {"system": "system", "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}
IMAGE: Message = {"type": "image"}


class BadConversation(ValueError):
    """A record of a data set that is no conversation; the message says what was found and what was expected."""


def text_part(text: str) -> Message:
    """A part of a message's content: a text."""
    return {"type": "text", "text": text}


def conversation_of(turns: Any, num_pictures: int) -> Conversation:
    """The messages of a conversation kept as turns of {role, content}, {from, value} or {user, assistant}, or as JSON of such.

    Texts are split at `<image>`. Where no turn places a picture, all stand at the beginning of the first question.

    Raises `BadConversation`.
    """
    messages = [message for turn in _turns(turns) for message in _messages(turn)]
    _refuse_reordered(messages)
    places = sum(part["type"] == "image" for message in messages for part in message["content"])
    if num_pictures and not places:
        first = next((at for at, message in enumerate(messages) if message["role"] == "user"), None)
        if first is None:
            raise BadConversation("no turn is the user's, so that its pictures have no place; expected a question")
        messages[first] = {"role": "user", "content": [IMAGE] * num_pictures + messages[first]["content"]}
    return tuple({"role": message["role"], "content": [_without_index(part) for part in message["content"]]} for message in messages)


def _turns(turns: Any) -> Sequence[Any]:
    if isinstance(turns, str):
        try:
            turns = json.loads(turns)
        except json.JSONDecodeError as error:
            raise BadConversation(f"the conversation is a text, and no JSON ({error}); expected a list of turns") from error
    if isinstance(turns, Mapping) and turns and all(isinstance(value, list) for value in turns.values()):
        if len({len(value) for value in turns.values()}) != 1:
            raise BadConversation("the turns' fields are lists of different lengths; expected one entry a turn")
        turns = [dict(zip(turns, values, strict=True)) for values in zip(*turns.values(), strict=True)]
    if not isinstance(turns, list | tuple) or not turns:
        raise BadConversation(f"the conversation is {_said(turns)}; expected a list of turns")
    return turns


def _messages(turn: Any) -> Iterator[Message]:
    """The messages of one turn: one, or a question and its answer."""
    fields = set(turn) if isinstance(turn, Mapping) else set()
    if {"role", "content"} <= fields:
        yield _message(turn["role"], turn["content"])
    elif {"from", "value"} <= fields:
        yield _message(turn["from"], turn["value"])
    elif {"user", "assistant"} <= fields:
        yield _message("user", turn["user"])
        yield _message("assistant", turn["assistant"])
    else:
        found = f"has the fields {', '.join(sorted(map(str, fields)))}" if fields else f"is {_said(turn)}"
        raise BadConversation(f"a turn {found}; expected role and content, from and value, or user and assistant")


def _message(role: Any, content: Any) -> Message:
    if role not in ROLES:
        raise BadConversation(f"a turn is said by {_said(role)}; expected one of {', '.join(ROLES)}")
    if isinstance(content, str):
        texts = _MARK.split(content)
        parts = [part for text in texts for part in (IMAGE, text_part(text)) if part is IMAGE or text][1:]
    elif isinstance(content, list | tuple):
        parts = [_part(part) for part in content]
    else:
        raise BadConversation(f"the {ROLES[role]}'s turn holds {_said(content)}; expected a text, or a list of parts")
    return {"role": ROLES[role], "content": parts}


def _part(part: Any) -> Message:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "image":
        return {**IMAGE, "index": part.get("index")}
    if kind == "text" and isinstance(part.get("text"), str):
        return text_part(part["text"])
    raise BadConversation(f"a part of a turn is {_said(part)}; expected type image, or type text with a text")


def _refuse_reordered(messages: Sequence[Message]) -> None:
    """Raises `BadConversation` where parts name pictures by number in another order than that of the record's pictures."""
    found = [part["index"] for message in messages for part in message["content"] if part.get("index") is not None]
    if found != list(range(len(found))):
        raise BadConversation(f"the turns name pictures in the order {found}; expected 0, 1, 2 ...: sort the record's pictures so")


def _without_index(part: Message) -> Message:
    return IMAGE if part["type"] == "image" else part


def _said(value: Any, longest: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= longest else text[:longest] + " ..."
