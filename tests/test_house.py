"""The plan of the house: imports run down only, what needs no torch gets none, and no room grows too large."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import theodolite
from helpers import LONGEST, TESTS

ROOT = Path(theodolite.__file__).parent
# Floors from the ground up; a room imports from floors below it only.
LEVELS = {
    "records": 1,
    "models": 3,
    "report": 3,
    "stats": 3,
    "worlds": 3,
    "asking": 4,
    "blind_pairs": 4,
    "objectives": 4,
    "questions": 4,
    "data": 5,
    "measurement": 5,
    "training": 6,
    "commands": 7,
    "studies": 8,
    "cli": 9,
    "__main__": 10,
}
# What the two rooms hold that once held everything.
INSIDE = {
    "measurement": {"behaviour", "internals", "pairs", "survey"},
    "studies": {
        "advice",
        "dose",
        "engine",
        "flip",
        "flip_controls",
        "flip_setup",
        "forecast",
        "frontier",
        "geometry",
        "gram",
        "laver",
        "lock",
        "rivals",
        "tour",
        "unlock",
    },
}
HEAVY = {"torch", "transformers", "accelerate", "safetensors", "tokenizers"}
FREE_OF_TORCH = (
    "blind_pairs.search",
    "cli",
    "commands.advise",
    "commands.compare",
    "commands.data_tables",
    "commands.view.serve",
    "report.tables",
    "commands.world",
    "measurement.behaviour.accuracy",
    "measurement.behaviour.shadows",
    "measurement.pairs.plan",
    "measurement.survey.compare",
    "questions.advice.advise",
    "questions.annotated",
    "questions.coverage",
    "questions.matched_pairs",
    "questions.pressure",
    "stats.claims",
    "stats.jackknife",
    "stats.power",
    "stats.rates",
)


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


@cache
def files() -> dict[str, Path]:
    """Every module below `theodolite`, by its name there."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        found[name.removesuffix("__init__").removesuffix(".")] = path
    return found


def package(module: str) -> str:
    return module.partition(".")[0]


def imported(node: ast.AST, here: str, is_package: bool) -> Iterator[str]:
    """Full names of what the imports below a node name, those inside functions too; `from a import b` names both a and a.b."""
    for child in ast.walk(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            parts = ["theodolite", *filter(None, here.split("."))]
            start = parts[: len(parts) + is_package - child.level] if child.level else []
            module = ".".join([*start, *filter(None, [child.module])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in child.names)


@cache
def imports(module: str) -> frozenset[str]:
    path = files()[module]
    return frozenset(imported(tree(path), module, path.name == "__init__.py"))


def own(name: str) -> str | None:
    """The module of ours that a full name points to; None if it is none."""
    inside = name.removeprefix("theodolite").removeprefix(".")
    return inside if name.partition(".")[0] == "theodolite" and inside in files() else None


def modules_of(*packages: str) -> list[str]:
    return [module for module in files() if package(module) in packages]


def test_every_package_has_a_level() -> None:
    assert {package(module) for module in files()} - {""} == set(LEVELS)
    assert not any(own(name) for name in imports(""))


@pytest.mark.parametrize("module", [module for module in files() if module])
def test_a_module_imports_from_below_or_from_its_own_package(module: str) -> None:
    home = package(module)
    targets = {target for name in imports(module) if (target := own(name)) and package(target) != home}
    above = sorted(target for target in targets if LEVELS[package(target)] >= LEVELS[home])
    assert not above, f"{module} (level {LEVELS[home]}) imports {above}"


def test_packages_of_one_level_do_not_see_each_other_and_imports_have_no_circle() -> None:
    seen: dict[str, set[str]] = {}

    def below(module: str, path: tuple[str, ...] = ()) -> set[str]:
        assert module not in path, " -> ".join((*path, module))
        if module not in seen:
            direct = {target for name in imports(module) if (target := own(name)) and target not in (module, package(module))}
            seen[module] = direct.union(*(below(target, (*path, module)) for target in sorted(direct)))
        return seen[module]

    for module in files():
        reached = {package(target) for target in below(module)} - {package(module), ""}
        assert not {name for name in reached if LEVELS[name] == LEVELS.get(package(module))}, module


@pytest.mark.parametrize("room", INSIDE)
def test_measurement_and_studies_hold_one_subject_a_room(room: str) -> None:
    assert {module.split(".")[1] for module in modules_of(room) if module != room} == INSIDE[room]


@pytest.mark.parametrize("module", modules_of("questions", "records", "report", "stats", "worlds"))
def test_rooms_that_need_no_model_import_no_torch(module: str) -> None:
    assert not {package(name) for name in imports(module)} & HEAVY


def test_nothing_uses_torchvision() -> None:
    assert [module for module in files() if any(package(name) == "torchvision" for name in imports(module))] == []


@pytest.mark.parametrize("module", FREE_OF_TORCH)
def test_what_needs_no_model_reaches_no_torch(module: str) -> None:
    """Whatever is imported on the way, at the top of modules (the command line imports within its functions)."""
    waiting, reached = [module], set()
    while waiting:
        here = waiting.pop()
        if here not in reached:
            reached.add(here)
            path = files()[here]
            names = {
                name
                for statement in tree(path).body
                if not isinstance(statement, ast.FunctionDef | ast.ClassDef)
                for name in imported(statement, here, path.name == "__init__.py")
            }
            assert not {package(name) for name in names} & HEAVY, here
            found = [target for name in names if (target := own(name)) is not None]
            waiting += [*found, *(package(target) for target in found if package(target) in files())]
    assert len(reached) > 1


def test_the_command_line_starts_without_torch() -> None:
    code = "import sys, theodolite.cli; print(sorted({'torch', 'transformers', 'numpy', 'theodolite'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "theodolite" in done.stdout and "torch" not in done.stdout and "transformers" not in done.stdout


@pytest.mark.parametrize("module", [module for module in files() if files()[module].read_text()])
def test_files_stay_under_400_lines_and_functions_under_60(module: str) -> None:
    path = files()[module]
    assert len(path.read_text().splitlines()) < 400
    functions = [node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    lengths = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions}
    assert {name: length for name, length in lengths.items() if length >= 60} == {}


def test_the_files_that_are_run_first_exist() -> None:
    assert [name for name in LONGEST if not (TESTS / name).is_file()] == []
