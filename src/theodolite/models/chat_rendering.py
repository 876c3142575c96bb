"""Conversations as text through a chat template, cut where answers begin and end, with one rendering a conversation.

A template is looked at once for each form of conversation (roles, and kinds of the parts): it is rendered with a sign in place of every
text, and with growing beginnings of the conversation, which shows where prompts and answers lie between the signs. A conversation of that
form is then rendered once, and if its text is that of the form with its own texts, it is cut in the same places. Templates that change
texts (think blocks, for example) are rendered with growing beginnings of the conversation itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any

from jinja2 import TemplateError

from theodolite.records.errors import BadInput

Message = Mapping[str, Any]
Conversation = tuple[Message, ...]
# Roles and kinds of parts of a conversation's messages.
Form = tuple[tuple[str, tuple[str, ...]], ...]
# What templates are known to raise on a conversation's data, such as a text where they expect a list, or on themselves (endless macros).
REFUSALS = (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError, MemoryError)
MAX_FORMS = 1000
# Stands for text number N: no template writes or changes signs for private use.
_SIGN = re.compile("\ue000(\\d+)\ue001")


class MalformedConversation(ValueError):
    """A conversation that cannot be tokenised for training; the message says what is wrong with it."""


@dataclass(frozen=True)
class RenderedConversation:
    """Text of a conversation in pieces: prompt, answer, prompt, answer ... with nothing behind the last answer."""

    pieces: tuple[str, ...]

    @property
    def text(self) -> str:
        return "".join(self.pieces)


class ChatRenderer:
    """Renders conversations by a chat template; `marker` is what it writes for a picture. Raises `BadInput` without a template."""

    def __init__(self, tokenizer: Any, marker: str, chat_template: str | None) -> None:
        self.tokenizer, self.marker = tokenizer, marker
        self.template = chat_template or tokenizer.chat_template
        if not self.template:
            raise BadInput("there is no chat template; give chat_template, such as the processor's own (processor.chat_template)")
        self._forms: dict[Form, _FormText | None] = {}
        self._pictures: dict[tuple[str, ...], str | None] = {}

    def render(self, conversation: Conversation) -> RenderedConversation:
        """The conversation cut before and behind each answer.

        An answer that the template writes otherwise where another follows (without its think block, say) is part of the next prompt. Raises
        `MalformedConversation` where the template refuses the conversation or takes a picture to another message, and `BadInput` where it
        does not write prompts as beginnings of what follows.
        """
        conversation = tuple(self._with_pictures_in_order(message) for message in conversation)
        form = tuple((message["role"], tuple(part["type"] for part in message["content"])) for message in conversation)
        if form not in self._forms and len(self._forms) < MAX_FORMS:
            self._forms[form] = self._look_at(form)
        rendered = self._written(conversation, generation=False)
        if "{'type': 'text'" in rendered:
            raise BadInput("the chat template writes lists of parts as they are; take the template of a vision-language model")
        if (known := self._forms.get(form)) is not None and (pieces := known.pieces_of(conversation, rendered)):
            return RenderedConversation(pieces)
        return self._cut(conversation, rendered)

    def _cut(self, conversation: Conversation, rendered: str) -> RenderedConversation:
        """The pieces by rendering each beginning of the conversation that ends in a prompt or an answer."""
        cuts = [0]
        for at, message in enumerate(conversation):
            if message["role"] != "assistant":
                continue
            is_last = at + 1 == len(conversation)
            prompt = self._written(conversation[:at], generation=True)
            answered = rendered if is_last else self._written(conversation[: at + 1], generation=False)
            begin, end = _answer_begin(prompt, answered), len(answered.rstrip())  # templates may write a line break behind the end token
            is_beginning = rendered.startswith(answered)
            if not is_beginning and begin is not None and _is_written_otherwise(message, rendered[begin:], answered[begin:]):
                continue
            if begin is None or not is_beginning or not end > begin >= cuts[-1]:
                raise BadInput(
                    f"the chat template does not continue its prompt, which ends in {prompt[-40:]!r}, with the answer: with it, the "
                    f"text ends in {answered[-80:]!r}; check add_generation_prompt in the template"
                )
            cuts += [begin, end]
        return RenderedConversation(tuple(rendered[begin:end] for begin, end in pairwise(cuts)))

    def _written(self, messages: Conversation, *, generation: bool) -> str:
        options = {"chat_template": self.template, "add_generation_prompt": generation, "tokenize": False}
        try:
            return str(self.tokenizer.apply_chat_template(list(messages), **options))
        except REFUSALS as error:
            raise MalformedConversation(f"the chat template refuses the conversation ({error})") from error

    def _look_at(self, form: Form) -> _FormText | None:
        """The text of a form of conversation; None where the template does not write the texts as they are, in order."""
        conversation, owners = _signed(form)
        try:
            rendered = self._cut(conversation, self._written(conversation, generation=False))
        except (MalformedConversation, BadInput):
            return None  # the conversation itself gives the message
        self._refuse_moved(rendered.text, form, owners)
        signs = [int(sign.group(1)) for sign in _SIGN.finditer(rendered.text)]
        if sorted(signs) != list(range(len(owners))):
            return None
        return _FormText(rendered.pieces, tuple(form[owner][0] for owner in owners))

    def _refuse_moved(self, text: str, form: Form, owners: Sequence[int]) -> None:
        """Raises `MalformedConversation` where a picture lies behind a text of a later message, or before one of an earlier message."""
        pictures = iter([number for number, (_, kinds) in enumerate(form) for kind in kinds if kind == "image"])
        signs = [(sign.start(), owners[int(sign.group(1))]) for sign in _SIGN.finditer(text)]
        for place in re.finditer(re.escape(self.marker), text):
            owner = next(pictures, None)
            if owner is not None and any((at < place.start()) != (number < owner) for at, number in signs if number != owner):
                raise MalformedConversation("the chat template writes a picture with the words of another message")

    def _with_pictures_in_order(self, message: Message) -> Message:
        """A message of several pictures between texts; where the template would take pictures and texts apart, as one text with markers.

        A single picture stands where the template puts it, as LLaVA's own preparation has it, which leaves several where they are.
        """
        kinds = tuple(part["type"] for part in message["content"])
        if kinds.count("image") < 2 or "text" not in kinds or kinds.index("text") > len(kinds) - 1 - kinds[::-1].index("image"):
            return message
        if kinds not in self._pictures:
            self._pictures[kinds] = self._marker_of_moved(kinds)
        marker = self._pictures[kinds]
        if marker is None:
            return message
        text = "".join(marker if part["type"] == "image" else part["text"] for part in message["content"])
        return {"role": message["role"], "content": [{"type": "text", "text": text}]}

    def _marker_of_moved(self, kinds: tuple[str, ...]) -> str | None:
        """What the template writes for each of several pictures, if it takes them out of their order among texts; None if it does not.

        Raises `MalformedConversation` if it moves them and writes more than the marker and white space.
        """
        conversation, _ = _signed((("user", kinds),))
        try:
            text = self._written(conversation, generation=False)
        except MalformedConversation:
            return None
        places = list(re.finditer(f"{re.escape(self.marker)}|{_SIGN.pattern}", text))
        found = ["text" if place.group(1) else "image" for place in places]
        if found == list(kinds) or sorted(found) != sorted(kinds):
            return None
        first = found.index("image")
        between = text[places[first].end() : places[first + 1].start()]
        if found[first + 1] != "image" or between.strip():
            raise MalformedConversation("the chat template takes pictures out of their order among the words; put them before the words")
        return self.marker + between


@dataclass(frozen=True)
class _FormText:
    """The pieces of a form's text with a sign for each text, and the role whose text it is."""

    pieces: tuple[str, ...]
    roles: tuple[str, ...]

    def pieces_of(self, conversation: Conversation, rendered: str) -> tuple[str, ...] | None:
        """The pieces of a rendered conversation of this form; None where its text is another. Templates may strip the texts of a role."""
        texts = [part["text"] for message in conversation for part in message["content"] if part["type"] == "text"]
        for is_answer_stripped, is_other_stripped in product((False, True), repeat=2):
            chosen = [
                text.strip() if (is_answer_stripped if role == "assistant" else is_other_stripped) else text
                for text, role in zip(texts, self.roles, strict=True)
            ]
            pieces = [_SIGN.sub(lambda sign, own=chosen: own[int(sign.group(1))], piece) for piece in self.pieces]  # type: ignore[misc]
            if rendered.rstrip() == "".join(pieces).rstrip():
                return _without_white_ends(pieces)
        return None


