"""Pairs as the page shows them without JavaScript: both pictures, the question, and the answers of all models with their marks."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from theodolite.records.survey import Example
from theodolite.report.survey.arms import SurveyArm
from theodolite.report.survey.pair_columns import AnsweredPair
from theodolite.report.survey.pairs_address import Outcome

# What the answer did, by outcome: apart from whether it is right, which has a mark of its own.
MOVE_MARK: Mapping[Outcome, tuple[str, str]] = {
    "moved-right": ("read", "the truth moves and so does the answer"),
    "moved-wrong": ("read", "the truth moves and so does the answer"),
    "missed": ("missed", "the truth moves and the answer does not"),
    "leaked": ("leak", "the truth does not move and the answer does"),
    "steady-right": ("steady", "neither the truth nor the answer moves"),
    "steady-wrong": ("steady", "neither the truth nor the answer moves"),
    "noise": ("noise", "no factor changes and the answer moves"),
    "unanswered": ("unanswered", "an answer is none of the choices"),
}
RIGHT_MARK: Mapping[tuple[bool, bool], str] = {
    (True, True): "right",
    (True, False): "wrong after",
    (False, True): "wrong before",
    (False, False): "wrong",
}


@dataclass(frozen=True)
class ShownReply:
    """One model's answers to a pair: None where unanswered."""

    label: str
    outcome: Outcome
    answer_before: str | None
    answer_after: str | None
    right_before: bool | None
    right_after: bool | None

    @property
    def right_mark(self) -> str:
        """Whether the answers are right; empty where one is missing."""
        return "" if self.right_before is None or self.right_after is None else RIGHT_MARK[self.right_before, self.right_after]


@dataclass(frozen=True)
class ShownPair:
    """One pair of pictures under one question; pictures are addresses, None without one; `source` names row and paths."""

    factor: str
    value_before: str | None
    value_after: str | None
    scene: str
    source: str
    question: str
    truth_before: str
    truth_after: str
    before: str | None
    after: str | None
    replies: tuple[ShownReply, ...]


@dataclass(frozen=True, eq=False)
class ArmAnswers:
    """The answers of one arm to an example pair; `right_*` is None where unanswered."""

    arm: SurveyArm
    example: Example

    @property
    def outcome(self) -> Outcome:
        example = self.example
        if example.answer_before is None or example.answer_after is None:
            return "unanswered"
        moved, right = example.answer_before != example.answer_after, bool(self.right_before and self.right_after)
        if example.truth_before != example.truth_after:
            return "missed" if not moved else "moved-right" if right else "moved-wrong"
        return "leaked" if moved else "steady-right" if right else "steady-wrong"

    @property
    def right_before(self) -> bool | None:
        return None if self.example.answer_before is None else self.example.answer_before == self.example.truth_before

    @property
    def right_after(self) -> bool | None:
        return None if self.example.answer_after is None else self.example.answer_after == self.example.truth_after

    def shown(self) -> ShownReply:
        """The same for a template."""
        example = self.example
        answers = (example.answer_before, example.answer_after)
        return ShownReply(self.arm.label, self.outcome, *answers, self.right_before, self.right_after)


@dataclass(frozen=True, eq=False)
class Pair:
    """One example of the record with the replies of all arms that were asked it; pictures are data URLs."""

    example: Example
    before: str | None
    after: str | None
    replies: tuple[ArmAnswers, ...]


def example_pairs(arms: Sequence[SurveyArm]) -> tuple[Pair, ...]:
    """The examples of all arms; equal scene, change, question and pictures make one pair with several replies."""
    replies: dict[tuple[object, ...], list[ArmAnswers]] = {}
    for arm in arms:
        for example in arm.record.examples:
            replies.setdefault(_key(arm, example), []).append(ArmAnswers(arm, example))
    return tuple(_pair(group) for group in replies.values())


def shown_examples(arms: Sequence[SurveyArm]) -> tuple[ShownPair, ...]:
    """The examples of all arms for a template."""
    shown = []
    for pair in example_pairs(arms):
        example = pair.example
        change = (example.factor, example.value_before, example.value_after, example.scene_label, _source(example.row, (None, None)))
        truths = (example.question, example.truth_before, example.truth_after)
        shown.append(ShownPair(*change, *truths, pair.before, pair.after, tuple(reply.shown() for reply in pair.replies)))
    return tuple(shown)


def shown_row(pair: AnsweredPair, arms: Sequence[SurveyArm], urls: Mapping[str, str]) -> ShownPair:
    """An answered pair for a template; `urls` are addresses of pictures by "pool-number"."""
    row: Mapping[str, Any] = pair.row
    before, after = (urls.get("{}-{}".format(*pair.picture(side))) for side in ("before", "after"))
    truths = (row["truth_before"], row["truth_after"])
    replies = []
    for reply in pair.replies:
        answers = (reply.answer_before, reply.answer_after)
        right = [None if answer is None else answer == truth for answer, truth in zip(answers, truths, strict=True)]
        replies.append(ShownReply(arms[reply.model].label, reply.outcome, *answers, *right))
    scene = str(row["scene"]) if row["scene_name"] is None else row["scene_name"]
    source = _source(row["row"], (row["path_before"], row["path_after"]))
    change = (row["factor"], row["value_before"], row["value_after"], scene, source)
    return ShownPair(*change, row["question_before"], *truths, before, after, tuple(replies))


def _source(row: str | None, paths: tuple[str | None, str | None]) -> str:
    """Row and paths as the manifest names them; empty for drawn pairs."""
    names = [f"row {row}"] if row is not None else []
    return ", ".join([*names, " → ".join(dict.fromkeys(path for path in paths if path is not None))]).strip(", ")


def _key(arm: SurveyArm, example: Example) -> tuple[object, ...]:
    # Records of one pair may differ in answers and file names; everything else, the pixels too, must be equal.
    pictures = [arm.stored.picture(name) for name in (example.picture_before, example.picture_after)]
    digests = [hashlib.sha256(data).hexdigest() if data else None for data in pictures]
    change = (example.scene_id, example.factor, example.value_before, example.value_after)
    return (*change, example.question, example.truth_before, example.truth_after, *digests)


def _pair(replies: list[ArmAnswers]) -> Pair:
    first = replies[0]
    pictures = [first.arm.stored.picture(name) for name in (first.example.picture_before, first.example.picture_after)]
    before, after = (None if data is None else f"data:image/png;base64,{b64encode(data).decode()}" for data in pictures)
    return Pair(first.example, before, after, tuple(replies))
