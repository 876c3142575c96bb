"""Open questions of a survey's rows, asked again with edited vision tokens, and their answers before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int

from theodolite.asking.answer import Answer, Question
from theodolite.asking.local import Edit, LocalAsker, Name
from theodolite.asking.pictures import Pictures
from theodolite.stats.rates import total_variation

NO_ANSWER = -1


@dataclass(frozen=True, eq=False)
class ModelAnswers:
    """Answers: the index of the most probable choice, and the probabilities in the order of choices, padded with 0.

    `chosen` is `NO_ANSWER` where several choices are equally the most probable. Such an answer is right under no truth, and differs from
    every other than its like.
    """

    chosen: Int[np.ndarray, " ask"]
    probabilities: Float[np.ndarray, "ask choice"]

    def take(self, keep: Bool[np.ndarray, " ask"]) -> ModelAnswers:
        """The answers of a mask."""
        return ModelAnswers(self.chosen[keep], self.probabilities[keep])

    def variation(self, other: ModelAnswers) -> Float[np.ndarray, " ask"]:
        """Total variation distance to other answers to the same asks, 0 to 1."""
        return total_variation(self.probabilities, other.probabilities)

    @staticmethod
    def of(probabilities: Sequence[Sequence[float] | Float[np.ndarray, " choice"]]) -> ModelAnswers:
        """Answers from the probabilities of each; of equals none is chosen, as in a survey's rows."""
        padded = np.zeros((len(probabilities), max(map(len, probabilities), default=0)))
        for row, own in zip(padded, probabilities, strict=True):
            row[: len(own)] = own
        if not padded.size:
            return ModelAnswers(np.empty(0, dtype=np.int64), padded)
        ties = (padded == padded.max(axis=1, keepdims=True)).sum(axis=1) > 1
        return ModelAnswers(np.where(ties, NO_ANSWER, padded.argmax(axis=1)), padded)


def open_rows(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows of interventions with an open question, in their order."""
    return rows.filter((pl.col("kind") == "intervention") & (pl.col("form") == "open"))


def answered_rows(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows whose questions about both pictures are answered: where choices tie, there is no answer that an edit could move."""
    return rows.filter(pl.col("answer_before").is_not_null() & pl.col("answer_after").is_not_null())


def of_scenes(rows: pl.DataFrame, scenes: Int[np.ndarray, " scene"]) -> pl.DataFrame:
    """The rows of these scenes."""
    return rows.filter(pl.col("scene").is_in(scenes.tolist()))


def first_pictures(rows: pl.DataFrame, num_scenes: int) -> pl.DataFrame:
    """One row for each open question about the first picture of each of the first scenes; only its `before` side is of use."""
    rows = of_scenes(rows, rows["scene"].unique().sort().head(num_scenes).to_numpy())
    first = rows.group_by("scene", maintain_order=True).agg(pl.col("picture_before").first().alias("first_picture"))
    rows = rows.join(first, on="scene", how="left", maintain_order="left").filter(pl.col("picture_before") == pl.col("first_picture"))
    return rows.unique(["scene", "name", "question_before"], keep="first", maintain_order=True).drop("first_picture")


def with_others(rows: pl.DataFrame, about: str, num_others: int) -> pl.DataFrame:
    """The rows that ask for one factor, and for each scene `num_others` other questions, in rotation over scenes."""
    others = rows.filter(pl.col("query") != about)["query"].unique().sort().to_list()
    chosen = {
        (scene, others[(turn * num_others + step) % len(others)])
        for turn, scene in enumerate(rows["scene"].unique().sort().to_list())
        for step in range(min(num_others, len(others)))
    }
    pairs = zip(rows["scene"].to_list(), rows["query"].to_list(), strict=True)
    return rows.filter(pl.Series([pair[1] == about or pair in chosen for pair in pairs], dtype=pl.Boolean))


def answers_in(rows: pl.DataFrame, side: str) -> ModelAnswers:
    """The answers in a survey's rows; `side` is before or after."""
    return ModelAnswers.of(rows[f"probabilities_{side}"].to_list())


def truth_in(rows: pl.DataFrame, side: str) -> Int[np.ndarray, " ask"]:
    """The index of the true choice; `side` is before or after."""
    pairs = zip(rows["choices"].to_list(), rows[f"truth_{side}"].to_list(), strict=True)
    return np.array([choices.index(truth) for choices, truth in pairs], dtype=np.int64)


@dataclass(frozen=True, eq=False)
class ReaskedCases:
    """Rows as asks about cases: an ask's `picture` is the number of its case; case i has pictures before[i] and after[i] of the plan."""

    questions: tuple[Question, ...]
    before: Int[np.ndarray, " case"]
    after: Int[np.ndarray, " case"]

    def part(self, start: int, stop: int) -> tuple[ReaskedCases, Int[np.ndarray, " ask"]]:
        """The cases start to stop, renumbered from 0, and the numbers of their asks."""
        numbers = np.array([number for number, ask in enumerate(self.questions) if start <= ask.picture < stop], dtype=np.int64)
        asks = tuple(replace(self.questions[number], picture=self.questions[number].picture - start) for number in numbers)
        return ReaskedCases(asks, self.before[start:stop], self.after[start:stop]), numbers

    def first_asks(self) -> list[Question]:
        """One ask of each case."""
        return list({ask.picture: ask for ask in reversed(self.questions)}.values())[::-1]


def cases_of(rows: pl.DataFrame, side: str, *, apart: bool) -> ReaskedCases:
    """Questions of one side, with one case for each pair of pictures; `apart`: for each row, if vision tokens attend to the question."""
    pairs = list(zip(rows["picture_before"].to_list(), rows["picture_after"].to_list(), strict=True))
    keys = [(*pair, number if apart else 0) for number, pair in enumerate(pairs)]
    number_of = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    texts = zip(rows[f"question_{side}"].to_list(), rows["choices"].to_list(), strict=True)
    asks = tuple(Question(number_of[key], text, tuple(choices)) for key, (text, choices) in zip(keys, texts, strict=True))
    before, after = (np.array([key[at] for key in number_of], dtype=np.int64) for at in (0, 1))
    return ReaskedCases(asks, before, after)


def ask_edited(asker: LocalAsker, pictures: Pictures, asks: Sequence[Question], edits: Mapping[str, Edit] | None = None) -> ModelAnswers:
    """Answers in the order of the asks, with vision tokens edited on the way."""
    answers: list[Answer] = asker.ask(pictures, asks, edits=edits)
    return ModelAnswers.of([answer.probabilities for answer in answers if answer.probabilities is not None])  # a local model answers all


def ask_under_edits(
    asker: LocalAsker, pictures: Pictures, asks: Sequence[Question], edits: Mapping[Name, tuple[str, Edit]]
) -> dict[Name, ModelAnswers]:
    """Answers under each of several edits, (site, edit) by name, in the order of the asks."""
    by_name = asker.ask_under_edits(pictures, asks, edits)
    return {
        name: ModelAnswers.of([answer.probabilities for answer in answers if answer.probabilities is not None])
        for name, answers in by_name.items()
    }


def inner_layers(sites: Sequence[str]) -> tuple[str, ...]:
    """The first, the middle and the second to last of the layers' sites, each once."""
    number = len(sites)
    return tuple(dict.fromkeys((sites[0], sites[(number - 1) // 2], sites[max(number - 2, 0)])))
