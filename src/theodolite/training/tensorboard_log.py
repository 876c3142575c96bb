"""TensorBoard's log of a stage, whose writer works in a thread of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from transformers.integrations import TensorBoardCallback

from theodolite.records.machine_faults import naming_disk_faults


class TensorBoardLog(TensorBoardCallback):
    """The callback of transformers, with the entries from `purge_step` on dropped.

    Raises `BadInput` that names the folder if it cannot be written: the writer passes an error of its thread on with the next entry.
    """

    def __init__(self, folder: Path, purge_step: int | None) -> None:
        self.folder = folder
        with naming_disk_faults(folder):
            super().__init__(SummaryWriter(str(folder), purge_step=purge_step))

    def on_train_begin(self, *args: Any, **options: Any) -> None:
        with naming_disk_faults(self.folder):
            super().on_train_begin(*args, **options)

    def on_log(self, *args: Any, **options: Any) -> None:
        with naming_disk_faults(self.folder):
            super().on_log(*args, **options)

    def on_train_end(self, *args: Any, **options: Any) -> None:
        with naming_disk_faults(self.folder):
            super().on_train_end(*args, **options)
