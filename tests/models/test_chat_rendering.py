"""Conversations through chat templates: one rendering each, cut as growing beginnings would cut them, and faults that cost one record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from helpers.conversations import IMAGE, LINES, bytes_tokenizer, says
from helpers.tiny_families import NAMES, tokenizer
from theodolite.models.chat_rendering import ChatRenderer, MalformedConversation
from theodolite.models.conversation_tokenizer import IGNORE, ConversationTokenizer
from theodolite.records.errors import BadInput

PARTS = "{% for part in m['content'] %}{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
TRIMMED = PARTS.replace("part['text']", "part['text'] | trim")
# As LLaVA 1.5: all pictures of a message first, words and not signs for the roles, answers closed by a space.
LLAVA = (
    "{% for m in messages %}{{ 'a ' if m['role'] == 'user' else 'b ' }}"
    "{% for part in m['content'] if part['type'] == 'image' %}<image>\n{% endfor %}"
    "{% for part in m['content'] if part['type'] == 'text' %}{{ part['text'] + ' ' }}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'b' }}{% endif %}"
)
# As Qwen3: an answer that another question follows loses its thoughts, the last one has a think block even if it is empty.
THINK = (
    "{% for m in messages %}<{{ m['role'] }}>{{ '\\n' }}{% if m['role'] == 'assistant' %}{% set words = m['content'][0]['text'] %}"
    "{% if loop.last %}{% if '</think>' in words %}{{ words }}{% else %}<think>{{ '\\n\\n' }}</think>{{ '\\n\\n' + words }}{% endif %}"
    "{% else %}{{ words.split('</think>')[-1] | trim }}{% endif %}{% else %}" + PARTS + "{% endif %}</s>{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{{ '\\n' }}{% endif %}"
)
TEMPLATES = {
    "lines": LINES,
    "llava": LLAVA,
    "trimmed": LINES.replace(LINES[LINES.index("{% for part") : LINES.index("</s>")], TRIMMED),
    "think": THINK,
    "spaced": LINES.replace("m['role'] + '>' }}{{", "m['role'] + '>' }} {{"),
    **{f"of {name}": tokenizer(name).chat_template for name in NAMES},
}
CONVERSATIONS = {
    "one turn": (says("user", IMAGE, "what colour"), says("assistant", "red")),
    "three turns": (
        says("system", "a b"),
        *(says("user", IMAGE, "what"), says("assistant", "red ")),
        *(says("user", "a\n", IMAGE, " b"), says("assistant", "round blue")),
        *(says("user", "\nshape"), says("assistant", "yes\n")),
    ),
    "parts": (says("user", "a", IMAGE, IMAGE, "b", "c"), says("assistant", "red", "blue")),
    "thoughts": (
        *(says("user", IMAGE, "what"), says("assistant", "<think>\na\n</think>\n\nred")),
        *(says("user", "shape"), says("assistant", "<think>\nb\n</think>\n\nround")),
    ),
}


class Counting:
    """A tokenizer that counts its renderings."""

    def __init__(self, own: Any) -> None:
        self.own, self.renderings = own, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.own, name)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self.own(*arguments, **options)

    def apply_chat_template(self, *arguments: Any, **options: Any) -> Any:
        self.renderings += 1
        return self.own.apply_chat_template(*arguments, **options)


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("name", CONVERSATIONS)
def test_a_conversation_is_cut_as_growing_beginnings_cut_it(template: str, name: str) -> None:
    own = tokenizer(template.removeprefix("of ") if template.startswith("of ") else "llava")
    marker = "<start_of_image>" if template == "of gemma3" else own.convert_ids_to_tokens(own.convert_tokens_to_ids("<image>"))
    renderer = ChatRenderer(own, marker, TEMPLATES[template])
    # Pictures that lie between texts are put in order first; what is cut is the conversation that results.
    ordered = tuple(renderer._with_pictures_in_order(message) for message in CONVERSATIONS[name])
    expected = renderer._cut(ordered, renderer._written(ordered, generation=False))
    assert renderer.render(CONVERSATIONS[name]) == expected
    assert renderer.render(CONVERSATIONS[name]) == expected


def test_a_conversation_of_a_known_form_is_rendered_once() -> None:
    own = Counting(tokenizer("llava"))
    trained = ConversationTokenizer(own, own.convert_tokens_to_ids("<image>"), None, LINES)
    for number in range(5):
        own.renderings = 0
        trained.tokenize(
            (says("user", IMAGE, "what"), *[says("assistant", "red"), says("user", "a")] * 4, says("assistant", "b")), ["<image>"]
        )
        assert own.renderings == 1 or not number


def words_trained(trained: ConversationTokenizer, conversation: Any, pictures: Sequence[str] = ("<image>",)) -> list[str]:
    tokenized = trained.tokenize(conversation, pictures)
    return trained.tokenizer.convert_ids_to_tokens([target for target in tokenized.targets if target != IGNORE])


def of_template(template: str) -> ConversationTokenizer:
    own = tokenizer("llava")
    return ConversationTokenizer(own, own.convert_tokens_to_ids("<image>"), None, template)


def test_an_answer_that_is_written_in_full_only_at_the_end_is_context_before_it() -> None:
    trained = of_template(THINK.replace("<think>", "<img>").replace("</think>", "</img>"))
    assert words_trained(
        trained, (says("user", IMAGE, "what"), says("assistant", "red"), says("user", "a"), says("assistant", "blue"))
    ) == [*("<img>", "\n\n", "</img>", "\n\n", "blue", "</s>")]
    thoughtful = (
        says("user", IMAGE, "what"),
        says("assistant", "<img> c </img> red"),
        says("user", "a"),
        says("assistant", "<img> d </img> blue"),
    )
    tokenized = trained.tokenize(thoughtful, ["<image>"])
    text = trained.tokenizer.convert_ids_to_tokens(list(tokenized.tokens))
    assert text[text.index("<assistant>") :][:4] == ["<assistant>", "\n", "red", "</s>"]  # as the model sees it when it is asked
    assert words_trained(trained, thoughtful) == ["<img>", "d", "</img>", "blue", "</s>"]


@pytest.mark.parametrize("blank", ["\n", "\n\n", " \n", " "])
def test_an_answer_that_begins_with_a_line_break_is_trained_behind_the_prompt_that_the_model_gets(blank: str) -> None:
    own = bytes_tokenizer()
    assert len(own("\n\n")["input_ids"]) == 1
    trained = ConversationTokenizer(own, own.convert_tokens_to_ids("<image>"), None, LINES)
    conversation = (says("user", IMAGE, "what"), says("assistant", f"{blank}yes"), says("user", "is it"), says("assistant", f"{blank}red"))
    tokenized = trained.tokenize(conversation, ["<image>" * 3])
    assert own.decode([target for target in tokenized.targets if target != IGNORE]) == f"{blank}yes</s>{blank}red</s>"
    for end in (2, 4):
        asked = own.apply_chat_template(list(conversation[: end - 1]), chat_template=LINES, add_generation_prompt=True, tokenize=False)
        prompt = own(asked.replace("<image>", "<image>" * 3), add_special_tokens=False)["input_ids"]
        if end == 2:
            assert list(tokenized.tokens[: len(prompt)]) == prompt
        assert own.decode(prompt).endswith("<assistant>\n")
    plain = tuple(
        says(message["role"], *(part["text"].strip() if part["type"] == "text" else part for part in message["content"]))
        for message in conversation
    )
    assert own.decode([target for target in trained.tokenize(plain, ["<image>"]).targets if target != IGNORE]) == "yes</s>red</s>"


def test_a_text_with_half_a_character_costs_its_record() -> None:
    trained = of_template(LINES)
    for conversation in (
        (says("user", IMAGE, "what \ud83d"), says("assistant", "red")),
        (says("user", IMAGE, "what"), says("assistant", "red \udc00")),
    ):
        with pytest.raises(MalformedConversation, match=r"a text holds U\+D(83D|C00), half a surrogate pair"):
            trained.tokenize(conversation, ["<image>"])


def test_what_a_template_raises_on_a_conversation_costs_its_record() -> None:
    odd = "{% for m in messages %}{% if m['content'][0]['text'] == 'a' %}{{ 1 + 'x' }}{% endif %}{% endfor %}" + LINES
    assert words_trained(of_template(odd), (says("user", "what", IMAGE), says("assistant", "red"))) == ["red", "</s>"]
    with pytest.raises(MalformedConversation, match=r"refuses the conversation \(unsupported operand"):
        of_template(odd).tokenize((says("user", "a", IMAGE), says("assistant", "red")), ["<image>"])


def test_words_that_a_tokenizer_joins_to_the_prompt_cost_their_record_where_the_template_is_usable() -> None:
    """The prompt ends in a sign that only some answers go on."""
    glue = LINES.replace("<assistant>{{ '\\n' }}", "<assistant>{{ '\\n.' }}").replace(
        "{{ '\\n' }}{% for part", "{{ '\\n' }}{{ '.' if m['role'] == 'assistant' }}{% for part"
    )
    own = bytes_tokenizer()
    trained = ConversationTokenizer(own, own.convert_tokens_to_ids("<image>"), None, glue)
    assert words_trained(trained, (says("user", IMAGE, "what"), says("assistant", "yes"))) == ["yes", "</s>"]
    with pytest.raises(MalformedConversation, match="no beginning of the tokens of the whole conversation"):
        trained.tokenize((says("user", IMAGE, "what"), says("assistant", ".. red")), ["<image>"])


def test_pictures_between_texts_keep_their_order_where_a_template_would_put_all_first() -> None:
    moved = says("user", "a", IMAGE, "b", IMAGE)
    trained = of_template(LLAVA)
    tokenized = trained.tokenize((moved, says("assistant", "red")), ["<image>" * 2, "<image>" * 3])
    text = trained.tokenizer.convert_ids_to_tokens(list(tokenized.tokens))
    assert [word for word in text if word != "\n"] == ["a", "a", *["<image>"] * 2, "b", *["<image>"] * 3, "b", "red"]
    assert words_trained(trained, (moved, says("assistant", "red")), ["<image>"] * 2) == ["red", "</s>"]
    # One picture stands where the template puts it, and so do several that are not between texts.
    for parts in ((IMAGE, "a"), ("a", IMAGE), (IMAGE, IMAGE, "a")):
        conversation = (says("user", *parts), says("assistant", "red"))
        written = trained.tokenizer.apply_chat_template(list(conversation), chat_template=LLAVA, tokenize=False)
        assert trained.renderer.render(conversation).text == written.rstrip()
    held = (says("user", "a", IMAGE, "b <image>", IMAGE), says("assistant", "red"))
    with pytest.raises(MalformedConversation, match="a text holds '<image>'"):
        trained.tokenize(held, ["<image>"] * 2)


def test_a_template_that_takes_pictures_out_of_their_place_is_refused_by_name() -> None:
    framed = LLAVA.replace("<image>\n", "c <image> d ")
    with pytest.raises(MalformedConversation, match="takes pictures out of their order among the words; put them before"):
        of_template(framed).tokenize((says("user", "a", IMAGE, "b", IMAGE), says("assistant", "red")), ["<image>"] * 2)
    hoisted = (
        "{% for m in messages %}{% for part in m['content'] if part['type'] == 'image' %}<image>{% endfor %}{% endfor %}"
        + LINES.replace("<image>", "")
    )
    first = (says("user", IMAGE, "a"), says("assistant", "red"))
    assert words_trained(of_template(hoisted), first) == ["red", "</s>"]
    with pytest.raises(MalformedConversation, match="writes a picture with the words of another message"):
        of_template(hoisted).tokenize((*first, says("user", "a", IMAGE), says("assistant", "blue")), ["<image>"] * 2)
    with pytest.raises(BadInput, match="leaves pictures out"):
        of_template(LINES.replace("<image>", "")).tokenize(
            (says("user", "a", IMAGE, "b", IMAGE), says("assistant", "red")), ["<image>"] * 2
        )
