"""A survey whose model is held by workers: the record of one process, also of photographs and with measures of the inside."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.command_line import theodolite
from helpers.requirements import require
from helpers.tiny_llava import tiny_vlm
from theodolite.measurement.survey.worker_models import Devices
from theodolite.models.export import export_vlm
from theodolite.records.errors import BadInput

FILES = ("survey.json", "rows.parquet")


def test_two_workers_write_the_bytes_of_one_process(tmp_path: Path) -> None:
    require("ray")
    export_vlm(*tiny_vlm(), tmp_path / "model")
    arguments = ["survey", tmp_path / "model", "--world", "shapes", "--ask", "shape,row", "--scenes", "4", "--batch", "16"]
    arguments += ["--save-every", "64", "--measures", "gap"]
    for name, devices in (("one", ()), ("two", ("--devices", "cpu,cpu"))):
        done = theodolite(*arguments, *devices, "--out", tmp_path / name)
        assert done.returncode == 0, done.stderr
    assert "in workers on cpu,cpu" in " ".join(done.stdout.split())  # a long path moves the line's end
    for name in FILES:
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes(), name
    assert '"device": "2 workers on CPU"' in (tmp_path / "two" / "run.json").read_text()


@pytest.mark.parametrize("devices", [("0", "cpu"), ("cuda:0",), ("1", "1"), ("",)])
def test_devices_that_mean_nothing_are_refused_with_what_may_be_given(devices: tuple[str, ...]) -> None:
    with pytest.raises(BadInput, match="give the numbers of GPUs, such as 0,1, or cpu once for each worker"):
        Devices.named(devices)


def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(BadInput, match=r"--devices 99: this machine has \d+ CUDA devices"):
        Devices.named(("99",))
