"""Writes the tables of claims into docs/results from the studies' records beside them; `--check` writes nothing and fails if one differs.

The claims of docs/results/NAME/study.json go into docs/results/NAME.md, those of all studies into docs/results/README.md.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from theodolite.records.errors import BadInput
from theodolite.report.study.words import result_documents

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"


def main(arguments: Sequence[str]) -> int:
    """0 if all is well, 1 if a document differs under `--check`, 2 if something cannot be used."""
    unknown = [argument for argument in arguments if argument != "--check"]
    if unknown:
        print(f"{unknown[0]!r} is no option; there is --check", file=sys.stderr)
        return 2
    try:
        wanted = result_documents(RESULTS)
    except BadInput as error:
        print(error, file=sys.stderr)
        return 2
    different = {path: text for path, text in wanted.items() if path.read_text(encoding="utf-8") != text}
    for path, text in different.items():
        if "--check" in arguments:
            print(f"{path} is not what the records say; run python scripts/describe_results.py", file=sys.stderr)
        else:
            path.write_text(text, encoding="utf-8")
    return int(bool(different) and "--check" in arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
