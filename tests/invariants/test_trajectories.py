"""Trainings that must coincide: 20 steps in fp32, one thread a process, losses to 1e-5 a step and weights to 1e-4."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from helpers import HELPERS, script_environment
from helpers.fork_server import Forked

BRANCHES = ("separate", "joint")
RUNS: dict[str, Path] = {}
SERVERS: list[Forked] = []


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    RUNS["root"] = tmp_path_factory.mktemp("trajectories")
    yield
    while SERVERS:
        SERVERS.pop().close()


def environment() -> dict[str, str]:
    own = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    return {key: value for key, value in script_environment(own).items() if key not in ("WORLD_SIZE", "RANK", "LOCAL_RANK")}


def fork(folder: Path, options: dict[str, Any], processes: int = 1) -> subprocess.CompletedProcess[str]:
    """One run in processes of its own, which have their imports already; of several, the first that failed."""
    while len(SERVERS) < processes:
        SERVERS.append(Forked(HELPERS / "training_run.py", environment()))
    places: list[dict[str, str]] = [{}]
    if processes > 1:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
        places = [{**group, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]

    def rank_done(rank: int) -> subprocess.CompletedProcess[str]:
        told = json.dumps({**options, "environment": places[rank]})
        return SERVERS[rank].run(folder.parent / f"{folder.name}-{rank}.txt", str(folder), told)

    with ThreadPoolExecutor(processes) as ranks:
        done = list(ranks.map(rank_done, range(processes)))
    return next((each for each in done if each.returncode), done[0])


def start(folder: Path, options: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """One run from nothing: with its own imports, and its own seed of Python's hashes."""
    command = [sys.executable, str(HELPERS / "training_run.py"), str(folder), json.dumps(options)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment(), timeout=500)


@cache
def run(processes: int = 1, **options: Any) -> tuple[list[float], dict[str, Tensor], list[dict[str, float]]]:
    """Losses a step, final trained weights and the whole log; each run is made once."""
    where = RUNS["root"] / "-".join([str(processes), *(f"{key}={value}" for key, value in sorted(options.items()))])
    done = fork(where, options, processes)
    assert done.returncode == 0, done.stderr[-3000:]
    return read(where)


def read(where: Path) -> tuple[list[float], dict[str, Tensor], list[dict[str, float]]]:
    log = [json.loads(line) for line in (where / "log.jsonl").read_text().splitlines()]
    return [entry["loss"] for entry in log], load_file(where / "weights.safetensors"), log


def same(one: Any, other: Any, *, but: tuple[str, ...] = ()) -> None:
    """Losses to 1e-5 a step and weights to 1e-4."""
    assert len(one[0]) == len(other[0]) == 20
    assert max(abs(a - b) for a, b in zip(one[0], other[0], strict=True)) <= 1e-5
    mine, theirs = ({name: value for name, value in part[1].items() if not name.startswith(but or ("-",))} for part in (one, other))
    assert mine.keys() == theirs.keys()
    assert max((value - theirs[name]).abs().max().item() for name, value in mine.items()) <= 1e-4


@pytest.mark.parametrize("branch", BRANCHES)
def test_the_run_itself_learns_and_logs_every_part(branch: str) -> None:
    _, _, log = run(branch=branch)
    assert log[-1]["loss/language"] < log[0]["loss/language"] - 0.3
    wanted = {"loss/language", "loss/masked_latent", "loss/gram", "student_cosine", "teacher_cosine", "mask_frac"}
    times = {"time/data_s", "time/teacher_s", "time/student_s", "time/backward_s"}
    assert all(wanted | times <= entry.keys() for entry in log)
    assert all(0.25 < entry["mask_frac"] < 0.35 for entry in log)
    for entry in log:
        assert entry["loss"] == pytest.approx(sum(entry[name] for name in wanted if name.startswith("loss/")), abs=1e-5)


@pytest.mark.parametrize("branch", BRANCHES)
def test_8_at_once_are_two_times_4_accumulated(branch: str) -> None:
    same(run(branch=branch), run(branch=branch, batch=4, accumulation=2))


@pytest.mark.parametrize("branch", BRANCHES)
def test_8_at_once_are_4_on_each_of_two_processes_under_ddp(branch: str) -> None:
    same(run(branch=branch), run(2, branch=branch, batch=4))


@pytest.mark.parametrize("branch", BRANCHES)
def test_8_at_once_are_4_on_each_of_two_processes_under_fsdp2(branch: str) -> None:
    same(run(branch=branch), run(2, branch=branch, batch=4, sharded=True))


@pytest.mark.parametrize("branch", BRANCHES)
def test_eager_is_sdpa(branch: str) -> None:
    same(run(branch=branch), run(branch=branch, attention="eager"))


@pytest.mark.parametrize("branch", BRANCHES)
def test_padded_is_packed(branch: str) -> None:
    same(run(branch=branch), run(branch=branch, row_length=320))


def test_without_weight_the_separate_branch_is_plain_next_token_training() -> None:
    visual = ("objective.",)
    same(run(branch="separate", weights=0.0), run(objective="plain"), but=visual)


def test_without_weight_the_joint_branch_is_next_token_training_on_the_same_masked_pictures() -> None:
    visual = ("objective.",)
    one, other = run(branch="joint", weights=0.0), run(objective="masked")
    same(one, other, but=visual)
    torch.testing.assert_close(
        one[1]["objective.mask_embedding.value"], other[1]["objective.laver.mask_embedding.value"], atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("death", [{"die_at": 7}, {"die_saving": 8}])
def test_killed_and_resumed_is_straight_through_to_the_bit(death: dict[str, int]) -> None:
    """kill -9 between checkpoints, and in the middle of writing one."""
    options = {"branch": "joint", "steps": 12, "save_steps": 4}
    straight = run(**options)
    where = RUNS["root"] / f"killed-{next(iter(death))}"
    killed = fork(where, {**options, **death})
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
    assert not (where / "weights.safetensors").exists()
    done = start(where, {**options, "resume": True})
    assert done.returncode == 0, done.stderr[-3000:]
    losses, weights, log = read(where)
    assert [entry["step"] for entry in log] == list(range(1, 13))
    assert losses == straight[0]
    assert weights.keys() == straight[1].keys()
    assert all(torch.equal(value, straight[1][name]) for name, value in weights.items())


def test_lora_trains_and_teaches_adapters_only() -> None:
    _, weights, _ = run(branch="joint", lora=4)
    inside = [name for name in weights if name.startswith("vlm.") and "language_model" in name]
    assert inside and all("lora_" in name for name in inside)
    assert all(weights[name].abs().max() > 0 for name in inside)  # the second matrix of an adapter starts at 0


def test_nothing_is_nan_in_bf16() -> None:
    for branch in BRANCHES:
        _, weights, log = run(branch=branch, bf16=True)
        assert all(torch.isfinite(value).all() for value in weights.values())
        assert all(abs(value) < float("inf") for entry in log for value in entry.values())
        assert log[-1]["loss/language"] < log[0]["loss/language"]
