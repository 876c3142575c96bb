"""Interventional pairs beside LaVer under FSDP2: the head's weights are sharded, and the processes have different numbers of pairs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from helpers import HELPERS, script_environment
from helpers.fork_server import Forked
from helpers.interventional_run import run


def test_two_processes_take_the_steps_of_one(tmp_path: Path) -> None:
    environment = script_environment({"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"})
    server = Forked(HELPERS / "interventional_run.py", environment)
    both = {name: tmp_path / name for name in ("two", "one")}
    for folder in both.values():
        folder.mkdir()
    try:
        done = server.run(tmp_path / "printed.txt", str(both["two"]), launched=2)
    finally:
        server.close()
    assert done.returncode == 0, done.stderr[-4000:]
    run(both["one"])
    logs = [[json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()] for folder in both.values()]
    assert len(logs[0]) == len(logs[1]) == 3
    for two, one in zip(*logs, strict=True):
        losses = {name for name in one if name.startswith("loss")}  # a step without a moving question has no term for one
        assert {name: two[name] for name in losses} == pytest.approx({name: one[name] for name in losses}, abs=1e-5)
        assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-4)
    assert logs[1][0]["loss/interventional_still"] > 0.1 and logs[1][0]["loss/interventional_moving"] > 0.1
    states = [torch.load(folder / "state.pt") for folder in both.values()]
    for name, value in states[1].items():
        torch.testing.assert_close(states[0][name], value, atol=1e-4, rtol=0, msg=name)
