"""The readout ladder: the step that loses a factor is named, and intervals decide it."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from theodolite.measurement.internals.ladder import (
    SPOKEN,
    Decoded,
    HeldOutSamples,
    answer_query,
    decode_pooled,
    decode_spoken,
    find_loss,
    map_positions,
    rung,
)
from theodolite.measurement.internals.probes import Task, assign_folds, one_hot
from theodolite.records.ladder import LadderThresholds, Loss

NUM_SCENES, NUM_LEVELS = 400, 4
SITES = ("encoder", "connector", "layer.1", "layer.2", "layer.3", "answer")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def samples(num_scenes: int = NUM_SCENES, chance_frac: float = 0.25) -> HeldOutSamples:
    return HeldOutSamples(np.repeat(np.arange(num_scenes), 2), chance_frac, LadderThresholds())


def decoded(site: str, frac: float, num_scenes: int = NUM_SCENES) -> Decoded:
    """A step that is right on a random share `frac` of the held-out samples."""
    right = rng(sum(map(ord, site))).random(2 * num_scenes) < frac
    return Decoded(site, right.astype(float), np.ones(2 * num_scenes, dtype=bool))


def loss(*fracs: float, spoken: float | None = None, num_scenes: int = NUM_SCENES) -> Loss:
    steps = [decoded(site, frac, num_scenes) for site, frac in zip(SITES, fracs, strict=True)]
    return find_loss(steps + ([decoded(SPOKEN, spoken, num_scenes)] if spoken is not None else []), samples(num_scenes))


def words(loss: Loss) -> tuple[str, str | None, str | None]:
    return loss.step, loss.kept_at, loss.lost_at


# The step of the loss


@pytest.mark.parametrize(
    ("fracs", "spoken", "expected"),
    [
        ((1, 1, 1, 1, 1, 1), 1.0, ("said", None, None)),
        ((1, 1, 1, 1, 1, 1), 0.25, ("not said", "answer", "spoken")),
        ((1, 1, 1, 1, 1, 1), None, ("no words", None, None)),
        ((0.25,) * 6, 0.25, ("not perceived", None, None)),
        ((0.25,) * 6, None, ("not perceived", None, None)),
        ((1, 0.25, 0.25, 0.25, 0.25, 0.25), 0.25, ("not kept", "encoder", "connector")),
        ((1, 1, 1, 0.3, 0.3, 0.3), 0.25, ("not kept", "layer.1", "layer.2")),
        ((0.25, 1, 1, 0.3, 0.3, 0.3), 0.25, ("not kept", "layer.1", "layer.2")),
        ((1, 1, 1, 1, 1, 0.25), None, ("not kept", "layer.3", "answer")),
    ],
)
def test_a_lost_factor_is_named_at_the_right_step(
    fracs: tuple[float, ...], spoken: float | None, expected: tuple[str, str | None, str | None]
) -> None:
    assert words(loss(*fracs, spoken=spoken)) == expected


def test_late_vision_tokens_may_drop_what_the_answer_position_has_read() -> None:
    assert loss(1, 1, 1, 0.3, 0.3, 1, spoken=0.95).step == "said"
    assert words(loss(1, 1, 1, 0.3, 0.3, 1, spoken=0.25)) == ("not said", "answer", "spoken")


def test_a_factor_that_fades_bit_by_bit_is_lost_at_its_largest_step_or_over_the_whole() -> None:
    assert words(loss(1, 0.95, 0.9, 0.65, 0.35, 0.3))[0] == "not kept"
    steep = loss(1, 1, 0.9, 0.625, 0.3, 0.3)  # in doubt at layer.2, the largest drop after it
    assert words(steep) == ("not kept", "layer.2", "layer.3")


def test_the_drop_is_the_paired_difference_in_normalised_accuracy() -> None:
    drop = loss(1, 1, 1, 0.25, 0.25, 0.25).drop
    assert drop is not None and drop.low is not None and drop.high is not None
    assert drop.value == pytest.approx(1.0, abs=0.1)
    assert drop.low < drop.value < drop.high and drop.num_scenes == NUM_SCENES


def test_what_intervals_straddle_is_undecided() -> None:
    at_the_line = 0.25 + 0.5 * 0.75
    assert loss(1, 1, 1, 1, 1, at_the_line, spoken=0.25).step == "undecided"
    assert loss(1, 1, 1, 1, 1, 1, spoken=at_the_line).step == "undecided"
    assert loss(at_the_line, 0.25, 0.25, 0.25, 0.25, 0.25).step == "undecided"
    assert loss(1, 1, 1, 1, 1, 0, num_scenes=1).step == "undecided"
    assert loss(1, 1, 1, 1, 1, 0, num_scenes=3).step == "undecided"


def noise_ladder(seed: int, num_steps: int = 30, num_scenes: int = 60, frac: float = 0.62) -> list[Decoded]:
    """Steps that are right on independent samples of one share: no drop between any two is real."""
    draw = rng(seed)
    known = np.ones(2 * num_scenes, dtype=bool)
    return [Decoded(f"layer.{step}", (draw.random(2 * num_scenes) < frac).astype(float), known) for step in range(num_steps)]


def test_the_largest_of_many_drops_is_a_loss_no_more_often_than_the_intervals_promise() -> None:
    """Of 29 drops of nothing the largest passes an unadjusted interval in most ladders; adjusted ones, of 58 drops, in at most 5 %."""
    line = HeldOutSamples(np.repeat(np.arange(60), 2), 0.25, LadderThresholds(loss_frac=0.0))
    found = {1: 0, 58: 0}
    for seed in range(100):
        steps = noise_ladder(seed)
        for num_drops in found:
            found[num_drops] += any(line.lost(line.drop(one, other, num_drops)) for one, other in pairwise(steps))
    assert found[1] > 20 and found[58] <= 7


def test_a_loss_is_named_only_where_its_adjusted_interval_lies_above_the_threshold() -> None:
    """The same drop is a loss on a short ladder and undecided on a long one of as many scenes."""
    line = HeldOutSamples(np.repeat(np.arange(30), 2), 0.25, LadderThresholds(loss_frac=0.5))
    first, later = decoded("encoder", 1, 30), decoded("layer.0", 0.4, 30)
    short, long = (find_loss([first, *(replace(later, site=f"layer.{step}") for step in range(num_steps))], line) for num_steps in (1, 200))
    assert (short.step, short.kept_at, short.lost_at, short.num_drops) == ("not kept", "encoder", "layer.0", 2)
    assert short.drop is not None and short.drop.low is not None and short.drop.low > 0.5
    assert (long.step, long.lost_at, long.drop) == ("undecided", None, None)
    spans = loss(1, 0.95, 0.9, 0.65, 0.35, 0.3)
    assert spans.num_drops in (10, 30)


def test_a_drop_of_every_sample_has_an_interval_all_the_same() -> None:
    drop = samples().drop(decoded("layer.1", 1), decoded("layer.2", 0))
    assert drop is not None and drop.low is not None and drop.value == pytest.approx(4 / 3, abs=1e-6) and 1.2 < drop.low < drop.value


# Steps from arrays


def a_task(num_scenes: int = NUM_SCENES, seed: int = 0) -> Task:
    scenes = np.repeat(np.arange(num_scenes), 2)
    levels = rng(seed).integers(NUM_LEVELS, size=len(scenes))
    training = scenes % 5 < 3
    return Task(levels, scenes, training, assign_folds(scenes[training], rng(seed + 1)), NUM_LEVELS)


def pictures_with_one_telling_token(task: Task) -> np.ndarray:
    """Sixteen tokens of mean 0 in every channel, none above 1; in the channel of the level, one of them reaches 3."""
    draw = rng(1)
    tokens = draw.uniform(-1, 1, (len(task.levels), 16, NUM_LEVELS))
    tokens -= tokens.mean(axis=1, keepdims=True)
    for picture, level in enumerate(task.levels):
        one, *others = draw.permutation(16)
        tokens[picture, others, level] -= (3 - tokens[picture, one, level]) / 15
        tokens[picture, one, level] = 3
    return np.asarray(tokens)


def test_a_factor_only_in_the_maximum_is_told_by_the_maximum() -> None:
    task = a_task()
    tokens = pictures_with_one_telling_token(task)
    noise = rng(2).standard_normal((len(tokens), NUM_LEVELS)) * 1e-3
    step = decode_pooled("layer.1", tokens.mean(axis=1) + noise, tokens.max(axis=1), task)
    assert step.pooling == "max" and step.right.mean() == 1
    line = HeldOutSamples(task.scenes[~task.training], task.chance_frac, LadderThresholds())
    record = rung(step, None, line)
    assert record.accuracy == record.max and record.max is not None and record.max.frac == 1
    assert record.mean is not None and record.mean.frac < 0.4 and record.normalised.value == 1 and record.drop is None


def test_the_words_count_where_someone_asked() -> None:
    step = decode_spoken({3: True, 5: False, 6: True}, np.array([3, 4, 5, 6]))
    assert step is not None
    assert step.known.tolist() == [True, False, True, True] and step.right[step.known].tolist() == [1, 0, 1]
    assert decode_spoken({9: True}, np.array([3, 4])) is None


def test_words_that_were_asked_of_some_pictures_are_compared_on_those() -> None:
    line = HeldOutSamples(np.arange(4), 0.5, LadderThresholds())
    inside = Decoded("answer", np.array([1.0, 1.0, 0.0, 0.0]), np.ones(4, dtype=bool))
    spoken = Decoded(SPOKEN, np.array([0.0, 1.0, 1.0, 0.0]), np.array([True, True, False, False]))
    drop = line.drop(inside, spoken)
    assert drop is not None and drop.value == 1.0 and drop.num_scenes == 2
    assert line.normalised(spoken).value == 0.0


def test_the_map_finds_the_position_that_holds_the_factor() -> None:
    task = a_task()
    tokens = rng(5).standard_normal((len(task.levels), 6, 8))
    tokens[:, 4, :NUM_LEVELS] += 6 * one_hot(task.levels, NUM_LEVELS)
    cells = np.array([(token // 3, token % 3) for token in range(6)])
    line = HeldOutSamples(task.scenes[~task.training], task.chance_frac, LadderThresholds())
    positions = map_positions("layer.2", tokens, cells, task, line)
    assert positions.cells is not None and positions.cells[int(np.argmax(positions.accuracy_frac))] == (1, 1)
    assert positions.accuracy_frac[4] > 0.99 and max(positions.accuracy_frac[:4] + positions.accuracy_frac[5:]) < 0.4
    for low, frac, high in zip(positions.low, positions.accuracy_frac, positions.high, strict=True):
        assert low is not None and high is not None and low < frac <= high


def test_the_answer_of_a_factor_is_read_at_its_own_question_if_there_is_one() -> None:
    assert answer_query(("shape", "colour"), "colour") == "colour"
    assert answer_query(("shape", "colour"), "size") == "shape"
    assert answer_query((), "size") is None
