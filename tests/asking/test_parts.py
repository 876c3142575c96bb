"""Questions in parts: the same answers however they are cut off and by whom they are answered, and none asked twice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from helpers.part_by_part import InThisProcess
from theodolite.asking.answer import UNANSWERED, Answer, Question, answer_from_scores
from theodolite.asking.parts import PartedAsker, QuestionPart, StoredAnswers
from theodolite.records.progress import Progress, silent

PICTURES = np.random.default_rng(0).integers(0, 256, (9, 4, 5, 3), dtype=np.uint8)
QUESTIONS = [Question(number // 3, f"question {number % 3}?", ("yes", "no")[: 2 - number % 2]) for number in range(25)]


@dataclass
class Counting:
    """An asker whose answers are a function of picture, question and choices; it can be cut off after some calls."""

    most: int = 99
    asked: list[Question] = field(default_factory=list)

    def ask(self, pictures: np.ndarray, questions: Sequence[Question], progress: Progress = silent) -> list[Answer]:
        if self.most == 0:
            raise KeyboardInterrupt
        self.most -= 1
        self.asked += questions
        progress(len(questions), len(questions))
        return [self._answer(pictures[question.picture], question) for question in questions]

    def _answer(self, picture: np.ndarray, question: Question) -> Answer:
        if picture.sum() % 7 == 0:
            return UNANSWERED
        scores = -np.array([picture.mean() / 50 + len(question.question) + at / 3 for at in range(len(question.choices))])
        return answer_from_scores(scores, np.arange(1, len(scores) + 1))


def same(one: Sequence[Answer], other: Sequence[Answer]) -> bool:
    def values(answer: Answer) -> tuple[object, ...]:
        arrays = (answer.probabilities, answer.total_logprob, answer.num_tokens)
        return (answer.outside, *(None if array is None else (array.dtype, array.tolist()) for array in arrays))

    return [values(answer) for answer in one] == [values(answer) for answer in other]


@pytest.mark.parametrize("size", [1, 4, 512])
def test_answers_do_not_depend_on_the_size_of_parts_here(size: int) -> None:
    assert same(PartedAsker(InThisProcess(Counting()), size=size).ask(PICTURES, QUESTIONS), Counting().ask(PICTURES, QUESTIONS))


def test_a_cut_off_run_goes_on_where_it_stopped_and_asks_nothing_twice(tmp_path: Path) -> None:
    stored = StoredAnswers(tmp_path / "answers", "model 1")
    first = PartedAsker(InThisProcess(Counting(most=3)), stored, size=4)
    with pytest.raises(KeyboardInterrupt):
        first.ask(PICTURES, QUESTIONS)
    assert len(list(stored.folder.iterdir())) == 3
    rest = Counting()
    seen: list[tuple[int, int]] = []
    again = PartedAsker(InThisProcess(rest), stored, size=4)
    answers = again.ask(PICTURES, QUESTIONS, lambda done, total, note="": seen.append((done, total)))
    assert again.num_stored == 12 and len(rest.asked) == 13
    assert same(answers, Counting().ask(PICTURES, QUESTIONS))
    assert seen[-1] == (25, 25) and [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert same(PartedAsker(InThisProcess(Counting(most=0)), stored, size=4).ask(PICTURES, QUESTIONS), answers)


@pytest.mark.parametrize("change", ["model", "picture", "question", "choices"])
def test_what_decides_an_answer_is_part_of_the_key(tmp_path: Path, change: str) -> None:
    stored, pictures, questions = StoredAnswers(tmp_path, "model 1"), PICTURES.copy(), list(QUESTIONS)
    PartedAsker(InThisProcess(Counting()), stored, size=4).ask(pictures, questions)
    if change == "model":
        stored = StoredAnswers(tmp_path, "model 2")
    elif change == "picture":
        pictures[0, 0, 0, 0] ^= 1
    else:
        questions[0] = (
            Question(0, "other?", questions[0].choices) if change == "question" else Question(0, questions[0].question, ("a", "b"))
        )
    asker = Counting()
    assert same(PartedAsker(InThisProcess(asker), stored, size=4).ask(pictures, questions), Counting().ask(pictures, questions))
    assert len(asker.asked) == (25 if change == "model" else 4)


def test_a_damaged_file_of_a_part_is_asked_again(tmp_path: Path) -> None:
    stored = StoredAnswers(tmp_path, "model 1")
    expected = PartedAsker(InThisProcess(Counting()), stored, size=4).ask(PICTURES, QUESTIONS)
    paths = sorted(tmp_path.iterdir(), key=lambda path: -len(pl.read_parquet(path)))  # the part of a single question last
    whole = paths[0].read_bytes()
    for content in (b"", whole[:-5], whole[: len(whole) // 2], paths[-1].read_bytes()):
        paths[0].write_bytes(content)
        asker = Counting()
        assert same(PartedAsker(InThisProcess(asker), stored, size=4).ask(PICTURES, QUESTIONS), expected)
        assert len(asker.asked) <= 4 and paths[0].read_bytes() == whole


def test_parts_may_be_answered_in_any_order_and_are_taken_one_at_a_time(tmp_path: Path) -> None:
    class Backwards:
        """Holds two parts at a time and gives the later one first."""

        def answers(
            self, parts: Iterable[tuple[int, QuestionPart]], progress: Progress
        ) -> Iterator[tuple[QuestionPart, int, list[Answer]]]:
            waiting: list[tuple[int, QuestionPart]] = []
            for number, part in parts:
                assert len(part.pictures) <= 3
                waiting.append((number, part))
                if len(waiting) == 2:
                    number, part = waiting.pop()
                    yield part, number, Counting().ask(part.pictures, part.questions)
            for number, part in waiting:
                yield part, number, Counting().ask(part.pictures, part.questions)

    answers = PartedAsker(Backwards(), StoredAnswers(tmp_path, ""), size=4).ask(PICTURES, QUESTIONS)
    assert same(answers, Counting().ask(PICTURES, QUESTIONS))
