"""Training examples from a manifest of pairs: pictures, questions and which of them move, as its rows say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.tiny_llava import WORLD
from theodolite.data.examples import MAX_QUESTIONS, ExampleSet, QuestionAnswer
from theodolite.data.gallery_examples import gallery_examples
from theodolite.records.errors import BadInput
from theodolite.worlds.manifest.read import read_manifest, write_manifest

SIZE = 64
SHAPES = ["round", "square"]


def pictures(folder: Path) -> np.ndarray:
    """Five pictures of the shapes world, as files."""
    drawn = WORLD.render(WORLD.sample(5, np.random.default_rng(0)), SIZE)
    for number, picture in enumerate(drawn):
        Image.fromarray(picture).save(folder / f"{number}.png")
    return np.asarray(drawn)


def row(scene: int, pictures: tuple[int, int], factor: str, question: str, answers: tuple[str, str], **more: object) -> dict[str, object]:
    change = {"from": "a", "to": "b"} if factor else {}
    names = {"picture": f"{pictures[0]}.png", "edited": f"{pictures[1]}.png"}
    asked = {"question": question, "choices": SHAPES, "answer_before": answers[0], "answer_after": answers[1]}
    return {"scene": scene, "factor": factor, **change, **names, **asked, **more}


ROWS = [
    row(0, (0, 1), "shape", "what is its shape?", ("round", "square")),
    row(1, (2, 3), "colour", "what is its shape?", ("square", "square")),
    row(0, (0, 1), "shape", "is it large?", ("square", "square")),
    {**row(0, (0, 0), "", "what is its shape?", ("round", "round"), question_after="which shape is it?"), "edited": None},
    row(0, (0, 4), "", "what is its shape?", ("round", "round")),
]


def read(folder: Path, rows: list[dict[str, object]]) -> ExampleSet:
    write_manifest(folder / "manifest.jsonl", rows)
    manifest = read_manifest(folder / "manifest.jsonl")
    assert not manifest.faults
    return gallery_examples(manifest.gallery, SIZE)


def test_pairs_of_a_manifest_are_examples_with_partners(tmp_path: Path) -> None:
    files = pictures(tmp_path)
    examples = read(tmp_path, ROWS)
    assert examples.partners is not None and examples.num_pictures == 2
    assert np.array_equal(examples.pictures, files[[0, 2, 0]])
    assert np.array_equal(examples.partners.pictures, files[[1, 3, 4]])
    assert examples.questions == (
        (QuestionAnswer("what is its shape?", "round"), QuestionAnswer("is it large?", "square")),
        (QuestionAnswer("what is its shape?", "square"),),
        (QuestionAnswer("what is its shape?", "round"),),
    )
    assert examples.partners.moves == ((True, False), (False,), (False,))
    assert examples.partners.factor == ("shape", "colour", "") and examples.partners.number.tolist() == [0, 1, 2]


def test_many_questions_are_parted_and_a_fraction_has_partners(tmp_path: Path) -> None:
    files = pictures(tmp_path)
    questions = [f"question {number}?" for number in range(MAX_QUESTIONS + 2)]
    rows = [
        row(0, (0, 1), "shape", question, ("round", "square" if at > MAX_QUESTIONS else "round")) for at, question in enumerate(questions)
    ]
    rows += ROWS[1:2]
    examples = read(tmp_path, rows)
    assert [len(items) for items in examples.questions] == [MAX_QUESTIONS, 2, 1]
    assert examples.partners is not None and examples.partners.moves == ((False,) * MAX_QUESTIONS, (False, True), (False,))
    part = gallery_examples(read_manifest(tmp_path / "manifest.jsonl").gallery, SIZE, pair_frac=2 / 3)
    assert part.partners is not None and len(part.partners.pictures) == len(part.partners.moves) == 2
    assert np.array_equal(part.pictures, examples.pictures)
    for at in range(3):
        number = part.partners.of(at)
        if number is not None:
            assert np.array_equal(part.partners.pictures[number], files[[1, 1, 3][at]])
            assert part.partners.moves[number] == examples.partners.moves[at]


def test_rows_about_one_picture_alone_are_no_pairs(tmp_path: Path) -> None:
    pictures(tmp_path)
    with pytest.raises(BadInput, match="no pair of two pictures"):
        read(tmp_path, ROWS[3:4])
