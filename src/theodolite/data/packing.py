"""Batches: samples packed into rows without attending to each other, with the layout of their pictures and the draws of their masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from theodolite.data.drops import Unfit
from theodolite.data.epochs import EpochExample
from theodolite.data.samples import Sample, SampleMaker, TooLong
from theodolite.data.sources import Malformed, TrainingExample
from theodolite.models.conversation_tokenizer import IGNORE
from theodolite.models.encoder_inputs import encoder_inputs
from theodolite.models.exported.attention import FLEX, FLEX_BLOCK
from theodolite.models.exported.layout import NONE, mark_pictures
from theodolite.models.families import image_token_id
from theodolite.models.pass_inputs import BatchPlan
from theodolite.models.pictures import PictureReader
from theodolite.objectives.masking import draw_ranks
from theodolite.records.errors import BadInput
from theodolite.worlds.decoding import NOTES

# Default limit on a sample's tokens: the paper's context length.
MAX_LENGTH = 2048


class PackingCollator:
    """Batches of examples: several per row of at most `row_length` tokens, or one per padded row if that is None.

    A batch holds, as (row, token): `input_ids`, `sample`, `branch`, `picture`, `cell` (the fields of `layout.Layout`), `rank` and
    `dither` (see `objectives.masking`); `predicts`, the flat positions that predict answer tokens, and these tokens as `labels`; `plan`, a
    `BatchPlan`; the pixel inputs under the model's own names, if there are pictures; `dropped`, the (key, reason) pairs of dropped
    examples, `num_seen`, and `noted`, the number of pictures by note of the decoder (`decoding.NOTES`, in order). A sample does not
    depend on its neighbours, the batch, the worker or the process.

    Widths are multiples of `pad_to_multiple_of`; None is 128 for a model with flex attention, else 1.

    Raises `BadInput` for a tokenizer without a distinct pad token, and for `row_length` below `max_length`.
    """

    def __init__(
        self,
        tokenizer: Any,
        reader: PictureReader,
        *,
        max_length: int,
        row_length: int | None = None,
        seed: int = 0,
        chat_template: str | None = None,
        too_long: TooLong = "drop",
        pad_to_multiple_of: int | None = None,
    ) -> None:
        if tokenizer.pad_token_id in (None, image_token_id(reader.config)):
            problem = "no pad token" if tokenizer.pad_token_id is None else f"the image token {tokenizer.pad_token!r} for its pad token"
            raise BadInput(f"the tokenizer has {problem}; set tokenizer.pad_token, for example to its end token")
        if row_length is not None and row_length < max_length:
            raise BadInput(f"rows of {row_length} tokens cannot hold samples of {max_length}; give row_length {max_length} or more")
        self.maker = SampleMaker(tokenizer, reader, max_length, chat_template, too_long)
        self.tokenizer, self.reader, self.chat_template = tokenizer, reader, chat_template
        self.row_length, self.seed, self.pad = row_length, seed, int(tokenizer.pad_token_id)
        is_flex = reader.config.get_text_config()._attn_implementation == FLEX
        self.pad_to_multiple_of = pad_to_multiple_of or (FLEX_BLOCK if is_flex else 1)
        # The processor that it was made of, if it was: a trainer saves it beside the model.
        self.processor: Any = None

    @classmethod
    def of_processor(cls, processor: Any, config: Any, *, max_length: int = MAX_LENGTH, **options: Any) -> PackingCollator:
        """The collator for a model's processor and configuration; `options` are those of the constructor."""
        reader = PictureReader(processor.image_processor, processor.tokenizer, config)
        template = getattr(processor, "chat_template", None)
        collator = cls(processor.tokenizer, reader, max_length=max_length, **{"chat_template": template, **options})
        collator.processor = processor
        return collator

    def __call__(self, examples: Sequence[EpochExample | TrainingExample | Malformed]) -> dict[str, Any]:
        samples: list[Sample] = []
        epochs: list[int] = []
        dropped: list[tuple[str, str]] = []
        for visit in examples:
            example, epoch = (visit.example, visit.epoch) if isinstance(visit, EpochExample) else (visit, 0)
            try:
                samples.append(self._sample(example))
                epochs.append(epoch)
            except Unfit as reason:
                dropped.append((example.key, str(reason)))
        lengths = [len(sample.tokens) for sample in samples]
        rows = [[number] for number in range(len(samples))] if self.row_length is None else first_fit(lengths, self.row_length)
        placed = [[samples[number] for number in row] for row in rows]
        batch = pack(
            placed,
            [[epochs[number] for number in row] for row in rows],
            self.pad,
            self.maker.conversation_tokenizer.image_token_id,
            self.seed,
            self.pad_to_multiple_of,
        )
        pixels = self.reader.join([picture for row in placed for sample in row for picture in sample.processed])
        return {
            **batch,
            **pixels,
            "plan": BatchPlan.of(batch, self.pad_to_multiple_of, encoder_inputs(self.reader.config, pixels)).ahead(),
            "dropped": dropped,
            "num_seen": len(examples),
            "noted": [sum(sample.notes.count(note) for sample in samples) for note in NOTES],
        }

    def _sample(self, example: TrainingExample | Malformed) -> Sample:
        if isinstance(example, Malformed):
            raise Unfit("malformed", example.problem)
        return self.maker.make(example)


