"""Findings, the failing pair and the health lights: each from the record, and none stronger than its number."""

from __future__ import annotations

import shlex
from base64 import b64encode
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from helpers import survey_records as made
from helpers.pair_rows import answered_rows, webp
from helpers.parsed_page import Page
from theodolite.records.part import Estimate, Rate
from theodolite.records.survey import Competence, Evidence, Shadows, SurveyRecord, Unanswered
from theodolite.report.stored import StoredSurvey
from theodolite.report.survey import health
from theodolite.report.survey.arms import SurveyArm, label_arms
from theodolite.report.survey.causes import leak_causes
from theodolite.report.survey.closing import advise_command, finding_lines, next_command, verdict_lines
from theodolite.report.survey.failing import failing_pair
from theodolite.report.survey.findings import page_findings, show_percent
from theodolite.report.survey.health import Light, page_lights
from theodolite.report.survey.outcomes import with_outcomes
from theodolite.report.survey.page import build_page
from theodolite.report.tables import survey_lines
from theodolite.report.words import unbroken

FIRST, SECOND, THIRD = made.three_records()


def arm(record: SurveyRecord = FIRST, rows: pl.DataFrame | None = None, **shadows: Any) -> SurveyArm:
    changed = record.model_copy(update={"shadows": record.shadows.model_copy(update=shadows)})
    return label_arms([StoredSurvey(changed, None, {}, rows)])[0]


def texts(*arms: SurveyArm) -> list[str]:
    return [finding.text for finding in page_findings(arms)]


def with_evidence(factor: str, **changed: Any) -> dict[str, Evidence]:
    return {**FIRST.shadows.evidence, factor: FIRST.shadows.evidence[factor].model_copy(update=changed)}


def leak_of(shadows: Shadows, factor: str) -> Any:
    leak = shadows.evidence[factor].leak
    assert leak is not None
    return leak


def test_a_shadow_that_replaces_what_is_asked_about_is_said_to_with_its_numbers() -> None:
    assert texts(arm()) == [
        "shape only answers about shape by looking at colour: in 97 % [95, 99] of 200 pairs the answer moves although only colour "
        "changes and the true answer stays, against 1 % by noise.",
        "shape only does not follow shape when asked about it: its answer moves in 9 % [5, 12] of 200 pairs in which the true answer "
        "changes with it.",
    ]


@pytest.mark.parametrize("low", [0.5, 0.4, None])
def test_a_leak_that_is_not_surely_most_of_the_answers_is_called_a_leak_only(low: float | None) -> None:
    leak = leak_of(FIRST.shadows, "colour")
    weak = leak.model_copy(update={"adjusted": Estimate(value=0.9, low=low, high=1.0, num_scenes=200)})
    first = texts(arm(evidence=with_evidence("colour", leak=weak)))[0]
    assert first.startswith("shape only lets colour leak into answers about shape: in 97 %") and "by looking at" not in first


@pytest.mark.parametrize("read", [None, Rate(frac=0.45, low=0.4, high=0.5, num_pairs=9, num_scenes=9)])
def test_nor_where_what_is_asked_about_may_be_read(read: Rate | None) -> None:
    assert not any("by looking at" in text for text in texts(arm(evidence=with_evidence("shape", read=read))))


def test_findings_are_worst_first_over_all_models() -> None:
    findings = page_findings(label_arms([StoredSurvey(record) for record in (SECOND, THIRD, FIRST)]))
    assert [(finding.label, finding.verdict) for finding in findings] == [
        ("shape only", "shadow"),
        ("shape, and is it round", "shadow"),
        ("shape, and is it round", "entangled"),
        ("shape only", "blind"),
        ("shape, and is it round", "cannot_be_asked"),
        ("shape and colour", "undecided"),
        ("shape and colour", "identified"),
    ]
    assert findings[2].claim.startswith("reads shape, and lets it leak into answers about ")
    assert "no number of scenes up to 100,000 would decide it" in findings[5].text
    assert "reads shape and colour: the least read of them moves the answer in 93 % [90, 97] of 200 pairs" in findings[6].text


def test_undecided_says_how_many_scenes_are_missing() -> None:
    evidence = with_evidence("size", verdict="undecided", scenes_more=1234)
    assert "shape only leaves size undecided: about 1,234 more scenes would decide." in texts(arm(evidence=evidence))


