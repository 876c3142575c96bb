"""Packed questions: several about one picture in one sequence, each as if it stood there alone."""

from __future__ import annotations

import pytest
import torch

from small import examples, tiny_vlm
from theodolite.data.collate import Collator, pack
from theodolite.models.frontends import Pixels
from theodolite.models.prompts import Prompter
from theodolite.objectives.language import Language


def collator(processor: object, policy: str = "shape,row,letter") -> Collator:
    return Collator(examples(policy), Prompter(processor, 64), Pixels(processor.image_processor))  # type: ignore[attr-defined]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_packed_question_gets_the_logits_it_gets_alone(attention: str) -> None:
    model, processor = tiny_vlm()
    model.set_attn_implementation(attention)
    model.eval()
    make = collator(processor)
    batch = make([0, 1, 2])
    with torch.inference_mode():
        names = ("input_ids", "pixel_values", "attention_mask", "position_ids")
        packed = model(**{name: batch[name] for name in names}, use_cache=False).logits.flatten(0, 1)[batch["predicts"]]
        alone = []
        for row in range(3):
            for item in make.examples.asked[row]:
                turn = make.prompter.turn(item.question, item.answer)
                ids = torch.tensor([turn.prefix + turn.question + turn.answer[:-1]])
                logits = model(input_ids=ids, pixel_values=batch["pixel_values"][row : row + 1]).logits[0]
                alone.append(logits[-len(turn.answer) :])
    torch.testing.assert_close(packed, torch.cat(alone), atol=1e-5, rtol=1e-5)


def test_an_earlier_answer_cannot_be_seen_from_a_later_question() -> None:
    model, processor = tiny_vlm()
    prompter = Prompter(processor, 64)
    one = [prompter.turn("what is its shape?", "round"), prompter.turn("what is its row?", "top")]
    other = [prompter.turn("what is its shape?", "square"), prompter.turn("what is its row?", "top")]
    picture = torch.zeros(1, 3, 64, 64)
    logits = []
    for turns in (one, other):
        batch = pack([turns], pad=0)
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "position_ids")}
        with torch.inference_mode():
            logits.append(model.eval()(**inputs, pixel_values=picture, use_cache=False).logits[0][batch["predicts"]])
    torch.testing.assert_close(logits[0][2:], logits[1][2:], atol=0, rtol=0)
    assert not torch.allclose(logits[0][1], logits[1][1])  # the end token of the first answer does see that answer


def test_labels_are_the_answers_with_their_end_tokens() -> None:
    _, processor = tiny_vlm()
    make = collator(processor)
    batch = make([3])
    said = processor.tokenizer.decode(batch["labels"])
    assert said == " ".join(f"{item.answer.lower()} </s>" for item in make.examples.asked[3])
    positions = batch["position_ids"][0]
    assert positions[:64].tolist() == list(range(64))
    assert (positions == 64).sum() == len(make.examples.asked[3])  # each question goes on where the picture ends


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
    prompter = Prompter(processor, 64)
    short = [prompter.turn("what is its row?", "top")]
    long = [prompter.turn("would you say that it is red?", "yes"), prompter.turn("what is its row?", "top")]
    batch = {**pack([short, long], pad=0), "pixel_values": torch.zeros(2, 3, 64, 64)}
    Language()(model, batch, 0)["language"].total.backward()
    gradients = [weight.grad for weight in model.parameters() if weight.requires_grad]
    assert all(gradient is not None and torch.isfinite(gradient).all() for gradient in gradients)


def test_rows_without_questions_or_without_a_common_prefix_are_refused() -> None:
    _, processor = tiny_vlm()
    with pytest.raises(ValueError, match="one question or more"):
        pack([[]], pad=0)
    turn = Prompter(processor, 64).turn("what is its row?", "top")
    with pytest.raises(ValueError, match="same tokens up to the end of the picture"):
        pack([[turn, Prompter(processor, 32).turn("what is its row?", "top")]], pad=0)