def first_fit(lengths: Sequence[int], row_length: int) -> list[list[int]]:
    """Indices of samples by row, each in the first row with room for it. Raises `ValueError` for a sample longer than a row."""
    if max(lengths, default=0) > row_length:
        raise ValueError(f"a sample of {max(lengths)} tokens fits in no row of {row_length}; truncate it before packing")
    rows: list[list[int]] = []
    room: list[int] = []
    for number, length in enumerate(lengths):
        row = next((row for row, free in enumerate(room) if free >= length), None)
        if row is None:
            row = len(rows)
            rows.append([])
            room.append(row_length)
        rows[row].append(number)
        room[row] -= length
    return rows


def pack(
    rows: Sequence[Sequence[Sample]], epochs: Sequence[Sequence[int]], pad: int, image: int, seed: int, multiple: int = 1
) -> dict[str, Tensor]:
    """The tensors of a batch except pixels (see `PackingCollator`), from the samples of each row and their epochs.

    The width is a multiple of `multiple`.

    Samples and pictures are numbered row by row. Without samples there is one row of one padding token. Raises `ValueError` if the number
    of image tokens in a text differs from that of its pictures.
    """
    rows = rows or [[]]
    width = max(1, *(sum(len(sample.tokens) for sample in row) for row in rows))
    width += -width % multiple
    firsts = np.cumsum([0, *map(len, rows)]).tolist()
    input_ids = _padded([[token for sample in row for token in sample.tokens] for row in rows], pad, width)
    targets = _padded([[target for sample in row for target in sample.targets] for row in rows], IGNORE, width).flatten()
    branch = _padded([[number for sample in row for number in sample.branch] for row in rows], 0, width)
    owners = [[first + at for at, sample in enumerate(row) for _ in sample.tokens] for first, row in zip(firsts, rows, strict=False)]
    sample = _padded(owners, NONE, width)
    vision = input_ids == image
    picture, cell = mark_pictures(vision, [grid for row in rows for one in row for grid in one.grids])
    rank, dither = torch.full_like(picture, NONE), torch.zeros(picture.shape, dtype=torch.float64)
    pairs = [pair for row, times in zip(rows, epochs, strict=False) for pair in zip(row, times, strict=True)]
    rank[vision], dither[vision] = _draws(pairs, seed)
    predicts = (targets != IGNORE).nonzero()[:, 0]
    return {
        "input_ids": input_ids,
        "sample": sample,
        "branch": branch,
        "picture": picture,
        "cell": cell,
        "rank": rank,
        "dither": dither,
        "predicts": predicts,
        "labels": targets[predicts],
    }


def _padded(rows: Sequence[list[int]], filler: int, width: int) -> Int[Tensor, "row token"]:
    return torch.tensor([row + [filler] * (width - len(row)) for row in rows])


def _draws(pairs: Sequence[tuple[Sample, int]], seed: int) -> tuple[Int[Tensor, " vision"], Float[Tensor, " vision"]]:
    """Rank and dither of every vision token, in order. Each picture's draw depends only on seed, key, epoch and its index in the sample."""
    ranks, dithers = [np.empty(0, dtype=np.int64)], [np.empty(0)]
    for sample, epoch in pairs:
        for picture, grid in enumerate(sample.grids):
            order, dither = draw_ranks(len(grid), seed, sample.key, epoch, picture)
            ranks.append(order)
            dithers.append(np.full(len(grid), dither))
    return torch.from_numpy(np.concatenate(ranks)), torch.from_numpy(np.concatenate(dithers))