COLOUR = leak_of(FIRST.shadows, "colour")
ALSO = COLOUR.model_copy(update={"query": "row"})
UNSURE = ALSO.model_copy(update={"query": "size", "adjusted": Estimate(value=0.9, low=0.1, high=1.0, num_scenes=9)})
SHADOWS: list[dict[str, Any]] = [
    {},
    # What decided is in the evidence; the list of all leaks is not in every record.
    {"leaks": (COLOUR, ALSO, UNSURE)},
    {"evidence": with_evidence("colour", verdict="undecided", scenes_more=9), "leaks": (COLOUR,)},
    {"evidence": with_evidence("colour", verdict="not_measured", missing=("nothing asks about colour",)), "leaks": (COLOUR,)},
    {"evidence": with_evidence("colour", verdict="undecided", leak=UNSURE), "leaks": (UNSURE,)},
]


@pytest.mark.parametrize("shadows", SHADOWS)
@pytest.mark.parametrize("record", [FIRST, SECOND, THIRD])
def test_the_terminal_says_what_the_page_says(record: SurveyRecord, shadows: dict[str, Any]) -> None:
    one = arm(record, **shadows)
    findings = page_findings([one])
    lines = [line.removeprefix("finding: ") for line in finding_lines(one.record)]
    assert lines == [finding.text for finding in findings if finding.is_failure]
    # The terminal names every factor with its verdict, so that only the other sentences are not repeated.
    assert len(verdict_lines(one.record)) == len(one.record.shadows.evidence)
    assert {finding.verdict for finding in findings if not finding.is_failure} <= {
        *("identified", "undecided", "cannot_be_asked", "not_measured")
    }
    text = Page(build_page([StoredSurvey(one.record)])).text
    assert all(" ".join(line.split()) in text for line in lines)


def test_a_leak_is_a_finding_before_the_read_is_decided_and_names_all_that_it_moves() -> None:
    sentence = texts(arm(**SHADOWS[1]))[0]
    assert sentence.endswith("against 1 % by noise; answers about row move with it too.")
    open_read = page_findings([arm(**SHADOWS[2])])
    assert [(each.verdict, each.query) for each in open_read] == [("undecided", "shape"), ("blind", None), ("undecided", None)]
    assert open_read[0].pairs == page_findings([arm()])[0].pairs
    assert not any(each.query for each in page_findings([arm(**SHADOWS[4])]))


def test_the_terminal_counts_what_it_leaves_to_the_report() -> None:
    shadow = FIRST.shadows.evidence["colour"]
    evidence = {f"factor {number}": shadow for number in range(7)}
    lines = finding_lines(arm(evidence=evidence).record)
    assert len(lines) == 6 and lines[-1] == "finding: 2 more; the report lists them"


@pytest.mark.parametrize(
    ("frac", "text"),
    [(0.0, "0"), (1.0, "100"), (0.004, "0.4"), (0.0001, "<0.1"), (0.996, "99.6"), (0.9999, ">99.9"), (0.085, "9"), (0.25, "25")],
)
def test_rounding_claims_nothing(frac: float, text: str) -> None:
    assert show_percent(frac) == text


def test_every_sentence_links_to_the_line_of_its_verdict() -> None:
    html = build_page([StoredSurvey(record) for record in (FIRST, SECOND, THIRD)])
    ids = {found["id"]: found for _, found in Page(html).elements if "id" in found}
    for finding in page_findings(label_arms([StoredSurvey(record) for record in (FIRST, SECOND, THIRD)])):
        line = ids[finding.anchor]
        assert line["data-factor"] in finding.factors and line["data-verdict"] == finding.verdict
        assert f'<a href="#{finding.anchor}">' in html


def row(example: Any, before: list[float], after: list[float], variation: float) -> dict[str, Any]:
    return {
        "kind": "intervention", "scene": example.scene_id, "factor": example.factor, "query": "shape", "form": "open", "name": "shape",
        "value_after": example.value_after, "question_before": example.question, "choices": ["round", "square", "triangular"],
        "truth_before": example.truth_before, "truth_after": example.truth_after, "answer_before": example.answer_before,
        "answer_after": example.answer_after, "probabilities_before": before, "probabilities_after": after, "variation": variation,
    }  # fmt: skip


