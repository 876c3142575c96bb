"""Parts answered in this process while the next one is read: the same bits as one after the other, in order, and never a wait."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.family_askers import built
from helpers.part_by_part import InThisProcess
from theodolite.asking.answer import Answer, Question
from theodolite.asking.local import LocalAsker
from theodolite.asking.local_parts import LocalParts
from theodolite.asking.model_inputs import survey_size
from theodolite.asking.parts import PartedAsker
from theodolite.asking.reading import one_ahead
from theodolite.measurement.pairs.plan import plan_gallery
from theodolite.models.forward import run_forward
from theodolite.records.errors import BadInput
from theodolite.training.host_syncs import counted_host_syncs
from theodolite.worlds.limits import PixelLimits
from theodolite.worlds.manifest.read import read_manifest

QUESTIONS = [Question(number // 2, ("what colour", "what shape")[number % 2], ("red", "blue", "round")) for number in range(16)]


@pytest.fixture
def asker() -> LocalAsker:
    model, processor, _ = built("llava")
    return LocalAsker(model, processor, 2)


def pictures_of(kind: str, folder: Path) -> Any:
    side = survey_size(built("llava")[1].image_processor)
    arrays = np.random.default_rng(0).integers(0, 256, (8, side, side, 3), dtype=np.uint8)
    if kind == "array":
        return arrays
    for number, array in enumerate(arrays):
        Image.fromarray(array).resize((40 + number, 50)).save(folder / f"{number}.png")
    rows = [
        {"scene": pair, "factor": "colour", "from": "red", "to": "blue", "picture": f"{2 * pair}.png", "edited": f"{2 * pair + 1}.png",
         "question": "what colour", "choices": ["red", "blue"], "answer_before": "red", "answer_after": "blue",
         "query": "colour", "kind": "matched"}
        for pair in range(4)
    ]  # fmt: skip
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return plan_gallery(read_manifest(folder / "manifest.jsonl").gallery, 0, "given", PixelLimits()).pictures


def same(one: list[Answer], other: list[Answer]) -> bool:
    return [(a.total_logprob.tolist(), a.outside) for a in one] == [(b.total_logprob.tolist(), b.outside) for b in other]  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", ["array", "files"])
@pytest.mark.parametrize("size", [1, 3, 5, 512])
def test_the_same_bits_as_part_after_part(asker: LocalAsker, kind: str, size: int, tmp_path: Path) -> None:
    pictures = pictures_of(kind, tmp_path)
    seen: list[int] = []
    answers = PartedAsker(LocalParts(asker), size=size).ask(pictures, QUESTIONS, lambda done, total, note="": seen.append(done))
    assert same(answers, PartedAsker(InThisProcess(asker), size=size).ask(pictures, QUESTIONS))
    assert seen[-1] == len(QUESTIONS) and seen == sorted(seen)


def test_a_pass_waits_only_for_its_answers(asker: LocalAsker) -> None:
    pictures = pictures_of("array", Path())
    asker.ask(pictures, QUESTIONS)  # what is made once
    with counted_host_syncs("cpu") as syncs:
        asker.ask(pictures, QUESTIONS)
    num_batches = 4
    # On a host without a GPU the layout's own host tensors are "moved" to where they are, and rotary frequencies to where they are.
    waits = {line: number for line, number in syncs.items() if "layout.py" not in line and "modeling_llama.py" not in line}
    assert {line.split(":")[0] for line in waits} == {"cpu at asking/scored.py", "numpy at asking/scored.py"}, syncs
    assert sum(waits.values()) == 2 * num_batches


def test_a_number_of_features_that_the_text_has_no_places_for_is_refused(asker: LocalAsker) -> None:
    pictures = pictures_of("array", Path())
    (rows, *_) = asker.groups(pictures, QUESTIONS)
    batch = asker.collate(rows, pictures)
    outputs = asker.encode_batch(batch, pictures).take(torch.tensor([0])).outputs()
    with pytest.raises(ValueError, match="places for"), torch.no_grad():
        run_forward(asker.model, batch.view, outputs=outputs)


def test_items_are_made_by_a_thread_one_ahead_in_order() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(5):
            assert current_thread() is not main_thread()
            made.append(number)
            yield number

    for number in one_ahead(items()):
        assert made[-1] <= number + 1
        if number == 4:
            break
    assert made == list(range(5))


def test_an_error_of_the_reading_thread_is_raised_where_its_item_would_come() -> None:
    def items() -> Iterator[int]:
        yield 0
        raise BadInput("a picture changed")

    read = one_ahead(items())
    assert next(read) == 0
    with pytest.raises(BadInput, match="a picture changed"):
        next(read)
