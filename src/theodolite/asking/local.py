"""Asking a model that is here: each picture runs once for its questions, and each question once for its choices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from theodolite.asking.answer import Answer, Ask, Tell, answer_from_scores
from theodolite.models.attention import refuse_dropped_masks
from theodolite.models.families import family_of, image_token_id
from theodolite.models.frontends import Pixels
from theodolite.models.grids import picture_grids
from theodolite.models.prompts import Prompter, Turn
from theodolite.models.tree import Layout, Picture, Segment, lay_out
from theodolite.models.vlm import adaptation_of
from theodolite.records.errors import BadInput

# A row of attention grows with the square of its length, so a picture with many questions gets several rows.
MAX_BRANCH_TOKENS = 256
# Families whose pictures are all of one size and one grid.
ASKED = ("llava",)


@dataclass
class Row:
    """One picture with some of the questions about it: branching segments, and where each ask's choices stand among them."""

    picture: int
    segments: list[Segment]
    # The ask's number, its turns (one a choice), the segment of its question, and the segment of each choice (None: nothing to feed).
    asks: list[tuple[int, list[Turn], int, list[int | None]]] = field(default_factory=list)

    @property
    def num_branch_tokens(self) -> int:
        return sum(len(segment.tokens) for segment in self.segments[1:])


class LocalAsker:
    """Answers of a Hugging Face VLM, as probabilities over whole choices.

    Every choice is scored by the log-probability of all its tokens with the end token, given picture and question. A model that is adapted
    (mixed attention, 2D positions) is asked as it was trained. `batch` is the number of pictures that run at once. Raises `UnknownFamily`
    for a model that is not in the families table, and `BadInput` for an attention back end that would drop the mask.
    """

    def __init__(self, model: Any, processor: Any, batch: int = 32) -> None:
        if batch < 1:
            raise ValueError(f"batch is {batch}; give 1 or more pictures at once")
        family = family_of(model.config)
        if not family.shares_prefix:
            raise BadInput(f"in {model.config.model_type} the picture sees the question, so that questions cannot share it")
        if family.name not in ASKED:
            raise BadInput(f"models of type {model.config.model_type!r} cannot be asked yet; give one of {', '.join(ASKED)}")
        try:
            refuse_dropped_masks(model.config.get_text_config()._attn_implementation)
        except ValueError as error:
            raise BadInput(str(error)) from error
        self.model, self.batch = model.eval(), batch
        self.prompter = Prompter(processor, num_picture_tokens=model.config.image_seq_length)
        self.pixels = Pixels(processor.image_processor)
        self.pad = processor.tokenizer.pad_token_id

    @torch.inference_mode()
    def ask(
        self, pictures: UInt8[np.ndarray, "picture height width 3"], asks: Sequence[Ask], tell: Tell = lambda done: None
    ) -> list[Answer]:
        """Answers in the order of `asks`. The batches depend on the asks alone, so a repeated call repeats to the bit."""
        answers: dict[int, Answer] = {}
        rows = list(self._rows(asks))
        for start in range(0, len(rows), self.batch):
            part = rows[start : start + self.batch]
            scored = self._score(pictures[np.array([row.picture for row in part])], part)
            answers |= scored
            tell(len(scored))
        return [answers[number] for number in range(len(asks))]

    def _rows(self, asks: Sequence[Ask]) -> Iterator[Row]:
        """The asks by picture, in the order in which pictures first occur, in rows of bounded length."""
        by_picture: dict[int, list[int]] = {}
        for number, ask in enumerate(asks):
            by_picture.setdefault(ask.picture, []).append(number)
        for picture, numbers in by_picture.items():
            row: Row | None = None
            for number in numbers:
                turns = [self.prompter.turn(asks[number].question, choice) for choice in asks[number].choices]
                if row is None or row.num_branch_tokens > MAX_BRANCH_TOKENS:
                    if row is not None:
                        yield row
                    row = Row(picture, [Segment(turns[0].prefix)])
                self._branch(row, number, turns)
            if row is not None:
                yield row

    def _branch(self, row: Row, number: int, turns: list[Turn]) -> None:
        if any(turn.prefix != row.segments[0].tokens or turn.question != turns[0].question for turn in turns):
            raise ValueError("the chat template writes something of the question or the answer before the picture's end")
        question = len(row.segments)
        row.segments.append(Segment(turns[0].question, 0))
        choices: list[int | None] = []
        for turn in turns:
            # The last token is only ever predicted.
            fed = turn.answer[:-1]
            choices.append(len(row.segments) if fed else None)
            if fed:
                row.segments.append(Segment(fed, question))
        row.asks.append((number, turns, question, choices))

    def _score(self, pictures: UInt8[np.ndarray, "picture height width 3"], rows: Sequence[Row]) -> dict[int, Answer]:
        device = self.model.device
        pixels = self.pixels(pictures)
        adaptation = adaptation_of(self.model.config)
        picture = None if adaptation.is_stock else self._picture(pixels)
        layout = lay_out([row.segments for row in rows], self.pad, picture, adaptation)
        wanted = _wanted(layout, rows)
        # Logits only at columns where some row predicts an answer token.
        columns, position = torch.unique(torch.tensor([column for _, column, _ in wanted]), return_inverse=True)
        inputs = {name: value.to(device) for name, value in layout.inputs().items()}
        inputs["attention_mask"] = _as_dtype(inputs["attention_mask"], self.model.dtype)
        logits = self.model(
            **inputs,
            pixel_values=pixels.to(device, self.model.dtype),
            logits_to_keep=columns.to(device),
            use_cache=False,
        ).logits
        at = torch.tensor([row for row, _, _ in wanted], device=device), position.to(device)
        tokens = torch.tensor([token for _, _, token in wanted], device=device)
        steps = logits[at].float().log_softmax(-1).gather(-1, tokens[:, None])[:, 0].double().cpu().numpy()
        return _answers(rows, steps)

    def _picture(self, pixels: Float[Tensor, "picture 3 height width"]) -> Picture:
        """Pictures are of one size, so the places of one's tokens are those of all."""
        return Picture(image_token_id(self.model.config), picture_grids(self.model.config, {"pixel_values": pixels})[0])


def _wanted(layout: Layout, rows: Sequence[Row]) -> list[tuple[int, int, int]]:
    """(row, column, token) of every answer token: the column whose logits predict it."""
    wanted = []
    for number, row in enumerate(rows):
        starts = layout.starts[number]
        for _, turns, question, choices in row.asks:
            last = starts[question] + len(row.segments[question].tokens) - 1
            for turn, choice in zip(turns, choices, strict=True):
                for step, token in enumerate(turn.answer):
                    column = last if step == 0 or choice is None else starts[choice] + step - 1
                    wanted.append((number, column, token))
    return wanted


def _answers(rows: Sequence[Row], steps: Float[np.ndarray, " token"]) -> dict[int, Answer]:
    """Answers by the number of their ask, from the log-probabilities of all answer tokens in the order of `_wanted`."""
    answers, at = {}, 0
    for row in rows:
        for number, turns, _, _ in row.asks:
            scores = []
            for turn in turns:
                scores.append(float(steps[at : at + len(turn.answer)].sum()))
                at += len(turn.answer)
            answers[number] = answer_from_scores(np.array(scores))
    return answers


def _as_dtype(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """The additive mask in the model's precision, its lowest value kept finite."""
    return mask.clamp(min=torch.finfo(dtype).min).to(dtype)