def test_the_failing_pair_shows_the_first_finding_with_the_probabilities_of_its_row(tmp_path: Path) -> None:
    leaked, missed = FIRST.examples
    rows = pl.DataFrame([row(missed, [0.1, 0.9, 0.0], [0.1, 0.9, 0.0], 0.0), row(leaked, [0.75, 0.25, 0.0], [0.125, 0.125, 0.75], 0.75)])
    one = arm(rows=rows)
    shown = failing_pair([one], page_findings([one]))
    assert shown is not None and (shown.reply.example, shown.reply.outcome) == (leaked, "leaked")
    assert shown.picked == "picked as such among 2 failing examples"
    assert [(choice.name, choice.before, choice.after, choice.is_true_before) for choice in shown.choices] == [
        ("round", 0.75, 0.125, True), ("square", 0.25, 0.125, False), ("triangular", 0.0, 0.75, False),
    ]  # fmt: skip
    html = build_page([StoredSurvey(FIRST, None, {}, rows)])
    assert [found["data-probability"] for found in Page(html).of("td") if "data-probability" in found][:2] == ["0.75", "0.125"]


def test_a_row_with_pictures_that_shows_the_finding_more_severely_is_shown_instead() -> None:
    rows = answered_rows(40, factor="colour")
    pictures = {number: webp(number) for number in range(80)}  # of half the scenes
    one = label_arms([StoredSurvey(FIRST, None, {}, rows, pictures)])[0]
    shown = failing_pair([one], page_findings([one]))
    leaked = with_outcomes(rows).filter(
        outcome="leaked", factor="colour", query="shape", kind="intervention"
    ).filter(pl.col("scene") < 20).sort("variation", descending=True)  # fmt: skip
    worst = leaked.row(0, named=True)
    assert shown is not None and (shown.reply.example.scene_id, shown.reply.example.row) == (worst["scene"], worst["row"])
    assert [choice.before for choice in shown.choices] == worst["probabilities_before"]
    assert shown.pair.before == f"data:image/webp;base64,{b64encode(pictures[worst['picture_before']]).decode()}"
    assert shown.picked == f"the most severe of {leaked.height} such pairs with stored pictures"
    html = build_page([one.stored])
    assert shown.picked in html and shown.pair.after is not None and shown.pair.after in html
    without = label_arms([StoredSurvey(FIRST.model_copy(update={"examples": ()}), None, {}, rows, pictures)])
    assert failing_pair(without, page_findings(without)).reply.example == shown.reply.example  # type: ignore[union-attr]
    # An example that shows it as severely, or rows without pictures: the example stays.
    assert failing_pair([arm(rows=rows)], page_findings([one])).picked == "picked as such among 2 failing examples"  # type: ignore[union-attr]
    example = FIRST.examples[0]
    severe = rows.vstack(pl.DataFrame([{**worst_row_of(rows), **row(example, [1.0, 0.0, 0.0], [0.0, 0.0, 1.0], 1.0)}], schema=rows.schema))
    one = label_arms([StoredSurvey(FIRST, None, {}, severe, pictures)])[0]
    assert failing_pair([one], page_findings([one])).reply.example == example  # type: ignore[union-attr]


def worst_row_of(rows: pl.DataFrame) -> dict[str, Any]:
    """Some row, for the columns that `row` does not have."""
    return rows.row(0, named=True) | {"moved": True, "right": False, "scene_name": None, "row": None}


def test_without_a_failure_none_is_shown() -> None:
    one = arm(SECOND)
    assert failing_pair([one], page_findings([one])) is None
    assert "one pair that failed" not in build_page([StoredSurvey(SECOND)])


def competence(state: Any, scenes: Any = "decorrelated", chance: float = 0.3) -> Competence:
    return Competence(query="shape", form="open", scenes=scenes, rate=made.rate(0.3), chance_frac=chance, state=state)


def unanswered(num: int) -> Unanswered:
    return Unanswered(query="shape", form="open", num_questions=100, num_unanswered=num, frac=num / 100)


