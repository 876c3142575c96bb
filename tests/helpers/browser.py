"""A real browser for tests: opens a page from disk and says what its console said."""

from __future__ import annotations

import re
import subprocess
import tempfile
from html.parser import HTMLParser
from pathlib import Path

from helpers.requirements import require_browser

OFFLINE = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-extensions", "--disable-dev-shm-usage",
)  # fmt: skip
# Headless Chromium logs every level of a page's console as INFO, so no line can be excused as harmless.
CONSOLE = re.compile(r"^\[[^\]]*:CONSOLE[:(]\d+\)?\] (.*)$", re.MULTILINE)


Attributes = dict[str, str]


def open_page(path: Path, *more: str, timeout_s: float = 60) -> tuple[str, list[str]]:
    """The document after its scripts ran, as HTML, and everything that was written to its console, errors and all."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        done = subprocess.run(
            [require_browser(), *OFFLINE, f"--user-data-dir={home}", "--virtual-time-budget=10000", "--enable-logging=stderr",
             *more, "--dump-dom", path.resolve().as_uri()],
            capture_output=True, text=True, encoding="utf-8", errors="replace", timeout=timeout_s, check=False,
        )  # fmt: skip
    if done.returncode != 0 or "<html" not in done.stdout:
        raise RuntimeError(f"the browser did not open {path} (exit {done.returncode}): {done.stderr[-2000:]}")
    return done.stdout, CONSOLE.findall(done.stderr)


class Page(HTMLParser):
    """What a test asks of a page: its elements in order, the charts' parts, and the text of what is shown."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, Attributes]] = []
        self.charts: list[list[str]] = []
        self.shown: list[str] = []
        self.styles: list[str] = []
        self._open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.elements.append((tag, found))
        classes = found.get("class", "").split()
        if "chart" in classes:
            self.charts.append([])
        if self.charts and "svg" in self._open:
            self.charts[-1].extend(classes)
        if tag not in ("meta", "img", "br", "input", "link"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "style" in self._open:
            self.styles.append(data)
        elif "script" not in self._open:
            self.shown.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.shown).split())

    def of(self, tag: str, **wanted: str) -> list[Attributes]:
        return [found for name, found in self.elements if name == tag and all(found.get(key) == value for key, value in wanted.items())]
