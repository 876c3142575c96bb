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
    with pytest.raises(AttributeError, match="no attribute 'survey_world'"):
        th.survey_world  # noqa: B018


def test_type_checkers_see_the_names_that_are_loaded_lazily() -> None:
    tree = ast.parse(Path(th.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {alias.asname: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == {name: f"theodolite.{home}" for name, home in th._HOMES.items()}
    assert (Path(th.__file__).parent / "py.typed").is_file()


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
