"""The order of examples, each with its epoch: the masks of a picture are drawn from the example's key and the epoch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int
from torch.utils.data import Dataset, IterableDataset, Sampler

from theodolite.data.sources import Malformed, TrainingExample


@dataclass(frozen=True, eq=False)
class EpochExample:
    """An example and its epoch: how many times it was seen before."""

    example: TrainingExample | Malformed
    epoch: int = 0


@runtime_checkable
class Source(Protocol):
    """Examples by index: `sources.LlavaJson`, `tables.DatasetExamples`, a list."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> TrainingExample | Malformed: ...


class EpochDataset(Dataset[EpochExample]):
    """The examples of a source, indexed by (epoch, index)."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, draw: tuple[int, int]) -> EpochExample:
        epoch, index = draw
        return EpochExample(self.source[index], epoch)


class EpochSampler(Sampler[tuple[int, int]]):
    """(epoch, index) of every example once, in an order drawn from seed and epoch, the same in every process.

    accelerate calls `set_epoch` before each pass.
    """

    def __init__(self, num_examples: int, seed: int) -> None:
        self.num_examples, self.seed, self.epoch = num_examples, seed, 0

    def __len__(self) -> int:
        return self.num_examples

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.random.default_rng([self.seed, 3, self.epoch]).permutation(self.num_examples)
        return ((self.epoch, int(index)) for index in order)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


@runtime_checkable
class Stream(Protocol):
    """Examples that can be iterated repeatedly, such as `tables.DatasetStream`; a loader's worker processes must share them."""

    def __iter__(self) -> Iterator[TrainingExample | Malformed]: ...

    def set_epoch(self, epoch: int) -> None: ...


class StreamedEpochs(IterableDataset[EpochExample]):
    """The examples of a stream, with the epoch set before the pass.

    accelerate needs `dispatch_batches=False`: otherwise it cuts every tensor of a batch to the number of its rows.
    """

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        # In shared memory, so that persistent workers see the new epoch.
        self._epoch = torch.zeros((), dtype=torch.long).share_memory_()

    def __iter__(self) -> Iterator[EpochExample]:
        epoch = int(self._epoch)
        return (EpochExample(example, epoch) for example in self.stream)

    def set_epoch(self, epoch: int) -> None:
        self._epoch.fill_(epoch)
        self.stream.set_epoch(epoch)


def stream_position(epoch: float, num_steps: int) -> tuple[int, int]:
    """The pass of a stream (from 0), and the steps made in it, of a Trainer's state after a step of a run of `num_steps`.

    The length of a stream is not known, so the Trainer's `epoch` is the number of passes before, plus the steps in this pass divided by
    the steps of the whole run.
    """
    before = ceil(epoch - 1e-9) - 1
    return before, round((epoch - before) * num_steps)


class FixedOrder(Dataset[tuple[int, int]]):
    """(epoch, index) along a fixed order, such as that of `examples.training_order`; epochs are `times_before`."""

    def __init__(self, order: Int[np.ndarray, " draw"]) -> None:
        self.order = order
        self.epochs = times_before(order)

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, position: int) -> tuple[int, int]:
        return int(self.epochs[position]), int(self.order[position])


def times_before(order: Int[np.ndarray, " draw"]) -> Int[np.ndarray, " draw"]:
    """For each entry of an order, how many earlier entries equal it."""
    places = np.argsort(order, kind="stable")
    _, starts, counts = np.unique(order[places], return_index=True, return_counts=True)
    times = np.empty(len(order), dtype=np.int64)
    times[places] = np.arange(len(order)) - np.repeat(starts, counts)
    return times
