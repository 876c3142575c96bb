"""The pages of `theodolite view`: the list of surveys, rows of one, one row, a comparison, and what could not be shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, get_args
from urllib.parse import urlencode

import jinja2

from theodolite.report.bar import Bar
from theodolite.report.environment import environment
from theodolite.report.survey.board import ICON
from theodolite.report.survey.pairs_address import OUTCOME_MEANING, OUTCOME_WORD
from theodolite.report.view.catalogue import DamagedRun, Run, Sort, ordered, searched
from theodolite.report.view.row_table import FILTERED, RowFilter, RowPage, RowTable

SIDES = ("before", "after")
PER_CHOICE = ("probabilities", "total_logprob", "num_tokens")
HOME = ("/", "All surveys")
COLUMNS = tuple(name for name in get_args(Sort) if name != "name")
# Sorted by one of these, what is largest or newest comes first.
DESCENDING = ("date", "scenes")


@dataclass(frozen=True)
class Heading:
    """A column of the list: the address that sorts by it, and how it is sorted now (an aria-sort)."""

    name: str
    address: str
    sorted: str


def runs_page(entries: Sequence[Run | DamagedRun], folder: str, nonce: str, words: str = "", sort: str = "", order: str = "") -> str:
    """The list of surveys whose texts hold these words. Raises `BadInput` for a column that there is not."""
    runs = [entry for entry in entries if isinstance(entry, Run)]
    descending = order == "descending" if order else sort in DESCENDING
    damaged = [entry for entry in entries if isinstance(entry, DamagedRun)]
    facts = [_counted(len(runs), "survey"), *([f"{len(damaged):,} cannot be read"] if damaged else [])]
    return _render(
        "view_runs.html.j2",
        nonce,
        Bar(f"Surveys below {folder}", facts),
        runs=ordered(searched(runs, words), sort or "name", descending=descending),
        num_runs=len(runs),
        damaged=damaged,
        headings=[_heading(column, words, sort, descending) for column in COLUMNS],
        words=words,
    )


def rows_page(run: Run, table: RowTable, conditions: RowFilter, number: int, nonce: str) -> str:
    """One page of the rows that meet the conditions. Raises `BadInput`."""
    page = table.page(conditions, number)
    return _render(
        "view_rows.html.j2",
        nonce,
        Bar(f"Rows of {run.title}", [f"{page.num_rows:,} rows"], links=_links(run)),
        run=run,
        page=page,
        last=page.first + len(page.rows),
        conditions=conditions,
        choices={name: table.values[name] for name in FILTERED},
        numbers=_numbers(page),
        address=lambda to: _address("rows", run=run.name, **_given(conditions), page=to),
        back=urlencode({**_given(conditions), "page": page.number}),
    )


def row_page(run: Run, row: Mapping[str, Any], pictures: Mapping[str, str], back: str, nonce: str) -> str:
    """One row with all that it holds; `pictures` are data addresses by side, `back` the query of the page of rows it was opened from."""
    shown_apart = {"choices", "outcome", *(f"{name}_{side}" for name in PER_CHOICE for side in SIDES)}
    return _render(
        "view_row.html.j2",
        nonce,
        Bar(f"Row {row['at']} of {run.title}", links=[*_links(run), (_address("rows", run=run.name) + f"&{back}", "Back to the rows")]),
        run=run,
        row=row,
        sides=SIDES,
        choices=_choices(row),
        pictures=pictures,
        facts={name: value for name, value in row.items() if name not in shown_apart and value not in (None, "")},
    )


def problem_page(sentence: str, nonce: str) -> str:
    """A page with one sentence on what cannot be shown, and the way back to the list."""
    return _render("view_problem.html.j2", nonce, Bar("Not shown", links=[HOME]), sentence=sentence)


def report_address(run: Run) -> str:
    return _address("report", run=run.name)


def _links(run: Run) -> list[tuple[str, str]]:
    return [HOME, (report_address(run), "Report")]


def serving_links(run: Run) -> list[tuple[str, str]]:
    """The links in the bar of a report: to the list, and to its rows where they were stored."""
    return [HOME, *([(_address("rows", run=run.name), "Rows")] if run.has_rows else [])]


def _heading(column: str, words: str, sort: str, descending: bool) -> Heading:
    """A second click turns the order around."""
    is_sorted = column == sort
    turned = not descending if is_sorted else column in DESCENDING
    query = {"q": words, "sort": column, "order": "descending" if turned else "ascending"}
    state = ("descending" if descending else "ascending") if is_sorted else "none"
    return Heading(column, "/?" + urlencode(query), state)


def _choices(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each choice with its numbers on both sides, None where they are not known."""
    columns = {f"{name}_{side}": row.get(f"{name}_{side}") for name in PER_CHOICE for side in SIDES}
    return [
        {"name": choice, **{name: values[place] if values and place < len(values) else None for name, values in columns.items()}}
        for place, choice in enumerate(row.get("choices") or ())
    ]


def _numbers(page: RowPage) -> list[int]:
    """The pages that are linked: the first, the last, and those around this one."""
    return sorted({1, page.num_pages, *range(max(1, page.number - 2), min(page.num_pages, page.number + 2) + 1)})


def _given(conditions: RowFilter) -> dict[str, str]:
    return {name: value for name, value in asdict(conditions).items() if value}


def _address(path: str, /, **query: Any) -> str:
    return f"/{path}?{urlencode(query)}"


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _render(template: str, nonce: str, bar: Bar, **values: Any) -> str:
    return _environment().get_template(template).render(bar=bar, nonce=nonce, **values)


def _environment() -> jinja2.Environment:
    return environment(
        ICON=ICON,
        OUTCOME_WORD=OUTCOME_WORD,
        OUTCOME_MEANING=OUTCOME_MEANING,
        report_address=report_address,
        rows_address=lambda run: _address("rows", run=run.name),
        row_address=lambda run, at, back: _address("row", run=run.name, at=at) + (f"&{back}" if back else ""),
    )
