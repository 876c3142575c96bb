"""The rows of a manifest: the keys, how lines become rows, and what a row must be before anybody looks at its pictures."""

from __future__ import annotations

import json
import posixpath
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

import polars as pl

from theodolite.records.errors import BadInput
from theodolite.worlds.manifest.faults import RowFault
from theodolite.worlds.query import Form
from theodolite.worlds.world import PairKind

MAX_LINE = 1_000_000
OTHER = "other"  # the query of a question that the factor must not move, where nobody names one

KEYS: Mapping[str, str] = {
    "scene": "text or whole number: what the pair was made from. Rows of one scene count together, as the unit of independence",
    "factor": 'text: what was changed, colour for example. "" where nothing was: the pair then measures noise',
    "from": "text: the factor's value in the picture; left out where the factor is empty",
    "to": "text: the factor's value in the edited picture; left out where the factor is empty",
    "picture": "text: path of the first picture, from the manifest's folder",
    "edited": "text: path of the second picture, from the manifest's folder; left out where question_after is given",
    "question": "text: what is asked of both pictures",
    "choices": "list of two or more different texts: the possible answers",
    "answer_before": "text: the right answer for the picture, one of the choices",
    "answer_after": "text: the right answer for the edited picture, one of the choices",
    "id": "text or whole number: a name that no other row has (default: the number of the row)",
    "query": f"text: what the question asks about (default: the factor if the answers differ, else {OTHER!r})",
    "form": "open, yes_no or conjunction (default: open)",
    "name": "text: tells queries of one form about one thing apart, shape=round for example (default: the query)",
    "question_after": "text: another wording of the question, for rows that change nothing but the wording: one picture, no factor",
    "kind": "exact (default): the picture with one thing edited; matched: two pictures of their own, alike in all but the factor",
}
"""The keys of a row, and what they hold. There is one spelling; keys that begin with an underscore are ignored."""

NEEDED = ("scene", "factor", "picture", "question", "choices", "answer_before", "answer_after")
ELSEWHERE = {
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
}  # what others call these keys


@dataclass(frozen=True)
class ManifestRow:
    """One row of a manifest whose words are in order; its pictures have not been looked at. `edited` is `picture` in a paraphrase."""

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


def read_records(path: Path) -> Iterator[tuple[int, Mapping[str, Any] | RowFault]]:
    """Number and content of every row, or what is wrong with its line. Raises `BadInput` if the file cannot be read at all."""
    if path.suffix.lower() == ".jsonl":
        yield from _read_lines(path)
    elif path.suffix.lower() == ".parquet":
        try:
            table = pl.read_parquet(path)
        except (OSError, pl.exceptions.PolarsError) as error:
            raise BadInput(f"{path} cannot be read as Parquet ({error}); write it anew, or give JSONL") from error
        yield from enumerate(table.iter_rows(named=True), start=1)
    else:
        raise BadInput(f"{path} ends in {path.suffix or 'nothing'}; a manifest is a .jsonl or a .parquet file")


def _read_lines(path: Path) -> Iterator[tuple[int, Mapping[str, Any] | RowFault]]:
    number = 0
    try:
        with path.open("rb") as file:
            while line := file.readline(MAX_LINE):
                number += 1
                whole = line.endswith(b"\n") or len(line) < MAX_LINE
                if not whole:
                    while (more := file.readline(MAX_LINE)) and not more.endswith(b"\n"):
                        pass
                    yield number, RowFault("long line", f"the line is longer than {MAX_LINE:,} bytes", "one line is one row: break it up")
                elif line.removeprefix(b"\xef\xbb\xbf").strip():
                    yield number, _parse(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror}); give a file that can") from error


def _parse(line: bytes) -> Mapping[str, Any] | RowFault:
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        return RowFault("text not UTF-8", f"byte {error.start + 1} of the line is no UTF-8", "save the file as UTF-8")
    twice: list[str] = []

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        twice.extend(name for name, count in Counter(names).items() if count > 1)
        return dict(pairs)

    try:
        record = json.loads(text, object_pairs_hook=unique)
    except RecursionError:
        return RowFault("no JSON", "the line is nested too deep to be read", "write one object with plain values")
    except ValueError as error:
        return RowFault("no JSON", f"the line is no JSON ({error})", "write one object a line, with keys and texts in double quotes")
    if not isinstance(record, dict):
        return RowFault("no object", f"the line is {word(record)}", 'write an object: {"scene": ..., "factor": ..., ...}')
    if twice:
        return RowFault("repeated key", f"{twice[0]} stands twice in the row", "keep one of them")
    return record


def identity(record: Mapping[str, Any] | RowFault, number: int) -> str:
    """The id of a row as messages name it, whatever it is worth."""
    given = None if isinstance(record, RowFault) else record.get("id")
    return str(given)[:80].encode(errors="replace").decode() if isinstance(given, str | int) and given != "" else str(number)


def read_row(record: Mapping[str, Any], number: int) -> ManifestRow:
    """A row from what stands in the file. Raises `RowFault` with the first thing that is wrong with it."""
    _check_keys(record)
    factor = _text(record, "factor", blank=True).strip() and _text(record, "factor")
    choices = _choices(record["choices"])
    answers = [_answer(record, f"answer_{side}", choices) for side in ("before", "after")]
    values = _values(record, factor)
    question, other = _text(record, "question", kind="blank question"), _optional(record, "question_after")
    picture, edited = posixpath.normpath(_text(record, "picture")), _optional(record, "edited")
    if other is None and edited is None:
        raise _missing("edited")
    edited = None if edited is None else posixpath.normpath(edited)
    _check_change(factor, other, question, edited, picture, answers)
    query = _optional(record, "query") or (factor if factor and answers[0] != answers[1] else OTHER)
    return ManifestRow(
        number=number,
        id=identity(record, number),
        scene=_scene(record["scene"]),
        factor=factor,
        value_before=values[0],
        value_after=values[1],
        query=query,
        form=_word_of(record, "form", get_args(Form), "open"),
        name=_optional(record, "name") or query,
        picture=picture,
        edited=picture if edited is None else edited,
        question=question,
        question_after=question if other is None else other,
        choices=choices,
        answer_before=answers[0],
        answer_after=answers[1],
        kind=_word_of(record, "kind", get_args(PairKind), "exact"),
    )


