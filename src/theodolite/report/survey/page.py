"""The survey page: one HTML file that opens from disk without a network, made from survey records alone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import jinja2

from theodolite.records.folder import write_whole
from theodolite.records.survey import WorldConfig
from theodolite.records.training_log import TrainingLog, read_training_log
from theodolite.report.bar import Bar, Serving
from theodolite.report.environment import environment
from theodolite.report.glossary import GLOSSARY, OF_POLICIES
from theodolite.report.stored import Storable, StoredSurvey, read_stored
from theodolite.report.survey import words
from theodolite.report.survey.accuracy import accuracy_rows
from theodolite.report.survey.arms import SurveyArm, label_arms, seed_words
from theodolite.report.survey.board import ICON, verdict_board
from theodolite.report.survey.causal_counterparts import COUNTERPART_HEADS, COUNTERPARTS, NO_CAUSAL
from theodolite.report.survey.causes import leak_causes
from theodolite.report.survey.charts import coverage_chart
from theodolite.report.survey.closing import advise_command
from theodolite.report.survey.comparability import check_arms, same_training
from theodolite.report.survey.examples import MOVE_MARK
from theodolite.report.survey.exports import page_exports
from theodolite.report.survey.failing import failing_pair
from theodolite.report.survey.findings import page_findings
from theodolite.report.survey.headlines import headlines
from theodolite.report.survey.health import STATE_WORD, outside_note, page_lights
from theodolite.report.survey.heat_map import heat_map
from theodolite.report.survey.inside import STEP_MEANING, view_inside
from theodolite.report.survey.inside_charts import inside_charts, panel_of
from theodolite.report.survey.ladder_words import ladder_sentence
from theodolite.report.survey.pair_list import Files, pair_list
from theodolite.report.survey.read_leak import read_leak_chart, without_point
from theodolite.report.survey.token_words import token_words
from theodolite.report.survey.training import training_view
from theodolite.report.vega import DARK_COLOURS, Spec, chart_script, spec_json
from theodolite.report.words import listed, pair_set_name, show_count, show_measured

# A title names up to so many models, else it counts them.
MAX_NAMED = 3
# Sentences of the first screen; the others are folded.
NUM_FIRST = 4


def write_report(surveys: Sequence[str | Path | Storable], out: str | Path, training_log: str | Path | None = None) -> None:
    """Writes one HTML page of these surveys, given as results or as their folders, to the file `out`. Raises `BadInput`.

    `training_log` is the log of the run that trained the model (`records.training_log`): the page shows its losses and warnings.
    """
    stored = [read_stored(Path(each)) if isinstance(each, str | Path) else each.stored() for each in surveys]
    log = None if training_log is None else read_training_log(Path(training_log))
    write_whole(Path(out), build_page(stored, log))


def build_page(
    surveys: Sequence[StoredSurvey], training_log: TrainingLog | None = None, files: Files | None = None, serving: Serving | None = None
) -> str:
    """The page's HTML; the same surveys give the same text. Raises `ValueError` on no surveys, `BadRecord` on invalid coverage.

    `files` are addresses of original pictures, relative to the page; without them the page loads nothing. `serving` is for a page that
    comes from a server.
    """
    if not surveys:
        raise ValueError("a report needs at least one survey; give the folders that `theodolite survey` or `theodolite tour` wrote")
    arms, placed = label_arms(surveys), _PlacedCharts()
    names = {**_verdict_names(arms), **_answer_names(arms, placed), **_pair_names(arms, files or {})}
    names |= {**_inside_names(arms, placed), **_training_names(arms, training_log, placed)}
    shown = {"pairs": bool(names["pairs"].plain), "inside": bool(names["insides"]), "training": names["training"] is not None}
    has_policy = any(arm.record.policy or arm.coverage for arm in arms)
    template = _environment().get_template("page.html.j2")
    return template.render(
        names,
        bar=_bar(arms, shown, () if serving is None else serving.links),
        nonce="" if serving is None else serving.nonce,
        dark_colours=spec_json(dict(DARK_COLOURS)),
        arms=arms,
        has_policy=has_policy,
        GLOSSARY={**GLOSSARY, **(OF_POLICIES if has_policy else {})},
        worlds=_worlds(arms),
        notices=check_arms(arms),
        same_training=same_training(arms),
        all_seed_words=seed_words(arms),
        more_styles=["pairs.css"],
        more_scripts=[*names["pair_scripts"], *names["inside_scripts"]],
        specs=[spec_json(spec) for spec in placed.specs],
        script=chart_script(),
    )


@dataclass
class _PlacedCharts:
    """The charts that the page embeds, in the order of their numbers."""

    specs: list[Spec] = field(default_factory=list)

    def place(self, spec: Spec | None) -> int | None:
        """Embeds a chart and returns its number; None for no chart."""
        if spec is None:
            return None
        self.specs.append(spec)
        return len(self.specs) - 1


def _verdict_names(arms: Sequence[SurveyArm]) -> dict[str, Any]:
    """What the templates of findings, verdicts and their summary use."""
    findings, lines = page_findings(arms), headlines(arms)
    board_rows, inert_rows = verdict_board(arms)
    by_finding = [arm for finding in findings for arm in arms if arm.label == finding.label]
    return {
        "findings": findings,
        "num_first": NUM_FIRST,
        "advise": next(filter(None, (advise_command(arm.record) for arm in by_finding)), None),
        "failing": failing_pair(arms, findings),
        "causes": leak_causes(arms, findings),
        "lights": page_lights(arms),
        "board_rows": board_rows,
        "inert_rows": inert_rows,
        "groups": [(group[0].arm, group) for _, members in groupby(lines, lambda line: line.arm.anchor) for group in [list(members)]],
        "thresholds": list({arm.record.shadows.thresholds.model_dump_json(): arm.record.shadows.thresholds for arm in arms}.values()),
    }


def _answer_names(arms: Sequence[SurveyArm], placed: _PlacedCharts) -> dict[str, Any]:
    """What the templates of reads, leaks, accuracies and coverage use."""
    factors = [row.factor for rows in verdict_board(arms) for row in rows]
    return {
        "read_leak": placed.place(read_leak_chart(arms)),
        "lacking": without_point(arms),
        "heats": [heat for arm in arms if (heat := heat_map(arm, factors)) is not None],
        "withheld": any(arm.record.shadows.withheld for arm in arms),
        "accuracy": accuracy_rows(arms),
        "coverage_charts": {arm.anchor: placed.place(coverage_chart(arm)) for arm in arms},
    }


def _pair_names(arms: Sequence[SurveyArm], files: Files) -> dict[str, Any]:
    """What the template of pairs uses, and the scripts of their list."""
    pairs = pair_list(arms, files)
    return {
        "pairs": pairs,
        "has_pairs": bool(pairs.packed),
        "outside_note": outside_note(arms),
        "move_marks": spec_json({outcome: list(mark) for outcome, mark in MOVE_MARK.items()}),
        "pair_pictures": spec_json(dict(pairs.pictures)),
        "loads_files": bool(files),
        "pair_scripts": ["pair_rows.js", "pair_cards.js", "pair_list.js"] if pairs.packed else [],
    }


def _inside_names(arms: Sequence[SurveyArm], placed: _PlacedCharts) -> dict[str, Any]:
    """What the templates of models' insides use: for each arm its view, the numbers of its charts, and words over pictures."""
    insides = [
        (
            arm,
            view,
            {name: placed.place(spec) for name, spec in inside_charts(view).items()} if view else {},
            [(placed.place(figure.spec), figure) for figure in token_words(view)] if view else [],
        )
        for arm in arms
        for view in [view_inside(arm)]
    ]
    scripts = {
        "ladder.js": any(drawn.get("ladder") is not None for _, _, drawn, _ in insides),
        "words.js": any(figures for *_, figures in insides),
    }
    return {
        "insides": insides if any(view for _, view, *_ in insides) else [],
        "inside_scripts": [name for name, is_needed in scripts.items() if is_needed],
    }


