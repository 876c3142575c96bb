"""JSON documents spoiled in their structure (types, keys, numbers, nesting), and then now and then in their bytes."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from hypothesis import strategies as st

# "link.png" is a link to a picture outside the folder of a case, and "pipe" a named pipe.
PATHS = (
    "../outside.png",
    "/etc/passwd",
    "/dev/zero",
    "link.png",
    "pipe",
    ".",
    "",
    "C:\\a.png",
    "a\\..\\..\\outside.png",
    "..%2foutside.png",
)
TEXTS = ("", " ", "\0", "\ud800", "\u2028", "<script>alert(1)</script>", "=1+1", "{{ 7*7 }}", "%s%n", "é" * 500, "a" * 70_000, "&" * 40)
NUMBERS = (0, -1, 1, 2**31, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**400, 1e308, -1e-308, float("nan"), float("inf"), float("-inf"), 0.5)


def nested(depth: int) -> Any:
    """A list in a list, and so on."""
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


HOSTILE: Sequence[Any] = (
    None, True, False, *NUMBERS, *TEXTS, *PATHS, [], {}, [[]], [None] * 1000, {"": None}, {"\ud800": 1}, [1, "a", None], nested(60),
    nested(150),
)  # fmt: skip
Step = str | int
# Text of JSON that no value gives: repeated keys, nesting beyond any limit, numbers that no float or int holds.
TAILS = (b"", b"\0", b"}", b"]", b",", b"\n{}", b"\xff", b"\xed\xa0\x80", b" //", b"NaN")
WHOLE = (
    b"",
    b"\n",
    b"null",
    b"0",
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b"1" * 5000,
    b"1e999",
    b'"\\ud800"',
    b"\xef\xbb\xbf",
    b"\xff\xfe[\0]\0",
    b"{}",
)


def places(value: Any, above: tuple[Step, ...] = ()) -> Iterator[tuple[Step, ...]]:
    """The path of each value within a document, its own first."""
    yield above
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, (*above, key))
    elif isinstance(value, list):
        for at, inner in enumerate(value[:50]):
            yield from places(inner, (*above, at))


def _of(value: Any, path: Sequence[Step]) -> Any:
    for step in path:
        value = value[step]
    return value


@st.composite
def spoiled(draw: st.DrawFn, documents: Sequence[Any], most: int = 3) -> Any:
    """One of the documents with up to `most` values replaced, deleted, renamed, repeated, or put into another's place."""
    document = copy.deepcopy(draw(st.sampled_from(documents)))
    for _ in range(draw(st.integers(0, most))):
        paths = list(places(document))
        path = paths[draw(st.integers(0, len(paths) - 1))]
        if not path:
            if draw(st.integers(0, 9)) == 0:
                return copy.deepcopy(draw(st.sampled_from(HOSTILE)))
            continue
        home, last = _of(document, path[:-1]), path[-1]
        how = draw(st.sampled_from(("replace", "replace", "replace", "delete", "rename", "repeat", "move", "wrap", "text")))
        if how == "delete":
            del home[last]
        elif how == "rename" and isinstance(home, dict):
            home[draw(st.sampled_from((f"{last} ", str(last).upper(), "", "\0", "__class__", "x" * 3000)))] = home.pop(last)
        elif how == "repeat" and isinstance(home, list):
            home.extend(copy.deepcopy([home[last]] * draw(st.sampled_from((1, 2, 50)))))
        elif how == "move":
            home[last] = copy.deepcopy(_of(document, paths[draw(st.integers(0, len(paths) - 1))]))
        elif how == "wrap":
            inner = home[last]
            home[last] = ([inner], {"a": inner}, str(inner)[:1000], copy.deepcopy([inner] * 3))[draw(st.integers(0, 3))]
        elif how == "text":
            home[last] = draw(st.text(max_size=12))
        else:
            home[last] = copy.deepcopy(draw(st.sampled_from(HOSTILE)))
    return document


@st.composite
def torn(draw: st.DrawFn, data: bytes) -> bytes:
    """The bytes, in one of four cases cut, overwritten, repeated or ended otherwise."""
    how = draw(st.integers(0, 15))
    at = draw(st.integers(0, len(data)))
    if how == 0:
        return data[:at]
    if how == 1:
        return data[:at] + draw(st.binary(min_size=1, max_size=4)) + data[at + 1 :]
    if how == 2:
        return data + draw(st.sampled_from(TAILS))
    if how == 3:
        return draw(st.sampled_from((*WHOLE, b"\xef\xbb\xbf" + data, data.decode(errors="replace").encode("utf-16"), data[:at] + data)))
    return data


def written(document: Any) -> bytes:
    return json.dumps(document).encode()


def json_files(documents: Sequence[Any], most: int = 3) -> st.SearchStrategy[bytes]:
    """Files of one JSON value."""
    return spoiled(documents, most).map(written).flatmap(torn)


def json_lines(documents: Sequence[Any], most: int = 3) -> st.SearchStrategy[bytes]:
    """Files of several JSON lines: the documents are lists of rows."""

    def lines(rows: Any) -> bytes:
        return b"\n".join(map(written, rows if isinstance(rows, list) else [rows])) + b"\n"

    return spoiled(documents, most).map(lines).flatmap(torn)


def repeated_key(data: bytes) -> bytes:
    """An object whose first key occurs twice."""
    return data.replace(b"{", b'{"id": 1, "id": 2, ', 1)


Make = Callable[[], st.SearchStrategy[bytes]]
