"""Conversations and questions as token ids through a model's own chat template, with a training target where the assistant speaks.

The one place where a chat template is rendered: training, asking and tours all tokenise here. Everything up to the last picture token is
the same for all questions about one picture, so trainers and askers share it.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any

from theodolite.models.chat_rendering import ChatRenderer, Conversation, MalformedConversation, Message
from theodolite.records.errors import BadInput

# The target of a position at which no token is trained, as torch's cross-entropy has it.
IGNORE = -100


class _NoBeginning(Exception):
    """A token reaches over the end of a prompt or an answer."""


@dataclass(frozen=True)
class TokenizedConversation:
    """A conversation up to the last token from which an answer token is predicted.

    `targets[i]` is the token to predict after token i, `IGNORE` where none is trained.
    """

    tokens: tuple[int, ...]
    targets: tuple[int, ...]


class ConversationTokenizer:
    """Conversations in the format of a chat template: the tokenizer's own, or the one given.

    `marker` is what the template writes for a picture (by default the image token); it is replaced by the picture's placeholder. Trained
    are the assistant's words with the end token that the template writes behind them; where it writes none, the tokenizer's. Raises
    `BadInput` without a template.
    """

    def __init__(self, tokenizer: Any, image_token_id: int, marker: str | None = None, chat_template: str | None = None) -> None:
        self.tokenizer, self.image_token_id = tokenizer, image_token_id
        self._image = tokenizer.convert_ids_to_tokens(image_token_id)
        self.marker = marker or self._image
        self.renderer = ChatRenderer(tokenizer, self.marker, chat_template)
        self._run = re.compile(f"(?:{re.escape(self._image)})+")
        added = tokenizer.added_tokens_decoder.items()
        special = {number for number, token in added if token.special} | set(tokenizer.all_special_ids)
        self._special = special - {tokenizer.unk_token_id}
        # The longest come first: one may begin with another.
        signs = sorted(map(tokenizer.convert_ids_to_tokens, self._special), key=len, reverse=True)
        self._special_sign = re.compile("|".join(map(re.escape, signs)))
        # Where the tokenizer begins every text with a token of its own, templates leave that to it.
        first = list(tokenizer("")["input_ids"][:1])
        self._bos = first if first and first[0] == tokenizer.bos_token_id else []

    def tokenize(self, conversation: Conversation, placeholders: Sequence[str]) -> TokenizedConversation:
        """Tokens and targets of a conversation whose pictures have these placeholders, in order.

        Raises `MalformedConversation` for a conversation that cannot be trained on, `BadInput` if the template does not write prompts as
        beginnings of what follows, or leaves pictures out.
        """
        _refuse_malformed(conversation, len(placeholders))
        try:
            return self._tokenize(conversation, placeholders)
        except _NoBeginning as error:
            # The template's fault if it fails on any words, else that of this conversation.
            if self._is_usable(conversation, placeholders):
                raise MalformedConversation(str(error)) from error
            raise BadInput(f"{error}; the chat template must end its prompt in a special token, a line break or a sign") from error

    def _tokenize(self, conversation: Conversation, placeholders: Sequence[str]) -> TokenizedConversation:
        pieces = self._expanded(self.renderer.render(conversation).pieces, placeholders)
        runs = [len(run.group()) // len(self._image) for run in self._run.finditer("".join(pieces))]
        # A picture's tokens are put in afterwards: a run of them is tokenised as one, which is exact, since a special token stands alone.
        pieces = [self._run.sub(lambda run: self._image, piece) for piece in pieces]
        ids, ends = self._ids_and_ends(pieces)
        if ids.count(self.image_token_id) != len(runs):
            raise BadInput(f"the tokenizer does not keep {self._image!r} as one token; take the tokenizer of this model")
        targets = self._targets(ids, ends)
        last = max(at for at, target in enumerate(targets) if target != IGNORE)
        return _with_runs(ids[: last + 1], targets, runs, self.image_token_id)

    def _is_usable(self, conversation: Conversation, placeholders: Sequence[str]) -> bool:
        """Whether a conversation of this form can be tokenised where every text is one word."""
        plain = [[{**part, "text": "a"} if part["type"] == "text" else part for part in message["content"]] for message in conversation]
        messages = [{**message, "content": parts} for message, parts in zip(conversation, plain, strict=True)]
        try:
            self._tokenize(tuple(messages), placeholders)
        except (BadInput, _NoBeginning):
            return False
        except MalformedConversation:
            return True
        return True

    def _expanded(self, pieces: Sequence[str], placeholders: Sequence[str]) -> list[str]:
        """The pieces with each picture's placeholder in place of the template's marker."""
        num_markers = sum(piece.count(self.marker) for piece in pieces)
        if num_markers < len(placeholders):
            raise BadInput(f"the chat template leaves pictures out; it must write {self.marker!r} for content of type image")
        if num_markers > len(placeholders):
            raise MalformedConversation(f"a text holds {self.marker!r}, which stands for a picture")
        remaining = iter(placeholders)
        return [re.sub(re.escape(self.marker), lambda _: next(remaining), piece) for piece in pieces]

    def _ids(self, text: str) -> list[int]:
        ids = self._raw_ids(text)
        return ids if ids[:1] == self._bos else self._bos + ids

    def _raw_ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    @cached_property
    def _splits_at_white_space(self) -> bool:
        """Whether the tokens of a text do not depend on being at a text's beginning, as in byte-level BPE."""
        return self._raw_ids("\na") == self._raw_ids("\n") + self._raw_ids("a")

    def _ids_and_ends(self, pieces: Sequence[str]) -> tuple[list[int], list[int]]:
        """The tokens of the whole text, and their number up to the end of each piece.

        Each beginning's tokens must be a beginning of the whole's, as the model gets the prompt alone when it is asked. Where an answer
        begins with white space that the tokenizer joins to that of the prompt (two line breaks as one token), prompt and answer are
        tokenised apart. Raises `_NoBeginning` where a token reaches over another end.
        """
        text, cuts = "".join(pieces), list(accumulate(map(len, pieces)))
        breaks: list[int] = []
        while True:
            ids, anchors = self._anchored_ids(text, breaks)
            ends: list[int] = []
            for number, cut in enumerate(cuts, start=1):
                end = len(ids) if number == len(cuts) else self._end(text, cut, ids, anchors, breaks)
                if end is None or (number % 2 == 0 and end == ends[-1]):
                    break
                ends.append(end)
            else:
                return ids, ends
            start = cuts[len(ends) - len(ends) % 2]  # where the answer begins whose beginning or end is in a token
            if start in breaks or not self._splits_at_white_space or not (text[start - 1].isspace() and text[start].isspace()):
                raise _NoBeginning(
                    f"the tokens up to {pieces[len(ends)][-40:]!r} are no beginning of the tokens of the whole conversation, as happens "
                    "where a prompt ends in a space"
                )
            breaks.append(start)

    def _anchored_ids(self, text: str, breaks: Sequence[int]) -> tuple[list[int], list[tuple[int, int]]]:
        """The tokens of a text, tokenised apart at the breaks; and (place in the text, number of tokens before it) of all special tokens.

        From a special token on, tokens do not depend on what is before it.
        """
        ids: list[int] = []
        anchors = [(0, 0)]
        for begin, end in pairwise([0, *breaks, len(text)]):
            section = self._raw_ids(text[begin:end])
            if begin == 0 and section[:1] != self._bos:
                ids += self._bos
            places = [begin + sign.start() for sign in self._special_sign.finditer(text, begin, end)]
            numbers = [len(ids) + at for at, token in enumerate(section) if token in self._special]
            if begin:
                anchors.append((begin, len(ids)))
            if len(places) == len(numbers):  # else a sign is no token here, and which is not known
                anchors += zip(places, numbers, strict=True)
            ids += section
        return ids, anchors

    def _end(self, text: str, cut: int, ids: Sequence[int], anchors: Sequence[tuple[int, int]], breaks: Sequence[int]) -> int | None:
        """The number of tokens of the text's beginning up to a place; None if these are no beginning of the tokens."""
        place, num_before = anchors[bisect_left(anchors, (cut, 0)) - 1]
        tail = self._ids(text[:cut]) if place == 0 else self._raw_ids(text[place:cut])
        if list(ids[num_before : num_before + len(tail)]) == tail:
            return num_before + len(tail)
        beginning, _ = self._anchored_ids(text[:cut], [place for place in breaks if place < cut])
        return len(beginning) if list(ids[: len(beginning)]) == beginning else None

    def _targets(self, ids: Sequence[int], ends: Sequence[int]) -> list[int]:
        """The token to predict after each, `IGNORE` outside the answers. `ends` alternate: of a prompt, of its answer."""
        targets = [IGNORE] * len(ids)
        for begin, end in zip(ends[::2], ends[1::2], strict=True):
            targets[begin - 1 : end - 1] = ids[begin:end]
            if ids[end - 1] not in self._special:
                if self.tokenizer.eos_token_id is None:
                    raise BadInput(
                        "neither chat template nor tokenizer has an end token, so answers would never end; set tokenizer.eos_token"
                    )
                targets[end - 1] = self.tokenizer.eos_token_id
        return targets


