"""Conversations and questions as token ids through a model's own chat template, with a training target where the assistant speaks.

The one place where a chat template is rendered: training, asking and tours all tokenise here. Everything up to the last picture token is
the same for all questions about one picture, so trainers and askers share it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from jinja2 import TemplateError

from theodolite.records.errors import BadInput

Message = Mapping[str, Any]
Conversation = tuple[Message, ...]
# The target of a position at which no token is trained, as torch's cross-entropy has it.
IGNORE = -100


class MalformedConversation(ValueError):
    """A conversation that cannot be tokenised for training; the message says what is wrong with it."""


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
        self.template = chat_template or tokenizer.chat_template
        if not self.template:
            raise BadInput("there is no chat template; give chat_template, such as the processor's own (processor.chat_template)")
        self._image = tokenizer.convert_ids_to_tokens(image_token_id)
        self.marker = marker or self._image
        self._run = re.compile(f"(?:{re.escape(self._image)})+")
        added = tokenizer.added_tokens_decoder.items()
        special = {number for number, token in added if token.special} | set(tokenizer.all_special_ids)
        self._special = special - {tokenizer.unk_token_id}
        # Where the tokenizer begins every text with a token of its own, templates leave that to it.
        first = list(tokenizer("")["input_ids"][:1])
        self._bos = first if first and first[0] == tokenizer.bos_token_id else []

    def tokenize(self, conversation: Conversation, placeholders: Sequence[str]) -> TokenizedConversation:
        """Tokens and targets of a conversation whose pictures have these placeholders, in order.

        Raises `MalformedConversation` for a conversation that cannot be trained on, `BadInput` if the template does not write prompts as
        beginnings of what follows, or leaves pictures out.
        """
        _refuse_malformed(conversation, len(placeholders))
        pieces = self._expanded(self._pieces(conversation), placeholders)
        runs = [len(run.group()) // len(self._image) for run in self._run.finditer("".join(pieces))]
        # A picture's tokens are put in afterwards: a run of them is tokenised as one, which is exact, since a special token stands alone.
        pieces = [self._run.sub(lambda run: self._image, piece) for piece in pieces]
        ids = self._ids("".join(pieces))
        if ids.count(self.image_token_id) != len(runs):
            raise BadInput(f"the tokenizer does not keep {self._image!r} as one token; take the tokenizer of this model")
        targets = self._targets(ids, self._ends(pieces, ids))
        last = max(at for at, target in enumerate(targets) if target != IGNORE)
        return _with_runs(ids[: last + 1], targets, runs, self.image_token_id)

    def _pieces(self, conversation: Conversation) -> list[str]:
        """The rendered conversation cut before and behind each answer: prompt, answer, prompt, answer ... with nothing behind the last."""
        rendered = self._render(conversation, generation=False)
        if "{'type': 'text'" in rendered:
            raise BadInput("the chat template writes lists of parts as they are; take the template of a vision-language model")
        cuts = [0]
        for at, message in enumerate(conversation):
            if message["role"] != "assistant":
                continue
            prompt = self._render(conversation[:at], generation=True)
            answered = rendered if at + 1 == len(conversation) else self._render(conversation[: at + 1], generation=False)
            begin, end = _answer_begin(prompt, answered), len(answered.rstrip())  # templates may write a line break behind the end token
            if begin is None or not (rendered.startswith(answered) and end > begin >= cuts[-1]):
                raise BadInput(
                    f"the chat template does not continue its prompt, which ends in {prompt[-40:]!r}, with the answer: with it, the "
                    f"text ends in {answered[-80:]!r}; check add_generation_prompt in the template"
                )
            cuts += [begin, end]
        return [rendered[begin:end] for begin, end in pairwise(cuts)]

    def _render(self, messages: Conversation, *, generation: bool) -> str:
        options = {"chat_template": self.template, "add_generation_prompt": generation, "tokenize": False}
        try:
            return str(self.tokenizer.apply_chat_template(list(messages), **options))
        except TemplateError as error:
            raise MalformedConversation(f"the chat template refuses the conversation ({error})") from error

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
        ids = list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        return ids if ids[:1] == self._bos else self._bos + ids

    def _ends(self, pieces: Sequence[str], ids: Sequence[int]) -> list[int]:
        """The number of tokens up to the end of each piece. Raises `BadInput` where a token reaches over it."""
        ends: list[int] = []
        for number in range(1, len(pieces) + 1):
            beginning = ids if number == len(pieces) else self._ids("".join(pieces[:number]))
            is_answer_lost = number % 2 == 0 and len(beginning) == ends[-1]
            if ids[: len(beginning)] != beginning or is_answer_lost:
                raise BadInput(
                    f"the tokens up to {pieces[number - 1][-40:]!r} are no beginning of the tokens of the whole conversation; the chat "
                    "template must put a special token or a space between prompt and answer"
                )
            ends.append(len(beginning))
        return ends

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


def _refuse_malformed(conversation: Conversation, num_pictures: int) -> None:
    """Raises `MalformedConversation` where the last message is no answer, an answer is empty, or the number of pictures is another."""
    if not conversation or conversation[-1]["role"] != "assistant" or conversation[0]["role"] == "assistant":
        raise MalformedConversation("the conversation does not begin with a question and end with the assistant's answer")
    places = 0
    for message in conversation:
        kinds = [part["type"] for part in message["content"]]
        places += kinds.count("image")
        if message["role"] == "assistant" and ("image" in kinds or not "".join(part["text"] for part in message["content"]).strip()):
            raise MalformedConversation("an answer is empty, or holds a picture")
    if places != num_pictures:
        raise MalformedConversation(f"the conversation places {places} pictures, and the example has {num_pictures}")


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
