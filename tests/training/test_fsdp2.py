"""FSDP2 as accelerate sets it up, on gloo processes, by family: steps, accumulation, pictures that are lacking, save and resume."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from helpers import HELPERS, script_environment
from helpers.fork_server import Forked
from helpers.fsdp2_run import DEFAULTS, run
from helpers.tiny_families import NAMES

LOW_MEMORY = ("llava", "gemma3")  # of which the second ties its head to its embeddings
SEVERAL = ("llava", "qwen2_5_vl", "gemma3", "internvl")  # two for each branch; the other families are run with --exhaustive
every_family = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in SEVERAL else pytest.mark.exhaustive) for name in NAMES]
)
RUNS: dict[str, Path] = {}
RUN_FAMILIES: list[str] = []
SERVERS: dict[str, Forked] = {}


@pytest.fixture(scope="module", autouse=True)
def server(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[None]:
    """The folder of the runs, and the server that forks their processes: imports take longer than a family's run."""
    own = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    RUNS["root"], SERVERS["fsdp2"] = tmp_path_factory.mktemp("fsdp2"), Forked(HELPERS / "fsdp2_run.py", script_environment(own))
    RUN_FAMILIES[:] = NAMES if pytestconfig.getoption("--exhaustive") else SEVERAL
    yield
    SERVERS["fsdp2"].close()


def launch(name: str, processes: int, options: dict[str, Any]) -> Path:
    """One run of `fsdp2_run.py` on several processes, which goes through families; the folder with one folder for each."""
    where = RUNS["root"] / name
    done = SERVERS["fsdp2"].run(where.with_suffix(".txt"), str(where), json.dumps(options), launched=processes)
    assert done.returncode == 0, done.stderr[-4000:]
    return where


@cache
def two() -> Path:
    return launch("two", 2, {"names": RUN_FAMILIES, "save_at": 2})


@cache
def resumed(processes: int) -> Path:
    return launch(f"resumed on {processes}", processes, {"names": RUN_FAMILIES, "save_at": 2, "resume": str(two())})


@cache
def low_memory() -> Path:
    return launch("low memory", 2, {"names": LOW_MEMORY, "save_at": 2, "low_memory": True, "state_dict": "FULL_STATE_DICT"})


@cache
def alone(name: str) -> Path:
    """The same run in this process, without FSDP, with micro-batches of the same samples and no dummy picture."""
    run(name, RUNS["root"] / "alone" / name, DEFAULTS)
    return RUNS["root"] / "alone" / name


@cache
def best() -> Path:
    return launch("best", 2, {"names": ["llava"], "save_at": 1, "best": True})


def results_of(folder: Path) -> dict[str, Any]:
    """Collectives, evaluations and gatherings of a run, as its first process wrote them."""
    return dict(json.loads((folder / "results.json").read_text()))


