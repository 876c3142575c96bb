"""The survey page: one HTML file that opens from disk without a network, made from survey records alone."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import jinja2

from theodolite.records.folder import write_whole
from theodolite.records.survey import WorldConfig
from theodolite.report.environment import environment
from theodolite.report.stored import Storable, StoredSurvey, read_stored
from theodolite.report.survey import charts, words
from theodolite.report.survey.arms import SurveyArm, label_arms, seed_words
from theodolite.report.survey.causal_counterparts import COUNTERPART_HEADS, COUNTERPARTS, NO_CAUSAL
from theodolite.report.survey.comparability import check_arms, same_training
from theodolite.report.survey.examples import MARK_MEANING, example_pairs
from theodolite.report.survey.headlines import Headline, headlines
from theodolite.report.survey.inside import STEP_MEANING, view_inside
from theodolite.report.survey.inside_charts import inside_charts
from theodolite.report.survey.token_words import token_words
from theodolite.report.vega import Spec, chart_script, spec_json
from theodolite.report.words import show_measured


def write_report(surveys: Sequence[str | Path | Storable], out: str | Path) -> None:
    """Writes one HTML page of these surveys, given as results or as their folders, to the file `out`. Raises `BadRecord`."""
    stored = [read_stored(Path(each)) if isinstance(each, str | Path) else each.stored() for each in surveys]
    write_whole(Path(out), build_page(stored))


def build_page(surveys: Sequence[StoredSurvey]) -> str:
    """The page's HTML; the same surveys give the same text. Raises `ValueError` on no surveys, `BadRecord` on invalid coverage."""
    if not surveys:
        raise ValueError("a report needs at least one survey; give the folders that `theodolite survey` or `theodolite tour` wrote")
    arms = label_arms(surveys)
    lines = headlines(arms)
    specs: list[Spec] = []

    def place(spec: Spec | None) -> int | None:
        """Embeds a chart and returns its number; None for no chart."""
        if spec is None:
            return None
        specs.append(spec)
        return len(specs) - 1

    comparing = [place(charts.headline_chart(lines, about)) for about in _shared_queries(lines)]
    by_arm = {arm.anchor: (place(charts.answers_chart(arm)), place(charts.coverage_chart(arm))) for arm in arms}
    insides = [
        (
            arm,
            view,
            {name: place(spec) for name, spec in inside_charts(view).items()} if view else {},
            [(place(figure.spec), figure) for figure in token_words(view)] if view else [],
        )
        for arm in arms
        for view in [view_inside(arm)]
    ]
    return _environment().get_template("page.html.j2").render(
        arms=arms,
        groups=[(group[0].arm, group) for _, members in groupby(lines, lambda line: line.arm.anchor) for group in [list(members)]],
        worlds=_worlds(arms),
        notices=check_arms(arms),
        same_training=same_training(arms),
        all_seed_words=seed_words(arms),
        thresholds=list({arm.record.shadows.thresholds.model_dump_json(): arm.record.shadows.thresholds for arm in arms}.values()),
        pairs=example_pairs(arms),
        mark_meaning=MARK_MEANING,
        comparing=comparing,
        charts=by_arm,
        insides=insides if any(view for _, view, *_ in insides) else [],
        more_scripts=["words.js"] if any(figures for *_, figures in insides) else [],
        specs=[spec_json(spec) for spec in specs],
        script=chart_script(),
    )  # fmt: skip


def _shared_queries(lines: Sequence[Headline]) -> list[str]:
    """The queries that several arms were asked; each gets a chart."""
    arms_of: dict[str, set[str]] = {}
    for line in lines:
        arms_of.setdefault(line.about, set()).add(line.arm.label)
    return [about for about, labels in arms_of.items() if len(labels) > 1]


def _worlds(arms: Sequence[SurveyArm]) -> list[tuple[WorldConfig, list[tuple[list[str], WorldConfig]]]]:
    """The distinct worlds, each with its distinct priors: titles trained on that prior, and the world with its correlations."""
    by_world: dict[str, dict[str, list[tuple[str, WorldConfig]]]] = {}
    for arm in arms:
        world = arm.record.world
        if world is not None:
            priors = by_world.setdefault(world.model_copy(update={"correlations": ()}).model_dump_json(), {})
            priors.setdefault(world.model_dump_json(), []).append((arm.record.title, world))
    return [
        (
            next(iter(priors.values()))[0][1],
            [(list(dict.fromkeys(title for title, _ in members)), members[0][1]) for members in priors.values()],
        )
        for priors in by_world.values()
    ]


def _environment() -> jinja2.Environment:
    """The shared environment with the texts of survey pages."""
    return environment(
        rate=words.show_rate,
        explain=words.explain_verdict,
        show_leak=words.show_leak,
        show_sensitivity=words.show_sensitivity,
        SOURCE_WORDS=words.SOURCE_WORDS,
        measured_texts=lambda number: show_measured(words.value_of(number), number.low, number.high),
        value_of=words.value_of,
        STEP_MEANING=STEP_MEANING,
        COUNTERPARTS=COUNTERPARTS,
        COUNTERPART_HEADS=COUNTERPART_HEADS,
        NO_CAUSAL=NO_CAUSAL,
    )
