"""A tiny model of a family with its processor and pictures, and questions to ask of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from PIL import Image

from helpers.tiny_families import tiny
from theodolite.asking.answer import Question
from theodolite.asking.model_inputs import survey_size
from theodolite.models.families import family_of
from theodolite.models.pictures import PictureReader
from theodolite.models.processor import ProcessorParts

ASKS = [
    Question(picture, question, choices)
    for picture in (1, 0)
    for question, choices in (("what colour", ("red", "blue")), ("what shape a b c", ("round", "a b c", "d e")), ("yes no", ("yes", "no")))
]


@cache
def pictures(size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (2, *size, 3), dtype=np.uint8)


def built(name: str) -> tuple[Any, ProcessorParts, np.ndarray]:
    model, image_processor, tokenizer = tiny(name)
    side = min(survey_size(image_processor), 56)
    return model, ProcessorParts(image_processor, tokenizer, model.config), pictures((side, side))


def alone(
    model: Any, processor: ProcessorParts, pool: Sequence[np.ndarray] | Mapping[int, np.ndarray] | np.ndarray, ask: Question
) -> np.ndarray:
    """Log-probability in nats of every choice, each by the library's own forward on a sequence of its own."""
    family = family_of(model.config)
    reader = PictureReader(processor.image_processor, processor.tokenizer, model.config)
    read = reader.read(Image.fromarray(pool[ask.picture]))
    scores = []
    for choice in ask.choices:
        said = []
        for message in (
            [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": ask.question}]}],
            [
                {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": ask.question}]},
                {"role": "assistant", "content": [{"type": "text", "text": choice}]},
            ],
        ):
            text = processor.apply_chat_template(message, add_generation_prompt=len(message) == 1, tokenize=False)
            said.append(processor.tokenizer(reader.expand(text, [read]), add_special_tokens=False)["input_ids"])
        prompt, whole = said
        ids = torch.tensor([whole])
        extra: dict[str, Any] = {}
        if family.typed_tokens == "picture":
            extra[str(family.token_types)] = (ids == model.config.image_token_id).long()
        if family.typed_tokens == "answer":
            extra[str(family.token_types)] = (torch.arange(len(whole)) >= len(prompt)).long()[None]
        with torch.no_grad():
            logits = model(input_ids=ids, **reader.join([read]), **extra, use_cache=False).logits[0]
        answer = torch.tensor(whole[len(prompt) :])
        scores.append(float(logits[len(prompt) - 1 : -1].log_softmax(-1).gather(-1, answer[:, None]).sum()))
    return np.array(scores)