def _signed(form: Form) -> tuple[Conversation, tuple[int, ...]]:
    """A conversation of a form, with a sign for each text; and for each sign the number of its message."""
    owners: list[int] = []
    messages: list[Message] = []
    for number, (role, kinds) in enumerate(form):
        parts: list[Message] = []
        for kind in kinds:
            if kind == "text":
                parts.append({"type": "text", "text": f"\ue000{len(owners)}\ue001"})
                owners.append(number)
            else:
                parts.append({"type": kind})
        messages.append({"role": role, "content": parts})
    return tuple(messages), tuple(owners)


def _without_white_ends(pieces: Sequence[str]) -> tuple[str, ...] | None:
    """The pieces with white space at the end of an answer in the next prompt; None if an answer is nothing else."""
    moved = list(pieces)
    for number in range(1, len(moved), 2):
        answer = moved[number].rstrip()
        if not answer:
            return None
        if number + 1 < len(moved):
            moved[number + 1] = moved[number][len(answer) :] + moved[number + 1]
        moved[number] = answer
    return tuple(moved)


def _is_written_otherwise(answer: Message, with_more: str, alone: str) -> bool:
    """Whether a template writes an answer otherwise at a conversation's end than where another follows: its words, not what ends them."""
    words = "".join(part["text"] for part in answer["content"]).strip()
    return not (with_more.lstrip().startswith(words) and alone.lstrip().startswith(words))


def _answer_begin(prompt: str, answered: str) -> int | None:
    """The position at which the answer begins in the text that continues the prompt; None if that does not begin with the prompt.

    White space at the end of the prompt may be other white space there: LLaVA-OneVision's own template writes a space more.
    """
    if answered.startswith(prompt):
        return len(prompt)
    stem = prompt.rstrip()
    behind = answered[len(stem) :]
    gap = len(behind) - len(behind.lstrip())
    return len(stem) + gap if gap and answered.startswith(stem) else None
