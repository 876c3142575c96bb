"""The benchmark of surveys' scale runs at a tiny size: memory, a kill, and the command lines of its surveys."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from theodolite.worlds.manifest.read import read_manifest

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "survey_scale.py"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("survey_scale", BENCHMARK)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_tiny_run_measures_memory_and_survives_a_kill() -> None:
    options = ["--pairs", "6", "12", "--megapixels", "0.05", "--kills", "1", "--no-workers"]
    done = subprocess.run([sys.executable, str(BENCHMARK), "--json", *options], check=True, capture_output=True, text=True)
    record = json.loads(done.stdout)
    assert [survey["pairs"] for survey in record["surveys"]] == [6, 12]
    assert all(survey["peak_mib"] > 100 and survey["seconds"] > 0 for survey in record["surveys"])
    assert 0.9 < record["peak_ratio"] < 1.15 and record["megapixels"] == 0.05
    assert record["kills"] <= 1 and record["killed_equals_undisturbed"] is True and "two_workers_equal_one" not in record


def test_workers_are_on_devices_and_one_process_on_a_device(benchmark: ModuleType, tmp_path: Path) -> None:
    """`survey` refuses both options together."""
    one, two = (benchmark.command(tmp_path, tmp_path, tmp_path / "out", num_workers=number) for number in (1, 2))
    assert "--devices" not in one and one[one.index("--device") + 1] == "cpu"
    assert "--device" not in two and two[two.index("--devices") + 1] == "cpu,cpu"


def test_surveys_that_differ_in_a_byte_are_not_equal(benchmark: ModuleType, tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        for file in benchmark.FILES:
            (tmp_path / name / file).write_bytes(b"same")
    assert benchmark.same_bytes(tmp_path / "one", tmp_path / "other")
    (tmp_path / "other" / benchmark.FILES[-1]).write_bytes(b"else")
    assert not benchmark.same_bytes(tmp_path / "one", tmp_path / "other")


def test_every_pair_has_files_of_its_own_and_pictures_have_the_asked_pixels(benchmark: ModuleType, tmp_path: Path) -> None:
    sources = benchmark.jpegs(tmp_path / "sources", 0.05)
    gallery = read_manifest(benchmark.manifest(tmp_path / "pairs", sources, 9)).gallery
    assert gallery.files is not None and len(gallery.files.sizes) == 18 and len(set(gallery.files.sha256.values())) == len(sources)
    assert {width * height for width, height in gallery.files.sizes.values()} == {258 * 194}
