"""Rows of a manifest: their keys, parsing, and every check that needs no picture."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

from theodolite.records.errors import BadInput
from theodolite.records.parquet import read_parquet
from theodolite.records.reading import BadJson, NotUtf8, TooDeep, numbered_lines, parse_json, printable
from theodolite.worlds.manifest.faults import RowFault
from theodolite.worlds.query import Form
from theodolite.worlds.world import PairKind

MAX_LINE = 1_000_000
MOST_COMPARED = 200  # characters of a text that a near one is suggested for
OTHER = "other"  # default query of a question whose answer the factor must not change

KEYS: Mapping[str, str] = {
    "scene": "text or whole number: what the pair was made from. Rows of one scene are one unit of independence",
    "factor": 'text: what was changed, such as colour. "" where nothing was: the pair then measures noise',
    "from": "text: the factor's value in the picture; omitted where the factor is empty",
    "to": "text: the factor's value in the edited picture; omitted where the factor is empty",
    "picture": "text: path of the first picture, relative to the manifest's folder",
    "edited": "text: path of the second picture, relative to the manifest's folder; omitted where question_after is given",
    "question": "text: what is asked of both pictures",
    "choices": "list of two or more different texts: the possible answers",
    "answer_before": "text: the right answer for the picture, one of the choices",
    "answer_after": "text: the right answer for the edited picture, one of the choices",
    "id": "text or whole number: unique id of the row (default: its number)",
    "query": f"text: what the question asks about (default: the factor if the answers differ, else {OTHER!r})",
    "form": "open, yes_no or conjunction (default: open)",
    "name": "text: distinguishes queries of one form about one thing, such as shape=round (default: the query)",
    "depends_on": "list of texts: the factors that the answer depends on (default: those that change it in 5 % of the pairs)",
    "question_after": "text: another wording of the question, for rows that change only the wording: one picture, no factor",
    "kind": "exact (default): the picture with one thing edited; matched: two separate pictures that differ in the factor only",
}
"""The keys of a row and their values. There is one spelling; keys that begin with an underscore are ignored."""

REQUIRED = ("scene", "factor", "picture", "question", "choices", "answer_before", "answer_after")
SYNONYMS = {
    "value_before": "from",
    "value_after": "to",
    "truth_before": "answer_before",
    "truth_after": "answer_after",
    "picture_before": "picture",
    "picture_after": "edited",
    "image": "picture",
    "pair_kind": "kind",
    "options": "choices",
    "scene_id": "scene",
}  # other names for these keys, used in suggestions


@dataclass(frozen=True)
class ManifestRow:
    """A row of a manifest with valid texts and unchecked pictures. `edited` equals `picture` in a paraphrase row."""

    number: int
    id: str
    scene: int | str
    factor: str
    value_before: str | None
    value_after: str | None
    query: str
    form: str
    name: str
    picture: str
    edited: str
    question: str
    question_after: str
    choices: tuple[str, ...]
    answer_before: str
    answer_after: str
    kind: str
    depends_on: frozenset[str] | None = None


def read_records(path: Path) -> Iterator[tuple[int, Mapping[str, Any] | RowFault]]:
    """Number of every row, and its content or the fault of its line. Raises `BadInput` if the file cannot be read."""
    if path.suffix.lower() == ".jsonl":
        yield from _read_lines(path)
    elif path.suffix.lower() == ".parquet":
        table = read_parquet(path, "Parquet", "write it again, or give JSONL")
        yield from enumerate(table.iter_rows(named=True), start=1)
    else:
        raise BadInput(f"{path} ends in {path.suffix or 'nothing'}; a manifest is a .jsonl or a .parquet file")


def _read_lines(path: Path) -> Iterator[tuple[int, Mapping[str, Any] | RowFault]]:
    try:
        for number, line in numbered_lines(path, MAX_LINE):
            if line is None:
                yield number, RowFault("long line", f"the line is longer than {MAX_LINE:,} bytes", "write one row per line")
            else:
                yield number, _parse(line)
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror}); give a file that can") from error


def _parse(line: bytes) -> Mapping[str, Any] | RowFault:
    repeated: list[str] = []

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        repeated.extend(name for name, count in Counter(names).items() if count > 1)
        return dict(pairs)

    try:
        record = parse_json(line, unique)
    except NotUtf8 as error:
        return RowFault("text not UTF-8", f"the line {error}", "save the file as UTF-8")
    except TooDeep as error:
        return RowFault("no JSON", f"the line {error}", "write one object with plain values")
    except BadJson as error:
        cut = "" if line.endswith(b"\n") else "; it is the last, so the file may have been cut off"
        return RowFault("no JSON", f"the line {error}{cut}", "write one object per line, with keys and texts in double quotes")
    if not isinstance(record, dict):
        return RowFault("no object", f"the line is {_describe_value(record)}", 'write an object: {"scene": ..., "factor": ..., ...}')
    if repeated:
        return RowFault("repeated key", f"the key {repeated[0]} occurs twice", "keep one of them")
    return record


def identity(record: Mapping[str, Any] | RowFault, number: int) -> str:
    """The id of a row in messages, whether valid or not; its number where it has none."""
    value = None if isinstance(record, RowFault) else record.get("id")
    return printable(value) if isinstance(value, str | int) and value != "" else str(number)


def read_row(record: Mapping[str, Any], number: int) -> ManifestRow:
    """A row from a record of the file. Raises `RowFault` with its first fault."""
    _check_keys(record)
    factor = _text(record, "factor", blank=True).strip() and _text(record, "factor")
    choices = _choices(record["choices"])
    answers = [_answer(record, f"answer_{side}", choices) for side in ("before", "after")]
    values = _values(record, factor)
    question, rewording = _text(record, "question", kind="blank question"), _optional(record, "question_after")
    picture, edited = posixpath.normpath(_text(record, "picture")), _optional(record, "edited")
    if rewording is None and edited is None:
        raise _missing("edited")
    edited = None if edited is None else posixpath.normpath(edited)
    _check_change(factor, rewording, question, edited, picture, answers)
    query = _optional(record, "query") or (factor if factor and answers[0] != answers[1] else OTHER)
    return ManifestRow(
        number=number,
        id=identity(record, number),
        scene=_scene(record["scene"]),
        factor=factor,
        value_before=values[0],
        value_after=values[1],
        query=query,
        form=_one_of(record, "form", get_args(Form), "open"),
        name=_optional(record, "name") or query,
        picture=picture,
        edited=picture if edited is None else edited,
        question=question,
        question_after=question if rewording is None else rewording,
        choices=choices,
        answer_before=answers[0],
        answer_after=answers[1],
        kind=_one_of(record, "kind", get_args(PairKind), "exact"),
        depends_on=_depends_on(record.get("depends_on")),
    )


def _describe_value(value: object) -> str:
    """A JSON value in words, for messages."""
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return f"the number {str(value)[:20]}"
    if isinstance(value, str):
        return f"the text {value[:40]!r}"
    return "nothing" if value is None else "a list" if isinstance(value, list) else "an object" if isinstance(value, dict) else "no text"


def _missing(key: str) -> RowFault:
    return RowFault("missing key", f"{key} is missing", f"give {key}, {KEYS[key]}")


def _check_keys(record: Mapping[str, Any]) -> None:
    for key in record:
        if key not in KEYS and not key.startswith("_"):
            near = SYNONYMS.get(key) or next(iter(get_close_matches(key[:MOST_COMPARED], KEYS, 1)), None)
            fix = f"did you mean {near}?" if near else f"known keys are {', '.join(KEYS)}"
            raise RowFault("unknown key", f"unknown key {key[:40]!r}", f"{fix} (keys that begin with _ are ignored)")
    for key in REQUIRED:
        if record.get(key) is None:
            raise _missing(key)
    if "id" in record and record["id"] is not None:
        _scene(record["id"], "id")


def _text(record: Mapping[str, Any], key: str, *, blank: bool = False, kind: str = "blank text") -> str:
    return _valid_text(record[key], key, blank=blank, kind=kind)


def _valid_text(value: object, key: str, *, blank: bool = False, kind: str = "blank text") -> str:
    if isinstance(value, float) and value != value:
        raise RowFault("NaN", f"{key} is NaN", f"the cell was empty: fill it with {KEYS.get(key, 'text')}")
    if not isinstance(value, str):
        raise RowFault("wrong type", f"{key} is {_describe_value(value)}", "write it as text, in quotes")
    if "\0" in value or value.encode(errors="replace") != value.encode(errors="surrogatepass"):
        raise RowFault("bad text", f"{key} has an unpaired surrogate or a zero byte", "write it again as UTF-8")
    if not blank and not value.strip():
        raise RowFault(kind, f"{key} is blank", f"fill it with {KEYS.get(key, 'text')}")
    return value


def _optional(record: Mapping[str, Any], key: str) -> str | None:
    return None if record.get(key) is None else _text(record, key)


def _scene(value: object, key: str = "scene") -> int | str:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        raise RowFault("wrong type", f"{key} is {_describe_value(value)}", f"write a whole number: {int(value)}")
    return _valid_text(value, key)


def _choices(value: object) -> tuple[str, ...]:
    if isinstance(value, float) and value != value:
        raise RowFault("NaN", "choices is NaN", f"the cell was empty: fill it with a {KEYS['choices']}")
    if not isinstance(value, list):
        raise RowFault("wrong type", f"choices is {_describe_value(value)}", 'write a list of texts: ["red", "blue"]')
    choices = tuple(_valid_text(choice, f"choice {place}", kind="blank choice") for place, choice in enumerate(value, start=1))
    if len(choices) < 2:
        raise RowFault("too few choices", f"there is {len(choices) or 'no'} choice", "give two or more")
    counts = Counter(choice.strip() for choice in choices)
    if repeated := next((choice for choice, count in counts.items() if count > 1), None):
        raise RowFault("repeated choice", f"the choice {repeated!r} occurs twice", "give every choice once")
    return choices


def _depends_on(value: object) -> frozenset[str] | None:
    if value is None:
        return None
    if not isinstance(value, list):
        raise RowFault("wrong type", f"depends_on is {_describe_value(value)}", 'write a list of factors: ["colour"], or [] for none')
    return frozenset(_valid_text(factor, f"factor {place} of depends_on") for place, factor in enumerate(value, start=1))


def _answer(record: Mapping[str, Any], key: str, choices: tuple[str, ...]) -> str:
    answer = _text(record, key, blank=True)
    if answer not in choices:
        # The comparison takes the square of the length.
        near = next(iter(get_close_matches(answer, choices, 1)), None) if len(answer) <= MOST_COMPARED else None
        fix = f"did you mean {near!r}?" if near else "add it to the choices, or correct it"
        raise RowFault("answer not a choice", f"{key} is {answer[:80]!r}, which is not one of {', '.join(choices)[:200]}", fix)
    return answer


def _values(record: Mapping[str, Any], factor: str) -> tuple[str | None, str | None]:
    before, after = _optional(record, "from"), _optional(record, "to")
    if factor and (before is None or after is None):
        lacking = " and ".join(key for key, value in (("from", before), ("to", after)) if value is None)
        raise RowFault(
            "value missing", f"the factor {factor!r} has no {lacking}", f"give the values of {factor!r} before and after the change"
        )
    if not factor and (before is not None or after is not None):
        raise RowFault("value without factor", "from or to is given, but factor is empty", "name the factor, or omit both")
    if factor and before == after:
        raise RowFault(
            "from equals to", f"{factor!r} changes from {before!r} to the same", 'correct the values, or make factor "" if nothing changes'
        )
    return before, after


def _check_change(factor: str, rewording: str | None, question: str, edited: str | None, picture: str, answers: list[str]) -> None:
    if rewording is not None and (factor or edited not in (None, picture)):
        raise RowFault("two changes", "the wording and something else change", "omit question_after, or factor, from, to and edited")
    if not factor and edited in (None, picture) and rewording in (None, question):
        raise RowFault("nothing changes", "picture and question are the same before and after", "give another picture, or question_after")
    if factor and edited == picture:
        raise RowFault("identical pictures", f"picture and edited are both {picture}", "give the path of the edited picture")
    if not factor and answers[0] != answers[1]:
        raise RowFault("answer without factor", "the answers differ, but factor is empty", "name what was changed, with from and to")


def _one_of(record: Mapping[str, Any], key: str, options: tuple[str, ...], default: str) -> str:
    value = _optional(record, key) or default
    if value not in options:
        raise RowFault(f"unknown {key}", f"{key} is {value[:40]!r}", f"write one of {', '.join(options)}")
    return value
