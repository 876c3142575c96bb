"""What `theodolite manifest check` warns of beside faults."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from helpers.colour_pairs import write_colour_manifest
from theodolite.cli import app


def check(manifest: Path) -> list[str]:
    done = CliRunner().invoke(app, ["manifest", "check", str(manifest)])
    assert done.exit_code == 0, done.output
    return [line for line in done.output.splitlines() if line.startswith("warning: ")]


def test_a_question_with_one_true_answer_in_all_base_pictures_is_a_warning(tmp_path: Path) -> None:
    manifest = write_colour_manifest(tmp_path / "pairs")
    assert check(manifest) == []
    lines = manifest.read_text().splitlines(keepends=True)
    manifest.write_text("".join(line for line in lines if json.loads(line)["scene"] % 2))  # the base pictures that are red
    (warning,) = check(manifest)
    assert warning.startswith("warning: colour (open) has one true answer in all base pictures")
    manifest.write_text("".join(line for line in lines if json.loads(line)["scene"] == 1))
    assert check(manifest) == []  # of one scene nothing can be said
