"""Conversations as tokens, through the model's own chat template, with a target where the model itself speaks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from jinja2 import TemplateError

from theodolite.data.conversations import Conversation
from theodolite.data.drops import Unfit
from theodolite.models.families import image_token_id
from theodolite.models.pictures import PictureReader, ProcessedPicture
from theodolite.objectives.language import IGNORE
from theodolite.records.errors import BadInput


@dataclass(frozen=True)
class TokenizedConversation:
    """A conversation up to the last token that predicts one of its answers'.

    `targets[i]` is the token to be said after token i, `IGNORE` where none is trained.
    """

    tokens: tuple[int, ...]
    targets: tuple[int, ...]


class ConversationTokenizer:
    """Conversations in the format of a chat template: the tokenizer's own, or the one given.

    Trained are the assistant's words, with the end token that the template writes behind them; where it writes none, the tokenizer's.
    Raises `BadInput` without a template.
    """

    def __init__(self, tokenizer: Any, reader: PictureReader, chat_template: str | None = None) -> None:
        self.tokenizer, self.reader = tokenizer, reader
        self.template = chat_template or tokenizer.chat_template
        if not self.template:
            raise BadInput("the tokenizer has no chat template; give chat_template, such as the processor's own (processor.chat_template)")
        self.image_token_id = image_token_id(reader.config)
        self._image = tokenizer.convert_ids_to_tokens(self.image_token_id)
        self._run = re.compile(f"(?:{re.escape(self._image)})+")
        added = tokenizer.added_tokens_decoder.items()
        special = {number for number, token in added if token.special} | set(tokenizer.all_special_ids)
        self._special = special - {tokenizer.unk_token_id}
        # Where the tokenizer begins every text with a token of its own, templates leave that to it.
        begins = list(tokenizer("")["input_ids"][:1])
        self._begins = begins if begins and begins[0] == tokenizer.bos_token_id else []

    def transcribe(self, conversation: Conversation, reads: Sequence[ProcessedPicture]) -> TokenizedConversation:
        """The tokens and targets of a conversation about pictures that were read, in order.

        Raises `Unfit` for a conversation that cannot be trained on, `BadInput` if the template does not write prompts as beginnings of
        what follows, or leaves pictures out.
        """
        _refuse_malformed(conversation, len(reads))
        pieces = self._expanded(self._pieces(conversation), reads)
        runs = [len(run.group()) // len(self._image) for run in self._run.finditer("".join(pieces))]
        # A picture's tokens are put in afterwards: a run of them is tokenised as one, which is exact, since a special token stands alone.
        pieces = [self._run.sub(lambda run: self._image, piece) for piece in pieces]
        ids, ends = self._ids("".join(pieces)), self._ends(pieces)
        if ids.count(self.image_token_id) != len(runs):
            raise BadInput(f"the tokenizer does not keep {self._image!r} as one token; take the tokenizer of this model")
        targets = self._targets(ids, ends)
        last = max(at for at, target in enumerate(targets) if target != IGNORE)
        return _with_runs(ids[: last + 1], targets, runs, self.image_token_id)

    def _pieces(self, conversation: Conversation) -> list[str]:
        """The rendered conversation cut before and behind each answer: prompt, answer, prompt, answer ... with nothing behind the last."""
        whole = self._text(conversation, generation=False)
        if "{'type': 'text'" in whole:
            raise BadInput("the chat template writes lists of parts as they are; take the template of a vision-language model")
        cuts = [0]
        for at, message in enumerate(conversation):
            if message["role"] != "assistant":
                continue
            prompt = self._text(conversation[:at], generation=True)
            said = self._text(conversation[: at + 1], generation=False)
            begin, end = _answer_begin(prompt, said), len(said.rstrip())  # templates may write a line break behind the end token
            if begin is None or not (whole.startswith(said) and end > begin >= cuts[-1]):
                raise BadInput(
                    f"the chat template does not continue its prompt, which ends in {prompt[-40:]!r}, with the answer: with it, the "
                    f"text ends in {said[-80:]!r}; check add_generation_prompt in the template"
                )
            cuts += [begin, end]
        return [whole[begin:end] for begin, end in pairwise(cuts)]

    def _text(self, messages: Conversation, *, generation: bool) -> str:
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    list(messages), chat_template=self.template, add_generation_prompt=generation, tokenize=False
                )
            )
        except TemplateError as error:
            raise Unfit("malformed", f"the chat template refuses the conversation ({error})") from error

    def _expanded(self, pieces: Sequence[str], reads: Sequence[ProcessedPicture]) -> list[str]:
        """The pieces with what stands for each picture in place of the template's marker."""
        counts = [piece.count(self.reader.marker) for piece in pieces]
        if sum(counts) < len(reads):
            raise BadInput(f"the chat template leaves pictures out; it must write {self.reader.marker!r} for content of type image")
        if sum(counts) > len(reads):
            raise Unfit("malformed", f"a text holds {self.reader.marker!r}, which stands for a picture")
        firsts = [sum(counts[:at]) for at in range(len(counts))]
        return [self.reader.expand(piece, reads[first : first + n]) for piece, first, n in zip(pieces, firsts, counts, strict=True)]

    def _ids(self, text: str) -> list[int]:
        ids = list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        return ids if ids[:1] == self._begins else self._begins + ids

    def _ends(self, pieces: Sequence[str]) -> list[int]:
        """How many tokens there are up to the end of each piece. Raises `BadInput` where a token reaches over it."""
        whole = self._ids("".join(pieces))
        ends: list[int] = []
        for number in range(1, len(pieces) + 1):
            part = self._ids("".join(pieces[:number]))
            is_answer_lost = number % 2 == 0 and len(part) == ends[-1]
            if whole[: len(part)] != part or is_answer_lost:
                raise BadInput(
                    f"the tokens up to {pieces[number - 1][-40:]!r} are no beginning of the tokens of the whole conversation; the chat "
                    "template must put a special token or a space between prompt and answer"
                )
            ends.append(len(part))
        return ends

    def _targets(self, ids: Sequence[int], ends: Sequence[int]) -> list[int]:
        """The token that is to be said after each, `IGNORE` outside the answers. `ends` alternate: of a prompt, of its answer."""
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


