"""The jinja environment that all pages are rendered with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from theodolite.report import words
from theodolite.report.glossary import GLOSSARY, term_id

TEMPLATES = Path(__file__).parent / "templates"


def environment(**names: Any) -> jinja2.Environment:
    """Templates with every text escaped, and `names` as further globals; an undefined name in a template is an error."""
    result = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    filters: dict[str, Any] = {
        "frac": words.show_frac,
        "exact": words.show_exact,
        "count": words.show_count,
        "listed": words.listed,
        "digits": lambda value: "" if value is None else repr(value),
        "unbroken": words.unbroken,
        "breakable": lambda text: escape(text).replace(",", Markup(",<wbr>")),
        "short": lambda digest: digest[:12],
    }
    result.filters.update(filters)
    result.globals.update(interval=words.show_interval, WORD=words.WORD, MEANING=words.MEANING, nonce="")
    result.globals.update(GLOSSARY=GLOSSARY, term_id=term_id, **names)
    return result
