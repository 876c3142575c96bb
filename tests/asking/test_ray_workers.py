"""Workers through Ray: the answers of one process, also when a worker is killed in the middle of its part."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import HELPERS, script_environment
from helpers.requirements import require
from theodolite.asking.ray_workers import connect_ray
from theodolite.records.errors import BadInput


def test_two_workers_give_the_answers_of_one_process_although_one_is_killed(tmp_path: Path) -> None:
    require("ray")
    killed = tmp_path / "killed"
    command = [sys.executable, HELPERS / "ray_parts.py", killed]
    ran = subprocess.run(command, capture_output=True, text=True, env=script_environment(), timeout=500)
    assert ran.returncode == 0, ran.stderr
    output = json.loads(next(line for line in ran.stdout.splitlines() if line.startswith("{")))  # Ray writes there too
    assert killed.read_text().isdigit() and output["outside"]
    assert output["answers"] == output["expected"] and len(output["answers"]) == 20
    assert output["error"] == "this cannot be answered"


def test_without_ray_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BadInput, match=r"pip install 'theodolite\[ray\]'"):
        connect_ray()
