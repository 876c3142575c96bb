"""Questions about pictures as rows of tokens: a picture once, its questions as branches behind it, their choices as twigs.

A branch sees the picture and itself, a twig its question too, so that every choice gets the logits of a sequence of its own. Where the
picture sees the question (PaliGemma), nothing can be shared and every choice is a row of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from theodolite.asking.answer import Question
from theodolite.models.exported.layout import NONE, Layout, mark_pictures
from theodolite.models.pass_inputs import PassInputs
from theodolite.models.question_tokenizer import QuestionTokenizer, TokenizedQuestion

# Of a row of questions about one picture; attention grows with the square of its length, so more questions get another row.
MAX_BRANCH_TOKENS = 256
Sharing = Literal["picture", "question", "nothing"]


@dataclass
class TokenRow:
    """Tokens about one picture, each with its branch and twig, and where the answer tokens of its asks are predicted.

    `steps` are (ask, choice, column, token): the token whose log-probability is read off at the column. `ends` maps each ask to the
    column of its question's last token. `text` counts the tokens behind the picture.
    """

    picture: int
    tokens: list[int]
    branch: list[int]
    twig: list[int]
    behind: int  # column at which the picture's trunk ends
    steps: list[tuple[int, int, int, int]] = field(default_factory=list)
    ends: dict[int, int] = field(default_factory=dict)

    def add(self, tokens: Sequence[int], branch: int, twig: int) -> int:
        """Puts tokens behind the row; gives the column of the first."""
        start = len(self.tokens)
        self.tokens += tokens
        self.branch += [branch] * len(tokens)
        self.twig += [twig] * len(tokens)
        return start


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows as tensors. `view.wanted` are the places at which something is predicted, each once.

    For every answer token: its place among those (`place`), the token, and the number of its choice (`choice`), counted over the batch;
    for every choice its ask. `answer_at` are the flat places of each ask's last question token. `suffix` marks what a prefix language
    model attends to causally.
    """

    pictures: Int[Tensor, " row"]
    view: PassInputs
    place: Int[Tensor, " step"]
    token: Int[Tensor, " step"]
    choice: Int[Tensor, " step"]
    asks: tuple[int, ...]  # in order of first occurrence
    ask_of_choice: Int[Tensor, " choice"]  # positions in `asks`
    row_of_ask: Int[Tensor, " ask"]
    answer_at: Int[Tensor, " ask"]

    @property
    def vision(self) -> Bool[Tensor, "row token"]:
        return self.view.layout.vision

    @property
    def text(self) -> Bool[Tensor, "row token"]:
        """Questions and answers: what stands behind the picture."""
        behind = self.vision.flip(1).cumsum(dim=1).flip(1) == 0
        return self.view.layout.real & behind

    def to(self, device: torch.device) -> Batch:
        """On another device."""
        layout = self.view.layout
        parts = (layout.sample, layout.branch, layout.picture, layout.cell, layout.twig)
        moved = Layout(*(None if part is None else part.to(device) for part in parts))
        wanted, suffix = self.view.wanted, self.view.suffix
        view = replace(
            self.view,
            input_ids=self.view.input_ids.to(device),
            layout=moved,
            wanted=None if wanted is None else wanted.to(device),
            suffix=None if suffix is None else suffix.to(device),
        )
        names = ("place", "token", "choice", "ask_of_choice", "row_of_ask", "answer_at")
        return replace(self, view=view, **{name: getattr(self, name).to(device) for name in names})


def rows_of(asks: Sequence[Question], question_tokenizer: QuestionTokenizer, sharing: Sharing) -> Iterator[TokenRow]:
    """The asks by picture, in the order in which pictures first occur, in rows of bounded length."""
    by_picture: dict[int, list[int]] = {}
    for number, ask in enumerate(asks):
        by_picture.setdefault(ask.picture, []).append(number)
    for picture, numbers in by_picture.items():
        row: TokenRow | None = None
        for number in numbers:
            turns = [question_tokenizer.tokenize(asks[number].question, choice) for choice in asks[number].choices]
            _refuse_split(turns)
            if sharing == "nothing":
                yield from _apart(picture, number, turns)
                continue
            if sharing == "question":
                yield _question_row(picture, number, turns)
                continue
            if row is None or len(row.tokens) - row.behind > MAX_BRANCH_TOKENS:
                if row is not None:
                    yield row
                row = _trunk(picture, turns[0].prefix)
            _branch(row, number, turns)
        if row is not None:
            yield row