def log_of(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def same_losses(one: list[dict[str, float]], other: list[dict[str, float]]) -> None:
    assert [entry["step"] for entry in one] == [entry["step"] for entry in other]
    for name in ("loss", "loss/language", "loss/masked_latent", "loss/gram", "student_cosine", "teacher_cosine", "mask_frac"):
        assert [entry[name] for entry in one] == pytest.approx([entry[name] for entry in other], abs=1e-5), name
    assert [entry["grad_norm"] for entry in one] == pytest.approx([entry["grad_norm"] for entry in other], rel=1e-4)


def same_weights(one: Path, other: Path) -> None:
    mine, theirs = (load_file(folder / "model" / "model.safetensors") for folder in (one, other))
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        torch.testing.assert_close(value, theirs[name], atol=1e-4, rtol=0, msg=name)


@every_family
def test_two_processes_train_as_one(name: str) -> None:
    """Micro-batches of one example with 0, 1 or 2 pictures, accumulated; the worker checks that parameters are sharded."""
    log = log_of(alone(name))
    assert log[-1]["loss/language"] < log[0]["loss/language"]
    same_losses(log_of(two() / name), log)
    same_weights(two() / name, alone(name))


# The joint and the separate branch; the connector outside and within the encoder.
AUXILIARY = {"llava": "pixels+align+predict+views", "qwen2_5_vl": "pixels+align+predict"}


@cache
def with_auxiliary() -> Path:
    return launch("auxiliary", 2, {"names": list(AUXILIARY), "auxiliary": AUXILIARY})


@pytest.mark.parametrize("name", AUXILIARY)
def test_auxiliary_losses_of_two_processes_are_those_of_one(name: str) -> None:
    """Beside LaVer, where processes have no picture too: their dummy has no token of the layout."""
    straight = RUNS["root"] / "auxiliary alone" / name
    run(name, straight, {**DEFAULTS, "auxiliary": AUXILIARY})
    mine, theirs = log_of(with_auxiliary() / name), log_of(straight)
    for term in ("pixels_masked", "pixels_unmasked", *AUXILIARY[name].split("+")[1:]):
        assert [entry[f"loss/{term}"] for entry in mine] == pytest.approx([entry[f"loss/{term}"] for entry in theirs], abs=1e-5), term
    same_losses(mine, theirs)
    same_weights(with_auxiliary() / name, straight)


@cache
def in_bf16() -> Path:
    return launch("bf16", 2, {"names": SEVERAL, "bf16": True})


@pytest.mark.parametrize("name", SEVERAL)
def test_mixed_precision_trains_as_single_precision_does(name: str) -> None:
    """FSDP2 gathers weights in bf16 and enters no autocast: the head and every layer have to meet inputs of their own precision."""
    half, single = log_of(in_bf16() / name), log_of(alone(name))
    for term in ("loss/language", "loss/masked_latent"):
        assert [entry[term] for entry in half] == pytest.approx([entry[term] for entry in single], rel=0.05), term
        assert [entry[term] for entry in half] != pytest.approx([entry[term] for entry in single], rel=1e-6), "bf16 was not used"
    assert half[0]["loss/gram"] == pytest.approx(single[0]["loss/gram"], rel=0.1)


@every_family
def test_two_processes_evaluate_as_one(name: str) -> None:
    """Held-out examples with 0, 1 and 2 pictures, one a batch: one process has a dummy picture, and then an example that is not counted."""
    sharded, straight = (results_of(folder)["measured"] for folder in (two() / name, alone(name)))
    terms = {key for key in straight[0] if "loss" in key or "cosine" in key or key.endswith("mask_frac")}
    assert {"eval_loss", "eval_loss/language", "eval_loss/masked_latent", "eval_loss/gram"} <= terms
    assert {key: sharded[0][key] for key in terms} == pytest.approx({key: straight[0][key] for key in terms}, abs=1e-4)


@every_family
def test_a_step_makes_one_collective_of_its_own(name: str) -> None:
    """Beside FSDP2's: pictures that are lacking take no other one, and neither does the centre except where it is saved or the run ends."""
    calls = results_of(two() / name)["collectives"]
    by_file: Counter[str] = Counter()
    for line, number in calls.items():
        operation, _, place = line.partition(" at ")
        if operation.startswith("all_"):  # those of a checkpoint are others
            by_file[place.partition(":")[0]] += number
    steps = int(DEFAULTS["steps"])
    log = steps  # its terms are summed where it is written, which is at each step here
    assert by_file == {"step_exchange.py": steps, "evaluation.py": log, "teacher_callback.py": 2}, calls


def test_the_best_model_is_loaded_with_its_teacher() -> None:
    """At a destructive learning rate the first evaluation is the best; weights, centre and teacher are those of its checkpoint."""
    at_the_end, *measured, _ = results_of(best() / "llava")["measured"]
    losses = [entry["eval_loss"] for entry in measured]
    assert min(losses) == losses[0] < losses[-1]
    for term in ("loss", "loss/language", "loss/masked_latent", "loss/gram", "teacher_cosine"):
        assert at_the_end[f"eval_{term}"] == pytest.approx(measured[0][f"eval_{term}"], abs=1e-5)


@pytest.mark.parametrize("processes", [1, 3])
@every_family
def test_a_checkpoint_of_two_processes_goes_on_with_others(name: str, processes: int) -> None:
    same_losses(log_of(resumed(processes) / name), log_of(alone(name))[2:])


def test_no_file_of_a_sharded_checkpoint_holds_the_whole_teacher() -> None:
    folder = two() / "llava" / "checkpoints" / "checkpoint-2"
    shards = [path.stat().st_size for path in (folder / "teacher").glob("*.distcp")]
    assert len(shards) == 2
    assert max(shards) < 0.6 * sum(shards)
    assert not (folder / "teacher.safetensors").exists()


@pytest.mark.parametrize("name", LOW_MEMORY)
def test_weights_that_only_the_first_process_has_reach_all(name: str) -> None:
    """`cpu_ram_efficient_loading`, with checkpoints under FULL_STATE_DICT, whose weights are gathered once each."""
    same_losses(log_of(low_memory() / name), log_of(alone(name)))
    same_weights(low_memory() / name, alone(name))
    assert results_of(low_memory() / name)["gathered"] == 1  # for the exported model; checkpoints gather their own
