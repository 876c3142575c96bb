"""What tests share: builders of small real things, and servers and scripts that run as processes of their own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

HELPERS = Path(__file__).parent
TESTS = HELPERS.parent
REPOSITORY = TESTS.parent


def script_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a process that runs a script of `helpers`: with `tests` on its path."""
    path = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path, **(extra or {})}
