"""Questions as token rows: a picture once, its questions as branches after it, their choices as twigs.

A branch attends to the picture and itself, a twig to its question too, so every choice gets the logits of a separate sequence. Where
the picture attends to the question (PaliGemma), nothing is shared and every choice is a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from theodolite.asking.answer import Question
from theodolite.asking.prompts import DEFAULT, write_prompt
from theodolite.models.conversation_tokenizer import QuestionTokenizer, TokenizedQuestion
from theodolite.models.device import to_device
from theodolite.models.exported.layout import NONE, Layout, mark_pictures
from theodolite.models.pass_inputs import PassInputs
from theodolite.records.asking import PromptStyle
from theodolite.records.errors import BadInput

# Per row, after the picture. Attention grows with the square of the row's length, so further questions go into another row.
MAX_BRANCH_TOKENS = 256
Sharing = Literal["picture", "question", "nothing"]
PICTURES_LAST = "the chat template puts text of the question or the answer before the end of the picture; put pictures first"


@dataclass
class TokenRow:
    """A sequence about one picture: its tokens with their branches and twigs, and the columns that predict answer tokens.

    `steps` are (question, choice, column, token): the token is scored by the log-probabilities at the column. `ends` maps each question
    to the column of its last token.
    """

    picture: int
    tokens: list[int]
    branch: list[int]
    twig: list[int]
    behind: int  # column at which the picture's trunk ends
    steps: list[tuple[int, int, int, int]] = field(default_factory=list)
    ends: dict[int, int] = field(default_factory=dict)

    def add(self, tokens: Sequence[int], branch: int, twig: int) -> int:
        """Appends tokens and returns the column of the first."""
        start = len(self.tokens)
        self.tokens += tokens
        self.branch += [branch] * len(tokens)
        self.twig += [twig] * len(tokens)
        return start


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows as tensors. `view.wanted` are the distinct flat positions that predict a token.

    For every answer token: the index of its position in `wanted` (`place`), its id (`token`) and its choice's number in the batch
    (`choice`). `answer_at` are the flat positions of each question's last token.
    """

    pictures: Int[Tensor, " row"]
    view: PassInputs
    place: Int[Tensor, " step"]
    token: Int[Tensor, " step"]
    choice: Int[Tensor, " step"]
    questions: tuple[int, ...]  # numbers, in order of first occurrence
    question_of_choice: Int[Tensor, " choice"]  # positions in `questions`
    row_of_question: Int[Tensor, " question"]
    answer_at: Int[Tensor, " question"]
    # Of each choice, the tokens that are scored, the end token among them; on the host.
    num_tokens: Int[Tensor, " choice"]
    # Of each question, whose choices are adjacent.
    num_choices: tuple[int, ...]

    @property
    def vision(self) -> Bool[Tensor, "row token"]:
        return self.view.layout.vision

    @property
    def text(self) -> Bool[Tensor, "row token"]:
        """Mask of the tokens of questions and answers: all that follow the picture."""
        behind = self.vision.flip(1).cumsum(dim=1).flip(1) == 0
        return self.view.layout.real & behind

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device; `pictures` stay on the host."""
        layout, wanted, suffix = self.view.layout, self.view.wanted, self.view.suffix
        view = replace(
            self.view,
            input_ids=to_device(self.view.input_ids, device),
            layout=(layout.pinned() if device.type == "cuda" else layout).to(device),
            wanted=None if wanted is None else to_device(wanted, device),
            suffix=None if suffix is None else to_device(suffix, device),
        )
        names = ("place", "token", "choice", "question_of_choice", "row_of_question", "answer_at")
        return replace(self, view=view, **{name: to_device(getattr(self, name), device) for name in names})


def rows_of(
    questions: Mapping[int, Question], question_tokenizer: QuestionTokenizer, sharing: Sharing, style: PromptStyle = DEFAULT
) -> Iterator[TokenRow]:
    """Rows of bounded length: numbered questions grouped by picture, pictures in order of first occurrence; prompts are of one style.

    Raises `BadInput` where the template writes text of an answer before the picture's end, or of a question that shares its picture.
    """
    by_picture: dict[int, list[int]] = {}
    for number, question in questions.items():
        by_picture.setdefault(question.picture, []).append(number)
    for picture, numbers in by_picture.items():
        row: TokenRow | None = None
        prefix: tuple[int, ...] | None = None
        for number in numbers:
            prompt = write_prompt(style, questions[number].question, questions[number].choices)
            choices = [question_tokenizer.tokenize(prompt.text, answer) for answer in prompt.answers]
            _refuse_split(choices)
            if sharing == "nothing":
                yield from _choice_rows(picture, number, choices)
                continue
            if sharing == "question":
                yield _question_row(picture, number, choices)
                continue
            # Questions that share a picture have all up to its end in common.
            prefix = prefix or choices[0].prefix
            if choices[0].prefix != prefix:
                raise BadInput(PICTURES_LAST)
            if row is None or len(row.tokens) - row.behind > MAX_BRANCH_TOKENS:
                if row is not None:
                    yield row
                row = _trunk_row(picture, prefix)
            _add_branch(row, number, choices)
        if row is not None:
            yield row


def _refuse_split(choices: Sequence[TokenizedQuestion]) -> None:
    if any(tokenized.prefix != choices[0].prefix or tokenized.question != choices[0].question for tokenized in choices):
        raise BadInput(PICTURES_LAST)


def _trunk_row(picture: int, tokens: Sequence[int]) -> TokenRow:
    return TokenRow(picture, list(tokens), [0] * len(tokens), [0] * len(tokens), len(tokens))


def _add_branch(row: TokenRow, number: int, choices: Sequence[TokenizedQuestion]) -> None:
    """Appends a question as the row's next branch, its choices as twigs."""
    branch = row.branch[-1] + 1
    stem = row.add(choices[0].question, branch, 0)
    end = stem + len(choices[0].question) - 1
    row.ends[number] = end
    for choice, tokenized in enumerate(choices):
        start = row.add(tokenized.answer[:-1], branch, choice + 1)  # the last token is only ever predicted
        row.steps += _steps(number, choice, tokenized, end, start)


