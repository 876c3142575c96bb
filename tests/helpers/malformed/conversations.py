"""Targets: LLaVA records up to rendered conversations, and chat templates."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from helpers.conversations import IMAGE, LINES, says
from helpers.malformed.json_cases import json_files, json_lines
from helpers.malformed.tables import picture_folder
from helpers.malformed.target import Prepare, Ready
from helpers.tiny_families import tokenizer
from theodolite.data.drops import Unfit
from theodolite.data.samples import open_picture
from theodolite.data.sources import LlavaJson, Malformed
from theodolite.models.chat_rendering import ChatRenderer, MalformedConversation
from theodolite.records.errors import BadInput

TURNS = [{"from": "human", "value": "<image>\nWhat colour is it?"}, {"from": "gpt", "value": "red"}]
RECORDS: list[dict[str, Any]] = [
    {"id": "a", "image": "a.png", "conversations": TURNS},
    {
        "id": 2,
        "image": ["a.png", "b.png"],
        "conversations": [{"from": "human", "value": "<image> and <image>"}, {"from": "gpt", "value": "both"}],
    },
    {
        "id": "c",
        "conversations": [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}, {"role": "assistant", "content": "Hi"}],
    },
    {"id": "d", "image": "c.jpg", "conversations": json.dumps(TURNS)},
    {"id": "e", "image": "c.jpg", "conversations": {"user": ["What?"], "assistant": ["That."]}},
]


def llava_json(folder: Path) -> Ready:
    picture_folder(folder)
    renderer = ChatRenderer(tokenizer("llava"), "<image>", LINES)

    def consume(payload: bytes) -> None:
        path = folder / ("x.jsonl" if payload.startswith(b'{"id"') else "x.json")
        path.write_bytes(payload)
        records = LlavaJson(path, folder)
        for at in range(min(len(records), 8)):
            example = records[at]
            if isinstance(example, Malformed):
                assert example.problem
                continue
            try:
                for picture in example.pictures:
                    open_picture(picture)
                for conversation in example.conversations:
                    renderer.render(conversation)
            except (Unfit, MalformedConversation):
                pass

    return Ready(st.one_of(json_files([RECORDS, RECORDS[:1]]), json_lines([RECORDS])), consume)


CONVERSATION = (says("user", IMAGE, "what"), says("assistant", "red"), says("user", "shape"), says("assistant", "round"))
PIECES = (
    "{% for m in messages %}", "{% endfor %}", "{{ m['content'] }}", "{{ m }}", "{% if loop.last %}", "{% endif %}", "{{ messages[7] }}",
    "<image>",
    "{{ 1 / 0 }}", "{{ raise_exception('no') }}", "{% set x = namespace(n=0) %}", "{{ x.n }}", "{{ ''.__class__.__mro__ }}",
    "{% include 'a' %}",
    "{{ m.content[0].text.__class__ }}", "{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}", "{{ range(10**9) }}",
    "{{ range(99999) | list | length }}",
    "{% for a in range(99999) %}{% endfor %}", "{{ 'a' * 9999 }}", "{{ messages | tojson }}", "{{ strftime_now('%Y') }}", "{%", "}}",
    "{{ '\ud800' }}",
    "{{ undefined.a.b }}", "{{ messages.append(1) }}", "{% do x %}", "{% break %}", "{{ lipsum(1) }}", "{{ cycler }}",
    "{{ '%s' | format(1, 2) }}",
    "{{ messages | map(attribute='role') | join }}", "{{ (1).real.__init__ }}", "{{ 'a'.format.__globals__ }}",
    "{% generation %}a{% endgeneration %}",
)  # fmt: skip


@st.composite
def templates(draw: st.DrawFn) -> bytes:
    """A usual template with pieces put in, cut out or exchanged; or pieces alone."""
    text = draw(st.sampled_from((LINES, LINES, LINES, "")))
    for _ in range(draw(st.integers(0 if text else 1, 4))):
        at, how = draw(st.integers(0, len(text))), draw(st.integers(0, 3))
        if how == 0:
            text = text[:at] + text[at + draw(st.sampled_from((1, 5, 40))) :]
        else:
            text = text[:at] + draw(st.one_of(st.sampled_from(PIECES), st.sampled_from(PIECES), st.text(max_size=4))) + text[at:]
    return text.encode(errors="surrogatepass")


def chat_template(folder: Path) -> Ready:
    own = tokenizer("llava")

    def consume(payload: bytes) -> None:
        template = payload.decode(errors="surrogatepass")
        if not template:
            raise BadInput("no template")
        ChatRenderer(own, "<image>", template).render(CONVERSATION)

    return Ready(templates(), consume, (BadInput, MalformedConversation))


TARGETS: Mapping[str, Prepare] = {"LLaVA JSON": llava_json, "chat template": chat_template}
