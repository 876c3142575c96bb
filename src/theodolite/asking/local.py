"""Asking a model that is here: each picture runs once, and its keys and values serve all questions and all choices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from transformers import DynamicCache

from theodolite.asking.answer import Answer, Ask, Tell, answer_from_scores
from theodolite.models.families import family_of
from theodolite.models.frontends import Pixels
from theodolite.models.prompts import Prompter, Turn

Attention = Literal["sdpa", "eager"]


class LocalAsker:
    """Answers of a Hugging Face VLM, as probabilities over whole choices.

    Every choice is scored by the log-probability of all its tokens with the end token, given picture and question.
    `batch` is the number of pictures that run at once. Raises `UnknownFamily` for a model that is not in the families table.
    """

    def __init__(self, model: Any, processor: Any, batch: int = 32) -> None:
        if batch < 1:
            raise ValueError(f"batch is {batch}; give 1 or more pictures at once")
        self.family = family_of(model.config)
        self.model, self.batch = model.eval(), batch
        self.prompter = Prompter(processor, num_picture_tokens=model.config.image_seq_length)
        self.pixels = Pixels(processor.image_processor)
        self.pad = processor.tokenizer.pad_token_id

    @torch.inference_mode()
    def ask(
        self, pictures: UInt8[np.ndarray, "picture height width 3"], asks: Sequence[Ask], tell: Tell = lambda done: None
    ) -> list[Answer]:
        """Answers in the order of `asks`. The batches depend on the asks alone, so a repeated call repeats to the bit."""
        by_picture: dict[int, list[int]] = {}
        for number, ask in enumerate(asks):
            by_picture.setdefault(ask.picture, []).append(number)
        answers: list[Answer | None] = [None] * len(asks)
        numbers = list(by_picture)
        for start in range(0, len(numbers), self.batch):
            chunk = numbers[start : start + self.batch]
            rows = [(row, number) for row, picture in enumerate(chunk) for number in by_picture[picture]]
            scored = self._score(pictures[np.asarray(chunk)], [(row, asks[number]) for row, number in rows])
            for (_, number), answer in zip(rows, scored, strict=True):
                answers[number] = answer
            tell(len(rows))
        return [answer for answer in answers if answer is not None]

    def _score(self, pictures: UInt8[np.ndarray, "picture height width 3"], asks: list[tuple[int, Ask]]) -> list[Answer]:
        turns = [(row, self.prompter.turn(ask.question, choice)) for row, ask in asks for choice in ask.choices]
        prefixes = {turn.prefix for _, turn in turns}
        if len(prefixes) != 1:
            raise ValueError("the chat template writes something of the question before the picture, so a picture cannot be shared")
        keys = self._picture_keys(pictures, prefixes.pop())
        scores = self._continue(keys, turns)
        answers, at = [], 0
        for _, ask in asks:
            answers.append(answer_from_scores(scores[at : at + len(ask.choices)]))
            at += len(ask.choices)
        return answers

    def _picture_keys(self, pictures: UInt8[np.ndarray, "picture height width 3"], prefix: Sequence[int]) -> DynamicCache:
        """Keys and values of everything up to the picture's end, one row a picture."""
        device = self.model.device
        ids = torch.tensor(prefix, device=device).expand(len(pictures), -1)
        pixel_values = self.pixels(pictures).to(device, self.model.dtype)
        mask = torch.ones_like(ids)
        out = self.model(input_ids=ids, pixel_values=pixel_values, attention_mask=mask, use_cache=True, logits_to_keep=1)
        keys: DynamicCache = out.past_key_values
        return keys

    def _continue(self, keys: DynamicCache, turns: list[tuple[int, Turn]]) -> np.ndarray:
        """Total log-probability in nats of each turn's answer tokens, after the picture of its row."""
        device = self.model.device
        prefix = keys.get_seq_length()
        # The last token is only ever predicted.
        texts = [turn.question + turn.answer[:-1] for _, turn in turns]
        width = max(len(text) for text in texts)
        ids = torch.full((len(turns), width), self.pad, device=device)
        mask = torch.zeros((len(turns), prefix + width), dtype=torch.long, device=device)
        mask[:, :prefix] = 1
        for row, text in enumerate(texts):
            ids[row, : len(text)] = torch.tensor(text, device=device)
            mask[row, prefix : prefix + len(text)] = 1
        keys.batch_select_indices(torch.tensor([row for row, _ in turns], device=device))
        positions = torch.arange(prefix, prefix + width, device=device).expand(len(turns), -1)
        logits = self.model(input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=keys, use_cache=True).logits
        return self._gather(logits, [turn for _, turn in turns]).cpu().numpy()

    @staticmethod
    def _gather(logits: Tensor, turns: list[Turn]) -> Tensor:
        """Sum of log-probabilities of each answer's tokens at the positions that predict them."""
        longest = max(len(turn.answer) for turn in turns)
        at = torch.zeros((len(turns), longest), dtype=torch.long)
        tokens, real = torch.zeros_like(at), torch.zeros_like(at, dtype=torch.bool)
        for row, turn in enumerate(turns):
            steps = len(turn.answer)
            at[row, :steps] = torch.arange(steps) + len(turn.question) - 1
            tokens[row, :steps] = torch.tensor(turn.answer)
            real[row, :steps] = True
        at, tokens, real = (value.to(logits.device) for value in (at, tokens, real))
        rows = torch.arange(len(turns), device=logits.device)[:, None]
        chosen = logits[rows, at].float().log_softmax(-1).gather(-1, tokens[..., None]).squeeze(-1)
        return chosen.double().masked_fill(~real, 0.0).sum(-1)
