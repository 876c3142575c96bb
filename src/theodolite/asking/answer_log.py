"""Answers in the logs of lmms-eval (samples) and VLMEvalKit (result tables): only the columns that docs/howto/tools.md names are read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import polars as pl

from theodolite.asking.prompts import LETTERS
from theodolite.records.answers import LogKey, LogTool
from theodolite.records.asking import PromptStyle
from theodolite.records.errors import BadInput
from theodolite.records.reading import parse_json, read_json, read_json_lines

# The name under which an exported lmms-eval task logs the id and the prompt's style of every sample.
METRIC = "theodolite_right"
PICTURES = ("picture", "image_path", "picture_path")
PAGE = "docs/howto/tools.md"


@dataclass(frozen=True)
class LoggedAnswer:
    """One answer of a log: its row from 1, what names the question, and the text. `options` are the lettered options that were shown."""

    row: int
    text: str
    id: str | None = None
    picture: str | None = None
    question: str | None = None
    options: tuple[str, ...] | None = None


@dataclass(frozen=True)
class AnswerLog:
    """The answers of a log, and where they come from. `prompt` is the style of the prompts where the log says it."""

    path: Path
    tool: LogTool
    sha256: str
    key: LogKey
    answers: tuple[LoggedAnswer, ...]
    model: str | None = None
    prompt: PromptStyle | None = None


def read_answer_log(path: Path) -> AnswerLog:
    """Reads the log of a tool: .jsonl, .json, .csv or .tsv.

    Raises `BadInput` where the answers, or what names their questions, are missing.
    """
    if not path.is_file():
        raise BadInput(f"{path} is not there or is not a file; give the samples of lmms-eval or a result table of VLMEvalKit ({PAGE})")
    read = READERS.get(path.suffix.lower())
    if read is None:
        hint = (
            "VLMEvalKit writes another format with the environment variable PRED_FORMAT=tsv or json, or save the sheet as CSV (UTF-8)"
            if path.suffix.lower() in (".xlsx", ".xls", ".pkl")
            else f"give one of {', '.join(READERS)}"
        )
        raise BadInput(f"{path} ends in {path.suffix or 'nothing'}, which is not read; {hint}")
    rows = [(number, row) for number, row in read(path)]
    if not rows:
        raise BadInput(f"{path} holds no answers; give a log with one row an answer ({PAGE})")
    if wrong := next((number for number, row in rows if not isinstance(row, Mapping)), None):
        raise BadInput(f"{path}, row {wrong}, is not an object with keys; give a log as the tool wrote it ({PAGE})")
    columns = list(dict.fromkeys(str(name) for _, row in rows[:100] for name in row))
    if {"filtered_resps", "resps"} & set(columns):
        tool: LogTool = "lmms-eval"
        answers, styles = _of_samples(path, rows)
    elif "prediction" in columns:
        tool, styles = "VLMEvalKit", set()
        answers = [_of_table_row(number, row) for number, row in rows]
    else:
        raise BadInput(
            f"{path} has neither filtered_resps (samples of lmms-eval, --log_samples) nor prediction (a result table of VLMEvalKit), but "
            f"{', '.join(columns)[:300] or 'no columns'}; {PAGE} lists the columns that are read"
        )
    if len(styles) > 1:
        raise BadInput(f"{path} mixes prompts of the styles {', '.join(sorted(styles))}; give a log of one export")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return AnswerLog(path, tool, digest, _key(path, answers, columns), tuple(answers), _model(path), next(iter(styles), None))


def _json_rows(path: Path) -> Iterator[tuple[int, Any]]:
    """The rows of a list, or of the *logs* of an object, as early versions of lmms-eval wrote them."""
    value = read_json(path)
    rows = value.get("logs") if isinstance(value, dict) else value
    if not isinstance(rows, list):
        raise BadInput(f"{path} is neither a list of rows nor an object with a list of logs; give a log as the tool wrote it ({PAGE})")
    return enumerate(rows, start=1)


def _table_rows(separator: str) -> Callable[[Path], Iterator[tuple[int, Any]]]:
    def read(path: Path) -> Iterator[tuple[int, Any]]:
        try:
            table = pl.read_csv(path, separator=separator, infer_schema=False)
        except pl.exceptions.NoDataError:
            return iter(())
        except (OSError, pl.exceptions.PolarsError) as error:
            reason = str(error).partition("\n")[0]
            raise BadInput(f"{path} cannot be read as a table in UTF-8 ({reason}); write it again as {path.suffix}") from error
        return enumerate(table.iter_rows(named=True), start=1)

    return read


READERS: Mapping[str, Callable[[Path], Iterator[tuple[int, Any]]]] = {
    ".jsonl": read_json_lines,
    ".json": _json_rows,
    ".csv": _table_rows(","),
    ".tsv": _table_rows("\t"),
}


def _of_samples(path: Path, rows: Sequence[tuple[int, Mapping[str, Any]]]) -> tuple[list[LoggedAnswer], set[PromptStyle]]:
    """The answers of lmms-eval's samples, one for each response, and the styles of their prompts."""
    answers, styles = [], set()
    for number, row in rows:
        doc = row.get("doc") if isinstance(row.get("doc"), Mapping) else {}
        own = row.get(METRIC) if isinstance(row.get(METRIC), Mapping) else {}
        texts = list(dict.fromkeys(_texts(row.get("filtered_resps")) or _texts(row.get("resps"))))
        if not texts:
            raise BadInput(f"{path}, row {number}, has no text in filtered_resps or resps; give the samples of a task that generates text")
        style = own.get("prompt", doc.get("prompt_style"))
        if style in get_args(PromptStyle):
            styles.add(style)
        names = _names({**doc, **own})
        answers += [LoggedAnswer(number, text, **names) for text in texts]
    return answers, styles


