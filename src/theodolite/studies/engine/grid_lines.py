"""The line of runs.jsonl for a finished run, taken from its survey."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from theodolite.questions.coverage import asked_fracs
from theodolite.records.coverage import Coverage
from theodolite.records.ladder import FactorLadder
from theodolite.records.study import AnsweredRight, GridRun, MovedCell, PredictedByCoverage
from theodolite.records.survey import Noise, SurveyRecord
from theodolite.records.training import TrainingRecord
from theodolite.records.writing import git_revision
from theodolite.studies.engine.inside_numbers import inside_numbers
from theodolite.worlds.registry import world_named

DIGITS = 5
# The final loss is the mean over the last logged steps: one in this many.
LAST = 10


def line_of(key: str, training: TrainingRecord, survey: SurveyRecord, num_trained: int) -> GridRun:
    """The numbers of a run's training and survey that claims use, rounded to five places. Raises `ValueError` without coverage."""
    shadows, coverage, setup = survey.shadows, survey.coverage, training.setup
    if coverage is None:
        raise ValueError(f"the survey of {key} holds no coverage; a run of a grid is surveyed on a world, by its policy")
    world = world_named(setup.world, setup.strength, setup.correlation)
    losses = [loss for _, loss in training.losses]
    tail = losses[-max(1, len(losses) // LAST) :]
    gap, ladder, likeness = (getattr(survey.inside, name, None) for name in ("gap", "ladder", "likeness"))
    return GridRun(
        key=key,
        setup=setup,
        facts=training.facts,
        num_scenes=survey.num_scenes,
        final_loss=_short(sum(tail) / len(tail)),
        num_trained=num_trained,
        foretold=_predicted(coverage, asked_fracs(world.prior, world.policy(setup.policy))),
        verdicts=shadows.verdicts,
        noise=_noise(shadows.noise_cells),
        cells=tuple(
            MovedCell(
                factor=cell.factor,
                query=cell.query,
                form=cell.form,
                truth_moves=cell.truth_moves,
                moved_frac=_short(cell.moved_frac),
                low=None if cell.low is None else _short(cell.low),
                high=None if cell.high is None else _short(cell.high),
                variation=_short(cell.variation),
                right_frac=_short(cell.right_frac),
                num_scenes=cell.num_scenes,
            )
            for cell in shadows.cells
        ),
        answered=tuple(
            AnsweredRight(
                query=cell.query,
                form=cell.form,
                scenes=cell.scenes,
                frac=_short(cell.rate.frac),
                low=None if cell.rate.low is None else _short(cell.rate.low),
                chance_frac=_short(cell.chance_frac),
            )
            for cell in shadows.competence
        ),
        gap={} if gap is None else {site: _short(at.relative.value) for site, at in gap.sites.items() if at.relative},
        decoded={} if ladder is None else {name: _rungs(factor) for name, factor in ladder.factors.items()},
        cosine={} if likeness is None else {site: _short(at.cosine.value) for site, at in likeness.sites.items() if at.cosine},
        inside={
            measure: {name: _short(value) for name, value in values.items()} for measure, values in inside_numbers(survey.inside).items()
        },
        survey_sha256=hashlib.sha256(survey.to_json().encode()).hexdigest(),
        revision=git_revision(Path(__file__)),
        torch=version("torch"),
    )


def _rungs(factor: FactorLadder) -> dict[str, float]:
    """Normalised accuracy of the probes at each site."""
    return {rung.site: _short(rung.normalised.value) for rung in factor.rungs if rung.normalised.value is not None}


def _noise(cells: Sequence[Noise]) -> dict[str, float]:
    """Noise of each open query with a new nuisance seed (in matched pairs, another picture): the mean over its cells."""
    rates: dict[str, list[float]] = {}
    for cell in cells:
        if cell.form == "open" and cell.source == "nuisance":
            rates.setdefault(cell.query, []).append(cell.rate.frac)
    return {query: _short(sum(each) / len(each)) for query, each in rates.items()}


def _predicted(coverage: Coverage, asked: Mapping[str, float]) -> PredictedByCoverage:
    return PredictedByCoverage(
        coverage=_above_zero(coverage.coverage),
        coverage_limit=_above_zero(coverage.coverage_limit),
        reach=_above_zero(coverage.reach),
        pressure_bits=_above_zero(coverage.pressure_bits),
        proxy_bits=_above_zero(coverage.proxy_bits),
        asked_frac=_above_zero(asked),
    )


def _above_zero(values: Mapping[str, float]) -> dict[str, float]:
    return {name: short for name, value in values.items() if (short := _short(value)) > 0}


def _short(value: float) -> float:
    return round(value, DIGITS)
