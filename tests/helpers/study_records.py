"""Studies and their runs, made up for tests of the page: numbers that a study could give."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from theodolite.records.study import AnsweredRight, Claim, Figure, GridRun, MovedCell, Point, PredictedByCoverage, StudyRecord, write_runs
from theodolite.records.survey import RunRecord, TrainingFacts
from theodolite.records.training import TrainedOn

SEEDS = (0, 1, 2, 3, 4)
STRENGTHS = (0.0, 0.5, 0.8, 0.9, 0.95, 1.0)
# Chance that an answer about shape follows do(colour), and do(shape), by policy and strength.
LEAKS = {
    "agree": (0.02, 0.62, 0.98, 1.0, 1.0, 1.0),
    "all": (0.02, 0.03, 0.05, 0.16, 0.44, 1.0),
    "both": (0.02, 0.03, 0.04, 0.12, 0.36, 1.0),
    "odd2": (0.02, 0.02, 0.04, 0.08, 0.2, 1.0),
    "odd4": (0.02, 0.02, 0.03, 0.05, 0.1, 1.0),
}


def near(value: float, seed: int, wide: float = 0.1) -> float:
    """A value somewhat off, by seed, within 0 and 1."""
    return min(1.0, max(0.0, value + wide * ((seed * 7 + 3) % 5 - 2) / 2 * min(1, 4 * value * (1 - value) + 0.1)))


def point(panel: str, series: str, x: str | float, by_seed: dict[int, float]) -> Point:
    mean = fmean(by_seed.values())
    half = 0.6 * (max(by_seed.values()) - min(by_seed.values())) + 0.004
    ends = (mean - half, mean + half) if len(by_seed) > 1 else (None, None)
    return Point(panel=panel, series=series, x=x, value=mean, low=ends[0], high=ends[1], by_seed=by_seed)


def figure(name: str, points: Sequence[Point], **changed: Any) -> Figure:
    told: dict[str, Any] = {
        "title": "What the answer about shape follows, as the correlation grows",
        "caption": "Means over seeds with 95 % intervals; small marks are seeds. Where colour moves the answer, it is a shadow.",
        "x_title": "strength of the correlation",
        "y_title": "share of pairs whose answer moves",
        "y_range": (0.0, 1.0),
        "joined": True,
    }
    return Figure(name=name, points=tuple(points), **{**told, **changed})


def flip_figure(seeds: Sequence[int] = SEEDS) -> Figure:
    points = [
        point(panel, policy, strength, {seed: near(leak if "leak" in panel else 1 - leak * 0.93, seed) for seed in seeds})
        for panel in ("do(colour) -> shape answer (leak)", "do(shape) -> shape answer (read)")
        for policy, leaks in LEAKS.items()
        for strength, leak in zip(STRENGTHS, leaks, strict=True)
    ]
    return figure("flip", points)


def lock_figure(seeds: Sequence[int] = SEEDS) -> Figure:
    axes = {
        "data": ("x1", "x4", "x16"), "steps": ("x1", "x4", "x8"), "width": ("x1", "x2", "x4"),
        "connector": ("linear", "MLP", "resampler", "locality-preserving"),
    }  # fmt: skip
    points = [
        point(axis, series, x, {seed: near(value + 0.01 * place * (series != "leak"), seed) for seed in seeds})
        for axis, levels in axes.items()
        for place, x in enumerate(levels)
        for series, value in (("leak", 0.97), ("training accuracy", 0.93))
    ]
    return figure("lock", points, title="Scale leaves the leak where it was", x_title="scale", y_title="share, 0 to 1", joined=False)


def forecast_figure() -> Figure:
    points = [
        point(
            "shapes" if place % 2 else "easy-VQA", "coverage" if place % 3 else "modality gap", place / 12, {0: 0.1 + 0.06 * (place % 13)}
        )
        for place in range(24)
    ]
    return figure(
        "forecast", points, title="Foretold and measured", x_title="foretold coverage", y_title="measured read", joined=False
    )  # fmt: skip


def claim(name: str, **changed: Any) -> Claim:
    told: dict[str, Any] = {
        "statement": "At strength 0.8 the answer about shape follows colour if only agreeing scenes are asked, and does not if all are.",
        "source": "the essay",
        "essay_question": 3,
        "rule": "holds if the interval of the difference lies above 0.5; fails if it lies below",
        "finding": "holds",
        "effect": 0.93125,
        "low": 0.9012,
        "high": 0.9613,
        "unit": "difference of shares of pairs",
        "by_seed": {seed: 0.92 + 0.005 * seed for seed in SEEDS},
        "independent": "seed",
        "num_independent": 5,
        "num_runs": 10,
    }
    return Claim(name=name, **{**told, **changed})


def study(**changed: Any) -> StudyRecord:
    told: dict[str, Any] = {
        "name": "flip",
        "question": "Does a factor's status turn on the questions alone?",
        "command": "theodolite study flip --seeds 5",
        "quick": False,
        "confidence": 0.95,
        "seeds": SEEDS,
        "num_runs": 150,
        "keys": (),
        "num_missing": 0,
        "claims": (
            claim("flip"),
            claim(
                "both", statement="At strength 1 asking for both factors identifies colour.", finding="fails", effect=-0.0312, low=-0.0521,
                high=-0.0103, by_seed={seed: -0.03 - 0.002 * seed for seed in SEEDS}, essay_question=None, source="a trial",
            ),
            claim(
                "odd", statement="Odd scenes asked twice as often halve the leak.", finding="undecided", effect=0.4, low=None,
                high=None, by_seed={0: 0.4}, num_independent=1, num_runs=2, essay_question=2,
            ),
            claim(
                "none", statement="A conjunction does what both questions do.", finding="undecided", effect=None, low=None, high=None,
                by_seed={}, num_independent=0, num_runs=0,
            ),
        ),
        "figures": (flip_figure(), lock_figure(), forecast_figure()),
        "notes": ("Of easy-VQA only 1,800 pictures could be used.",),
    }  # fmt: skip
    return StudyRecord(**{**told, **changed})


def grid_run(policy: str, strength: float, seed: int, leak: float, **changed: Any) -> GridRun:
    setup = TrainedOn(
        world="shapes", correlation=("shape", "colour"), strength=strength, policy=policy, source="policy",
        recipe={"name": "tour-shapes", "steps": 300, "width": 128}, seed=seed, num_pictures=12_000,
    )  # fmt: skip
    facts = TrainingFacts(
        arm=policy, comparison="policy", recipe="tour-shapes", seed=seed, world="shapes", strength=strength, source="policy", policy=policy,
        num_pictures=12_000, num_steps=300, num_questions=24_000, num_answer_tokens=48_000,
        pictures_sha256=f"{round(strength * 100):03d}{seed}" * 16, order_sha256=f"{seed}abc" * 16, questions_sha256=policy,
    )  # fmt: skip
    told: dict[str, Any] = {
        "key": f"shapes {policy} {strength:g} seed {seed} 0a1b2c3d",
        "num_scenes": 200,
        "final_loss": 0.21,
        "num_trained": 900_000,
        "foretold": PredictedByCoverage(coverage={}, coverage_limit={}, reach={}, pressure_bits={}, proxy_bits={}, asked_frac={}),
        "verdicts": {"shape": "identified" if leak < 0.5 else "blind", "colour": "inert" if leak < 0.5 else "shadow", "size": "inert"},
        "noise": {"shape": 0.02},
        "cells": (
            moved("shape", "shape", True, near(1 - leak * 0.93, seed)),
            moved("colour", "shape", False, near(leak, seed)),
            moved("size", "shape", False, 0.01),
        ),
        "answered": (
            AnsweredRight(query="shape", form="open", scenes="training", frac=near(0.98, seed), low=0.9, chance_frac=0.26),
            AnsweredRight(query="shape", form="open", scenes="decorrelated", frac=near(1 - 0.7 * leak, seed), low=0.1, chance_frac=0.26),
        ),
        "gap": {},
        "survey_sha256": "56" * 32,
        "revision": None,
        "torch": "2.13.0",
    }  # fmt: skip
    return GridRun(setup=setup, facts=facts.model_copy(update=changed), **told)


def moved(factor: str, query: str, truth_moves: bool, frac: float) -> MovedCell:
    return MovedCell(
        factor=factor, query=query, form="open", truth_moves=truth_moves, moved_frac=frac, low=max(0, frac - 0.03),
        high=min(1, frac + 0.03), variation=frac / 2, right_frac=frac if truth_moves else 1 - frac, num_scenes=200,
    )  # fmt: skip


def grid_runs(seeds: Sequence[int] = SEEDS) -> list[GridRun]:
    asked = {"agree": "shape:agree,row:odd,row", "all": "shape,row", "both": "shape,colour", "odd2": "shape,shape:odd,row:agree"}
    return [
        grid_run(text, strength, seed, leak)
        for name, text in asked.items()
        for strength, leak in zip(STRENGTHS, LEAKS[name], strict=True)
        for seed in seeds
    ]


def timed(runs: Sequence[GridRun]) -> RunRecord:
    return RunRecord(
        command="study flip", started="2026-01-02T03:04:05Z", seconds=8123.4,
        seconds_by_part={run.key: 100.0 + place for place, run in enumerate(runs)},
        host={"system": "Linux", "cpus": 2}, packages={"torch": "2.13.0", "transformers": "5.23.0"}, git_revision="0123456789abcdef",
        attention=None, device="cpu",
    )  # fmt: skip


def write(folder: Path, record: StudyRecord, runs: Sequence[GridRun] = (), *, run: bool = True) -> Path:
    """A study's folder as a study writes it: study.json, and runs.jsonl and run.json if there are runs."""
    folder.mkdir(parents=True, exist_ok=True)
    record = record.model_copy(update={"keys": tuple(run.key for run in runs)})
    (folder / "study.json").write_text(record.to_json(), encoding="utf-8")
    if runs:
        write_runs(folder, list(runs))
    if run:
        (folder / "run.json").write_text(timed(runs).model_dump_json(), encoding="utf-8")
    return folder
