"""Cells of CSV files as spreadsheets take them."""

from __future__ import annotations

import re
from typing import TypeVar

Value = TypeVar("Value")
# Beginnings that a spreadsheet runs as a formula; numbers, alone or with the ends of an interval, keep their sign.
FORMULA = re.compile(r"[=@\t\r]|[+\-](?![\d.,\s%\[\]–\-]*\Z)")


def safe_cell(value: Value) -> Value | str:
    """A value for a cell: a text that a spreadsheet would run as a formula begins with an apostrophe; all else is as it was."""
    return f"'{value}" if isinstance(value, str) and FORMULA.match(value) else value
