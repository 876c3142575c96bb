"""The one reader of JSON, JSON lines and text: what ends a line, marks, half lines, nesting, and what JSON does not have."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from helpers.study_records import grid_run
from helpers.survey_records import three_records
from theodolite.records.errors import BadInput
from theodolite.records.reading import (
    MARK,
    BadJson,
    NotUtf8,
    has_lone_surrogate,
    numbered_lines,
    parse_json,
    printable,
    read_json,
    read_json_lines,
    read_text,
)
from theodolite.records.study import RUNS, read_runs, write_runs
from theodolite.records.survey import BadRecord, read_survey

SEPARATORS = ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e"]


@pytest.mark.parametrize("sign", SEPARATORS)
def test_only_a_line_feed_ends_a_record(tmp_path: Path, sign: str) -> None:
    """All that `str.splitlines` splits at besides; control characters are escaped in JSON, the others need not be."""
    texts = ["one", f"two{sign}lines", "three"]
    path = tmp_path / "a.jsonl"
    path.write_bytes("\r\n".join(json.dumps(text, ensure_ascii=False) for text in texts).encode())
    assert list(read_json_lines(path)) == list(enumerate(texts, start=1))


def test_the_mark_at_the_beginning_is_no_part_of_the_text_and_elsewhere_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(MARK + b"\r\n\n" + b'{"a": 1}\n' + MARK + b"2\n")
    assert [number for number, _ in numbered_lines(path)] == [3, 4]
    with pytest.raises(BadInput, match=r"a, line 4, is not JSON"):
        list(read_json_lines(path))
    path.write_bytes(MARK + b'["\xef\xbb\xbf"]')
    assert read_json(path) == ["\ufeff"]
    path.write_bytes(MARK + "é\r\nb\rc\u2028".encode())
    assert read_text(path) == "é\nb\nc\u2028"


def test_half_a_last_line_is_named_by_its_number_and_said_to_be_the_last(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n\n{"b": 2}\n{"c')
    with pytest.raises(BadInput, match=r"a\.jsonl, line 4, is not JSON \(.*\); it is the last line, so the file may have been cut off"):
        list(read_json_lines(path))
    path.write_text('{"a": 1}\n{"b\n{"c": 2}\n')
    with pytest.raises(BadInput, match=r"line 2, is not JSON \([^;]*\); write one JSON object per line"):
        list(read_json_lines(path))


@pytest.mark.parametrize("data", [b"[" * 100_000, b'{"a":' * 100_000, b"[" * 100_000 + b"]" * 100_000])
def test_deep_nesting_is_bad_json_and_no_recursion_error(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(BadJson, match="nested too deeply"):
        parse_json(data)
    for name, read in (("a.json", read_json), ("a.jsonl", lambda path: list(read_json_lines(path)))):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(BadInput, match=r"a\.jsonl?.* is nested too deeply"):
            read(tmp_path / name)


def test_what_is_not_utf_8_is_named_by_its_byte_and_utf_16_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(NotUtf8, match=r"is not UTF-8 \(byte 3\)"):
        parse_json(b'"a\xe9"')
    (tmp_path / "a").write_text('{"a": 1}', encoding="utf-16")
    for read in (read_json, read_text, lambda path: list(read_json_lines(path))):
        with pytest.raises(BadInput, match="is UTF-16, not UTF-8"):
            read(tmp_path / "a")
    with pytest.raises(BadInput, match="cannot be read"):
        read_json(tmp_path)
    with pytest.raises(BadInput, match="cannot be read"):
        list(read_json_lines(tmp_path / "none"))


def test_numbers_that_json_does_not_have_are_floats_and_endless_ones_are_bad() -> None:
    assert math.isnan(parse_json(b"NaN")) and parse_json(b"[-Infinity, 1e999]") == [-math.inf, math.inf]
    with pytest.raises(BadJson, match="is not JSON"):
        parse_json(b"9" * 10_000)


def test_long_lines_are_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"1234567890\n" + b"x" * 25 + b"\n123456789\n")
    assert list(numbered_lines(path, 10)) == [(1, None), (2, None), (3, b"123456789\n")]


def test_lone_surrogates_are_found_in_keys_and_values_however_deep() -> None:
    deep: object = "\udc00"
    for _ in range(5_000):
        deep = [deep]
    assert has_lone_surrogate(deep) and has_lone_surrogate({"a\ud800": 1}) and has_lone_surrogate(({"a": ["b", "\ud83d"]},))
    assert not has_lone_surrogate(json.loads('["\\ud83d\\ude00", 1, null, {"a": 1.5}]'))
    assert printable("a\ud800" * 100, 4) == "a?a?"


def test_lines_of_a_study_end_at_a_line_feed_and_a_bad_one_is_named(tmp_path: Path) -> None:
    runs = [grid_run("shape", 0.9, seed, 0.5) for seed in (0, 1)]
    runs[0] = runs[0].model_copy(update={"key": "one\u2028line\x85"})
    write_runs(tmp_path, runs)
    path = tmp_path / RUNS
    path.write_bytes(MARK + path.read_bytes())
    assert read_runs(tmp_path) == {run.key: run for run in runs}
    path.write_bytes(path.read_bytes() + b"\n" + path.read_bytes()[3:40])
    with pytest.raises(BadRecord, match=r"runs\.jsonl, line 4, is no run of version 1.*delete that line"):
        read_runs(tmp_path)
    path.write_bytes(b"[" * 100_000 + b"\n\xff")
    with pytest.raises(BadRecord, match="line 1, is no run"):
        read_runs(tmp_path)


def test_records_that_an_editor_marked_are_read(tmp_path: Path) -> None:
    record = three_records()[0]
    (tmp_path / "survey.json").write_bytes(MARK + record.to_json().encode())
    assert read_survey(tmp_path) == record
