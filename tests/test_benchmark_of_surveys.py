"""The benchmark of surveys on GPUs runs on a CPU at a tiny size, and measures the host alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "survey_gpu.py"


def run(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARK), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})


def test_a_tiny_model_and_the_host_alone() -> None:
    done = run("--models", "tiny", "host", "--pairs", "6", "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    tiny, host = record["models"]
    assert tiny["vision_tokens"] == 81 and host["vision_tokens"] == 729
    assert tiny["pairs_per_s"] == pytest.approx(6 / tiny["seconds"]) and tiny["ms_per_picture"] == pytest.approx(tiny["seconds"] / 12 * 1e3)
    assert tiny["over_floor"] == pytest.approx(tiny["seconds"] / tiny["floor_s"]) and tiny["over_floor"] > 1
    assert tiny["tflops_per_picture"] * 1e12 == pytest.approx(flops_by_hand(tiny["tokens_of_rows"]), rel=0.05)
    assert host["aim_ms_per_picture"] == 3 and host["aim_met"] == (host["ms_per_picture"] < 3) and "over_floor" not in host


def flops_by_hand(tokens_of_rows: list[int]) -> float:
    """Of the tiny model: two matrices of attention's and three of the feed-forward's kind a layer, and the tower."""
    (tokens,) = tokens_of_rows
    encoder = 2 * 81 * (4 * 16**2 + 2 * 16 * 32) + 4 * 81**2 * 16
    connector = 2 * 81 * (16 * 64 + 64 * 64)
    layer = 2 * tokens * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128) + 4 * 64 * tokens**2 / 2
    wanted = 4 + 13  # behind each question, and behind the word of each choice
    return encoder + connector + 2 * layer + 2 * wanted * 64 * 512


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what is missing where there is no GPU")
def test_without_a_gpu_it_ends_with_one_line() -> None:
    done = run("--json")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.strip() == "survey_gpu: no CUDA device; run it on a GPU, or give --models tiny or host"
