"""A browser that a test drives: windows of a phone and of a desk, both themes, and the faults that axe-core finds in a page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from helpers.requirements import require, require_browser

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

WINDOWS = [(width, theme) for width in (360, 1400) for theme in ("light", "dark")]
GRAVE = ("serious", "critical")
# Only this machine is reached, and nothing is looked up.
OFFLINE = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
# A page whose script fails draws no more charts.
NOTE_FAILURES = "for (const kind of ['error', 'unhandledrejection']) addEventListener(kind, () => (window.scriptFailed = true))"
DRAWN = "window.scriptFailed || [...document.querySelectorAll('[data-spec]')].every((box) => box.querySelector('svg[aria-hidden]'))"


class OpenedPage(NamedTuple):
    """A page after its charts were drawn: its document as HTML, what its console said, what the script gave, pixels beyond the window."""

    dom: str
    console: list[str]
    result: Any
    overflow: int


@contextmanager
def live_browser() -> Iterator[Browser]:
    """The browser of the system, without a window; Playwright's own is not needed."""
    require("playwright")
    from playwright.sync_api import sync_playwright

    path = require_browser()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(OFFLINE))
        yield browser
        browser.close()


@contextmanager
def window(browser: Browser, width: int = 1400, theme: Literal["light", "dark"] | str = "light") -> Iterator[tuple[Page, list[str]]]:
    """A fresh window of this width on a system with this theme, and all that its pages write to their consoles."""
    scheme: Any = theme
    with browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme) as context:
        context.add_init_script(NOTE_FAILURES)
        page = context.new_page()
        console: list[str] = []
        page.on("console", lambda message: console.append(message.text))
        page.on("pageerror", lambda error: console.append(str(error)))
        yield page, console


def show(page: Page, address: str | Path) -> None:
    """Opens an address, or a page on disk, and waits until its charts are drawn."""
    page.goto(address.resolve().as_uri() if isinstance(address, Path) else address)
    page.wait_for_function(DRAWN)


def open_page(path: Path, script: str | None = None, *, address: str = "", width: int = 1400) -> OpenedPage:
    """A page on disk in a browser of its own, with the part of its address after it (#...); `script` runs after its charts are drawn."""
    with live_browser() as browser, window(browser, width) as (page, console):
        show(page, path.resolve().as_uri() + address)
        result = page.evaluate(script) if script else None
        return OpenedPage(page.content(), console, result, overflow(page))


def grave_faults(page: Page, *, contrast: bool = True) -> list[str]:
    """The serious and critical violations that axe-core finds, each with the first element that has it.

    `contrast` takes most of the time of a large page.
    """
    require("axe_playwright_python")
    from axe_playwright_python.sync_playwright import Axe

    options = {"resultTypes": ["violations"], "rules": {"color-contrast": {"enabled": contrast}}}
    violations = Axe().run(page, options=options).response["violations"]
    return [f"{each['id']}: {each['nodes'][0]['html'][:200]}" for each in violations if each["impact"] in GRAVE]


def overflow(page: Page) -> int:
    """How many pixels the page is wider than its window."""
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))
