"""The bar at the top of every page: what the page is about, its sections, and files to save."""

from __future__ import annotations

import gzip
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Export:
    """One file of the export menu; `packed` is gzip as base64, None where the file cannot be had from the page and `note` says why."""

    key: str
    label: str
    note: str
    file_name: str
    media_type: str
    packed: str | None

    @staticmethod
    def pack(text: str) -> str:
        """The text as gzip in base64. Without a time in its header, the same text packs to the same bytes."""
        return b64encode(gzip.compress(text.encode(), mtime=0)).decode()


@dataclass(frozen=True)
class Bar:
    """`title` is the page's title too; `facts` follow it in the bar; `sections` are (anchor, name), `links` to pages (address, name)."""

    title: str
    facts: Sequence[str] = ()
    sections: Sequence[tuple[str, str]] = ()
    exports: Sequence[Export] = ()
    links: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Serving:
    """How a page that a server sends differs from one on disk: `links` to other pages, (address, name), in its bar, and the `nonce` of its
    scripts, as its Content-Security-Policy lets run no others."""

    nonce: str
    links: Sequence[tuple[str, str]] = ()