def _refuse_malformed(conversation: Conversation, num_pictures: int) -> None:
    """Raises `MalformedConversation` where the last message is no answer, an answer is empty, or the number of pictures is another."""
    if not conversation or conversation[-1]["role"] != "assistant" or conversation[0]["role"] == "assistant":
        raise MalformedConversation("the conversation does not begin with a question and end with the assistant's answer")
    places = 0
    for message in conversation:
        _refuse_half_characters(message)
        kinds = [part["type"] for part in message["content"]]
        places += kinds.count("image")
        if message["role"] == "assistant" and ("image" in kinds or not "".join(part["text"] for part in message["content"]).strip()):
            raise MalformedConversation("an answer is empty, or holds a picture")
    if places != num_pictures:
        raise MalformedConversation(f"the conversation places {places} pictures, and the example has {num_pictures}")


def _refuse_half_characters(message: Message) -> None:
    """Raises `MalformedConversation` for lone surrogates: halves of a character, which JSON can hold and no tokenizer takes."""
    for part in message["content"]:
        try:
            part.get("text", "").encode()
        except UnicodeEncodeError as error:
            code = f"U+{ord(error.object[error.start]):04X}"
            raise MalformedConversation(f"a text holds {code}, half a surrogate pair and no character; mend its encoding") from error


