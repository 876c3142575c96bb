"""`import theodolite as th`: the public names, loaded when they are used, and nothing heavy before."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import theodolite as th

HEAVY = ("torch", "transformers", "polars", "altair", "numpy", "accelerate", "datasets", "pydantic")


def test_every_public_name_is_there_by_its_own_name_and_says_what_it_is() -> None:
    assert len(set(th.__all__)) == len(th.__all__) >= 20
    for name in th.__all__:
        value = getattr(th, name)
        assert value.__name__ == name and value.__doc__, name
        assert value is getattr(th, name)
    assert set(th.__all__) <= set(dir(th))
    with pytest.raises(AttributeError, match="No theodolite attribute survey_world"):
        th.survey_world  # noqa: B018


def test_type_checkers_see_the_names_that_are_loaded_lazily() -> None:
    package = Path(th.__file__).parent
    imports = [node for node in ast.parse((package / "__init__.pyi").read_text()).body if isinstance(node, ast.ImportFrom)]
    modules = {alias.asname: f"theodolite.{node.module}" for node in imports for alias in node.names}
    assert sorted(modules) == sorted(th.__all__) and all(node.level == 1 for node in imports)
    assert modules == {name: getattr(th, name).__module__ for name in th.__all__}
    assert (package / "py.typed").is_file()


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = f"import sys, theodolite; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_worlds_and_coverage_need_no_torch() -> None:
    code = (
        "import sys, theodolite as th; world = th.Shapes().correlate('shape', 'colour', strength=0.9); "
        "print(round(th.measure_coverage(world, 'shape').coverage['shape'], 4), th.SurveyOptions().num_scenes, "
        "[name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["0.19", "200", "[]"]
