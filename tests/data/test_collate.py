"""A world's batches: several questions about one picture in one sequence, each as if it stood there alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from helpers.tiny_llava import examples, tiny_vlm
from theodolite.data.collate import Collator
from theodolite.data.examples import ExampleSet, QuestionAnswer
from theodolite.models.construction.frontends import Pixels
from theodolite.models.conversation_tokenizer import QuestionTokenizer
from theodolite.models.forward import run_forward
from theodolite.models.pass_inputs import whole_inputs
from theodolite.objectives.language import Language
from theodolite.records.errors import BadInput


def collator(processor: object, data: str | ExampleSet = "shape,row,letter") -> Collator:
    chosen = examples(data) if isinstance(data, str) else data
    return Collator(chosen, QuestionTokenizer(processor, 64), Pixels(processor.image_processor))  # type: ignore[attr-defined]


def asked(*items: tuple[tuple[str, str], ...]) -> ExampleSet:
    """The first pictures of the examples, with these questions and answers."""
    pictures = examples().pictures[: len(items)]
    return ExampleSet(pictures, tuple(tuple(QuestionAnswer(*item) for item in of_one) for of_one in items))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_packed_question_gets_the_logits_it_gets_alone(attention: str) -> None:
    model, processor = tiny_vlm()
    model.set_attn_implementation(attention)
    model.eval()
    make = collator(processor)
    batch = make([0, 1, 2])
    with torch.inference_mode():
        packed = run_forward(model, whole_inputs(model.config, batch)).logits
        alone = []
        for row in range(3):
            for item in make.examples.questions[row]:
                turn = make.tokenizer.tokenize(item.question, item.answer)
                ids = torch.tensor([turn.prefix + turn.question + turn.answer[:-1]])
                logits = model(input_ids=ids, pixel_values=batch["pixel_values"][row : row + 1]).logits[0]
                alone.append(logits[-len(turn.answer) :])
    torch.testing.assert_close(packed, torch.cat(alone), atol=1e-5, rtol=1e-5)


def test_an_earlier_answer_cannot_be_seen_from_a_later_question() -> None:
    model, processor = tiny_vlm()
    logits = []
    for shape in ("round", "square"):
        batch = collator(processor, asked((("what is its shape?", shape), ("what is its row?", "top"))))([0])
        with torch.inference_mode():
            logits.append(run_forward(model.eval(), whole_inputs(model.config, batch)).logits)
    torch.testing.assert_close(logits[0][2:], logits[1][2:], atol=0, rtol=0)
    assert not torch.allclose(logits[0][1], logits[1][1])  # the end token of the first answer does see that answer


def test_labels_are_the_answers_with_their_end_tokens_and_questions_are_branches() -> None:
    _, processor = tiny_vlm()
    make = collator(processor)
    batch = make([3])
    items = make.examples.questions[3]
    said = processor.tokenizer.decode(batch["labels"])
    assert said == " ".join(f"{item.answer.lower()} </s>" for item in items)
    turns = [make.tokenizer.tokenize(item.question, item.answer) for item in items]
    lengths = [len(turn.question) + len(turn.answer) - 1 for turn in turns]
    branches = [number for number, length in enumerate(lengths, start=1) for _ in range(length)]
    assert batch["branch"][0].tolist() == [0] * len(turns[0].prefix) + branches
    assert batch["input_ids"][0, batch["predicts"][::2]].tolist() == [turn.question[-1] for turn in turns]
    assert batch["cell"][0, :64].tolist() == [[row, column] for row in range(8) for column in range(8)]
    layout = {"sample", "branch", "picture", "cell", "rank", "dither", "plan"}
    assert set(batch) == {"input_ids", "predicts", "labels", "pixel_values"} | layout


def test_the_epoch_of_a_draw_decides_the_ranks_and_nothing_else() -> None:
    _, processor = tiny_vlm()
    make = collator(processor)
    first, second, again = make([(0, 3)]), make([(1, 3)]), make([3])
    assert all(torch.equal(first[name], again[name]) for name in first if name != "plan")
    assert {name for name in first if name != "plan" and not torch.equal(first[name], second[name])} == {"rank", "dither"}


def test_the_loss_of_a_batch_is_the_sum_of_its_rows_whatever_the_padding() -> None:
    model, processor = tiny_vlm()
    make, language = collator(processor), Language()
    with torch.no_grad():
        whole = language(model, make(range(6)), 0)["language"]
        parts = [language(model, make([index]), 0)["language"] for index in range(6)]
    assert whole.count == sum(part.count for part in parts) == 6 * 3 * 2
    torch.testing.assert_close(whole.total, torch.stack([part.total for part in parts]).sum(), atol=1e-4, rtol=1e-5)


def test_padding_leaves_no_nan_in_any_gradient() -> None:
    model, processor = tiny_vlm()
    short = (("what is its row?", "top"),)
    long = (("would you say that it is red?", "yes"), ("what is its row?", "top"))
    batch = collator(processor, asked(short, long))([0, 1])
    assert (batch["sample"] == -1).any()
    Language()(model, batch, 0)["language"].total.backward()
    gradients = [weight.grad for weight in model.parameters() if weight.requires_grad]
    assert all(gradient is not None and torch.isfinite(gradient).all() for gradient in gradients)


def test_pictures_without_questions_or_without_a_square_of_tokens_are_refused() -> None:
    _, processor = tiny_vlm()
    with pytest.raises(ValueError, match="example 1 has no questions"):
        collator(processor, replace(examples(), pictures=examples().pictures[:2], questions=(examples().questions[0], ())))([0, 1])
    with pytest.raises(BadInput, match="has 60 tokens, which is no square"):
        Collator(examples(), QuestionTokenizer(processor, 60), Pixels(processor.image_processor))
