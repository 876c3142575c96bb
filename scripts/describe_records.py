"""Writes docs/reference/records.md from the models of the records: `python scripts/describe_records.py`."""

from __future__ import annotations

from pathlib import Path

from theodolite.records.described import records_text

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "reference" / "records.md"

if __name__ == "__main__":
    DOCUMENT.write_text(records_text())
