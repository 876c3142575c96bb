"""How often a model is right, counted by items, by pairs and by groups: three numbers that are easily taken for each other."""

from __future__ import annotations

from pydantic import Field

from theodolite.records.part import Part, Rate


class ShareRight(Part):
    """A share answered right, with what guessing would give. What was not answered is left out and counted apart."""

    rate: Rate | None = Field(description="the share, with an interval clustered by scene; null: none of them was answered whole")
    chance_frac: float = Field(description="the share that guessing evenly among the choices of every item would get right, 0 to 1")
    num_unanswered: int = Field(description="items, pairs or groups left out because an answer is missing")


class Accuracy(Part):
    """Accuracy of given pairs. An item is one picture under one question; every other number asks for several items to be right at once.

    Rows of interventions, nuisance and paraphrases are counted, rows of training are not. An item is counted once, in how many rows
    it may stand.
    """

    item: ShareRight = Field(description="item accuracy: items answered right")
    pair: ShareRight | None = Field(
        description="pair accuracy: two pictures, one question, two different right answers, both given (MMVP, and what NaturalBench calls "
        "Q-Acc); null: no pair has two different right answers"
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