def _answer_begin(prompt: str, said: str) -> int | None:
    """Where the answer begins in what continues the prompt; None if that does not begin with the prompt.

    White space at the end of the prompt may be other white space there: LLaVA-OneVision's own template writes a space more.
    """
    if said.startswith(prompt):
        return len(prompt)
    stem = prompt.rstrip()
    behind = said[len(stem) :]
    gap = len(behind) - len(behind.lstrip())
    return len(stem) + gap if gap and said.startswith(stem) else None


def _refuse_malformed(conversation: Conversation, num_pictures: int) -> None:
    """Raises `Unfit` for a conversation that does not end in an answer, has empty ones, or places other pictures than there are."""
    if not conversation or conversation[-1]["role"] != "assistant" or conversation[0]["role"] == "assistant":
        raise Unfit("malformed", "the conversation does not begin with a question and end with the assistant's answer")
    places = 0
    for message in conversation:
        kinds = [part["type"] for part in message["content"]]
        places += kinds.count("image")
        if message["role"] == "assistant" and ("image" in kinds or not "".join(part["text"] for part in message["content"]).strip()):
            raise Unfit("malformed", "an answer is empty, or holds a picture")
    if places != num_pictures:
        raise Unfit("malformed", f"the conversation places {places} pictures, and the example has {num_pictures}")


def _with_runs(ids: Sequence[int], targets: Sequence[int], runs: Sequence[int], image: int) -> TokenizedConversation:
    """Tokens and targets with each image token repeated to its run's length; what follows a run is predicted at its end."""
    lengths = iter(runs)
    tokens: list[int] = []
    said: list[int] = []
    for token, target in zip(ids, targets, strict=False):
        length = next(lengths) if token == image else 1
        tokens += [token] * length
        said += [IGNORE] * (length - 1) + [target]
    return TokenizedConversation(tuple(tokens), tuple(said))
