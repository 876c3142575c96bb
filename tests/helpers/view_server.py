"""`theodolite view` as a process of its own, and a folder of surveys for it: good ones, damaged ones, and links out of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from helpers import survey_records as made
from helpers.planted_answers import Look, answered

HOSTILE = "</script><script>console.error('injected')</script><img src=x onerror=console.error('injected')>"


def planted(leaking_rows: str) -> pl.DataFrame:
    """Rows of a model that answers questions about shape by colour where the row has one of these values, and is right elsewhere."""

    def model(query: str, look: Look, wording: int) -> str:
        return look["colour"] if query == "shape" and look["row"] in leaking_rows else look[query]

    return answered(model, ["shape", "colour"], 30, 30)


def write_runs(folder: Path) -> Path:
    """`a/first`, `a/second` and `hostile` can be read; `broken`, `outside` and `unreadable-rows` are damaged in three ways."""
    first, second, third = made.three_records()
    planted("abcd").write_parquet(made.write(folder / "a" / "first", first) / "rows.parquet")
    planted("a").write_parquet(made.write(folder / "a" / "second", second) / "rows.parquet")
    made.write(folder / "hostile", third.model_copy(update={"title": HOSTILE}), run=False)
    broken = made.write(folder / "broken", first)
    (broken / "survey.json").write_text('{"version": 2, ')
    elsewhere = folder.parent / "elsewhere.parquet"
    planted("abcd").write_parquet(elsewhere)
    (made.write(folder / "outside", first) / "rows.parquet").symlink_to(elsewhere)
    (made.write(folder / "unreadable-rows", second) / "rows.parquet").write_text("no rows")
    made.write(folder.parent / "secret", first)
    (folder / "link").symlink_to(folder.parent / "secret", target_is_directory=True)
    return folder


@contextmanager
def view_server(
    folder: Path, options: Sequence[str] = ("--no-open",), environment: Mapping[str, str] | None = None
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The server's address and its process, which is ended."""
    command = [sys.executable, "-m", "theodolite", "view", str(folder), "--port", "0", *options]
    own = {**os.environ, **(environment or {})}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=own) as process:
        assert process.stdout is not None and process.stderr is not None
        try:
            line = process.stdout.readline()
            assert line.startswith("view: http://127.0.0.1:"), line or process.stderr.read()
            yield line.split()[1], process
        finally:
            process.kill()
