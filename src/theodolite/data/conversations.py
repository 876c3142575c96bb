"""Chat-template messages from the conversation formats of data sets."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from theodolite.models.chat_rendering import Conversation, Message
from theodolite.records.reading import BadJson, has_lone_surrogate, parse_json

# Marks a picture's place in a data set's text. Adjacent line breaks are dropped: the chat template writes its own.
MARK = "<image>"
_MARK = re.compile(rf"\n*{MARK}\n*")
ROLES: Mapping[str, str] = {"system": "system", "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}
IMAGE: Message = {"type": "image"}


class BadConversation(ValueError):
    """A data set's record is not a conversation."""


def text_part(text: str) -> Message:
    """A text part of a message's content."""
    return {"type": "text", "text": text}


def conversation_of(turns: Any, num_pictures: int) -> Conversation:
    """The messages of a conversation stored as turns of {role, content}, {from, value} or {user, assistant}, or as JSON of these.

    Texts are split at `<image>`. If no turn places a picture, all pictures come first in the first question. Raises `BadConversation`.
    """
    messages = [message for turn in _turns(turns) for message in _messages(turn)]
    _refuse_reordered(messages)
    places = sum(part["type"] == "image" for message in messages for part in message["content"])
    if num_pictures and not places:
        first = next((at for at, message in enumerate(messages) if message["role"] == "user"), None)
        if first is None:
            raise BadConversation("the conversation has pictures, but no turn of the user to place them in; expected a question")
        messages[first] = {"role": "user", "content": [IMAGE] * num_pictures + messages[first]["content"]}
    return tuple({"role": message["role"], "content": [_without_index(part) for part in message["content"]]} for message in messages)


def _turns(turns: Any) -> Sequence[Any]:
    if isinstance(turns, str):
        try:
            turns = parse_json(turns.encode())
        except UnicodeEncodeError as error:
            raise BadConversation("the conversation has an unpaired surrogate; write it again in UTF-8") from error
        except BadJson as error:
            raise BadConversation(f"the conversation is a text that {error}; expected a list of turns") from error
        if has_lone_surrogate(turns):
            raise BadConversation("a turn has an unpaired surrogate; write it again in UTF-8")
    if isinstance(turns, Mapping) and turns and all(isinstance(value, list) for value in turns.values()):
        if len({len(value) for value in turns.values()}) != 1:
            raise BadConversation("the turns' fields are lists of different lengths; expected one entry per turn")
        turns = [dict(zip(turns, values, strict=True)) for values in zip(*turns.values(), strict=True)]
    if not isinstance(turns, list | tuple) or not turns:
        raise BadConversation(f"the conversation is {_shortened(turns)}; expected a list of turns")
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
        problem = f"has the fields {', '.join(sorted(map(str, fields)))}" if fields else f"is {_shortened(turn)}"
        raise BadConversation(f"a turn {problem}; expected role and content, from and value, or user and assistant")


def _message(role: Any, content: Any) -> Message:
    if not isinstance(role, str) or role not in ROLES:
        raise BadConversation(f"a turn has the role {_shortened(role)}; expected one of {', '.join(ROLES)}")
    if isinstance(content, str):
        texts = _MARK.split(content)
        parts = [part for text in texts for part in (IMAGE, text_part(text)) if part is IMAGE or text][1:]
    elif isinstance(content, list | tuple):
        parts = [_part(part) for part in content]
    else:
        raise BadConversation(f"the {ROLES[role]}'s turn holds {_shortened(content)}; expected a text, or a list of parts")
    return {"role": ROLES[role], "content": parts}


def _part(part: Any) -> Message:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "image":
        return {**IMAGE, "index": part.get("index")}
    if kind == "text" and isinstance(part.get("text"), str):
        return text_part(part["text"])
    raise BadConversation(f"a part of a turn is {_shortened(part)}; expected type image, or type text with a text")


def _refuse_reordered(messages: Sequence[Message]) -> None:
    """Raises `BadConversation` if the picture indices of the parts are not 0, 1, 2 ... in order."""
    indices = [part["index"] for message in messages for part in message["content"] if part.get("index") is not None]
    if indices != list(range(len(indices))):
        raise BadConversation(f"the turns name pictures in the order {indices}; expected 0, 1, 2 ...: reorder the record's pictures")


def _without_index(part: Message) -> Message:
    return IMAGE if part["type"] == "image" else part


def _shortened(value: Any, longest: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= longest else text[:longest] + " ..."
