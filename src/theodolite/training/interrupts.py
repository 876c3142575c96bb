"""Ctrl-C and SIGTERM during a run: a step under way is finished and a checkpoint written before the run leaves."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from accelerate import PartialState
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from theodolite.records.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """SIGINT and SIGTERM while a run goes on: within `held` they are noted, elsewhere they raise `Interrupted`.

    A second signal within `held` raises too, except in a launched run, where terminal and launcher may send the same one twice. One that
    raises is noted as well: Python drops what is raised within a finalizer or a callback from C, and then `agreed` still knows of it.
    """

    def __init__(self) -> None:
        self.noted: int | None = None
        self._is_held = False
        self._process = os.getpid()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Within the context the signals are handled here; only a main thread can do so."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within the context a signal is noted, and the caller asks `agreed` when it can stop. Contexts can be nested."""
        before, self._is_held = self._is_held, True
        try:
            yield
        finally:
            self._is_held = before

    def agreed(self) -> bool:
        """Whether any process has noted a signal. With several processes call it on each of them."""
        processes = PartialState()
        if processes.num_processes == 1:
            return self.noted is not None
        noted = torch.tensor(self.noted or 0, device=processes.device)
        dist.all_reduce(noted, op=dist.ReduceOp.MAX)
        self.noted = int(noted) or None
        return self.noted is not None

    def leave(self) -> None:
        """Raises `Interrupted` if a signal was noted in any process."""
        if self.agreed():
            raise Interrupted(self.noted or signal.SIGTERM)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a worker of a data loader, which Ctrl-C reaches as well
            if number == signal.SIGTERM:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        launched = int(os.environ.get("WORLD_SIZE", "1")) > 1
        is_first, self.noted = self.noted is None, number
        if not self._is_held or not (is_first or launched):
            raise Interrupted(number)
        if is_first:
            name = signal.Signals(number).name
            # Not print: the signal may have come within one.
            os.write(2, f"theodolite: {name}: the step under way ends and a checkpoint is written; again to leave at once\n".encode())


class StopAtSignal(TrainerCallback):
    """Ends a training with a checkpoint after a step in which a signal was noted.

    Several processes agree on it in the exchange before the next step (`before_step`), which is then not made.
    """

    def __init__(self, signals: StopSignals) -> None:
        self.signals = signals
        self._saved_step = 0

    def noted(self) -> list[int]:
        """1 for the signal that this process has noted, in the order of `SIGNALS`, else 0."""
        return [int(self.signals.noted == number) for number in SIGNALS]

    def before_step(self, noted: Sequence[int], state: TrainerState, control: TrainerControl) -> bool:
        """Whether the run stops before a step, from the sums of `noted` over processes; with a checkpoint unless the last step has one."""
        numbers = [number for number, count in zip(SIGNALS, noted, strict=True) if count]
        if not numbers:
            return False
        self.signals.noted = max(numbers)
        control.should_save, control.should_training_stop = state.global_step > self._saved_step, True
        return True

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._saved_step = state.global_step

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        is_last = state.global_step >= state.max_steps  # after which there is no other exchange
        if (args.world_size == 1 or is_last) and self.signals.agreed():
            control.should_save = control.should_training_stop = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._saved_step = state.global_step
        if args.world_size == 1 and self.signals.noted is not None:  # it came while the checkpoint was written
            control.should_training_stop = True
