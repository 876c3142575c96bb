"""The mask ratio and the teacher's updates over a run."""

from __future__ import annotations

import math

import pytest

from theodolite.objectives.schedules import EMASchedule, cosine_ramp
from theodolite.records.errors import BadInput


def test_the_ramp_goes_from_start_to_end_by_the_cosine() -> None:
    assert (cosine_ramp(0.0), cosine_ramp(1.0)) == (0.0, 0.05)
    assert (cosine_ramp(0.0, 0.1, 0.7), cosine_ramp(1.0, 0.1, 0.7)) == (0.1, 0.7)
    assert cosine_ramp(0.5, 0.2, 0.4) == pytest.approx(0.3)
    assert cosine_ramp(1 / 3, 0.0, 1.0) == pytest.approx(0.25)
    assert cosine_ramp(0.25, 0.0, 1.0) == pytest.approx((1 - math.sqrt(0.5)) / 2)


def test_the_ramp_only_rises_stays_within_its_ends_and_is_symmetric() -> None:
    values = [cosine_ramp(step / 100, 0.1, 0.7) for step in range(101)]
    assert values == sorted(values) and min(values) == 0.1 and max(values) == 0.7
    assert [0.8 - value for value in values] == pytest.approx(values[::-1])
    assert sum(values) / 101 == pytest.approx(0.4)


def test_equal_ends_are_a_constant_and_falling_ends_a_fall() -> None:
    assert all(cosine_ramp(step / 10, 0.05, 0.05) == pytest.approx(0.05, abs=1e-17) for step in range(11))
    assert cosine_ramp(0.5, 1.0, 0.0) == pytest.approx(0.5) and cosine_ramp(0.9, 1.0, 0.0) < 0.1


@pytest.mark.parametrize("progress", [-0.01, 1.01, float("nan")])
def test_progress_outside_the_run_is_refused(progress: float) -> None:
    with pytest.raises(BadInput, match="progress"):
        cosine_ramp(progress)


def updates(schedule: EMASchedule, num_steps: int) -> list[int]:
    return [step for step in range(1, num_steps + 1) if schedule.due(step, num_steps)]


def test_the_published_schedule_is_62_updates_in_6250_steps_either_way() -> None:
    assert EMASchedule() == EMASchedule(0.95, 100)
    for every in (100, 0.016):
        found = updates(EMASchedule(0.95, every), 6250)
        assert len(found) == 62 and found[0] == 100 and found[-1] == 6200


def test_a_period_in_steps_stays_and_a_fraction_follows_the_run() -> None:
    assert [EMASchedule(every=3).period(steps) for steps in (1, 10, 10_000)] == [3, 3, 3]
    assert [EMASchedule(every=0.1).period(steps) for steps in (1, 4, 10, 100, 1234)] == [1, 1, 1, 10, 123]
    assert updates(EMASchedule(every=3), 10) == [3, 6, 9]
    assert updates(EMASchedule(every=1), 4) == [1, 2, 3, 4]
    assert updates(EMASchedule(every=0.016), 20) == list(range(1, 21))
    assert updates(EMASchedule(every=100), 60) == []


@pytest.mark.parametrize("every", [0, -1, True, 1.0, 0.0, 100.0, float("nan")])
def test_a_period_that_is_neither_steps_nor_a_fraction_is_refused(every: int | float) -> None:
    with pytest.raises(BadInput, match="period"):
        EMASchedule(every=every)


@pytest.mark.parametrize("decay", [1.0, -0.1, float("nan")])
def test_a_decay_that_leaves_no_teacher_is_refused(decay: float) -> None:
    with pytest.raises(BadInput, match="decay"):
        EMASchedule(decay=decay)


@pytest.mark.parametrize("step", [0, 11])
def test_a_step_that_the_run_does_not_have_is_refused(step: int) -> None:
    with pytest.raises(ValueError, match=r"1 \.\. 10"):
        EMASchedule().due(step, 10)


def test_the_decay_is_constant_or_goes_along_half_a_cosine_to_its_end() -> None:
    assert [EMASchedule().decay_at(step, 100) for step in (1, 50, 100)] == [0.95] * 3
    rising = EMASchedule(0.95, 0.02, 1.0)
    assert rising.decay_at(50, 100) == pytest.approx(0.975) and rising.decay_at(100, 100) == 1.0
    assert rising.period(5000) == 100
    for wrong in (0.9, 1.1):
        with pytest.raises(BadInput, match="decay_end"):
            EMASchedule(0.95, 100, wrong)
