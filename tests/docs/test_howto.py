"""The programs of the how-to pages and of the tutorial: each runs by itself in an empty folder, and each is on a page."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.command_line import run_warm
from helpers.tiny_llava import tiny_vlm
from theodolite.models.export import export_vlm

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLES = DOCS / "howto" / "examples"
# What a program prints last, where that is the same on every machine.
LAST = {"endpoint": "cannot_be_asked", "family": "True"}
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py"))


def run(name: str, folder: Path, *arguments: str) -> str:
    """What an example prints; a failure is shown with the end of its error output."""
    done = run_warm(EXAMPLES / f"{name}.py", *arguments, cwd=folder, environment={"COLUMNS": "120"})
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("name", [name for name in NAMES if name != "tutorial"])
def test_the_program_of_a_page_runs(name: str, tmp_path: Path) -> None:
    lines = run(name, tmp_path).splitlines()
    assert lines
    if name in LAST:
        assert lines[-1] == LAST[name]


def test_the_tutorial_runs_on_two_models(tmp_path: Path) -> None:
    for arm, seed in (("agree", 0), ("all", 1)):
        export_vlm(*tiny_vlm(seed, frontend="patches"), tmp_path / "tour" / arm / "model")
    printed = run("tutorial", tmp_path, str(tmp_path / "tour"))
    assert "shape:agree,row 0.0 2.0" in printed
    assert "shape,row 0.36" in printed
    assert (tmp_path / "report.html").stat().st_size > 10_000


@pytest.mark.parametrize("name", NAMES)
def test_a_program_is_on_a_page(name: str) -> None:
    pages = [path.read_text(encoding="utf-8") for path in DOCS.rglob("*.md")]
    assert any(f'--8<-- "howto/examples/{name}.py' in page for page in pages)
