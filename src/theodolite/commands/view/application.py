"""The application behind `theodolite view`: which page answers which address."""

from __future__ import annotations

import secrets
import threading
from base64 import b64encode
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route

from theodolite.commands.view.guard import Guard, page_policy, report_policy
from theodolite.records.errors import BadInput
from theodolite.report.bar import Serving
from theodolite.report.stored import PNG_SIGNATURE, read_stored
from theodolite.report.survey.page import build_page
from theodolite.report.view import pages
from theodolite.report.view.catalogue import ROWS_FILE, Catalogue, Run
from theodolite.report.view.row_table import RowFilter, RowTable

MAX_REPORTS = 4
MAX_TABLES = 8
NONCE_BYTES = 18
Value = TypeVar("Value")


class Recent:
    """Values that take long to make, the most recently used; one is made at a time, since each may need much memory."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._values: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        with self._lock:
            value = self._values.pop(key) if key in self._values else make()
            self._values[key] = value
            while len(self._values) > self.most:
                self._values.popitem(last=False)
        return value  # type: ignore[no-any-return]


class Site:
    """The pages about the surveys below a folder. Surveys are found by their names in the catalogue; no path is made of what is asked."""

    def __init__(self, catalogue: Catalogue, shown_as: str) -> None:
        self.catalogue = catalogue
        self.shown_as = shown_as
        self._reports = Recent(MAX_REPORTS)
        self._tables = Recent(MAX_TABLES)

    def runs(self, request: Request) -> HTMLResponse:
        query = request.query_params
        words = query.get("q", "")
        return _own(
            lambda nonce: pages.runs_page(
                self.catalogue.entries(), self.shown_as, nonce, words, query.get("sort", ""), query.get("order", "")
            )
        )

    def report(self, request: Request) -> HTMLResponse:
        run = self._run(request)
        html, nonce = self._reports.get((run.name, run.stamp), lambda: _report(run))
        return HTMLResponse(html, headers={"Content-Security-Policy": report_policy(html, nonce)})

    def rows(self, request: Request) -> HTMLResponse:
        run = self._run(request)
        query = request.query_params
        conditions = RowFilter(**{each.name: query.get(each.name, "").strip() for each in fields(RowFilter)})
        number = _whole_number(query.get("page", "1"), "page")
        return _own(lambda nonce: pages.rows_page(run, self._table(run), conditions, number, nonce))

    def row(self, request: Request) -> HTMLResponse:
        run = self._run(request)
        row = self._table(run).row(_whole_number(request.query_params.get("at", ""), "at"))
        back = urlencode([item for item in request.query_params.multi_items() if item[0] not in ("run", "at")])
        return _own(lambda nonce: pages.row_page(run, row, _pictures(run, row), back, nonce))

    def compare(self, request: Request) -> HTMLResponse:
        names = request.query_params.getlist("run")
        if len(names) != 2:
            raise BadInput(f"two surveys can be compared, not {len(names)}; choose two in the list")
        one, other = (self.catalogue.find(name) for name in names)
        html, nonce = self._reports.get((one.name, one.stamp, other.name, other.stamp), lambda: _comparison(one, other))
        return HTMLResponse(html, headers={"Content-Security-Policy": report_policy(html, nonce)})

    def _run(self, request: Request) -> Run:
        return self.catalogue.find(request.query_params.get("run", ""))

    def _table(self, run: Run) -> RowTable:
        if not run.has_rows:
            raise BadInput(f"{run.name} holds no {ROWS_FILE}, so its rows cannot be shown")
        return self._tables.get((run.name, run.stamp), lambda: RowTable(run.folder / ROWS_FILE))


def view_application(folder: Path, port: int) -> Starlette:
    """The application for the surveys below a folder, which answers at this port of the loopback interface. Raises `BadInput`."""
    site = Site(Catalogue(folder), folder.name or str(folder))
    routes: Mapping[str, Callable[[Request], HTMLResponse]] = {
        "/": site.runs,
        "/report": site.report,
        "/rows": site.rows,
        "/row": site.row,
        "/compare": site.compare,
    }
    return Starlette(
        routes=[Route(path, endpoint) for path, endpoint in routes.items()],
        middleware=[Middleware(Guard, port=port)],
        exception_handlers={BadInput: _not_shown, HTTPException: _no_such_page},
    )


def _comparison(one: Run, other: Run) -> tuple[str, str]:
    """The page that `theodolite compare --html` writes, and the nonce of its scripts. Raises `BadInput` where they cannot be compared."""
    # These load SciPy's statistics, which takes longer than all else here.
    from theodolite.commands.compare import comparison_html
    from theodolite.measurement.survey.compare import compare

    nonce = secrets.token_urlsafe(NONCE_BYTES)
    links = [pages.HOME, *((pages.report_address(run), f"Report: {run.name}") for run in (one, other))]
    return comparison_html(one.folder, other.folder, compare(one.folder, other.folder), Serving(nonce, links)), nonce


def _report(run: Run) -> tuple[str, str]:
    """The page that `theodolite report` writes, with links to this server's other pages, and the nonce of its scripts."""
    nonce = secrets.token_urlsafe(NONCE_BYTES)
    return build_page([read_stored(run.folder)], serving=Serving(nonce, pages.serving_links(run))), nonce


def _own(render: Callable[[str], str], status: int = 200) -> HTMLResponse:
    """A page of this server's own, with a fresh nonce."""
    nonce = secrets.token_urlsafe(NONCE_BYTES)
    return HTMLResponse(render(nonce), status, {"Content-Security-Policy": page_policy(nonce)})


def _not_shown(request: Request, error: Exception) -> HTMLResponse:
    return _own(lambda nonce: pages.problem_page(f"{error}.", nonce), 404)


def _no_such_page(request: Request, error: Exception) -> HTMLResponse:
    return _own(lambda nonce: pages.problem_page("There is no such page.", nonce), getattr(error, "status_code", 404))


def _whole_number(text: str, name: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise BadInput(f"{name} is a number, not {text!r}")
    return int(text)


def _pictures(run: Run, row: Mapping[str, Any]) -> dict[str, str]:
    """Data addresses of the pictures of a row, by side, where the survey stored them: those of its examples."""
    stored = {}
    for side in pages.SIDES:
        path = (run.folder / "pictures" / f"{row.get(f'picture_{side}') or 0:06d}.png").resolve()
        if path.is_relative_to(run.folder) and path.is_file() and (data := path.read_bytes()).startswith(PNG_SIGNATURE):
            stored[side] = f"data:image/png;base64,{b64encode(data).decode()}"
    return stored
