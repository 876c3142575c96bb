"""What several test files share. Nothing here needs a network, and everything is seeded."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock
from jaxtyping import install_import_hook

from helpers import LONGEST, REPOSITORY, TESTS
from helpers.live_browser import live_browser

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# Before torch and numpy start their threads: two cores, and no look-ups of model hubs.
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ["HF_HUB_OFFLINE"] = "1"


def modules_with_shapes() -> list[str]:
    """The package's modules whose signatures state shapes."""
    source = REPOSITORY / "src"
    paths = (path.relative_to(source).with_suffix("") for path in source.rglob("*.py") if "jaxtyping" in path.read_text("utf-8"))
    return sorted(".".join(path.parts).removesuffix(".__init__") for path in paths)


# Shapes are checked as the tests run. Only where signatures state some: to check the types of every call of the package, which mypy
# knows, took a third of the time of a survey and 14 s of each process that imports all of it.
install_import_hook(modules_with_shapes(), "beartype.beartype")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's browser. No longer than for a module: while Playwright runs, its thread can start no other event loop."""
    with live_browser() as browser:
        yield browser


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


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--exhaustive", action="store_true", help="run the tests marked `exhaustive` too: every fault at every moment")
    parser.addoption("--fuzz-cases", type=int, default=10_000, help="malformed inputs that tests/fuzz tries in all (default: 10,000)")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The longest files first; all others stay in their order. Exhaustive tests are left out unless they are asked for."""
    if not config.getoption("--exhaustive"):
        left_out = [item for item in items if item.get_closest_marker("exhaustive")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("exhaustive")]
    place = {TESTS / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path, len(place)))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "exhaustive: run with --exhaustive only (make faults)")
    config.addinivalue_line(
        "markers",
        "contract(capability, no=None): what docs/reference/families.md says of every family that the test is run for (its parameter "
        "`name`); `no` is the reason, of a test that shows that the family does not support it",
    )
