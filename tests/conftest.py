"""What several test files share. Nothing here needs a network, and everything is seeded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Before torch and numpy start their threads: two cores, and no look-ups of model hubs.
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(scope="session")
def short_tour(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short tour of the shapes world, run once as a process of its own."""
    out = tmp_path_factory.mktemp("tour") / "tour"
    command = [sys.executable, "-m", "theodolite", "tour", "--short", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    (out.parent / "said.txt").write_text(done.stdout)
    return out


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "contract(capability, no=None): what docs/reference/families.md says of every family that the test is run for (its parameter "
        "`name`); `no` is the reason, of a test that shows that the family does not support it",
    )
