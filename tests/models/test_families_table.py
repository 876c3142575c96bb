"""docs/reference/families.md: its table of what families support is what the marks of the tests say, and says something of every family."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import pytest

from helpers import REPOSITORY
from theodolite.models.families import FAMILIES

SCRIPT = REPOSITORY / "scripts" / "describe_families.py"


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("describe_families", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["describe_families"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["describe_families"]


@pytest.fixture(scope="module")
def claims(script: ModuleType, request: pytest.FixtureRequest) -> Any:
    """The claims of all marked tests, collected here and now, whatever part of the suite runs."""
    folder = request.node.parent
    modules = [pytest.Module.from_parent(folder, path=path) for path in script.marked_files()]
    return script.claims_of([item for module in modules for item in request.session.genitems(module)])


def test_the_table_of_the_document_is_what_the_tests_say(script: ModuleType, claims: Any) -> None:
    text = script.DOCUMENT.read_text()
    assert text == script.written(text, script.table(claims)), "run python scripts/describe_families.py"


def test_of_every_family_every_capability_is_tested(script: ModuleType, claims: Any) -> None:
    tested = {(claim.family, claim.capability) for claim in claims}
    assert {(family, name) for family in FAMILIES for name in script.CAPABILITIES} - tested == set()


def made(script: ModuleType, *claims: Sequence[Any]) -> list[Any]:
    return [script.Claim(*claim) for claim in claims]


def cells(script: ModuleType, claims: list[Any], ended: dict[str, str] | None = None) -> dict[str, list[str]]:
    lines = [line.strip("|").split("|") for line in script.table(claims, ended).splitlines() if line.startswith("| `")]
    return {name.strip().strip("`"): [cell.strip() for cell in row] for name, *row in lines}


def test_a_cell_is_empty_without_a_test_and_says_no_with_the_reason(script: ModuleType) -> None:
    rows = cells(script, made(script, ("llava", "ladder", "a", None), ("gemma3", "taps", "b", "it has none")))
    assert list(rows) == list(FAMILIES)
    columns = list(script.CAPABILITIES)
    assert rows["llava"] == ["yes" if name == "ladder" else "" for name in columns]
    assert rows["gemma3"] == ["no: it has none" if name == "taps" else "" for name in columns]


def test_a_cell_of_tests_that_ran_says_how_they_ended(script: ModuleType) -> None:
    claims = made(
        script, *(("llava", name, test, None) for name, test in (("ladder", "a"), ("ladder", "b"), ("taps", "c"), ("export", "d")))
    )
    llava = cells(script, claims, {"a": "passed", "b": "failed", "c": "passed"})["llava"]
    assert {name: cell for name, cell in zip(script.CAPABILITIES, llava, strict=True) if cell} == {
        "ladder": "**failed**",
        "taps": "yes",
        "export": "**not run**",
    }


def test_tests_that_contradict_each_other_and_marks_without_a_column_are_refused(script: ModuleType) -> None:
    with pytest.raises(ValueError, match="of llava, ladder, tests say both it has none and yes"):
        script.table(made(script, ("llava", "ladder", "a", None), ("llava", "ladder", "b", "it has none")))

    class Item:
        nodeid = "a test"

        def iter_markers(self, name: str) -> list[pytest.Mark]:
            return [pytest.mark.contract("ladders").mark]

    with pytest.raises(ValueError, match="a test is marked with 'ladders'; the table has the columns own forward, "):
        script.claims_of([Item()])
    with pytest.raises(ValueError, match="no place for the table"):
        script.written("# Families", "")
