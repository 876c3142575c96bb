"""The text of docs/records.md, made from the models themselves: every field with its type in plain words and what it means."""

from __future__ import annotations

import inspect
import json
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from theodolite.records.advice import Advice
from theodolite.records.blind import BlindRecord
from theodolite.records.comparison import Comparison
from theodolite.records.data_coverage import DataCoverage
from theodolite.records.rows import ROWS, Column
from theodolite.records.study import GridRun, StudyRecord
from theodolite.records.survey import RunRecord, SurveyRecord
from theodolite.records.text_loss import TextLosses
from theodolite.records.training import TrainingRecord

FILES: Mapping[str, type[BaseModel]] = {
    "survey.json": SurveyRecord,
    "run.json": RunRecord,
    "training.json": TrainingRecord,
    "theodolite compare --json": Comparison,
    "theodolite advise --json": Advice,
    "theodolite coverage DATA --json": DataCoverage,
    "theodolite language --json": TextLosses,
    "blind.json": BlindRecord,
    "runs.jsonl": GridRun,
    "study.json": StudyRecord,
}
ROWS_FILE = "rows.parquet"
WORDS: Mapping[object, tuple[str, str]] = {
    str: ("text", "text"),
    int: ("whole number", "whole numbers"),
    float: ("number", "numbers"),
    bool: ("true or false", "true or false"),
    type(None): ("null", "null"),
    object: ("anything", "anything"),
    Any: ("anything", "anything"),
}
INTRODUCTION = f"""# Records

Written by `python scripts/describe_records.py` from the code, and held to it by a test: change the descriptions there, not here.

`theodolite survey` and `theodolite tour` write a folder for each model. `survey.json` is the result; it is the same to the byte
when a survey is repeated, and a folder that has one is whole. `{ROWS_FILE}` holds every answer behind it, `run.json` what differs
from run to run, and `pictures/` the pictures of the examples. A model that was trained here has a `training.json` in its own folder.

In JSON a *map* is an object and a *list* an array; *null* stands for what is not known or does not apply. Fractions (`*_frac`) lie
in 0 to 1, `*_bits` are bits, `num_*` are counts, and `*_sha256` are hashes in hex: equal hashes mean equal contents. How the
quantities are defined is told in docs/measures.md.
"""


def records_text() -> str:
    """The whole of docs/records.md. Raises `ValueError` where a part or a field lacks its description, or two parts share a name."""
    missing = undescribed(FILES.values())
    if missing:
        raise ValueError(f"{', '.join(missing)} lack a description; give the class a docstring and the field a Field(description=...)")
    sections, told = [INTRODUCTION], list[type[BaseModel]]()
    for file, root in FILES.items():
        models = [model for model in parts_of([root]) if model not in told]
        told += models
        sections += [_section(model, f"## {file}" if model is root else f"### {model.__name__}") for model in models]
        if root is SurveyRecord:
            sections.append(_rows_section(ROWS))
    names = [model.__name__ for model in told]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"two parts of records are called {', '.join(twice)}; rename one, since sections are found by name")
    return "\n".join(sections)


def undescribed(roots: Iterable[type[BaseModel]]) -> list[str]:
    """Names of the parts below `roots` that have no docstring of their own, and of the fields ("Cell.low") without a description."""
    found = []
    for model in parts_of(roots):
        # Without one of its own, a class shows that of its base.
        if not model.__dict__.get("__doc__"):
            found.append(model.__name__)
        found += [f"{model.__name__}.{name}" for name, field in model.model_fields.items() if not field.description]
    return found


def parts_of(roots: Iterable[type[BaseModel]]) -> list[type[BaseModel]]:
    """The models that can occur in records of `roots`, each once, a part after what first holds it."""
    found: dict[type[BaseModel], None] = {}

    def visit(model: type[BaseModel]) -> None:
        if model not in found:
            found[model] = None
            for field in model.model_fields.values():
                for part in _models_in(field.annotation):
                    visit(part)

    for root in roots:
        visit(root)
    return list(found)


def _models_in(kind: Any) -> Iterator[type[BaseModel]]:
    if inspect.isclass(kind) and issubclass(kind, BaseModel):
        yield kind
    for argument in () if get_origin(kind) is Literal else get_args(kind):
        yield from _models_in(argument)


def _section(model: type[BaseModel], heading: str) -> str:
    rows = [(f"`{name}`", in_words(field.annotation), field.description or "") for name, field in model.model_fields.items()]
    return "\n".join([heading, "", *_paragraphs(model), *_table("field", rows)])


def _rows_section(columns: Mapping[str, Column]) -> str:
    rows = [(f"`{name}`", f"`{column.dtype}`", column.meaning) for name, column in columns.items()]
    introduction = "One comparison of two answers a row, before and after. Types are those of Polars.\n"
    return "\n".join([f"## {ROWS_FILE}", "", introduction, *_table("column", rows)])


def _paragraphs(model: type[BaseModel]) -> list[str]:
    text = inspect.cleandoc(model.__doc__ or "")
    return [" ".join(paragraph.split()) + "\n" for paragraph in text.split("\n\n")]


def _table(first: str, rows: Sequence[tuple[str, str, str]]) -> list[str]:
    lines = [" | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in row) for row in rows]
    return [f"| {first} | type | meaning |", "|---|---|---|", *(f"| {line} |" for line in lines), ""]


def in_words(kind: Any) -> str:
    """The type of a field in plain words, as JSON holds it; a part is a link to its section. Raises `TypeError` on a type without words."""
    options = _options(kind)
    kinds = [option for option in options if option is not type(None)]
    words = _joined([_plain(option, plural=False) for option in kinds or options])
    return f"{words}, or null" if kinds and len(kinds) < len(options) else words


def _options(kind: Any) -> tuple[Any, ...]:
    """What a union may be; of any other type, the type alone."""
    if get_origin(kind) is Annotated:
        return _options(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        return tuple(option for argument in get_args(kind) for option in _options(argument))
    return (kind,)


def _plain(kind: Any, *, plural: bool) -> str:
    origin, arguments = get_origin(kind), get_args(kind)
    if inspect.isclass(kind) and issubclass(kind, BaseModel):
        return f"[{kind.__name__}](#{kind.__name__.lower()})"
    if kind in WORDS:
        return WORDS[kind][plural]
    if origin is Literal:
        return _joined([f"`{json.dumps(value)}`" for value in arguments])
    if origin is list or (origin is tuple and arguments[-1] is Ellipsis):
        return f"{'lists' if plural else 'list'} of {_inner(arguments[0], plural=True)}"
    if origin is tuple:
        return f"{'lists' if plural else 'list'} ({', '.join(_inner(argument, plural=False) for argument in arguments)})"
    if origin is dict:
        key, value = (_inner(argument, plural=False) for argument in arguments)
        return f"{'maps' if plural else 'map'} from {key} to {value}"
    raise TypeError(f"a record's field has the type {kind!r}, for which there are no plain words; use another, or add it to in_words")


def _inner(kind: Any, *, plural: bool) -> str:
    """A type within another. Alternatives stand in brackets, so that it shows where they end."""
    options = _options(kind)
    words = _joined([_plain(option, plural=plural) for option in options])
    several = len(options) > 1 or (get_origin(options[0]) is Literal and len(get_args(options[0])) > 1)
    return f"({words})" if several else words


def _joined(words: Sequence[str]) -> str:
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
