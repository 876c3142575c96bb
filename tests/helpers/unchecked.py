"""Modules without the type checks of tests, which take three quarters of the time of a small call: for simulations of many draws."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType


def without_checks(module: ModuleType) -> ModuleType:
    """The same source, loaded again; what it imports stays checked."""
    name = f"unchecked_{module.__name__.rpartition('.')[2]}"
    spec = importlib.util.spec_from_file_location(name, module.__file__)
    assert spec is not None and spec.loader is not None
    sys.modules[name] = unchecked = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(unchecked)
    return unchecked
