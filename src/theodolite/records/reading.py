"""Reading of JSON, JSON lines and text in UTF-8, from whatever editor wrote it: one reader for all formats of the package.

A line ends at "\\n" only: `str.splitlines` would also split at U+2028, U+2029, U+0085 and others, which JSON allows within a text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from theodolite.records.errors import BadInput

MARK = b"\xef\xbb\xbf"  # the byte-order mark that Windows editors write at the beginning of UTF-8
UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_SURROGATE = re.compile("[\ud800-\udfff]")


class BadJson(ValueError):
    """Bytes that are not JSON in UTF-8; the message is a predicate ("is not JSON (...)"), without file and line."""


class NotUtf8(BadJson):
    """Bytes that are not UTF-8."""


class TooDeep(BadJson):
    """JSON that is nested beyond the interpreter's limit."""


def decode_utf8(data: bytes) -> str:
    """UTF-8 as text. Raises `NotUtf8` with the number of the first wrong byte, or the encoding if it is UTF-16."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        if data.startswith(UTF_16_MARKS):
            raise NotUtf8("is UTF-16, not UTF-8") from error
        raise NotUtf8(f"is not UTF-8 (byte {error.start + 1})") from error


def parse_json(data: bytes, object_pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """The value of JSON in UTF-8. NaN and Infinity become floats, which consumers refuse where they expect something else.

    Raises `NotUtf8`, `TooDeep`, and `BadJson` for anything else that is not JSON.
    """
    text = decode_utf8(data)
    try:
        return json.loads(text, object_pairs_hook=object_pairs_hook)
    except RecursionError:
        raise TooDeep("is nested too deeply") from None  # the traceback has a thousand frames
    except ValueError as error:
        raise BadJson(f"is not JSON ({error})") from error


def numbered_lines(path: Path, longest: int | None = None) -> Iterator[tuple[int, bytes | None]]:
    """Number, from 1, and bytes of every line that is not blank, without the file's byte-order mark; None if longer than `longest` bytes.

    Raises `OSError`. One line at most is in memory.
    """
    with path.open("rb") as file:
        number = 0
        while line := file.readline(-1 if longest is None else longest):
            number += 1
            if longest is not None and len(line) == longest and not line.endswith(b"\n"):
                while (more := file.readline(longest)) and not more.endswith(b"\n"):
                    pass
                yield number, None
                continue
            line = line.removeprefix(MARK) if number == 1 else line
            if line.strip():
                yield number, line


def read_json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Number and value of every line of JSON that is not blank. Raises `BadInput` that names the file and the first bad line."""
    with _refusing(path):
        for number, line in numbered_lines(path):
            assert line is not None
            try:
                value = parse_json(line)
            except BadJson as error:
                cut = "" if line.endswith(b"\n") else "; it is the last line, so the file may have been cut off"
                raise BadInput(f"{path}, line {number}, {error}{cut}; write one JSON object per line, in UTF-8") from error
            yield number, value


def read_json(path: Path) -> Any:
    """The value of a file of JSON. Raises `BadInput`."""
    with _refusing(path):
        try:
            return parse_json(path.read_bytes().removeprefix(MARK))
        except BadJson as error:
            raise BadInput(f"{path} {error}; write it again as JSON in UTF-8") from error


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, without a byte-order mark, lines ended by "\\n". Raises `BadInput`."""
    with _refusing(path):
        try:
            return decode_utf8(path.read_bytes().removeprefix(MARK)).replace("\r\n", "\n").replace("\r", "\n")
        except NotUtf8 as error:
            raise BadInput(f"{path} {error}; save it as UTF-8") from error


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """Raises `BadInput` for an `OSError`."""
    try:
        yield
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror or error}); give a file that can") from error


def has_lone_surrogate(value: Any) -> bool:
    r"""Whether a text within a JSON value, keys included, has an unpaired surrogate such as "\ud800", which no encoder takes."""
    left = [value]
    while left:  # no recursion: values may be nested almost as deeply as the interpreter allows
        part = left.pop()
        if isinstance(part, str):
            if _SURROGATE.search(part):
                return True
        elif isinstance(part, Mapping):
            left += [*part.keys(), *part.values()]
        elif isinstance(part, list | tuple):
            left += part
    return False


def printable(value: object, longest: int = 80) -> str:
    """The beginning of a value's text with "?" for unpaired surrogates, for messages."""
    return str(value)[:longest].encode(errors="replace").decode()