def word(value: object) -> str:
    """What a value of JSON is, in words."""
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
            near = ELSEWHERE.get(key) or next(iter(get_close_matches(key, KEYS, 1)), None)
            mend = f"did you mean {near}?" if near else f"known keys are {', '.join(KEYS)}"
            raise RowFault("unknown key", f"nobody knows the key {key[:40]!r}", f"{mend} (a key that begins with _ is ignored)")
    for key in NEEDED:
        if record.get(key) is None:
            raise _missing(key)
    if "id" in record and record["id"] is not None:
        _scene(record["id"], "id")


def _text(record: Mapping[str, Any], key: str, *, blank: bool = False, kind: str = "blank text") -> str:
    return _plain(record[key], key, blank=blank, kind=kind)


def _plain(value: object, key: str, *, blank: bool = False, kind: str = "blank text") -> str:
    if isinstance(value, float) and value != value:
        raise RowFault("NaN", f"{key} is NaN", f"the cell was empty: fill it with {KEYS.get(key, 'text')}")
    if not isinstance(value, str):
        raise RowFault("wrong type", f"{key} is {word(value)}", "write it as text, in quotes")
    if "\0" in value or value.encode(errors="replace") != value.encode(errors="surrogatepass"):
        raise RowFault("bad text", f"{key} holds half a character or a zero byte", "write it anew as UTF-8")
    if not blank and not value.strip():
        raise RowFault(kind, f"{key} is blank", f"fill it with {KEYS.get(key, 'text')}")
    return value


def _optional(record: Mapping[str, Any], key: str) -> str | None:
    return None if record.get(key) is None else _text(record, key)


def _scene(value: object, key: str = "scene") -> int | str:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        raise RowFault("wrong type", f"{key} is {word(value)}", f"write it whole: {int(value)}")
    return _plain(value, key)


def _choices(value: object) -> tuple[str, ...]:
    if isinstance(value, float) and value != value:
        raise RowFault("NaN", "choices is NaN", f"the cell was empty: fill it with a {KEYS['choices']}")
    if not isinstance(value, list):
        raise RowFault("wrong type", f"choices is {word(value)}", 'write a list of texts: ["red", "blue"]')
    choices = tuple(_plain(choice, f"choice {place}", kind="blank choice") for place, choice in enumerate(value, start=1))
    if len(choices) < 2:
        raise RowFault("too few choices", f"there is {len(choices) or 'no'} choice", "give two or more")
    same = [choice.strip() for choice in choices]
    if twice := next((choice for choice, count in Counter(same).items() if count > 1), None):
        raise RowFault("repeated choice", f"the choice {twice!r} stands twice", "give each of them once")
    return choices


def _answer(record: Mapping[str, Any], key: str, choices: tuple[str, ...]) -> str:
    answer = _text(record, key, blank=True)
    if answer not in choices:
        near = next(iter(get_close_matches(answer, choices, 1)), None)
        mend = f"did you mean {near!r}?" if near else "add it to the choices, or correct it"
        raise RowFault("answer not a choice", f"{key} is {answer[:80]!r}, which is none of the choices {', '.join(choices)[:200]}", mend)
    return answer


def _values(record: Mapping[str, Any], factor: str) -> tuple[str | None, str | None]:
    before, after = _optional(record, "from"), _optional(record, "to")
    if factor and (before is None or after is None):
        lacking = " and ".join(key for key, value in (("from", before), ("to", after)) if value is None)
        raise RowFault("value missing", f"the factor {factor!r} has no {lacking}", f"say from which value to which {factor!r} was changed")
    if not factor and (before is not None or after is not None):
        raise RowFault("value without factor", "there is from or to, but factor is empty", "name the factor, or leave both out")
    if factor and before == after:
        raise RowFault(
            "from equals to", f"{factor!r} goes from {before!r} to the same", 'correct the values, or make factor "" if nothing changes'
        )
    return before, after


def _check_change(factor: str, other: str | None, question: str, edited: str | None, picture: str, answers: list[str]) -> None:
    if other is not None and (factor or edited not in (None, picture)):
        raise RowFault(
            "two changes", "the wording changes and something else too", "leave question_after out, or factor, from, to and edited"
        )
    if not factor and edited in (None, picture) and other in (None, question):
        raise RowFault("nothing changes", "picture and question are the same before and after", "give another picture, or question_after")
    if factor and edited == picture:
        raise RowFault("identical pictures", f"picture and edited are both {picture}", "give the path of the edited picture")
    if not factor and answers[0] != answers[1]:
        raise RowFault("answer without factor", "the answers differ, but factor is empty", "name what was changed, with from and to")


def _word_of(record: Mapping[str, Any], key: str, known: tuple[str, ...], default: str) -> str:
    found = _optional(record, key) or default
    if found not in known:
        raise RowFault(f"unknown {key}", f"{key} is {found[:40]!r}", f"write one of {', '.join(known)}")
    return found