CASES: list[tuple[Any, dict[str, Any], str, str]] = [
    (health.outside_light, {}, "good", "0.012 on average."),
    (health.outside_light, {"outside_mass": 0.1}, "warn", "0.10 on average."),
    (health.outside_light, {"outside_mass": None}, "unknown", "answers were read from text."),
    (health.outside_light, {"withheld": {"shape (open)": 0.98}}, "bad", "the rates of shape (open) are withheld: up to 0.98 lies outside."),
    (health.unanswered_light, {}, "good", "none."),
    (health.unanswered_light, {"unanswered": (unanswered(5),)}, "warn", "5; most of shape (open), 0.050 of its questions."),
    (health.unanswered_light, {"unanswered": (unanswered(6),)}, "bad", "6; most of shape (open), 0.060 of its questions."),
    (health.chance_light, {"competence": ()}, "unknown", "no accuracy was measured."),
    (health.chance_light, {"competence": (competence("at_chance"),)}, "bad", "shape (open)."),
    (
        health.chance_light,
        {"competence": (competence("fit", "training"), competence("at_chance"))},
        "good",
        "no question is known to be answered at chance.",
    ),
    (health.constant_light, {}, "good", "every question has several true answers."),
    (health.constant_light, {"competence": ()}, "unknown", "neither rows nor accuracy were stored."),
    (health.constant_light, {"competence": (competence("unknown", chance=1.0),)}, "bad", "the same for shape (open) in all of them."),
    (health.noise_light, {}, "good", "measured for every question."),
    (health.noise_light, {"noise_cells": ()}, "bad", "not measured for shape (open)."),
    (health.scenes_light, {}, "good", "200 scenes or more behind every rate; no verdict is undecided."),
    (
        health.scenes_light,
        {"evidence": with_evidence("size", verdict="undecided", scenes_more=70)},
        "warn",
        "200 scenes behind the smallest rate; undecided: size.",
    ),
]


@pytest.mark.parametrize(("check", "shadows", "state", "text"), CASES)
def test_a_light_says_what_the_record_says_and_what_to_do(check: Any, shadows: dict[str, Any], state: str, text: str) -> None:
    light: Light = check(arm(**shadows))
    assert (light.state, light.text) == (state, text)
    assert bool(light.remedy) == (state in ("warn", "bad")) or state == "unknown"


def test_rows_show_a_truth_that_is_constant_among_base_pictures() -> None:
    rows = [
        {"kind": "intervention", "query": "shape", "form": "open", "name": "shape", "scene": scene, "truth_before": "round"}
        for scene in (0, 1)
    ]
    assert health.constant_light(arm(rows=pl.DataFrame(rows))).state == "bad"
    rows[1]["truth_before"] = "square"
    assert health.constant_light(arm(rows=pl.DataFrame(rows))).state == "good"


def test_few_scenes_stop_and_several_models_show_the_worst_by_name() -> None:
    few = tuple(cell.model_copy(update={"num_scenes": 29}) for cell in FIRST.shadows.cells)
    worst = FIRST.model_copy(update={"shadows": FIRST.shadows.model_copy(update={"cells": few})})
    lights = page_lights(label_arms([StoredSurvey(SECOND), StoredSurvey(worst)]))
    light = next(light for light in lights if light.name == "Scenes")
    assert (light.state, light.text) == ("bad", "shape only: 29 scenes behind the smallest rate.")


def test_the_page_gives_the_command_that_advises_questions_and_only_where_it_would_run() -> None:
    record = made.three_records()[0]
    assert record.world is not None and record.policy
    strength = next(tie["strength"] for tie in record.world.correlations if tie.get("strength"))
    command = advise_command(record)
    assert command is not None and shlex.split(command) == [
        *("theodolite", "advise", record.world.name, "--ask", record.policy, "--strength", str(strength), "--budget", "1000")
    ]
    assert command in Page(build_page([StoredSurvey(record)])).text
    right = record.shadows.model_copy(update={"verdicts": dict.fromkeys(record.shadows.verdicts, "identified")})
    for changed in ({"policy": None}, {"world": None}, {"shadows": right}):
        assert advise_command(record.model_copy(update=changed)) is None


def withheld(prompt: str) -> SurveyArm:
    need = "answers to shape (open) among its choices (98% of the probability lies outside them)"
    evidence = with_evidence("shape", verdict="not_measured", missing=(f"read, which needs {need}",), leak=None, read=None)
    model = FIRST.model.model_copy(update={"prompt": prompt})
    return arm(FIRST.model_copy(update={"model": model}), evidence=evidence, withheld={"shape (open)": 0.98}, outside_mass=0.9)


