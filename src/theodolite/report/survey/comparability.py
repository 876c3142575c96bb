"""Checks that arms are comparable: equal in everything but the questions, so that differences come from the questions alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from theodolite.records.survey import Part, TrainingFacts
from theodolite.report.survey.arms import SurveyArm, policy_key
from theodolite.report.words import listed, show_count

EQUAL_IN_ALL_ARMS = {
    "pictures_sha256": "the training pictures (hash)",
    "order_sha256": "their order (hash)",
    "num_pictures": "the number of pictures",
    "num_steps": "the number of steps",
    "num_questions": "the number of questions",
    "num_answer_tokens": "the number of answer tokens",
    "recipe": "the recipe",
}


@dataclass(frozen=True)
class Notice:
    """A text that a reader must know before comparing; a warning means that a comparison may be invalid."""

    kind: Literal["warning", "note"]
    text: str


@dataclass(frozen=True, eq=False)
class TrainedArms:
    """The arms of one comparison under one training seed, each with its training facts."""

    seed: int
    members: tuple[tuple[SurveyArm, TrainingFacts], ...]

    @property
    def labels(self) -> list[str]:
        return [arm.label for arm, _ in self.members]

    def differences(self) -> list[str]:
        """The facts that differ although they must be equal, in words with the values."""
        differences = []
        for name, what in EQUAL_IN_ALL_ARMS.items():
            values = [str(getattr(facts, name)) for _, facts in self.members]
            if len(set(values)) > 1:
                by_label = "; ".join(f"{label}: {value[:12]}" for label, value in zip(self.labels, values, strict=True))
                differences.append(f"{what} differs at training seed {self.seed} ({by_label})")
        return differences


def comparisons(arms: Sequence[SurveyArm]) -> dict[str, tuple[TrainedArms, ...]]:
    """The arms whose training is recorded, by the comparison they belong to and their training seed."""
    by_name: dict[str, dict[int, list[tuple[SurveyArm, TrainingFacts]]]] = {}
    for arm in arms:
        facts = arm.record.training
        if facts is not None:
            by_name.setdefault(facts.comparison, {}).setdefault(facts.seed, []).append((arm, facts))
    return {name: tuple(TrainedArms(seed, tuple(members)) for seed, members in seeds.items()) for name, seeds in by_name.items()}


def same_training(arms: Sequence[SurveyArm]) -> tuple[str, ...]:
    """A sentence for each comparison of several policies whose training records show that they saw the same pictures."""
    sentences = []
    for groups in comparisons(arms).values():
        members = [member for group in groups for member in group.members]
        if _num_policies([arm for arm, _ in members]) < 2 or _training_doubts(groups):
            continue
        counts = {
            name: " or ".join(dict.fromkeys(show_count(getattr(facts, name)) for _, facts in members))
            for name in ("num_pictures", "num_questions", "num_answer_tokens")
        }
        titles = list(dict.fromkeys(arm.record.title for arm, _ in members))
        who = f"All {len(arms)} models" if len(members) == len(arms) else f"The models {listed(titles)}"
        per_seed = ", for each training seed" if len(groups) > 1 else ""
        sentences.append(
            f"{who} were trained on the same {counts['num_pictures']} pictures in the same order{per_seed}, with as many "
            f"questions ({counts['num_questions']}) and answer tokens ({counts['num_answer_tokens']}): the hashes and counts "
            "in their training records are equal. Only what was asked of the pictures differs."
        )
    return tuple(sentences)


def check_arms(arms: Sequence[SurveyArm]) -> tuple[Notice, ...]:
    """All notices on comparing the arms, warnings first."""
    by_name = comparisons(arms)
    doubts = [doubt for groups in by_name.values() for doubt in _training_doubts(groups)] + _survey_doubts(arms)
    notes = _several_comparisons(by_name) + _missing(arms)
    return (*(Notice("warning", text) for text in doubts), *(Notice("note", text) for text in notes))


def _num_policies(arms: Sequence[SurveyArm]) -> int:
    return len({policy_key(arm.record) for arm in arms})


def _training_doubts(groups: Sequence[TrainedArms]) -> list[str]:
    doubts = [
        f"These models were not trained alike: {difference}. A difference between their answers need not come from the questions."
        for group in groups
        for difference in group.differences()
    ]
    alone = [label for group in groups if len(group.members) == 1 for label in group.labels]
    if alone and _num_policies([arm for group in groups for arm, _ in group.members]) > 1:
        doubts.append(
            f"No other policy here was trained with the seed of {listed(alone)}, "
            "so nothing shows that it saw the same pictures as the others."
        )
    return doubts


def _several_comparisons(by_name: dict[str, tuple[TrainedArms, ...]]) -> list[str]:
    if len(by_name) < 2:
        return []
    titles = [listed(list(dict.fromkeys(arm.record.title for group in groups for arm, _ in group.members))) for groups in by_name.values()]
    return [f"Not all models were meant to see the same pictures. Compare within a group, not across: {'; '.join(titles)}."]


def _survey_doubts(arms: Sequence[SurveyArm]) -> list[str]:
    doubts = []
    worlds = [arm.record.world for arm in arms if arm.record.world is not None]
    if _differ([world.model_copy(update={"correlations": ()}) for world in worlds]):
        doubts.append("These surveys are of different worlds: their numbers do not compare.")
    if len({(arm.record.seed, arm.record.num_scenes) for arm in arms}) > 1:
        by_label = "; ".join(f"{arm.label}: {arm.record.num_scenes} scenes, seed {arm.record.seed}" for arm in arms)
        doubts.append(f"The models were not asked about the same pairs ({by_label}).")
    if len({(arm.record.model.prompt_sha256, arm.record.model.score) for arm in arms}) > 1:
        by_label = "; ".join(f"{arm.label}: {arm.record.model.words}" for arm in arms)
        doubts.append(f"The models were not asked in the same words, or their choices not scored alike ({by_label}).")
    if _differ([arm.record.shadows.thresholds for arm in arms]):
        doubts.append("The verdicts of these surveys rest on different thresholds (see the end of the page).")
    return doubts


def _differ(parts: Sequence[Part]) -> bool:
    return len({part.model_dump_json() for part in parts}) > 1


def _missing(arms: Sequence[SurveyArm]) -> list[str]:
    def lacking(field: str) -> str:
        return listed([arm.label for arm in arms if getattr(arm.record, field) is None])

    notes = []
    if names := lacking("training"):
        notes.append(f"Nothing is recorded of the training of {names}: which pictures it saw, and which questions, is unknown.")
    # Where no model has one, the page does not speak of it.
    if (names := lacking("coverage")) and any(arm.record.coverage is not None or arm.record.policy for arm in arms):
        notes.append(
            f"There is no coverage for {names}: it is computed from a world and the questions of a policy, and one of them is missing."
        )
    if names := lacking("world"):
        notes.append(
            f"The pairs of {names} come from a file, without a world: no correlation is known, and the factors are those of the pairs."
        )
    for arm in arms:
        training = arm.record.training
        if training is not None and arm.record.policy not in (None, training.policy):
            notes.append(f"{arm.label} was trained on {training.policy!r} and is judged by {arm.record.policy!r}.")
    return notes
