"""The benchmark of the measures runs at a tiny size and counts every part."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from theodolite.measurement.internals.registry import CAPTURE, MEASURES

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "measures.py"


def test_every_measure_is_timed() -> None:
    size = [
        "--grid",
        "3",
        "--layers",
        "2",
        "--vision-layers",
        "1",
        "--scenes",
        "6",
        "--factors",
        "2",
        "--policy",
        "shape",
        "--threads",
        "1",
        "--measures",
        "ladder,likeness,causal",
    ]
    done = subprocess.run([sys.executable, str(BENCHMARK), "--json", *size], check=True, capture_output=True, text=True)
    results = json.loads(done.stdout)
    assert set(results["cpu_s"]) == {CAPTURE, "ladder", "likeness", "causal"} <= {CAPTURE, *MEASURES}
    assert results["num_sites"] == 4 and results["num_pictures"] == 18
    assert 0 < results["arithmetic_cpu_s"] < results["total_cpu_s"] and results["passes_cpu_s"]["ladder"] == 0