@pytest.mark.parametrize(
    ("prompt", "remedy", "options"),
    [
        ("free", "survey again with --prompt options", "--prompt options --out runs/one-options"),
        ("options", "survey again with --prompt letters", "--prompt letters --out runs/one-letters"),
        ("letters", "give the choices in the words that the model answers with", None),
    ],
)
def test_where_rates_are_withheld_finding_light_terminal_and_next_command_name_one_remedy(
    prompt: str, remedy: str, options: str | None
) -> None:
    one = withheld(prompt)
    assert any(f"lies outside them). To measure it, {remedy}." in text for text in texts(one))
    assert health.outside_light(one).remedy.lower() == f"{remedy}.".lower()
    assert any(line.endswith(f"lies outside the choices; {remedy}") for line in survey_lines(one.record))
    command = next_command(one.record, ["theodolite", "survey", "model", "--pairs", "pairs.jsonl"], "runs/one")
    assert command.endswith(options) if options else "--prompt" not in command


def test_a_verdict_without_noise_names_the_option_that_measures_it() -> None:
    lacks = arm(evidence=with_evidence("size", verdict="not_measured", missing=("noise of shape (open)",), leak=None))
    assert any(text.endswith("noise of shape (open). To measure it, survey again with --noise perturb.") for text in texts(lacks))


def test_bars_among_choices_say_what_lies_outside_them() -> None:
    note = "Bars share out the probability of the choices; outside them lies up to 0.98 of shape only."
    rows = answered_rows(3)
    page = build_page([StoredSurvey(withheld("free").record, None, {}, rows)])
    assert page.count(note) >= 1 and health.outside_note([arm()]) == "" and "Bars share out" not in build_page([StoredSurvey(FIRST)])


def with_causes(causes: dict[str, str]) -> SurveyArm:
    assert FIRST.coverage is not None
    return arm(FIRST.model_copy(update={"coverage": FIRST.coverage.model_copy(update={"cause": causes})}))


def test_a_leak_into_what_was_asked_only_beside_its_correlate_says_why_and_what_to_ask() -> None:
    one = with_causes({"shape": "confounded", "colour": "unasked"})
    (sentence,) = leak_causes([one], page_findings([one]))
    assert sentence == (
        "shape only was asked about shape only where colour changes with it, so none of its questions tells them apart "
        "(coverage of shape: 0). Ask about shape in pictures where colour does not follow it."
    )
    assert sentence in build_page([StoredSurvey(one.record)])
    free = one.record.world.model_copy(update={"correlations": ()}) if one.record.world else None
    (other,) = leak_causes([arm(one.record.model_copy(update={"world": free}))], page_findings([one]))
    assert "only where another factor changes with it" in other


@pytest.mark.parametrize("causes", [{}, {"shape": "unasked"}, {"colour": "confounded"}])
def test_coverage_that_explains_no_leak_says_nothing(causes: dict[str, str]) -> None:
    one = with_causes(causes)
    assert leak_causes([one], page_findings([one])) == ()


def test_numbers_keep_their_percent_sign_and_interval_on_one_line() -> None:
    assert unbroken("98 % [96, 99.7] of 200 pairs, 1 % by noise") == "98\u00a0% [96,\u00a099.7] of 200 pairs, 1\u00a0% by noise"


@pytest.mark.parametrize(
    ("seeds", "state", "text"),
    [
        ([0], "warn", "1; the intervals are over scenes, not over training runs."),
        ([0, 1], "warn", "2; the intervals are over scenes, not over training runs."),
        ([0, 1, 2], "good", "3."),
    ],
)
def test_how_many_training_runs_stand_behind_a_policy_is_a_light(seeds: list[int], state: str, text: str) -> None:
    assert FIRST.training is not None
    records = [FIRST.model_copy(update={"training": FIRST.training.model_copy(update={"seed": seed})}) for seed in seeds]
    (light,) = health.seeds_lights(label_arms([StoredSurvey(record) for record in records]))
    assert (light.state, light.text) == (state, text) and bool(light.remedy) == (state == "warn")


def test_policies_with_different_numbers_of_runs_show_the_smallest_and_models_of_others_no_such_light() -> None:
    assert FIRST.training is not None
    again = FIRST.model_copy(update={"training": FIRST.training.model_copy(update={"seed": 7})})
    other = FIRST.model_copy(update={"title": "other", "policy": "row"})
    (light,) = health.seeds_lights(label_arms([StoredSurvey(record) for record in (FIRST, again, other)]))
    assert light.text.startswith("1 of one policy, more of others;")
    (each,) = health.seeds_lights(label_arms([StoredSurvey(record) for record in (FIRST, other)]))
    assert each.text.startswith("1 of each policy;")
    assert health.seeds_lights(label_arms([StoredSurvey(FIRST.model_copy(update={"training": None}))])) == ()
