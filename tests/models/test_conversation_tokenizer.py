"""One tokenizer of conversations: what training and asking share, which end an answer has, and what cannot be asked."""

from __future__ import annotations

from typing import Any

import pytest

from helpers.tiny_families import TEMPLATE, WRITTEN, tokenizer
from theodolite.models.chat_rendering import MalformedConversation
from theodolite.models.conversation_tokenizer import IGNORE, ConversationTokenizer, QuestionTokenizer
from theodolite.records.errors import BadInput

IMAGE = "<image>"


class Processor:
    """The parts of a Processor that questions are tokenised with."""

    def __init__(self, template: str) -> None:
        self.tokenizer, self.chat_template = tokenizer("llava"), template
        self.image_token_id = self.tokenizer.convert_tokens_to_ids(IMAGE)


def processor(end: str = "</s>", before_answer: str = "") -> Processor:
    template = TEMPLATE.replace("PICTURE", repr(WRITTEN["llava"])).replace("</s>", end)
    return Processor(template.replace("{{ message['content'][0]['text'] }}", before_answer + "{{ message['content'][0]['text'] }}"))


def conversation(*turns: tuple[str, str]) -> tuple[dict[str, Any], ...]:
    messages = []
    for number, (question, answer) in enumerate(turns):
        picture = [] if number else [{"type": "image"}]
        messages.append({"role": "user", "content": [*picture, {"type": "text", "text": question}]})
        messages.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    return tuple(messages)


def words(own: Processor, ids: tuple[int, ...]) -> list[str]:
    return own.tokenizer.convert_ids_to_tokens(list(ids))


def test_a_question_is_the_conversation_of_one_turn_that_training_sees() -> None:
    own = processor()
    asked = QuestionTokenizer(own, 3).tokenize("what shape", "a b")
    assert [words(own, part) for part in (asked.prefix, asked.question, asked.answer)] == [
        ["<user>", *[IMAGE] * 3], ["what", "shape", "<assistant>"], ["a", "b", "</s>"],
    ]  # fmt: skip
    trained = ConversationTokenizer(own.tokenizer, own.image_token_id, None, own.chat_template)
    assert asked.as_conversation() == trained.tokenize(conversation(("what shape", "a b")), [IMAGE * 3])


def test_every_answer_of_a_conversation_is_trained_and_nothing_else() -> None:
    own = processor()
    trained = ConversationTokenizer(own.tokenizer, own.image_token_id, None, own.chat_template)
    tokenized = trained.tokenize(conversation(("what shape", "round"), ("what colour", "red")), [IMAGE * 2])
    targets = [target for target in tokenized.targets if target != IGNORE]
    assert words(own, tuple(targets)) == ["round", "</s>", "red", "</s>"]


@pytest.mark.parametrize("end", ["<end_of_utterance>", "<end_of_utterance>{{ '\\n' }}"])
def test_an_answer_ends_with_the_special_token_that_the_template_writes(end: str) -> None:
    own = processor(end)
    assert words(own, QuestionTokenizer(own, 2).tokenize("what shape", "round").answer) == ["round", "<end_of_utterance>"]


def test_white_space_that_the_template_writes_before_an_answer_belongs_to_the_prompt() -> None:
    own = processor()
    own.chat_template = own.chat_template.replace("<assistant>", "<assistant>\n").replace(
        "{{ message['content'][0]['text'] }}", "{{ ' ' + message['content'][0]['text'] }}"
    )
    asked = QuestionTokenizer(own, 2).tokenize("what shape", "round")
    assert words(own, asked.answer) == ["round", "</s>"] and words(own, asked.question)[:3] == ["what", "shape", "<assistant>"]


def test_a_question_that_holds_the_pictures_marker_is_refused() -> None:
    own = processor()
    with pytest.raises(BadInput, match=r"'what <image>' with the answer 'red' cannot be asked: a text holds '<image>'"):
        QuestionTokenizer(own, 2).tokenize("what <image>", "red")
    trained = ConversationTokenizer(own.tokenizer, own.image_token_id, None, own.chat_template)
    with pytest.raises(MalformedConversation, match="places 1 pictures, and the example has 0"):
        trained.tokenize(conversation(("what", "red")), [])
