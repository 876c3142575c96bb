"""Training examples: one picture with several questions, and hashes that show whether two arms trained on the same data."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, UInt8

from theodolite.data.partners import Partners
from theodolite.worlds.factors import Scenes
from theodolite.worlds.query import Policy
from theodolite.worlds.world import World, picture_hash

# Pictures of easy-VQA have 2 to 21 official questions; rows of similar length need less padding.
MAX_QUESTIONS = 8


@dataclass(frozen=True)
class QuestionAnswer:
    """A question in words, and its true answer."""

    question: str
    answer: str


@dataclass(frozen=True, eq=False)
class ExampleSet:
    """Pictures and, for each, its training questions.

    Pictures may repeat; `num_distinct` is then the number of distinct ones (None: all are distinct). `partners` are those of
    `objectives.interventional`.
    """

    pictures: UInt8[np.ndarray, "picture height width 3"]
    questions: tuple[tuple[QuestionAnswer, ...], ...]
    num_distinct: int | None = None
    partners: Partners | None = None

    def __post_init__(self) -> None:
        if len(self.pictures) != len(self.questions):
            raise ValueError(f"{len(self.pictures)} pictures but questions for {len(self.questions)}; give each picture its list")

    def __len__(self) -> int:
        return len(self.questions)

    def key(self, index: int) -> str:
        """The key from which an example's masks are drawn."""
        return str(index)

    @property
    def num_pictures(self) -> int:
        return len(self) if self.num_distinct is None else self.num_distinct

    @property
    def pictures_sha256(self) -> str:
        return picture_hash(self.pictures)

    @property
    def questions_sha256(self) -> str:
        rows = [[(item.question, item.answer) for item in items] for items in self.questions]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def question_rng(seed: int) -> np.random.Generator:
    """The generator of a seed's questions: `Policy.draw` is the first that draws from it."""
    return np.random.default_rng([seed, 1])


def draw_questions(world: World, scenes: Scenes, policy: Policy, seed: int) -> tuple[tuple[QuestionAnswer, ...], ...]:
    """The questions that a policy asks of each scene, with true answers; wordings are drawn from the seed."""
    rng = question_rng(seed)
    drawn = policy.draw(scenes, world.prior, rng)
    truths = {query.name: query.truth(scenes) for query in policy.queries}
    wordings = {query.name: world.wordings(query, scenes) for query in policy.queries}
    return tuple(
        tuple(QuestionAnswer(str(rng.choice(wordings[query.name][index])), query.choices[truths[query.name][index]]) for query in queries)
        for index, queries in enumerate(drawn)
    )


def official_examples(world: World, size: int, num_pictures: int) -> ExampleSet:
    """The official questions of the first training pictures. A picture repeats for every further `MAX_QUESTIONS` questions."""
    official = world.official_split("train")
    by_picture: list[list[QuestionAnswer]] = [[] for _ in range(len(official.scenes))]
    for number, question, answer in zip(official.scene, official.text, official.answer, strict=True):
        by_picture[number].append(QuestionAnswer(question, answer))
    parts = [
        (number, tuple(items[at : at + MAX_QUESTIONS]))
        for number, items in enumerate(by_picture[:num_pictures])
        for at in range(0, len(items), MAX_QUESTIONS)
    ]
    scenes = official.scenes.take(np.array([number for number, _ in parts]))
    return ExampleSet(world.render(scenes, size), tuple(items for _, items in parts), num_pictures)


def training_order(num_examples: int, num_draws: int, seed: int) -> Int[np.ndarray, " draw"]:
    """Indices of examples in training order: full permutations, concatenated and cut at `num_draws`."""
    rng = np.random.default_rng([seed, 2])
    rounds = -(-num_draws // num_examples)
    return np.concatenate([rng.permutation(num_examples) for _ in range(rounds)])[:num_draws]


def order_hash(order: Int[np.ndarray, " draw"]) -> str:
    """SHA-256, in hex, of the order of examples."""
    return hashlib.sha256(np.ascontiguousarray(order, dtype="<i8").data).hexdigest()
