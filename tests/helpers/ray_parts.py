"""Parts answered by two Ray workers, one of which is killed at a part, in a process of its own, as Ray leaves threads and warnings."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from helpers.part_by_part import InThisProcess
from theodolite.asking.answer import Answer, Question, answer_from_scores
from theodolite.asking.parts import PartedAsker
from theodolite.asking.ray_workers import RayWorkers, connect_ray
from theodolite.records.errors import BadInput
from theodolite.records.progress import Progress, silent


class Mean:
    """An asker that answers by the mean of the picture. Where `once` is a path, the process that gets there first is killed."""

    def __init__(self, once: Path | None = None) -> None:
        self.once = once

    def ask(self, pictures: np.ndarray, questions: Sequence[Question], progress: Progress = silent) -> list[Answer]:
        if any(question.question == "impossible?" for question in questions):
            raise BadInput("this cannot be answered")
        if self.once is not None and any(question.question == "question 13?" for question in questions) and not self.once.exists():
            self.once.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        return [answer_from_scores(-np.array([pictures[each.picture].mean() / 99, len(each.question) / 9])) for each in questions]


def loaded(once: Path) -> tuple[Mean, str]:
    return Mean(once), "facts"


def process_number(asker: Mean) -> int:
    return os.getpid()


def told(answers: Sequence[Answer]) -> list[list[float]]:
    return [answer.probabilities.tolist() for answer in answers if answer.probabilities is not None]


if __name__ == "__main__":
    pictures = np.random.default_rng(0).integers(0, 256, (10, 4, 4, 3), dtype=np.uint8)
    questions = [Question(number // 2, f"question {number}?", ("yes", "no")) for number in range(20)]
    ray = connect_ray(num_cpus=2, object_store_memory=100 * 2**20)
    workers = RayWorkers.start(ray, partial(loaded, Path(sys.argv[1])), 2, {"num_cpus": 1})
    outside = workers.call(process_number) != os.getpid() and workers.facts() == "facts"
    answers = PartedAsker(workers, size=3).ask(pictures, questions)
    error = ""
    try:
        PartedAsker(workers, size=3).ask(pictures, [Question(0, "impossible?", ("yes", "no"))])
    except BadInput as raised:
        error = str(raised)
    workers.stop()
    expected = PartedAsker(InThisProcess(Mean()), size=3).ask(pictures, questions)
    print(json.dumps({"outside": outside, "answers": told(answers), "expected": told(expected), "error": error}))
    ray.shutdown()