def _training_names(arms: Sequence[SurveyArm], log: TrainingLog | None, placed: _PlacedCharts) -> dict[str, Any]:
    """What the template of training uses."""
    training = training_view(arms, log)
    charts = [] if training is None else [placed.place(training.rates_spec), placed.place(training.log_spec)]
    return {"training": training, "training_charts": charts}


SECTIONS = {
    "finding": "Finding",
    "board": "Verdicts",
    "read-leak": "Read against leak",
    "summary": "Summary",
    "policies": "By policy",
    "pairs": "Pairs",
    "inside": "Inside",
    "training": "Training",
    "numbers": "Numbers",
    "provenance": "Provenance",
}


def _bar(arms: Sequence[SurveyArm], shown: Mapping[str, bool], links: Sequence[tuple[str, str]]) -> Bar:
    """Who was asked about what, when, and on how many scenes; all sections but those that are not `shown`."""
    labels = [arm.label for arm in arms]
    steps = [arm.stored.run.step for arm in arms if arm.stored.run is not None and arm.stored.run.step is not None]
    if len(steps) == len(arms) > 1:
        who = f"steps {show_count(min(steps))} to {show_count(max(steps))} of training"
    else:
        who = listed(labels) if len(labels) <= MAX_NAMED else f"{len(labels)} models"
    pair_sets = dict.fromkeys(pair_set_name(arm.record) for arm in arms)
    days = sorted({arm.stored.run.started[:10] for arm in arms if arm.stored.run is not None})
    scenes = sorted({arm.record.num_scenes for arm in arms})
    facts = [f"{' to '.join(show_count(number) for number in dict.fromkeys((scenes[0], scenes[-1])))} scenes"]
    if days:
        # The days of one month without naming it twice: the bar is narrow.
        last = days[-1].removeprefix(days[0][:8])
        facts.append(days[0] if days[-1] == days[0] else f"{days[0]} to {last}")
    if not any(arm.record.policy or arm.coverage for arm in arms):
        shown = {**shown, "policies": False}  # without policies it only says what the verdicts mean
    sections = [(anchor, name) for anchor, name in SECTIONS.items() if shown.get(anchor, True)]
    return Bar(f"{who} on {listed(list(pair_sets))}", facts, sections, page_exports(arms, _file_stem(who)), links)


def _file_stem(text: str) -> str:
    """The text as the beginning of a file's name: letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower())[:60].strip("-") or "survey"


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
        STATE_WORD=STATE_WORD,
        ICON=ICON,
        MOVE_MARK=MOVE_MARK,
        STEP_MEANING=STEP_MEANING,
        ladder_sentence=ladder_sentence,
        panel_of=panel_of,
        COUNTERPARTS=COUNTERPARTS,
        COUNTERPART_HEADS=COUNTERPART_HEADS,
        NO_CAUSAL=NO_CAUSAL,
    )