def _texts(value: Any) -> list[str]:
    """All texts of nested lists: lmms-eval nests responses by request and by repeat."""
    if isinstance(value, str):
        return [value]
    return [text for part in value for text in _texts(part)] if isinstance(value, list) else []


def _of_table_row(number: int, row: Mapping[str, Any]) -> LoggedAnswer:
    options: list[str] = []
    for letter in LETTERS:
        if (option := _cell(row.get(letter))) is None:
            break
        options.append(option)
    return LoggedAnswer(number, _cell(row.get("prediction")) or "", **_names(row), options=tuple(options) or None)


def _names(row: Mapping[str, Any]) -> dict[str, str | None]:
    """What names a question: its id, and its picture and words."""
    picture = next((cell for name in PICTURES if (cell := _cell(row.get(name))) is not None), None)
    return {"id": _cell(row.get("id")), "picture": _picture(picture), "question": _cell(row.get("question"))}


def _picture(path: str | None) -> str | None:
    """A picture's path; VLMEvalKit writes those of one row as a list in text."""
    if path is not None and path.startswith("['") and path.endswith("']") and path.count("'") == 2:
        path = path[2:-2]
    return None if path is None else path.replace("\\", "/")


def _cell(value: Any) -> str | None:
    """A cell's text; None for nothing, an empty one and NaN."""
    if value is None or value != value or isinstance(value, list | dict):
        return None
    return str(value).strip() or None


def _key(path: Path, answers: Sequence[LoggedAnswer], columns: Sequence[str]) -> LogKey:
    """What joins the answers to pairs. Raises `BadInput` if some answer has neither."""
    lacking = [answer.row for answer in answers if answer.id is None]
    if not lacking:
        return "id"
    unnamed = [answer.row for answer in answers if answer.picture is None or answer.question is None]
    if not unnamed:
        return "picture and question"
    raise BadInput(
        f"{path}: nothing says which question of the pairs an answer is for: row {lacking[0]} has no id, and row {unnamed[0]} not both a "
        f"question and a picture's path ({', '.join(PICTURES)}); the columns are {', '.join(columns)[:300]}. Give the tool the pairs as "
        f"`theodolite manifest export` writes them ({PAGE})"
    )


def _model(path: Path) -> str | None:
    """The model's name in the results that lmms-eval writes beside its samples; None where there are none."""
    stamp, samples, _ = path.name.partition("_samples_")
    results = path.with_name(f"{stamp}_results.json")
    if not samples or not results.is_file():
        return None
    try:
        value = parse_json(results.read_bytes())
    except (OSError, ValueError):
        return None
    name = value.get("model_name") if isinstance(value, dict) else None
    return name if isinstance(name, str) and name else None


def foreign_prompt_hash(tool: LogTool, style: PromptStyle) -> str:
    """SHA-256, in hex, that stands for prompts which a tool wrote in its own words: equal for logs of one tool and style only."""
    return hashlib.sha256(json.dumps([tool, style]).encode()).hexdigest()
