"""Malformed input: whatever a file or a server holds, the package reads it or refuses it in one sentence (`BadInput`)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from helpers import script_environment
from helpers.malformed.target import SHARES, cases_by_target

SEED = 20
FEW = 10_000
REPEAT = "repeat it in tests/ with `python -m helpers.malformed.worker FOLDER 0 '{name}=repeat'`, the case in base64 on its stdin"
# A hang of one target ends that target only (`helpers.malformed.worker`); this is for a machine that stands still.
MOST_S = 6 * 3600


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Mapping[str, Any]]:
    """The result of every target: its numbers of cases, and a failure of each kind and place."""
    folder = tmp_path_factory.mktemp("malformed")
    number = request.config.getoption("--fuzz-cases")
    wanted = [f"{name}={count}" for name, count in cases_by_target(number).items()]
    quiet = {"POLARS_MAX_THREADS": "2", "OMP_NUM_THREADS": "1", "HOME": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "NO_COLOR": "1"}
    command = [sys.executable, "-W", "ignore", "-m", "helpers.malformed.worker", str(folder), str(SEED)]

    def work(part: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *part], env=script_environment(quiet), capture_output=True, text=True, errors="replace", check=False, timeout=MOST_S
        )

    # The tests of a machine's other cores run beside the small number of cases.
    num_processes = 1 if number <= FEW else os.cpu_count() or 1
    with ThreadPoolExecutor(num_processes) as pool:
        for done in pool.map(work, [wanted[first::num_processes] for first in range(num_processes)]):
            assert done.returncode == 0, done.stderr[-3000:]
    results = {name: json.loads((folder / name.replace(" ", "_") / "result.json").read_text()) for name in cases_by_target(1)}
    for name, result in results.items():
        counts = {key: round(value, 2) for key, value in result.items() if key != "failures"}
        print(f"{name}: {counts}, {len(result['failures'])} failures")
    return results


@pytest.mark.parametrize("name", [name for shares in SHARES.values() for name in shares])
def test_malformed_input_is_read_or_refused_in_one_sentence(
    results: Mapping[str, Mapping[str, Any]], request: pytest.FixtureRequest, name: str
) -> None:
    """No other error, 5 s of CPU at most, 2 GB at most, nothing written outside the case's folder, nothing read beside it."""
    result = results[name]
    shown = [f"{each['kind']} at {each['place']}: {each['message']}\n{each['payload']}" for each in result["failures"]]
    assert not shown, "\n\n".join([f"{len(shown)} kinds of failure ({REPEAT.format(name=name)})", *shown])
    assert result["cases"] >= cases_by_target(request.config.getoption("--fuzz-cases"))[name]
    # Cases that are all refused at the door, or all read, test little.
    assert result["refused"] or result["read"]