def _refuse_split(turns: Sequence[TokenizedQuestion]) -> None:
    if any(turn.prefix != turns[0].prefix or turn.question != turns[0].question for turn in turns):
        raise ValueError("the chat template writes something of the question or the answer before the picture's end")


def _trunk(picture: int, tokens: Sequence[int]) -> TokenRow:
    return TokenRow(picture, list(tokens), [0] * len(tokens), [0] * len(tokens), len(tokens))


def _branch(row: TokenRow, number: int, turns: Sequence[TokenizedQuestion]) -> None:
    """A question as the row's next branch, its choices as twigs."""
    branch = row.branch[-1] + 1
    stem = row.add(turns[0].question, branch, 0)
    end = stem + len(turns[0].question) - 1
    row.ends[number] = end
    for choice, turn in enumerate(turns):
        start = row.add(turn.answer[:-1], branch, choice + 1)  # the last token is only ever predicted
        row.steps += _steps(number, choice, turn, end, start)


def _question_row(picture: int, number: int, turns: Sequence[TokenizedQuestion]) -> TokenRow:
    """One question in the trunk, its choices as branches."""
    row = _trunk(picture, turns[0].prefix + turns[0].question)
    row.behind = len(turns[0].prefix)
    end = len(row.tokens) - 1
    row.ends[number] = end
    for choice, turn in enumerate(turns):
        start = row.add(turn.answer[:-1], choice + 1, 0)
        row.steps += _steps(number, choice, turn, end, start)
    return row


def _apart(picture: int, number: int, turns: Sequence[TokenizedQuestion]) -> Iterator[TokenRow]:
    """One row a choice, without branches."""
    for choice, turn in enumerate(turns):
        row = _trunk(picture, turn.prefix + turn.question)
        row.behind = len(turn.prefix)
        end = len(row.tokens) - 1
        row.ends[number] = end
        start = row.add(turn.answer[:-1], 0, 0)
        row.steps += _steps(number, choice, turn, end, start)
        yield row


def _steps(number: int, choice: int, turn: TokenizedQuestion, end: int, start: int) -> list[tuple[int, int, int, int]]:
    return [(number, choice, end if step == 0 else start + step - 1, token) for step, token in enumerate(turn.answer)]


def collate_rows(rows: Sequence[TokenRow], pad: int, image: int, grids: Sequence[Int[Tensor, "token 2"]], suffix: bool) -> Batch:
    """Rows as a batch, padded on the right; each row holds one picture, whose tiles have these grids.

    `suffix`: mark the answers' tokens as what a prefix language model attends to causally.
    """
    width = max(len(row.tokens) for row in rows)
    ids = torch.tensor([row.tokens + [pad] * (width - len(row.tokens)) for row in rows])
    sample = torch.tensor([[number] * len(row.tokens) + [NONE] * (width - len(row.tokens)) for number, row in enumerate(rows)])
    branch = torch.tensor([row.branch + [0] * (width - len(row.branch)) for row in rows])
    twig = torch.tensor([row.twig + [0] * (width - len(row.twig)) for row in rows])
    picture, cell = mark_pictures((ids == image) & (sample != NONE), list(grids) * len(rows))
    behind = torch.zeros_like(sample, dtype=torch.bool)
    steps, choices, asks = [], {}, {}
    for number, row in enumerate(rows):
        for ask, end in row.ends.items():
            asks.setdefault(ask, (number, number * width + end))
            behind[number, end + 1 : len(row.tokens)] = True
        for ask, choice, column, token in row.steps:
            key = choices.setdefault((ask, choice), len(choices))
            steps.append((number * width + column, token, key))
    flat, token, choice = (torch.tensor(column) for column in zip(*steps, strict=True))
    wanted, place = torch.unique(flat, return_inverse=True)
    order = {ask: position for position, ask in enumerate(asks)}
    layout = Layout(sample, branch, picture, cell, twig if bool(twig.any()) else None)
    return Batch(
        pictures=torch.tensor([row.picture for row in rows]),
        view=PassInputs(ids, layout, {}, None, wanted, behind if suffix else None),
        place=place,
        token=token,
        choice=choice,
        asks=tuple(asks),
        ask_of_choice=torch.tensor([order[ask] for ask, _ in choices]),
        row_of_ask=torch.tensor([row for row, _ in asks.values()]),
        answer_at=torch.tensor([at for _, at in asks.values()]),
    )
