"""Accuracy counted by items, by pairs and by groups: three numbers that are easily confused."""

from __future__ import annotations

from pydantic import Field

from theodolite.records.part import Part, Rate


class ShareRight(Part):
    """A share answered right, with its chance level. The unanswered are left out and counted separately."""

    rate: Rate | None = Field(description="the share, with an interval clustered by scene; null: none of them has all its answers")
    chance_frac: float = Field(description="the share that guessing evenly among the choices of every item would get right, 0 to 1")
    num_unanswered: int = Field(description="items, pairs or groups left out because an answer is missing")


class Accuracy(Part):
    """Accuracy of given pairs. An item is one picture with one question; every other number requires several items to be right at once.

    Rows of interventions, nuisance and paraphrases are counted, rows of training are not. An item is counted once, however
    many rows it is in.
    """

    item: ShareRight = Field(description="item accuracy: items answered right")
    pair: ShareRight | None = Field(
        description="pair accuracy: two pictures, one question, two different right answers, both given (MMVP; "
        "Q-Acc of NaturalBench); null: no pair has two different right answers"
    )
    question: ShareRight | None = Field(
        description="question accuracy: all pictures of a scene right under one question (NaturalBench's Q-Acc: scenes of two pictures); "
        "null: no scene has a question about two pictures"
    )
    picture: ShareRight | None = Field(
        description="picture accuracy: all questions of a scene right about one picture (NaturalBench's I-Acc); "
        "null: no scene asks two questions of a picture"
    )
    group: ShareRight | None = Field(
        description="group accuracy: all items of a scene right (NaturalBench's G-Acc, What'sUp's set accuracy); "
        "null: no scene has more than one pair"
    )
