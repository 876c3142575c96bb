"""A page of HTML as a test asks about it: its elements in order, its charts and the text that it shows."""

from __future__ import annotations

from html.parser import HTMLParser

Attributes = dict[str, str]


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
