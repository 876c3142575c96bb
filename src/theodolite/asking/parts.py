"""A survey's questions in parts of fixed size: a part's answers do not depend on the other parts, and are stored as they come."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from threading import Lock
from typing import Protocol, runtime_checkable

import numpy as np
import polars as pl

from theodolite.asking.answer import Answer, Question, listed
from theodolite.asking.pictures import PicturePool, Pictures
from theodolite.records.folder import write_whole
from theodolite.records.parquet import parse_parquet
from theodolite.records.progress import Progress, silent

# Raise it when code changes what a stored part holds.
NUM_FORMAT = 1
# Questions of a part. A part is what an interruption loses, and what a worker is given at a time.
NUM_QUESTIONS = 512
SCHEMA = {
    "probabilities": pl.List(pl.Float64),
    "outside": pl.Float64,
    "total_logprob": pl.List(pl.Float64),
    "num_tokens": pl.List(pl.Int64),
}


@dataclass(frozen=True, eq=False)
class QuestionPart:
    """Some questions of a survey, and the pictures that they ask about, numbered from 0 in the order of the questions."""

    pictures: Pictures
    questions: tuple[Question, ...]

    @classmethod
    def of(cls, pictures: Pictures, questions: Sequence[Question]) -> QuestionPart:
        """The part with only those of the survey's pictures that its questions are about."""
        used = list(dict.fromkeys(question.picture for question in questions))
        number = {picture: index for index, picture in enumerate(used)}
        return cls(pictures[used], tuple(replace(question, picture=number[question.picture]) for question in questions))

    def detached(self) -> QuestionPart:
        """The part as it is sent to another process."""
        return replace(self, pictures=self.pictures.detached()) if isinstance(self.pictures, PicturePool) else self

    def key(self, identity: str) -> str:
        """SHA-256, in hex, of all that decides the answers: `identity` (of the model and how it is asked), pictures and questions."""
        digest = hashlib.sha256(json.dumps([identity, NUM_FORMAT]).encode())
        if isinstance(self.pictures, PicturePool):
            digest.update(self.pictures.identity().encode())
        else:
            digest.update(json.dumps(self.pictures.shape).encode())
            digest.update(np.ascontiguousarray(self.pictures).data)
        digest.update(json.dumps([[each.picture, each.question, each.choices] for each in self.questions]).encode())
        return digest.hexdigest()


@runtime_checkable
class PartAsker(Protocol):
    """Answers whole parts, in this process or in several, in any order."""

    def answers(self, parts: Iterable[tuple[int, QuestionPart]], progress: Progress) -> Iterator[tuple[QuestionPart, int, list[Answer]]]:
        """Each part with its number and answers, as soon as they are there.

        At most a few parts are taken from the iterable ahead, since each holds pictures. `progress` counts the questions of parts that
        are not finished.
        """
        ...


@dataclass(frozen=True)
class StoredAnswers:
    """Answers of finished parts, a Parquet file each, named by the part's key. `identity` is of the model and how it is asked."""

    folder: Path
    identity: str

    def read(self, part: QuestionPart) -> list[Answer] | None:
        """The answers of a part; None if it is not stored, or cannot be read. A pool notes again what became of its pictures."""
        path = self._path(part)
        try:
            table = parse_parquet(path)
            facts = json.loads(path.with_suffix(".json").read_bytes()) if isinstance(part.pictures, PicturePool) else None
        except (OSError, ValueError):
            return None
        if dict(table.schema) != SCHEMA or len(table) != len(part.questions):
            return None
        if isinstance(part.pictures, PicturePool):
            part.pictures.restore(facts)
        return [
            Answer(_array(probabilities, float), outside, _array(total, float), _array(tokens, int))
            for probabilities, outside, total, tokens in table.iter_rows()
        ]

    def write(self, part: QuestionPart, answers: Sequence[Answer]) -> None:
        """Stores the answers of a finished part: each file is complete or not there. Raises `BadInput` if they cannot be written."""
        columns = [
            (listed(answer.probabilities), answer.outside, listed(answer.total_logprob), listed(answer.num_tokens)) for answer in answers
        ]
        target = io.BytesIO()
        pl.DataFrame(columns, schema=SCHEMA, orient="row").write_parquet(target)
        path = self._path(part)
        if isinstance(part.pictures, PicturePool):
            write_whole(path.with_suffix(".json"), json.dumps(part.pictures.facts()))
        write_whole(path, target.getvalue())

    def _path(self, part: QuestionPart) -> Path:
        return self.folder / f"{part.key(self.identity)}.parquet"


@dataclass(eq=False)
class PartedAsker:
    """An `Asker` that asks in parts of `size` questions, and asks no part whose answers are stored.

    `num_stored` counts the questions whose answers were read from the store.
    """

    workers: PartAsker
    stored: StoredAnswers | None = None
    size: int = NUM_QUESTIONS
    num_stored: int = 0

    def ask(self, pictures: Pictures, questions: Sequence[Question], progress: Progress = silent) -> list[Answer]:
        """Answers in the order of `questions`. Equal parts give equal answers to the bit, whether they are asked or read from the store."""
        order = _reading_order(pictures, questions)
        answers: dict[int, Answer] = {}

        lock = Lock()  # a thread may take parts, and finds stored ones, while this one writes others

        def land(start: int, new: list[Answer]) -> None:
            with lock:
                answers.update(zip(order[start : start + self.size], new, strict=True))
                progress(len(answers), len(questions))

        def unanswered() -> Iterator[tuple[int, QuestionPart]]:
            for start in range(0, len(questions), self.size):
                part = QuestionPart.of(pictures, [questions[number] for number in order[start : start + self.size]])
                known = None if self.stored is None else self.stored.read(part)
                if known is None:
                    yield start, part
                else:
                    self.num_stored += len(known)
                    land(start, known)

        def within(more: int, total: int, note: str = "") -> None:
            with lock:
                progress(len(answers) + more, len(questions), note)

        for part, start, new in self.workers.answers(unanswered(), within):
            if self.stored is not None:
                self.stored.write(part, new)
            land(start, new)
        return [answers[number] for number in range(len(questions))]


def _reading_order(pictures: Pictures, questions: Sequence[Question]) -> list[int]:
    """The questions by picture; pictures of one file next to each other, so that few files are decoded for two parts."""
    numbers = range(len(pictures))
    groups = pictures.by_file(numbers) if isinstance(pictures, PicturePool) else [numbers]
    place = {picture: index for index, picture in enumerate(chain.from_iterable(groups))}
    return sorted(range(len(questions)), key=lambda number: place[questions[number].picture])


def _array(values: Sequence[float] | Sequence[int] | None, kind: type) -> np.ndarray | None:
    return None if values is None else np.array(values, dtype=kind)
