"""A survey killed with SIGKILL while it asks, and again while it measures: the same command goes on and writes the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.command_line import theodolite
from helpers.tiny_llava import tiny_vlm
from theodolite.models.export import export_vlm

FILES = ("survey.json", "rows.parquet")


def killed_at(words: str, command: list[str]) -> list[str]:
    """Runs a command until it prints a line with these words, kills it, and returns its lines."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "200"}) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if words in line:
                os.kill(process.pid, signal.SIGKILL)
                break
        else:
            pytest.fail(f"{words!r} was never printed:\n{''.join(lines)}")
    return lines


def test_a_survey_killed_twice_writes_the_bytes_of_an_undisturbed_one(tmp_path: Path) -> None:
    export_vlm(*tiny_vlm(), tmp_path / "model")
    arguments = ["survey", tmp_path / "model", "--world", "shapes", "--ask", "shape,row", "--scenes", "6", "--save-every", "100"]
    arguments += ["--batch", "16", "--measures", "gap,likeness"]
    once = theodolite(*arguments, "--out", tmp_path / "once")
    assert once.returncode == 0, once.stderr
    command = [sys.executable, "-m", "theodolite", *map(str, arguments), "--out", str(tmp_path / "often")]
    unfinished = tmp_path / ".often.unfinished"

    killed_at("questions: ", command)
    killed_at("questions: 2", command)  # a quarter or more is answered
    answered = {path: path.stat().st_mtime_ns for path in (unfinished / "answers").iterdir()}
    assert answered and not (tmp_path / "often").exists()
    lines = killed_at("gap: ", command)
    assert any(line.startswith("going on with the interrupted survey") for line in lines)
    assert answered.items() <= {path: path.stat().st_mtime_ns for path in (unfinished / "answers").iterdir()}.items()
    assert {path.name.partition("-")[0] for path in (unfinished / "inside").iterdir()} == {"likeness"}

    last = theodolite(*arguments, "--out", tmp_path / "often")
    assert last.returncode == 0, last.stderr
    assert "likeness: " not in last.stdout and not unfinished.exists()
    for name in FILES:
        assert (tmp_path / "often" / name).read_bytes() == (tmp_path / "once" / name).read_bytes(), name


def test_two_surveys_into_one_folder_are_refused(tmp_path: Path) -> None:
    export_vlm(*tiny_vlm(), tmp_path / "model")
    command = ["survey", tmp_path / "model", "--world", "shapes", "--ask", "shape", "--scenes", "4", "--out", tmp_path / "out"]
    with subprocess.Popen([sys.executable, "-m", "theodolite", *map(str, command)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any("questions: " in line for line in process.stdout)
        os.kill(process.pid, signal.SIGSTOP)
        try:
            second = theodolite(*command)
        finally:
            os.kill(process.pid, signal.SIGKILL)
    assert second.returncode == 2 and "another process is writing" in second.stderr
