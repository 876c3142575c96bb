"""Parts of a survey's questions answered one after the other: what every other way must equal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from theodolite.asking.answer import Answer, Asker
from theodolite.asking.parts import QuestionPart
from theodolite.records.progress import Progress


@dataclass(frozen=True, eq=False)
class InThisProcess:
    """Parts one after the other, answered by an asker."""

    asker: Asker

    def answers(self, parts: Iterable[tuple[int, QuestionPart]], progress: Progress) -> Iterator[tuple[QuestionPart, int, list[Answer]]]:
        """As `PartAsker` says."""
        for number, part in parts:
            yield part, number, self.asker.ask(part.pictures, part.questions, progress)
