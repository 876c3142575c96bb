"""Which logs of a run are warned of, once, and which are not."""

from __future__ import annotations

import logging
from collections.abc import Callable
from math import log
from typing import Any

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from theodolite.training.objective_watch import WINDOW, ObjectiveWatch

STEPS, PROTOTYPES = 200, 64


def watched(entry: Callable[[float], dict[str, float]]) -> ObjectiveWatch:
    """A run of 200 steps whose log at progress 0 to 1 is `entry`."""
    watch, state, control = ObjectiveWatch(PROTOTYPES), TrainerState(max_steps=STEPS), TrainerControl()
    arguments = TrainingArguments(use_cpu=True)
    for step in range(1, STEPS + 1):
        state.global_step = step
        watch.on_log(arguments, state, control, logs=entry(step / STEPS))
    return watch


def healthy(**changed: float) -> dict[str, float]:
    return {"student_cosine": 0.5, "teacher_entropy": 0.5 * log(PROTOTYPES), "prototypes_used": 0.4, **changed}


def test_a_healthy_run_is_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    assert watched(lambda progress: healthy()).found == {} and not caplog.records
    assert watched(lambda progress: {"loss": 1.0}).found == {}
    # Near uniform at the start only, as a new head is; certain targets that differ by token; likeness that falls.
    assert watched(lambda progress: healthy(teacher_entropy=log(PROTOTYPES) * (1.0 if progress < 0.1 else 0.6))).found == {}
    assert watched(lambda progress: healthy(teacher_entropy=0.0)).found == {}
    assert watched(lambda progress: healthy(student_cosine=0.6 - 0.4 * progress)).found == {}


@pytest.mark.parametrize(
    ("name", "entry", "said"),
    [
        ("uniform", lambda progress: healthy(teacher_entropy=log(PROTOTYPES)), "4.16 of 4.16 nats"),
        ("one_prototype", lambda progress: healthy(teacher_entropy=0.0, prototypes_used=0.01), "1.0% of the prototypes"),
        ("likeness", lambda progress: healthy(student_cosine=0.5 - 0.2 * min(progress, 1 - progress) * 2 + 0.2 * progress), "less alike"),
    ],
)
def test_what_is_warned_of_once(name: str, entry: Any, said: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        watch = watched(entry)
    assert list(watch.found) == [name] and said in watch.found[name]
    assert len(caplog.records) == 1


def test_no_single_entry_decides() -> None:
    entries = iter([healthy(teacher_entropy=log(PROTOTYPES) if number % WINDOW else 0.0) for number in range(STEPS)])
    assert watched(lambda progress: next(entries)).found == {}
