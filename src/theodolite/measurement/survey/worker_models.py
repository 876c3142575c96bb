"""A survey's model in several workers, each on a device of its own: of this machine, or of a Ray cluster."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from theodolite.asking.local import LocalAsker
from theodolite.asking.ray_workers import RayWorkers, connect_ray
from theodolite.measurement.survey.options import SurveyOptions
from theodolite.measurement.survey.surveyed import ModelFacts, ModelWorkers, SurveyedModel
from theodolite.models.device import DType
from theodolite.models.load import load_vlm
from theodolite.records.errors import BadInput
from theodolite.records.survey import ModelConfig

Load = Callable[[], SurveyedModel]


@dataclass(frozen=True)
class WorkerModel:
    """What a worker runs when it starts: it loads the model on the device that Ray gives it. `threads` are those of a CPU."""

    path: str
    options: SurveyOptions
    device: str
    dtype: DType
    threads: int | None

    def __call__(self) -> tuple[LocalAsker, ModelFacts]:
        options = self.options
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        model = load_vlm(self.path, self.device, self.dtype, options.attention)
        surveyed = SurveyedModel.of_model(*model, options.batch, options.prompt, options.score, options.limits, options.workers)
        if surveyed.local is None or not isinstance(surveyed.description, ModelConfig):
            raise TypeError("a model of this process has an asker and a description of its weights")
        return surveyed.local, ModelFacts(surveyed.size, surveyed.scales, surveyed.description, surveyed.identity(options))


@dataclass(frozen=True)
class Devices:
    """Workers: how many, whether each has a GPU, the GPUs' numbers if they are chosen, and the threads of a CPU worker."""

    num: int
    has_gpu: bool
    numbers: tuple[str, ...] = ()
    threads: int | None = None

    @classmethod
    def named(cls, devices: tuple[str, ...]) -> Devices:
        """The devices of `--devices`: numbers of GPUs, or "cpu" once for each worker. Raises `BadInput` for a mixture, or others."""
        devices = tuple(device.strip() for device in devices)
        if devices and all(device == "cpu" for device in devices):
            return cls(len(devices), False, threads=max(1, (os.cpu_count() or 1) // len(devices)))
        if not devices or not all(device.isdecimal() for device in devices) or len(set(devices)) < len(devices):
            raise BadInput(f"--devices {','.join(devices)}: give the numbers of GPUs, such as 0,1, or cpu once for each worker")
        if max(map(int, devices)) >= torch.cuda.device_count():
            raise BadInput(f"--devices {','.join(devices)}: this machine has {torch.cuda.device_count()} CUDA devices")
        return cls(len(devices), True, devices)

    @classmethod
    def of_cluster(cls, ray: Any) -> Devices:
        """A worker for each GPU of a cluster, or for each of its machines where there is none."""
        if gpus := int(ray.cluster_resources().get("GPU", 0)):
            return cls(gpus, True)
        return cls(sum(node["Alive"] for node in ray.nodes()), False)


@contextmanager
def model_in_workers(path: str | Path, options: SurveyOptions, load: Load) -> Iterator[SurveyedModel]:
    """The model of a folder or hub name in workers that `options.devices` or `options.on` name; they end with the context.

    `load` loads it into this process, for measures of the inside. Raises `BadInput` if Ray is not installed, a device is not there, or a
    worker cannot load the model.
    """
    if options.device is not None and options.devices:
        raise BadInput("--device is for one device and --devices for several; give one of them")
    devices = Devices.named(options.devices) if options.on != "ray" else None
    if devices is not None and devices.numbers:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(devices.numbers)  # before Ray starts, which deals these out
    ray = connect_ray(**({} if devices is None else {"num_gpus": devices.num} if devices.has_gpu else {"num_cpus": devices.num}))
    devices = devices or Devices.of_cluster(ray)
    dtype: DType = options.dtype or ("bfloat16" if devices.has_gpu else "float32")
    folder = str(Path(path).resolve()) if Path(path).exists() else str(path)
    model = WorkerModel(folder, options, "cuda" if devices.has_gpu else "cpu", dtype, devices.threads)
    workers = RayWorkers.start(ray, model, devices.num, {"num_gpus": 1} if devices.has_gpu else {"num_cpus": 1})
    try:
        facts: ModelFacts = workers.facts()
        name = f"{devices.num} workers on {'CUDA' if devices.has_gpu else 'CPU'}"
        model_workers = ModelWorkers(workers, facts, name, workers.call, workers.stop, lambda: _asker(load()))
        yield SurveyedModel(_NeverAsked(), facts.size, lambda: facts.description, (), None, facts.scales, model_workers)
    finally:
        workers.stop()


def _asker(surveyed: SurveyedModel) -> LocalAsker:
    if surveyed.local is None:
        raise TypeError("a model that was loaded into this process has an asker")
    return surveyed.local


class _NeverAsked:
    """Stands where an endpoint's asker would: workers are given parts of questions."""

    def ask(self, *args: Any) -> Any:
        raise TypeError("workers answer parts of questions")
