"""What changes over a run besides the learning rate: the mask ratio and the teacher's updates (LaVer, arXiv 2512.06281)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from theodolite.records.errors import BadInput


def cosine_ramp(progress: float, start: float = 0.0, end: float = 0.05) -> float:
    """A value between `start` and `end`, slow at both ends, at `progress` 0..1 of the run: the published mask ratio by default.

    Half a period of the cosine; the paper says "cosine" and no more. `start` equal to `end` is a constant. Raises `BadInput` for
    progress outside 0..1.
    """
    if not 0 <= progress <= 1:
        raise BadInput(f"progress is {progress}; it is the finished fraction of the run, from 0 to 1")
    done = (1 - math.cos(math.pi * progress)) / 2
    return (1 - done) * start + done * end  # both ends come out exactly


@dataclass(frozen=True)
class EMASchedule:
    """When the teacher moves, and how far: `teacher = decay * teacher + (1 - decay) * student`. Published: 0.95, every 100 steps.

    `every` is a period in steps if it is an int, and a fraction of the run if it is a float below 1: the published 100 steps of 6250 are
    0.016, 62 updates in all. A shorter run wants the fraction, or its teacher hardly moves. Raises `BadInput` for other values.
    """

    decay: float = 0.95
    every: int | float = 100

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise BadInput(f"the teacher's decay is {self.decay}; it must be at least 0 and below 1, where it would never move")
        whole = isinstance(self.every, int) and not isinstance(self.every, bool) and self.every >= 1
        if not whole and not (isinstance(self.every, float) and 0 < self.every < 1):
            raise BadInput(
                f"the teacher's period is {self.every!r}; give a whole number of steps from 1 on, or a fraction of the run between 0 and 1"
            )

    def period(self, num_steps: int) -> int:
        """Optimizer steps from one update of the teacher to the next, 1 or more, in a run of `num_steps`."""
        return self.every if isinstance(self.every, int) else max(1, round(self.every * num_steps))

    def due(self, step: int, num_steps: int) -> bool:
        """Whether the teacher moves after optimizer step number `step`, counted from 1. Raises `ValueError` for other steps."""
        if not 1 <= step <= num_steps:
            raise ValueError(f"step {step} is not one of 1 .. {num_steps}")
        return step % self.period(num_steps) == 0
