"""Batches of a world's pictures of one size; the questions about a picture share its sequence and do not attend to each other."""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from theodolite.data.examples import ExampleSet
from theodolite.data.packing import pack
from theodolite.data.samples import Sample, join_conversations
from theodolite.models.construction.frontends import Pixels
from theodolite.models.conversation_tokenizer import IGNORE, QuestionTokenizer, TokenizedConversation, TokenizedQuestion
from theodolite.models.exported.grids import token_grid
from theodolite.models.pass_inputs import BatchPlan
from theodolite.records.errors import BadInput


class Collator:
    """Batches of examples, one row per picture: the picture's tokens once, then each question with its answer as a branch.

    A question attends to the picture and itself, so training several questions per picture equals training each on its own copy
    of the picture. Partners of the pictures (`ExampleSet.partners`) follow, with the same questions and no answers; `pair_positions`
    (2, pair) then says where both predict the first token of each question's answer, and `pair_moves` (pair) whether the truth is another
    one. Otherwise the batch equals that of `packing.PackingCollator`, but image processing is vectorised over pictures, hence faster.
    Raises `BadInput` if a picture's tokens do not form a square.
    """

    def __init__(self, examples: ExampleSet, tokenizer: QuestionTokenizer, pixels: Pixels, seed: int = 0) -> None:
        self.examples, self.tokenizer, self.pixels, self.seed = examples, tokenizer, pixels, seed
        side = isqrt(tokenizer.num_picture_tokens)
        if side**2 != tokenizer.num_picture_tokens:
            raise BadInput(f"a picture has {tokenizer.num_picture_tokens} tokens, which is no square; use a PackingCollator")
        self.grid = token_grid(side, side)

    def __call__(self, draws: Sequence[int | tuple[int, int]]) -> dict[str, Any]:
        """The batch of the examples at (epoch, index); a plain index means epoch 0."""
        visits = [(0, draw) if isinstance(draw, int) else draw for draw in draws]
        partners = self.examples.partners
        paired = (
            [] if partners is None else [(row, number) for row, (_, at) in enumerate(visits) if (number := partners.of(at)) is not None]
        )
        rows = [[self._sample(index)] for _, index in visits] + [[self._unanswered(visits[row][1])] for row, _ in paired]
        epochs = [[epoch] for epoch, _ in visits] + [[visits[row][0]] for row, _ in paired]
        processor = self.tokenizer.processor
        batch = pack(rows, epochs, processor.tokenizer.pad_token_id, processor.image_token_id, self.seed)
        pictures = self.examples.pictures[np.array([index for _, index in visits])]
        if partners is not None:
            batch["pair_positions"] = self._pair_positions(
                [(row, visits[row][1]) for row, _ in paired], len(visits), batch["input_ids"].shape[1]
            )
            batch["pair_moves"] = torch.tensor([move for _, number in paired for move in partners.moves[number]], dtype=torch.bool)
            pictures = np.concatenate([pictures, *(partners.pictures[number : number + 1] for _, number in paired)])
        return {**batch, "pixel_values": self.pixels(pictures), "plan": BatchPlan.of(batch)}

    def _tokenized(self, index: int) -> list[TokenizedQuestion]:
        questions = [self.tokenizer.tokenize(item.question, item.answer) for item in self.examples.questions[index]]
        if not questions:
            raise ValueError(f"example {index} has no questions; each picture needs one or more")
        return questions

    def _sample(self, index: int) -> Sample:
        return self._joined(index, [question.as_conversation() for question in self._tokenized(index)])

    def _unanswered(self, index: int) -> Sample:
        """The sample of a partner: an example's questions without their answers, with the same masks, since its key is the same."""
        prompts = [question.prefix + question.question for question in self._tokenized(index)]
        return self._joined(index, [TokenizedConversation(prompt, (IGNORE,) * len(prompt)) for prompt in prompts])

    def _joined(self, index: int, conversations: list[TokenizedConversation]) -> Sample:
        return join_conversations(self.examples.key(index), conversations, self.tokenizer.processor.image_token_id, (self.grid,))

    def _pair_positions(self, paired: Sequence[tuple[int, int]], first: int, width: int) -> Int[Tensor, "2 pair"]:
        """Where the first answer token of each question is predicted: flat positions in the picture's row and in its partner's.

        `paired` are row and example of the pictures with partners, whose rows are `first` and those that follow.
        """
        positions: tuple[list[int], list[int]] = ([], [])
        for partner_row, (row, index) in enumerate(paired, start=first):
            questions = self._tokenized(index)
            start, partner_start = (number * width + len(questions[0].prefix) - 1 for number in (row, partner_row))
            for question in questions:
                positions[0].append(start + len(question.question))
                positions[1].append(partner_start + len(question.question))
                start += len(question.question) + len(question.answer) - 1
                partner_start += len(question.question)
        return torch.tensor(positions, dtype=torch.long)
