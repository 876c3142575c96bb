"""Parts of a survey's questions answered by a model in this process, which waits for pictures only at the first part."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from theodolite.asking.answer import Answer, Question
from theodolite.asking.local import LocalAsker
from theodolite.asking.parts import QuestionPart
from theodolite.asking.pictures import Pictures
from theodolite.records.progress import Progress


@dataclass(frozen=True, eq=False)
class LocalParts:
    """A `PartAsker`: a thread takes the next part and reads its pictures while the model answers the part before."""

    asker: LocalAsker

    def answers(self, parts: Iterable[tuple[int, QuestionPart]], progress: Progress) -> Iterator[tuple[QuestionPart, int, list[Answer]]]:
        """As `PartAsker` says; parts come in their order."""
        unfinished: dict[int, tuple[QuestionPart, dict[int, Answer]]] = {}

        def asks() -> Iterator[tuple[int, Pictures, Sequence[Question]]]:
            for number, part in parts:
                unfinished[number] = (part, {})
                yield number, part.pictures, part.questions

        for number, more in self.asker.answered(asks()):
            part, answers = unfinished[number]
            answers |= more
            if len(answers) == len(part.questions):
                del unfinished[number]
                yield part, number, [answers[at] for at in range(len(answers))]
            else:
                progress(len(answers), len(part.questions))
