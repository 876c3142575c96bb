"""Example pairs of pictures with the answers of all surveyed models."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from theodolite.records.survey import Example
from theodolite.report.survey.arms import SurveyArm

Mark = Literal["read", "missed", "leak", "steady", "unanswered"]
MARK_MEANING: dict[Mark, str] = {
    "read": "the truth moves and so does the answer",
    "missed": "the truth moves and the answer does not",
    "leak": "the truth does not move and the answer does",
    "steady": "neither the truth nor the answer moves",
    "unanswered": "the answer is none of the choices",
}


@dataclass(frozen=True, eq=False)
class ArmAnswers:
    """The answers of one arm to an example pair; `right_*` is None where unanswered."""

    arm: SurveyArm
    example: Example

    @property
    def mark(self) -> Mark:
        if self.example.answer_before is None or self.example.answer_after is None:
            return "unanswered"
        truth_moves = self.example.truth_before != self.example.truth_after
        answer_moves = self.example.answer_before != self.example.answer_after
        if truth_moves:
            return "read" if answer_moves else "missed"
        return "leak" if answer_moves else "steady"

    @property
    def right_before(self) -> bool | None:
        return None if self.example.answer_before is None else self.example.answer_before == self.example.truth_before

    @property
    def right_after(self) -> bool | None:
        return None if self.example.answer_after is None else self.example.answer_after == self.example.truth_after


@dataclass(frozen=True, eq=False)
class Pair:
    """One pair of pictures and one question about both, with the replies of all arms that were asked it; pictures are data URLs."""

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
