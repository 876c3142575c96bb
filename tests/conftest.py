"""What several test files share. Nothing here needs a network, and everything is seeded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from helpers import LONGEST, TESTS

# Before torch and numpy start their threads: two cores, and no look-ups of model hubs.
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(scope="session")
def short_tour(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The folder of a short tour of the shapes world: THEODOLITE_SHORT_TOUR if the environment names one, as the gate does, else one that
    is run here, once for all workers, as a process of its own. Tests leave its records as they are."""
    if made := os.environ.get("THEODOLITE_SHORT_TOUR"):
        return Path(made).resolve()
    own = tmp_path_factory.getbasetemp()
    shared = own if worker_id == "master" else own.parent
    out = shared / "tour"
    with FileLock(shared / "tour.lock"):
        if not (out / "report.html").is_file():
            command = [sys.executable, "-m", "theodolite", "tour", "--short", "--out", str(out)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr[-3000:]
    return out


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first; all others stay in their order."""
    place = {TESTS / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path, len(place)))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "contract(capability, no=None): what docs/reference/families.md says of every family that the test is run for (its parameter "
        "`name`); `no` is the reason, of a test that shows that the family does not support it",
    )
