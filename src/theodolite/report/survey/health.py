"""Health lights of a survey page: what could make its numbers say less than they seem to, each with a remedy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import polars as pl

from theodolite.records.rows import one_truth_queries
from theodolite.report.survey.arms import SurveyArm, policy_key
from theodolite.report.words import listed, show_count, show_exact, withheld_remedy

State = Literal["good", "unknown", "warn", "bad"]
STATE_WORD: dict[State, str] = {"good": "fine", "unknown": "unknown", "warn": "look", "bad": "stop"}
STATES: tuple[State, ...] = tuple(STATE_WORD)  # from best to worst
# A mean probability outside the choices from which answers among the choices say little of what the model would say.
MUCH_OUTSIDE = 0.1
MUCH_UNANSWERED = 0.05
# Below so many scenes an interval of a rate is wider than 0.35 at a half.
FEW_SCENES = 30
# Below so many training runs an interval over them says little of a policy.
FEW_SEEDS = 3


@dataclass(frozen=True)
class Light:
    """One light: its name, what was seen, and what to do about it; no remedy where nothing is wrong."""

    name: str
    state: State
    text: str
    remedy: str = ""


def page_lights(arms: Sequence[SurveyArm]) -> tuple[Light, ...]:
    """Each light in its worst state among the models, which is named where several are shown."""
    lights = []
    for check in CHECKS:
        each = [(arm, check(arm)) for arm in arms]
        arm, worst = max(each, key=lambda pair: STATES.index(pair[1].state))
        others = sum(light.state == worst.state for _, light in each) - 1
        if len(arms) > 1 and worst.state != "good":
            more = f" ({others} more model{'s' if others > 1 else ''} in the same state)" if others else ""
            worst = Light(worst.name, worst.state, f"{arm.label}: {worst.text}{more}", worst.remedy)
        lights.append(worst)
    return (*lights, *seeds_lights(arms))


def seeds_lights(arms: Sequence[SurveyArm]) -> tuple[Light, ...]:
    """Number of training runs of each policy: one light where the page shows models whose training is recorded, else none."""
    seeds: dict[str, set[int]] = {}
    for arm in arms:
        if arm.training_seed is not None:
            seeds.setdefault(policy_key(arm.record), set()).add(arm.training_seed)
    if not seeds:
        return ()
    least = min(map(len, seeds.values()))
    whose = " of each policy" if least == max(map(len, seeds.values())) else " of one policy, more of others"
    name, text = "Training runs", f"{show_count(least)}{whose if len(seeds) > 1 else ''}"
    if least >= FEW_SEEDS:
        return (Light(name, "good", f"{text}."),)
    remedy = f"Train with {FEW_SEEDS} seeds or more (--seeds) before you speak of a policy rather than of this model."
    return (Light(name, "warn", f"{text}; the intervals are over scenes, not over training runs.", remedy),)


def outside_light(arm: SurveyArm) -> Light:
    """Mean probability outside the choices, 0 to 1."""
    name, mass, withheld = "Probability outside the choices", arm.record.shadows.outside_mass, arm.record.shadows.withheld
    advice = withheld_remedy(arm.record)
    remedy = f"{advice[0].upper()}{advice[1:]}."
    if withheld:
        return Light(
            name,
            "bad",
            f"the rates of {listed(list(withheld))} are withheld: up to {show_exact(max(withheld.values()))} lies outside.",
            remedy,
        )
    if mass is None:
        return Light(name, "unknown", "answers were read from text.", "Score choices instead of reading text, where the model allows it.")
    text = f"{show_exact(mass)} on average."
    return Light(name, "warn", text, remedy) if mass >= MUCH_OUTSIDE else Light(name, "good", text)


def outside_note(arms: Sequence[SurveyArm]) -> str:
    """What bars among the choices leave out, of models with much probability outside them; empty where there are none."""
    masses = {arm.label: max([arm.record.shadows.outside_mass or 0.0, *arm.record.shadows.withheld.values()]) for arm in arms}
    much = [f"up to {show_exact(mass)} of {label}" for label, mass in masses.items() if mass >= MUCH_OUTSIDE]
    return f"Bars share out the probability of the choices; outside them lies {listed(much)}." if much else ""


def unanswered_light(arm: SurveyArm) -> Light:
    """Questions whose answer is none of the choices."""
    name, cells = "Unanswered questions", arm.record.shadows.unanswered
    num_unanswered = sum(cell.num_unanswered for cell in cells)
    if not num_unanswered:
        return Light(name, "good", "none.")
    worst = max(cells, key=lambda cell: cell.frac)
    text = f"{show_count(num_unanswered)}; most of {worst.query} ({worst.form}), {show_exact(worst.frac)} of its questions."
    remedy = "They are left out of all rates: look at them in the saved rows, and survey with --prompt letters."
    return Light(name, "bad" if worst.frac > MUCH_UNANSWERED else "warn", text, remedy)


def chance_light(arm: SurveyArm) -> Light:
    """Queries that are answered at chance, on scenes like those of training where these were asked."""
    name, known = "Answers at chance", {}
    for one in sorted(arm.record.shadows.competence, key=lambda one: one.scenes == "training"):
        known[one.query, one.form] = one.state
    if not known:
        return Light(name, "unknown", "no accuracy was measured.")
    at_chance = [f"{query} ({form})" for (query, form), state in known.items() if state == "at_chance"]
    if not at_chance:
        return Light(name, "good", "no question is known to be answered at chance.")
    remedy = "Ask in other words, or leave these questions out: answers at chance show neither reading nor leaking."
    return Light(name, "bad" if len(at_chance) == len(known) else "warn", f"{listed(at_chance)}.", remedy)


def constant_light(arm: SurveyArm) -> Light:
    """Questions with one true answer in all base pictures; without rows, those that chance answers always."""
    name = "Truth among base pictures"
    constant = _constant_queries(arm)
    if constant is None:
        return Light(name, "unknown", "neither rows nor accuracy were stored.", "Keep rows.parquet beside survey.json.")
    if not constant:
        return Light(name, "good", "every question has several true answers.")
    remedy = "Add base pictures with other true answers: a model that always says the same is right in all of these."
    return Light(name, "bad", f"the same for {listed(constant)} in all of them.", remedy)


def _constant_queries(arm: SurveyArm) -> list[str] | None:
    rows = arm.stored.rows
    if rows is None or not {"kind", "query", "form", "name", "scene", "truth_before"} <= set(rows.columns):
        measured = arm.record.shadows.competence
        return (
            [f"{one.query} ({one.form})" for one in measured if one.scenes == "decorrelated" and one.chance_frac >= 1] if measured else None
        )
    return one_truth_queries(rows.filter(pl.col("kind") == "intervention"))


def noise_light(arm: SurveyArm) -> Light:
    """Queries without any noise that their leaks could be compared with."""
    name, shadows = "Noise", arm.record.shadows
    asked = list(dict.fromkeys((cell.query, cell.form) for cell in shadows.cells))
    known = {(noise.query, noise.form) for noise in shadows.noise_cells}
    lacking = [f"{query} ({form})" for query, form in asked if (query, form) not in known]
    remedy = "Survey with --noise perturb, or add pairs in which nothing changes that a question is about."
    if not asked and not known:
        return Light(name, "unknown", "no rates were measured that noise could be compared with.")
    if not lacking:
        return Light(name, "good", "measured for every question.")
    return Light(name, "bad" if len(lacking) == len(asked) else "warn", f"not measured for {listed(lacking)}.", remedy)


def scenes_light(arm: SurveyArm) -> Light:
    """Number of scenes, and how many more the undecided verdicts need."""
    name, shadows = "Scenes", arm.record.shadows
    num_scenes = min((cell.num_scenes for cell in shadows.cells), default=arm.record.num_scenes)
    behind = f"{show_count(num_scenes)} {'scene' if num_scenes == 1 else 'scenes'}"
    undecided = {factor: evidence.scenes_more for factor, evidence in shadows.evidence.items() if evidence.verdict == "undecided"}
    if not undecided and num_scenes >= FEW_SCENES:
        return Light(name, "good", f"{behind} or more behind every rate; no verdict is undecided.")
    needs = [more for more in undecided.values() if more is not None]
    remedy = (
        f"Survey about {show_count(max(needs))} more scenes (--scenes)." if needs else f"Survey {FEW_SCENES} scenes or more (--scenes)."
    )
    if undecided and not needs and num_scenes >= FEW_SCENES:
        remedy = "No number of scenes up to 100,000 would decide at these rates: ask another question about the factor."
    text = f"{behind} behind the smallest rate{f'; undecided: {listed(list(undecided))}' if undecided else ''}."
    return Light(name, "bad" if num_scenes < FEW_SCENES else "warn", text, remedy)


CHECKS: tuple[Callable[[SurveyArm], Light], ...] = (
    outside_light,
    unanswered_light,
    chance_light,
    constant_light,
    noise_light,
    scenes_light,
)
