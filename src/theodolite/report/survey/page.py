"""The report: one HTML file that opens from disk without a network, made from records alone."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from theodolite.records.folder import write_whole
from theodolite.records.survey import WorldConfig
from theodolite.report.stored import StoredSurvey, read_stored
from theodolite.report.survey import charts, words
from theodolite.report.survey.arms import SurveyArm, label_arms, seed_words
from theodolite.report.survey.causal_counterparts import BESIDE, HEADS, NO_CAUSAL
from theodolite.report.survey.comparability import check_arms, same_training
from theodolite.report.survey.examples import MARK_MEANING, example_pairs
from theodolite.report.survey.headlines import Headline, headlines
from theodolite.report.survey.inside import STEP_MEANING, view_inside
from theodolite.report.survey.inside_charts import inside_charts

TEMPLATES = Path(__file__).parents[1] / "templates"


def write_report(records: Sequence[Path], out: Path) -> None:
    """Writes the page of all surveys in these record folders to the file `out`. Raises `BadRecord`."""
    write_whole(out, build_page([read_stored(folder) for folder in records]))


def build_page(surveys: Sequence[StoredSurvey]) -> str:
    """The page's HTML; the same surveys give the same text. Raises `ValueError` on no surveys, `BadRecord` on strange coverage."""
    if not surveys:
        raise ValueError("a report needs at least one survey; give the folders that `theodolite survey` or `theodolite tour` wrote")
    arms = label_arms(surveys)
    lines = headlines(arms)
    specs: list[charts.Spec] = []

    def place(spec: charts.Spec | None) -> int | None:
        """The number under which a chart is embedded; null for no chart."""
        if spec is None:
            return None
        specs.append(spec)
        return len(specs) - 1

    comparing = [place(charts.headline_chart(lines, about)) for about in _compared(lines)]
    by_arm = {arm.anchor: (place(charts.answers_chart(arm)), place(charts.coverage_chart(arm))) for arm in arms}
    insides = [
        (arm, view, {name: place(spec) for name, spec in inside_charts(view).items()} if view else {})
        for arm in arms
        for view in [view_inside(arm)]
    ]
    return environment().get_template("page.html.j2").render(
        arms=arms,
        groups=[(group[0].arm, group) for _, found in groupby(lines, lambda line: line.arm.anchor) for group in [list(found)]],
        worlds=_worlds(arms),
        notices=check_arms(arms),
        same_training=same_training(arms),
        all_seed_words=seed_words(arms),
        thresholds=list({arm.record.shadows.thresholds.model_dump_json(): arm.record.shadows.thresholds for arm in arms}.values()),
        pairs=example_pairs(arms),
        mark_meaning=MARK_MEANING,
        comparing=comparing,
        charts=by_arm,
        insides=insides if any(view for _, view, _ in insides) else [],
        specs=[charts.spec_json(spec) for spec in specs],
        script=charts.chart_script(),
    )  # fmt: skip


def _compared(lines: Sequence[Headline]) -> list[str]:
    """The questions that several arms were asked: worth a chart of their own."""
    arms_of: dict[str, set[str]] = {}
    for line in lines:
        arms_of.setdefault(line.about, set()).add(line.arm.label)
    return [about for about, labels in arms_of.items() if len(labels) > 1]


def _worlds(arms: Sequence[SurveyArm]) -> list[tuple[WorldConfig, list[tuple[list[str], WorldConfig]]]]:
    """The different worlds, and for each its different priors: the titles that were trained on it, and the world with its correlations."""
    found: dict[str, dict[str, list[tuple[str, WorldConfig]]]] = {}
    for arm in arms:
        world = arm.record.world
        if world is not None:
            place = found.setdefault(world.model_copy(update={"correlations": ()}).model_dump_json(), {})
            place.setdefault(world.model_dump_json(), []).append((arm.record.title, world))
    return [
        (
            next(iter(priors.values()))[0][1],
            [(list(dict.fromkeys(title for title, _ in members)), members[0][1]) for members in priors.values()],
        )
        for priors in found.values()
    ]


def environment() -> jinja2.Environment:
    """Templates with every text escaped; a name that a template misspells is an error, not a blank."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown: dict[str, Any] = {
        "frac": words.show_frac,
        "exact": words.show_exact,
        "count": words.show_count,
        "listed": words.listed,
        "digits": lambda value: "" if value is None else repr(value),
        "breakable": lambda text: escape(text).replace(",", Markup(",<wbr>")),
        "short": lambda digest: digest[:12],
    }
    environment.filters.update(shown)
    environment.globals.update(
        interval=words.show_interval,
        rate=words.show_rate,
        explain=words.explain_verdict,
        WORD=words.WORD,
        MEANING=words.MEANING,
        written=lambda found: words.show_measured(words.value_of(found), found.low, found.high),
        value_of=words.value_of,
        STEP_MEANING=STEP_MEANING,
        BESIDE=BESIDE,
        PARTNER_HEADS=HEADS,
        NO_CAUSAL=NO_CAUSAL,
    )
    return environment
