"""Schedules of LaVer besides the learning rate: the mask ratio and the teacher's updates (arXiv 2512.06281)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from theodolite.records.errors import BadInput


def cosine_ramp(progress: float, start: float = 0.0, end: float = 0.05) -> float:
    """Half a cosine period from `start` to `end` at `progress` 0..1 of the run; the defaults give the published mask ratio.

    The paper says only "cosine". `start` equal to `end` is a constant. Raises `BadInput` for progress outside 0..1.
    """
    if not 0 <= progress <= 1:
        raise BadInput(f"progress is {progress}; it must be the finished fraction of the run, from 0 to 1")
    done = (1 - math.cos(math.pi * progress)) / 2
    return (1 - done) * start + done * end  # both ends come out exactly


def scheduled_ratio(ratio: float, ramp: str, step: int, num_steps: int) -> float:
    """The mask ratio at a step, 0 to 1: from 0 to `ratio` along a cosine, or `ratio` throughout for the ramp "constant"."""
    return ratio if ramp == "constant" else cosine_ramp(step / max(num_steps, 1), 0.0, ratio)


@dataclass(frozen=True)
class EMASchedule:
    """Period and decay of the teacher's updates, `teacher = decay * teacher + (1 - decay) * student`. Published: 0.95, every 100 steps.

    With `decay_end` the decay goes from `decay` to it along half a cosine period of the run, as in DINO; the reference code of LaVer takes
    0.95 to 1, and 0.02 of the run for `every`.

    `every` is a period in steps if it is an int, and a fraction of the run if it is a float below 1: the published 100 steps of 6250 are
    0.016, 62 updates in all. A shorter run needs the fraction for as many updates. Raises `BadInput` for other values.
    """

    decay: float = 0.95
    every: int | float = 100
    decay_end: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise BadInput(f"the teacher's decay is {self.decay}; it must be at least 0 and below 1 (at 1 the teacher never changes)")
        if self.decay_end is not None and not self.decay <= self.decay_end <= 1:
            raise BadInput(f"decay_end is {self.decay_end}; give a number from decay ({self.decay}) to 1, or None for a constant decay")
        in_steps = isinstance(self.every, int) and not isinstance(self.every, bool) and self.every >= 1
        if not in_steps and not (isinstance(self.every, float) and 0 < self.every < 1):
            raise BadInput(
                f"the teacher's period is {self.every!r}; give a whole number of steps, 1 or more, or a fraction of the run between 0 and 1"
            )

    def period(self, num_steps: int) -> int:
        """Optimizer steps between updates of the teacher, 1 or more, in a run of `num_steps`."""
        return self.every if isinstance(self.every, int) else max(1, round(self.every * num_steps))

    def decay_at(self, step: int, num_steps: int) -> float:
        """The decay of the update after optimizer step `step` of a run of `num_steps`, 0 to 1."""
        return self.decay if self.decay_end is None else cosine_ramp(step / num_steps, self.decay, self.decay_end)

    def due(self, step: int, num_steps: int) -> bool:
        """Whether the teacher is updated after optimizer step `step`, counted from 1. Raises `ValueError` for other steps."""
        if not 1 <= step <= num_steps:
            raise ValueError(f"step {step} is not one of 1 .. {num_steps}")
        return step % self.period(num_steps) == 0
