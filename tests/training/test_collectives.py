"""How often a step of several processes needs all of them, beside the gradients: once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from helpers import HELPERS, script_environment
from helpers.counted_run import NUM_STEPS
from helpers.fork_server import Forked
from theodolite.training.step_exchange import summed_together
from theodolite.worlds.decoding import FIRST_FRAME


@pytest.fixture(scope="module")
def server() -> Iterator[Forked]:
    forked = Forked(HELPERS / "counted_run.py", script_environment({"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}))
    yield forked
    forked.close()


@pytest.mark.parametrize("objective", ["laver", "language"])
def test_a_step_makes_one_collective(objective: str, server: Forked, tmp_path: Path) -> None:
    """With two micro-batches; a step in which an example is left out makes a second one, for its key and its reason."""
    done = server.run(tmp_path / "printed.txt", str(tmp_path), objective, launched=2)
    assert done.returncode == 0, done.stderr[-3000:]
    for rank in (0, 1):
        steps, listed, num_seen, noted = json.loads((tmp_path / f"{rank}.json").read_text())
        assert len(steps) == NUM_STEPS
        assert [sum(found.values()) for found in steps[1:]] == [1, 1, 1, 2], steps
        assert all(name.startswith("all_reduce at step_exchange.py") for found in steps[1:-1] for name in found)
        assert listed == {"damaged": "malformed: empty"} and num_seen == 4 * NUM_STEPS
        assert noted == {FIRST_FRAME: 1}  # of a picture of one of the processes


def test_integers_and_sums_come_back_as_they_were() -> None:
    numbers = {"counts": [3, 2**52 + 1], "none": [], "signals": [0]}
    sums = torch.tensor([0.1, -7.0])
    integers, vector = summed_together(numbers, sums, lambda values: values * 2)
    assert integers == {"counts": [6, 2**53 + 2], "none": [], "signals": [0]}
    assert vector.dtype == sums.dtype and torch.equal(vector, sums * 2)