def _question_row(picture: int, number: int, choices: Sequence[TokenizedQuestion]) -> TokenRow:
    """A row with one question in the trunk, its choices as branches."""
    row = _trunk_row(picture, choices[0].prefix + choices[0].question)
    row.behind = len(choices[0].prefix)
    end = len(row.tokens) - 1
    row.ends[number] = end
    for choice, tokenized in enumerate(choices):
        start = row.add(tokenized.answer[:-1], choice + 1, 0)
        row.steps += _steps(number, choice, tokenized, end, start)
    return row


def _choice_rows(picture: int, number: int, choices: Sequence[TokenizedQuestion]) -> Iterator[TokenRow]:
    """One row per choice, without branches."""
    for choice, tokenized in enumerate(choices):
        row = _trunk_row(picture, tokenized.prefix + tokenized.question)
        row.behind = len(tokenized.prefix)
        end = len(row.tokens) - 1
        row.ends[number] = end
        start = row.add(tokenized.answer[:-1], 0, 0)
        row.steps += _steps(number, choice, tokenized, end, start)
        yield row


def _steps(number: int, choice: int, tokenized: TokenizedQuestion, end: int, start: int) -> list[tuple[int, int, int, int]]:
    return [(number, choice, end if step == 0 else start + step - 1, token) for step, token in enumerate(tokenized.answer)]


def _padded(lists: Sequence[Sequence[int]], filler: int) -> Int[Tensor, "row width"]:
    """Lists of numbers as the rows of a tensor, filled up on the right."""
    values = np.full((len(lists), max(map(len, lists))), filler, dtype=np.int64)
    for row, own in enumerate(lists):
        values[row, : len(own)] = own
    return torch.from_numpy(values)


def collate_rows(rows: Sequence[TokenRow], pad: int, image: int, grids: Sequence[Int[Tensor, "token 2"]], suffix: bool) -> Batch:
    """Rows as a batch, padded on the right; each row holds one picture, whose tiles have these grids.

    `suffix`: mark the answers' tokens, to which a prefix language model attends causally.
    """
    ids = _padded([row.tokens for row in rows], pad)
    width = ids.shape[1]
    sample = _padded([[number] * len(row.tokens) for number, row in enumerate(rows)], NONE)
    branch, twig = _padded([row.branch for row in rows], 0), _padded([row.twig for row in rows], 0)
    picture, cell = mark_pictures((ids == image) & (sample != NONE), list(grids) * len(rows))
    behind = torch.zeros_like(sample, dtype=torch.bool)
    steps, choices, questions = [], {}, {}
    for number, row in enumerate(rows):
        for question, end in row.ends.items():
            questions.setdefault(question, (number, number * width + end))
            behind[number, end + 1 : len(row.tokens)] = True
        for question, choice, column, token in row.steps:
            key = choices.setdefault((question, choice), len(choices))
            steps.append((number * width + column, token, key))
    flat, token, choice = (torch.tensor(column) for column in zip(*steps, strict=True))
    wanted, place = torch.unique(flat, return_inverse=True)
    order = {question: position for position, question in enumerate(questions)}
    question_of_choice = torch.tensor([order[question] for question, _ in choices])
    layout = Layout(sample, branch, picture, cell, twig if bool(twig.any()) else None)
    return Batch(
        pictures=torch.tensor([row.picture for row in rows]),
        view=PassInputs(ids, layout, {}, None, wanted, behind if suffix else None),
        place=place,
        token=token,
        choice=choice,
        questions=tuple(questions),
        question_of_choice=question_of_choice,
        row_of_question=torch.tensor([row for row, _ in questions.values()]),
        answer_at=torch.tensor([at for _, at in questions.values()]),
        num_tokens=torch.bincount(choice, minlength=len(choices)),
        num_choices=tuple(torch.bincount(question_of_choice).tolist()),
    )
