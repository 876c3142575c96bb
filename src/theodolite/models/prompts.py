"""Questions as token ids, through the model's own chat template, split where the picture ends.

Everything up to the last picture token is the same for all questions about one picture: trainers and askers share it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from theodolite.records.errors import BadInput


@dataclass(frozen=True)
class TokenizedQuestion:
    """One question about one picture: `prefix` ends with the picture's last token, then `question`, then `answer` with its end token."""

    prefix: tuple[int, ...]
    question: tuple[int, ...]
    answer: tuple[int, ...]


class Prompter:
    """Token ids of questions and answers in the format of a processor's chat template.

    Every picture has `num_picture_tokens` tokens. What the template writes for it (`marker`, the image token by default) is replaced by
    `placeholder`, which holds them all. Raises `BadInput` if the processor has no chat template, or if the template does not put the
    picture before the question.
    """

    def __init__(
        self,
        processor: Any,
        num_picture_tokens: int,
        marker: str | None = None,
        placeholder: str | None = None,
        image_token_id: int | None = None,
    ) -> None:
        if not getattr(processor, "chat_template", None):
            raise BadInput("the processor has no chat template; set processor.chat_template to the model's conversation format")
        self.processor = processor
        self.num_picture_tokens = num_picture_tokens
        # The configuration's where it is given: to Gemma 3's Processor the image token is what stands before a picture.
        self._image_id = processor.image_token_id if image_token_id is None else image_token_id
        self._image = processor.tokenizer.convert_ids_to_tokens(self._image_id)
        self._marker = marker or self._image
        self._placeholder = placeholder or self._image * num_picture_tokens
        self._run = re.compile(f"(?:{re.escape(self._image)})+")
        self._cache: dict[tuple[str, str], TokenizedQuestion] = {}

    def turn(self, question: str, answer: str) -> TokenizedQuestion:
        """The token ids of a question and an answer to it. Raises `BadInput` if question and answer do not split cleanly."""
        key = (question, answer)
        if key not in self._cache:
            self._cache[key] = self._tokenise(question, answer)
        return self._cache[key]

    def _tokenise(self, question: str, answer: str) -> TokenizedQuestion:
        user = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}
        reply = {"role": "assistant", "content": [{"type": "text", "text": answer}]}
        asked = self._ids([user], add_generation_prompt=True)
        whole = self._ids([user, reply], add_generation_prompt=False)
        if whole[: len(asked)] != asked or len(whole) == len(asked):
            raise BadInput(
                f"the chat template does not continue the prompt of {question!r} with the answer {answer!r}: the tokens of the "
                "prompt alone are no beginning of the tokens of the whole; check add_generation_prompt in the template"
            )
        image = self._image_id
        if image not in asked:
            raise BadInput("the chat template leaves the picture out; it must write the image token for content of type image")
        cut = len(asked) - asked[::-1].index(image)
        return TokenizedQuestion(tuple(asked[:cut]), tuple(asked[cut:]), self._with_end(whole[len(asked) :]))

    def _with_end(self, answer: list[int]) -> tuple[int, ...]:
        """The answer up to its end token: templates may write a line break behind it, or leave it out."""
        eos = self.processor.tokenizer.eos_token_id
        if eos is None:
            raise BadInput("the tokenizer has no end token, so a choice cannot be told from one that goes on; set tokenizer.eos_token")
        return (*tuple(answer[: answer.index(eos)] if eos in answer else answer), eos)

    def _ids(self, messages: list[dict[str, Any]], *, add_generation_prompt: bool) -> list[int]:
        text = self.processor.apply_chat_template(messages, add_generation_prompt=add_generation_prompt, tokenize=False)
        text = text.replace(self._marker, self._placeholder)
        lengths = [len(run.group()) // len(self._image) for run in self._run.finditer(text)]
        # A run of image tokens is tokenised as one and put in afterwards, which is exact, since a special token stands alone.
        short = self._run.sub(lambda run: self._image, text)
        ids = list(self._repeated(self.processor.tokenizer(short, add_special_tokens=False)["input_ids"], lengths))
        # Where the tokenizer begins every text with a token of its own, the template leaves that to it.
        begins = self.processor.tokenizer("")["input_ids"][:1]
        bos = [self.processor.tokenizer.bos_token_id]
        return ids if begins != bos or ids[:1] == bos else bos + ids

    def _repeated(self, ids: list[int], lengths: list[int]) -> Iterator[int]:
        """The ids with each image token repeated to its run's length."""
        image, runs = self._image_id, iter(lengths)
        if ids.count(image) != len(lengths):
            raise BadInput(f"the tokenizer does not keep {self._image!r} as one token; take the tokenizer of this model")
        for token in ids:
            yield from [token] * (next(runs) if token == image else 1)