def _with_runs(ids: Sequence[int], targets: Sequence[int], runs: Sequence[int], image: int) -> TokenizedConversation:
    """Tokens and targets with each image token repeated to its run's length; what follows a run is predicted at its end."""
    lengths = iter(runs)
    tokens: list[int] = []
    repeated_targets: list[int] = []
    for token, target in zip(ids, targets, strict=False):
        length = next(lengths) if token == image else 1
        tokens += [token] * length
        repeated_targets += [IGNORE] * (length - 1) + [target]
    return TokenizedConversation(tuple(tokens), tuple(repeated_targets))


@dataclass(frozen=True)
class TokenizedQuestion:
    """Token ids of a question and its answer: `prefix` up to the picture's last token, `question`, and `answer` with its end token."""

    prefix: tuple[int, ...]
    question: tuple[int, ...]
    answer: tuple[int, ...]

    def as_conversation(self) -> TokenizedConversation:
        """As one sequence with targets; the last answer token is only predicted, so it is not in the sequence."""
        untrained = len(self.prefix) + len(self.question) - 1
        return TokenizedConversation(self.prefix + self.question + self.answer[:-1], (IGNORE,) * untrained + self.answer)


class QuestionTokenizer:
    """Token ids of questions and answers about pictures of `num_picture_tokens` tokens, by a processor's chat template.

    `placeholder`, all tokens of a picture, replaces the template's `marker` (default: the image token). Raises `BadInput` if the
    processor has no chat template.
    """

    def __init__(
        self,
        processor: Any,
        num_picture_tokens: int,
        marker: str | None = None,
        placeholder: str | None = None,
        image_token_id: int | None = None,
    ) -> None:
        template = getattr(processor, "chat_template", None)
        if not template:
            raise BadInput("the processor has no chat template; set processor.chat_template to the model's conversation format")
        self.processor, self.num_picture_tokens = processor, num_picture_tokens
        # The configuration's id comes first: the `image_token_id` of Gemma 3's processor is the token before a picture.
        image = processor.image_token_id if image_token_id is None else image_token_id
        self._conversations = ConversationTokenizer(processor.tokenizer, image, marker, template)
        self._placeholder = placeholder or processor.tokenizer.convert_ids_to_tokens(image) * num_picture_tokens
        self._cache: dict[tuple[str, str], TokenizedQuestion] = {}

    def tokenize(self, question: str, answer: str) -> TokenizedQuestion:
        """Token ids of a question and an answer. Raises `BadInput` if the template does not allow splitting them."""
        key = (question, answer)
        if key not in self._cache:
            self._cache[key] = self._tokenize(question, answer)
        return self._cache[key]

    def lacks(self, text: str) -> bool:
        """Whether the tokenizer has no tokens for some part of a text, and writes the unknown token instead."""
        tokenizer = self.processor.tokenizer
        return tokenizer.unk_token_id is not None and tokenizer.unk_token_id in tokenizer(text, add_special_tokens=False)["input_ids"]

    def _tokenize(self, question: str, answer: str) -> TokenizedQuestion:
        user = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}
        reply = {"role": "assistant", "content": [{"type": "text", "text": answer}]}
        conversation: Conversation = (user, reply)
        try:
            tokenized = self._conversations.tokenize(conversation, (self._placeholder,))
        except MalformedConversation as error:
            raise BadInput(f"{question!r} with the answer {answer!r} cannot be asked: {error}") from error
        tokens, targets = tokenized.tokens, tokenized.targets
        prompt = targets.index(next(target for target in targets if target != IGNORE)) + 1
        cut = len(tokens) - tokens[::-1].index(self._conversations.image_token_id)
        return TokenizedQuestion(tokens[:cut], tokens[cut:prompt], targets[prompt - 1 :])
