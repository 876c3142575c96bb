"""Files of LLaVA records as editors, shells and cut-off downloads leave them: what is read all the same, and what is told of the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from theodolite.data.conversations import BadConversation, conversation_of
from theodolite.data.sources import LlavaJson, Malformed, TrainingExample
from theodolite.records.errors import BadInput


def record(name: object, **more: Any) -> dict[str, Any]:
    return {"id": name, "conversations": [{"from": "human", "value": f"q {name}"}, {"from": "gpt", "value": "yes"}], **more}


def keys(source: LlavaJson) -> list[str]:
    return [source[index].key for index in range(len(source))]


@pytest.mark.parametrize("sign", ["\u2028", "\u2029", "\u0085"])
def test_a_text_with_a_line_separator_is_one_record(tmp_path: Path, sign: str) -> None:
    path = tmp_path / "a.jsonl"
    names = ("one", f"two{sign}lines", "three")
    path.write_text("\n".join(json.dumps(record(name), ensure_ascii=False) for name in names) + "\n", encoding="utf-8")
    source = LlavaJson(path, tmp_path)
    assert keys(source) == list(names)
    two = source[1]
    assert isinstance(two, TrainingExample) and two.conversations[0][0]["content"][-1]["text"] == f"q two{sign}lines"


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.JSONL"])
def test_a_byte_order_mark_and_windows_line_ends_are_no_fault(tmp_path: Path, name: str) -> None:
    records = [record("one"), record("two")]
    text = json.dumps(records) if name == "a.json" else "\r\n".join(map(json.dumps, records))
    (tmp_path / name).write_bytes(text.encode("utf-8-sig"))
    assert keys(LlavaJson(tmp_path / name, tmp_path)) == ["one", "two"]


def test_a_bad_line_is_named_by_its_number(tmp_path: Path) -> None:
    lines = [json.dumps(record(number)) for number in range(8)]
    path = tmp_path / "b.jsonl"
    for bad, message in (
        ([*lines[:7], lines[7][:40]], "line 8, is not JSON .*cut off"),
        ([lines[0], "", "[]", *lines], r"line 3, is '\[\]'; expected a list of records"),
        ([lines[0], "[" * 100_000], "line 2, is nested too deeply"),
        ([*lines[:2], lines[2].encode("utf-8").replace(b"yes", b"\xff").decode("latin-1")], "cannot|line 3"),
        ([""], "holds no records"),
    ):
        path.write_bytes("\n".join(bad).encode("latin-1"))
        with pytest.raises(BadInput, match=message):
            LlavaJson(path, tmp_path)
    (tmp_path / "c.json").write_text("[" * 100_000)
    with pytest.raises(BadInput, match=r"nested too deeply; .*expected a list of records"):
        LlavaJson(tmp_path / "c.json", tmp_path)
    (tmp_path / "c.json").write_text(json.dumps([record("one"), 3]))
    with pytest.raises(BadInput, match="record 2, is '3'"):
        LlavaJson(tmp_path / "c.json", tmp_path)


def test_texts_and_numbers_that_no_tokenizer_or_folder_takes_cost_their_record(tmp_path: Path) -> None:
    records = [
        record("a\ud800"),
        record("b", image="\udc00.png"),
        record("c", image=float("nan")),
        record("d", conversations=[{"from": "human", "value": "\ud83d"}, {"from": "gpt", "value": "yes"}]),
        record("e", conversations=float("inf")),
        record("f"),
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, records)))
    source = LlavaJson(tmp_path / "a.jsonl", tmp_path)
    examples = [source[index] for index in range(len(source))]
    assert [isinstance(example, Malformed) for example in examples] == [True] * 5 + [False]
    assert [example.key for example in examples] == ["a?", "b", "c", "d", "e", "f"]
    problems = [example.problem for example in examples if isinstance(example, Malformed)]
    assert ["surrogate" in problem for problem in problems] == [True, True, False, True, False] and "image is 'nan'" in problems[2]


@pytest.mark.parametrize("turns", ["[" * 100_000, '[{"role": "user", "content": "\\ud800"}]', '["\ud800"]', "{"])
def test_turns_stored_as_text_are_read_with_the_same_care(turns: str) -> None:
    with pytest.raises(BadConversation, match=r"too deeply|unpaired surrogate|is not JSON"):
        conversation_of(turns, 0)
