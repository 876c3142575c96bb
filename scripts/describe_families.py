"""Writes the table of what families support into docs/reference/families.md, from the marks `contract` of the tests.

`python scripts/describe_families.py` goes by the tests that there are; with `--run` they are run, and a cell says how they ended.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs" / "reference" / "families.md"
TESTS = ROOT / "tests"
BEGIN, END = "<!-- scripts/describe_families.py writes from here -->", "<!-- to here -->"

# The columns of the table, and what a yes in them says.
CAPABILITIES: Mapping[str, str] = {
    "own forward": "not adapted, a pass gives the Hugging Face model's logits to the bit",
    "pictures": "they are read without torchvision, and each token's place in them is known",
    "samples": "a conversation becomes the tokens of the whole text, with targets where answers stand",
    "mixed, 2D": "mixed attention and 2D positions change what they say and nothing else",
    "LaVer": "a step of either branch is finite, its gradients are where they belong, and student and teacher agree without masks",
    "masks": "what is masked cannot be seen by any way",
    "stages": "encoder, connector and language model can be trained and frozen apart",
    "export": "an adapted model runs and generates alike where theodolite is not installed; one that is not adapted is a stock checkpoint",
    "asking": "a choice gets the score of a sequence of its own in the library's forward",
    "shared prefix": "a picture runs once for all of its questions, and a question once for its choices",
    "taps": "what is seen at a site is the library's own hidden state, and an edit there changes what follows and nothing before",
    "ladder": "factors are probed at every site, at the answer and in words",
    "inside": "every measure of the inside gives a record",
    "directions": "directions of factors are patched and erased at the connector and in layers",
    "survey": "a survey ends with a record, and a second one repeats it to the byte",
}


@dataclass(frozen=True)
class Claim:
    """One test's word on one capability of one family: `no` is why it is not supported, if the test shows that."""

    family: str
    capability: str
    test: str
    no: str | None


class Claims:
    """A plugin that keeps the claims of all collected tests, and how the tests ended if they were run."""

    def __init__(self) -> None:
        self.found: list[Claim] = []
        self.ended: dict[str, str] = {}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if claims_of([item])]
        self.found = claims_of(items)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.outcome != "passed" or report.when == "call":
            self.ended[report.nodeid] = report.outcome


def families_known() -> tuple[str, ...]:
    """All families. Imported late: pytest's plugins want to be there before what they look into."""
    from theodolite.models.families import FAMILIES

    return tuple(FAMILIES)


def claims_of(items: Iterable[pytest.Item]) -> list[Claim]:
    """What the marks of these tests claim. Raises `ValueError` for a mark that is not about a capability of the table."""
    families, found = families_known(), []
    for item in items:
        family = getattr(item, "callspec").params.get("name") if hasattr(item, "callspec") else None  # noqa: B009
        for mark in item.iter_markers("contract"):
            (capability,) = mark.args
            if capability not in CAPABILITIES:
                raise ValueError(f"{item.nodeid} is marked with {capability!r}; the table has the columns {', '.join(CAPABILITIES)}")
            if family in families:
                found.append(Claim(str(family), capability, item.nodeid, mark.kwargs.get("no")))
    return found


def marked_files() -> list[Path]:
    """The files of tests in which the mark occurs."""
    return sorted(path for path in TESTS.rglob("test_*.py") if "mark.contract(" in path.read_text())


def table(claims: Sequence[Claim], ended: Mapping[str, str] | None = None) -> str:
    """The table, a line for each family, and below it what its columns say and by which tests. `ended`: how these ended, by their ids.

    Raises `ValueError` where tests contradict each other.
    """
    lines = [f"| family | {' | '.join(CAPABILITIES)} |", "|---" * (len(CAPABILITIES) + 1) + "|"]
    lines += [f"| `{family}` | {' | '.join(_cell(claims, family, name, ended) for name in CAPABILITIES)} |" for family in families_known()]
    lines += ["", "Where a cell says no, a test shows that it is so. An empty cell has no test.", ""]
    for name, meaning in CAPABILITIES.items():
        tests = dict.fromkeys(claim.test.partition("[")[0] for claim in claims if claim.capability == name)
        files: dict[str, int] = {}
        for test in tests:
            file = test.partition("::")[0].rpartition("/")[2]
            files[file] = files.get(file, 0) + 1
        by = ", ".join(f"{number} in `{file}`" for file, number in files.items()) or "none"
        lines.append(f"* **{name}**: {meaning}. Tests: {by}.")
    return "\n".join(lines)


def _cell(claims: Sequence[Claim], family: str, capability: str, ended: Mapping[str, str] | None) -> str:
    mine = [claim for claim in claims if (claim.family, claim.capability) == (family, capability)]
    if not mine:
        return ""
    reasons = {claim.no for claim in mine}
    if len(reasons) > 1:
        raise ValueError(f"of {family}, {capability}, tests say both {' and '.join(sorted(str(reason or 'yes') for reason in reasons))}")
    outcomes = {"passed"} if ended is None else {ended.get(claim.test, "not run") for claim in mine}
    if outcomes != {"passed"}:
        return f"**{', '.join(sorted(outcomes - {'passed'}))}**"
    (reason,) = reasons
    return "yes" if reason is None else f"no: {reason}"


def written(text: str, found: str) -> str:
    """The document with the table in its place. Raises `ValueError` if it has no place for it."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the document has no place for the table; it stands between {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}\n{found}\n{END}{after}"


def main(arguments: Sequence[str]) -> int:
    run = "--run" in arguments
    claims = Claims()
    options: list[Any] = ["-q", "--rootdir", str(ROOT), "-p", "no:cacheprovider", *map(str, marked_files())]
    code = pytest.main(options if run else ["--collect-only", "-qq", *options], plugins=[claims])
    if not claims.found:
        return int(code) or 1
    DOCUMENT.write_text(written(DOCUMENT.read_text(), table(claims.found, claims.ended if run else None)))
    return int(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
