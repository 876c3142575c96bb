"""Token ids of questions about one picture, split after its last token.

The prefix up to there is the same for all questions about the picture; training and asking share it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from theodolite.models.conversation_tokenizer import (
    IGNORE,
    Conversation,
    ConversationTokenizer,
    MalformedConversation,
    TokenizedConversation,
)
from theodolite.records.errors import BadInput


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
