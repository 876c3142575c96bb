"""The order of a training set without shuffling."""

from __future__ import annotations

from collections.abc import Iterator

from theodolite.data.epochs import EpochSampler


class SequentialEpochs(EpochSampler):
    """(epoch, index) of every example once, in the data set's own order (`train_sampling_strategy="sequential"`)."""

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((self.epoch, index) for index in range(self.num_examples))
