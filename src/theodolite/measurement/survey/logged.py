"""The asker of a survey whose answers come from another tool's log: no model, no picture is read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from theodolite.asking.answer import UNANSWERED, Answer, Question
from theodolite.asking.answer_log import AnswerLog, LoggedAnswer, foreign_prompt_hash
from theodolite.asking.endpoint.reading import read_choice
from theodolite.asking.pictures import Pictures
from theodolite.asking.prompts import prompt_hash
from theodolite.measurement.pairs.file_pictures import FilePictures
from theodolite.measurement.pairs.items import item_id, picture_name
from theodolite.records.answers import AnswersConfig
from theodolite.records.asking import PromptStyle
from theodolite.records.errors import BadInput
from theodolite.records.progress import Progress, silent

NUM_NAMED = 3  # questions or rows that a notice names


@dataclass(eq=False)
class LoggedAsker:
    """An `Asker` that looks answers up in a log. `model` names the model, `style` is how its prompts were written.

    A question without a row in the log, or whose text names no choice or several, is unanswered. Raises `BadInput` if rows of one question
    are read as different choices, if the options that were shown are not the choices, or if no question has an answer in the log.
    """

    log: AnswerLog
    model: str
    style: PromptStyle
    notices: list[str] = field(default_factory=list)
    used: set[int] = field(default_factory=set)

    def ask(self, pictures: Pictures, questions: Sequence[Question], progress: Progress = silent) -> list[Answer]:
        """As `Asker` says."""
        assert isinstance(pictures, FilePictures)
        answers, missing, unread = [], [], []
        for question in questions:
            logged = self.rows_of(pictures, question)
            answers.append(self._answer(question, logged))
            self.used.update(each.row for each in logged)
            if not logged:
                missing.append(question)
            elif answers[-1].chosen is None:
                unread.append(logged[0])
        progress(len(questions), len(questions))
        if len(missing) == len(questions):
            raise BadInput(
                f"no row of {self.log.path} answers a question of these pairs; rows are joined by {self.log.key}, and the first row has "
                f"{_named(self.log.answers[0], self.log.key)}. Give the pairs that the log's questions were exported from"
            )
        self._notice(pictures, len(questions), missing, unread)
        return answers

    def rows_of(self, pictures: FilePictures, question: Question) -> list[LoggedAnswer]:
        """The log's rows for a question."""
        if self.log.key == "id":
            return self._by_key.get((item_id(pictures, question.picture, question.question, question.choices), ""), [])
        return self._by_picture(pictures).get((picture_name(pictures.entries[question.picture]), question.question.strip()), [])

    def describe(self) -> AnswersConfig:
        """The entry of the log in a record."""
        own = self.log.prompt is not None
        rows = {answer.row for answer in self.log.answers}
        return AnswersConfig(
            tool=self.log.tool,
            name=self.model,
            logged_name=self.log.model,
            log=self.log.path.name,
            log_sha256=self.log.sha256,
            key=self.log.key,
            prompt=self.style,
            prompt_sha256=prompt_hash(self.style) if own else foreign_prompt_hash(self.log.tool, self.style),
            num_logged=len(rows),
            num_used=len(self.used),
        )

    @cached_property
    def _by_key(self) -> Mapping[tuple[str, str], list[LoggedAnswer]]:
        """The rows by id, or by path and question as they stand in the log."""
        by_key: dict[tuple[str, str], list[LoggedAnswer]] = {}
        for answer in self.log.answers:
            key = (answer.id, "") if self.log.key == "id" else (answer.picture, answer.question)
            by_key.setdefault((str(key[0]), str(key[1])), []).append(answer)
        return by_key

    def _by_picture(self, pictures: FilePictures) -> Mapping[tuple[str, str], list[LoggedAnswer]]:
        """The rows by the picture's name and the question; a path in the log may have folders before that name."""
        if self._joined is None or self._joined_pictures is not pictures:
            names = {picture_name(entry) for entry in pictures.entries}
            self._joined_pictures = pictures
            self._joined = {}
            for (path, question), answers in self._by_key.items():
                parts = path.split("/")
                tails = ("/".join(parts[start:]) for start in range(len(parts)))
                name = next((tail for tail in tails if tail in names), None)
                if name is not None:
                    self._joined.setdefault((name, question), []).extend(answers)
        return self._joined

    _joined: dict[tuple[str, str], list[LoggedAnswer]] | None = None
    _joined_pictures: FilePictures | None = None

    def _answer(self, question: Question, logged: Sequence[LoggedAnswer]) -> Answer:
        choices = {self._choice(question, each): each for each in logged}
        if len(choices) > 1:
            (one, other) = list(choices.values())[:2]
            raise BadInput(
                f"{self.log.path}: rows {one.row} and {other.row} answer one question ({question.question}) differently, {one.text[:80]!r} "
                f"and {other.text[:80]!r}; leave one answer for each question"
            )
        chosen = next(iter(choices), None)
        if chosen is None:
            return UNANSWERED
        probabilities = np.zeros(len(question.choices))
        probabilities[chosen] = 1.0
        return Answer(probabilities, None)

    def _choice(self, question: Question, logged: LoggedAnswer) -> int | None:
        """Position of the choice that a row names: letters stand for the options that the row shows, else for the choices in order."""
        shown = _in_order(question.choices, logged.options)
        if shown is None:
            raise BadInput(
                f"{self.log.path}, row {logged.row}: its options are {', '.join(logged.options or ())[:200]}, the choices of "
                f"{question.question!r} are {', '.join(question.choices)[:200]}; give the pairs that the log's questions were exported from"
            )
        at = read_choice(logged.text, shown, lettered=self.style == "letters")
        return None if at is None else question.choices.index(shown[at])

    def _notice(self, pictures: FilePictures, num: int, missing: Sequence[Question], unread: Sequence[LoggedAnswer]) -> None:
        if missing:
            names = "; ".join(f"{pictures.entries[each.picture].name}: {each.question}" for each in missing[:NUM_NAMED])
            self.notices.append(f"{len(missing):,} of {num:,} questions have no row in the log and count as unanswered, such as {names}")
        if unread:
            texts = "; ".join(f"row {each.row}: {each.text[:60]!r}" for each in unread[:NUM_NAMED])
            self.notices.append(f"{len(unread):,} answers name no choice or several and count as unanswered, such as {texts}")
        idle = {answer.row: answer for answer in self.log.answers if answer.row not in self.used}
        if idle:
            rows = "; ".join(f"row {row} ({_named(answer, self.log.key)})" for row, answer in list(idle.items())[:NUM_NAMED])
            self.notices.append(f"{len(idle):,} rows of the log are of no question of these pairs, such as {rows}")


def _in_order(choices: tuple[str, ...], options: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """The choices in the order of the options that were shown; None if these are others. Tables turn a choice "1" into "1.0"."""
    if options is None:
        return choices
    for written in (str.strip, lambda text: re.sub(r"(?<=\d)\.0$", "", text.strip())):
        by_text = {written(choice): choice for choice in choices}
        if sorted(map(written, options)) == sorted(map(written, choices)) and len(by_text) == len(choices):
            return tuple(by_text[written(option)] for option in options)
    return None


def _named(answer: LoggedAnswer, key: str) -> str:
    return f"id {answer.id}" if key == "id" else f"picture {answer.picture}, question {answer.question!r}"
