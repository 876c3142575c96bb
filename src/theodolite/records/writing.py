"""Writing a survey's folder, `survey.json` last: a folder that has one is whole."""

from __future__ import annotations

import importlib.metadata
import io
import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

from theodolite.records.folder import write_whole
from theodolite.records.survey import RunRecord, SurveyRecord

PACKAGES = ("theodolite", "torch", "transformers", "accelerate", "numpy", "polars", "pillow")


def write_survey(
    folder: Path,
    record: SurveyRecord,
    rows: pl.DataFrame,
    pictures: Mapping[str, np.ndarray],
    run: RunRecord,
    picture_table: pl.DataFrame | None = None,
    thumbnails: pl.DataFrame | None = None,
) -> None:
    """`survey.json`, `rows.parquet`, `run.json`, the example pictures, and `pictures.parquet` and `thumbnails.parquet` if given; every
    file is whole or not there."""
    (folder / "survey.json").unlink(missing_ok=True)
    for name, picture in pictures.items():
        write_whole(folder / name, png_bytes(picture))
    write_whole(folder / "rows.parquet", _parquet(rows))
    if picture_table is not None:
        write_whole(folder / "pictures.parquet", _parquet(picture_table))
    if thumbnails is not None:
        write_whole(folder / "thumbnails.parquet", _parquet(thumbnails))
    write_whole(folder / "run.json", (run.model_dump_json(indent=1) + "\n").encode())
    write_whole(folder / "survey.json", record.to_json().encode())


def png_bytes(picture: np.ndarray) -> bytes:
    """A picture (height width 3) as the bytes of a PNG file."""
    target = io.BytesIO()
    Image.fromarray(picture).save(target, format="PNG")
    return target.getvalue()


def _parquet(rows: pl.DataFrame) -> bytes:
    target = io.BytesIO()
    rows.write_parquet(target)
    return target.getvalue()


def run_record(
    command: str,
    started: datetime,
    seconds_by_part: Mapping[str, float],
    attention: str | None = None,
    device: str | None = None,
    *,
    threads: int | None = None,
) -> RunRecord:
    """The run so far: times in seconds, host (with the threads of torch if given), package versions, and the git revision if this is
    a checkout."""
    host: dict[str, str | int] = {
        "system": platform.system(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "cpus": os.cpu_count() or 1,
    }
    if threads is not None:
        host["torch_threads"] = threads
    return RunRecord(
        command=command,
        started=started.isoformat(timespec="seconds"),
        seconds=round((datetime.now(UTC) - started).total_seconds(), 3),
        seconds_by_part={name: round(value, 3) for name, value in seconds_by_part.items()},
        host=host,
        packages={name: _version(name) for name in PACKAGES},
        git_revision=git_revision(Path(__file__)),
        attention=attention,
        device=device,
    )


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def git_revision(module: Path) -> str | None:
    """HEAD of the checkout that tracks this module of a package, with "+changes" if the package differs from it.

    None outside a checkout, and for a package that merely lies inside one (in its .venv, say).
    """
    package = module.parent
    while (package.parent / "__init__.py").is_file():
        package = package.parent
    if _git(package, "ls-files", "--error-unmatch", str(module)) is None:
        return None
    head, changes = _git(package, "rev-parse", "HEAD"), _git(package, "status", "--porcelain", "--", ".")
    return f"{head}+changes" if head and changes else head or None


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
