"""Warnings of LaVer's two collapses, and of likeness that falls and then rises above its start, from the log of a run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from math import log
from statistics import fmean
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

logger = logging.getLogger(__name__)

# Number of log entries that are averaged, so that a single step's masks decide nothing.
WINDOW = 20
# The first part of a run, in which a new head's targets say nothing yet.
SETTLING = 0.2
# Entropy of the targets over that of a uniform distribution, 0 to 1, beyond which they teach nothing.
UNIFORM, ONE_HOT = 0.99, 0.02
# Share of prototypes among the likeliest of each token's target, of as many as there could be.
FEW = 0.02
# A rise of likeness above its start, in cosine, that counts after it had been as far below.
LIKENESS = 0.02


class ObjectiveWatch(TrainerCallback):
    """Logs a warning, once each, where the visual objective has stopped teaching; `found` has them by name.

    * `uniform`: the targets' entropy is that of a uniform distribution, so every prediction is as good.
    * `one_prototype`: targets are certain and nearly the same for all tokens.
    * `likeness`: the vision tokens' mean cosine fell below its start and then rose above it (plain training raises it too).
    """

    def __init__(self, num_prototypes: int) -> None:
        self.uniform_entropy = log(num_prototypes)
        self.found: dict[str, str] = {}
        self._recent: dict[str, list[float]] = {}
        self._start: float | None = None
        self._lowest = float("inf")

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Mapping[str, float] | None = None, **kwargs: Any
    ) -> None:
        if not logs or "student_cosine" not in logs or not state.is_world_process_zero:
            return
        for name in ("teacher_entropy", "prototypes_used", "student_cosine"):
            if name in logs:
                self._recent[name] = [*self._recent.get(name, []), logs[name]][-WINDOW:]
        means = {name: fmean(values) for name, values in self._recent.items() if len(values) == WINDOW}
        self._likeness(means, state.global_step)
        if "teacher_entropy" in means and state.global_step >= SETTLING * state.max_steps:
            self._targets(means["teacher_entropy"], means["prototypes_used"], state.global_step)

    def _targets(self, entropy: float, used: float, step: int) -> None:
        stands = f"step {step}: the teacher's targets have {entropy:.2f} of {self.uniform_entropy:.2f} nats of entropy"
        if entropy > UNIFORM * self.uniform_entropy:
            self._warn("uniform", f"{stands}, so they say nothing of a token; lower teacher_temperature, or take head_init='kaiming'")
        if entropy < ONE_HOT * self.uniform_entropy and used < FEW:
            self._warn(
                "one_prototype",
                f"{stands} and {used:.1%} of the prototypes in use: all tokens have the same target; lower centre_momentum, or raise "
                "teacher_temperature",
            )

    def _likeness(self, means: Mapping[str, float], step: int) -> None:
        if "student_cosine" not in means:
            return
        likeness = means["student_cosine"]
        self._start = likeness if self._start is None else self._start
        self._lowest = min(self._lowest, likeness)
        if self._lowest < self._start - LIKENESS and likeness > self._start + LIKENESS:
            self._warn(
                "likeness",
                f"step {step}: vision tokens were less alike for a time (mean cosine {self._start:.2f}, then {self._lowest:.2f}) and are "
                f"now more alike than at the start ({likeness:.2f}); the Gram term does not hold them apart: raise gram_weight",
            )

    def _warn(self, name: str, text: str) -> None:
        if name not in self.found:
            self.found[name] = text
            logger.warning(text)
