"""A picture without weight, for micro-batches without pictures: under FSDP every process must run the same modules in the same order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from theodolite.models.encoder_inputs import encoder_inputs
from theodolite.models.exported.layout import NONE
from theodolite.models.families import image_token_id
from theodolite.models.pass_inputs import BatchPlan, plan_of
from theodolite.models.pictures import PictureReader
from theodolite.records.errors import BadInput

# Side in pixels. Image processors resize it; those of Qwen-VL refuse pictures below a patch.
SIDE = 56
# What the added tokens hold in each tensor of (row, token); the layout takes them for text, so no visual term counts them.
FILLERS: Mapping[str, int] = {"branch": 0, "picture": NONE, "cell": 0, "rank": NONE, "dither": 0}


@dataclass(frozen=True, eq=False)
class DummyPicture:
    """A black picture's image tokens and pixel inputs.

    In a batch it is a row of its own, a sample that no other token sees, with no answer token and no vision token of the layout. Encoder,
    connector and language model run on it, and every loss and gradient stays what it was: its own gradients are zeros.
    """

    tokens: int
    pixels: Mapping[str, Tensor]
    image_token: int
    pad: int
    encoder: Mapping[str, Tensor]

    @classmethod
    def of_collator(cls, collator: Any) -> DummyPicture:
        """The dummy picture of a collator with a `reader` of pictures and a `pad` token. Raises `BadInput` for others."""
        reader = getattr(collator, "reader", None)
        if not isinstance(reader, PictureReader):
            raise BadInput(
                f"a batch has no picture, and under FSDP each process needs one; {type(collator).__name__} has no PictureReader to make "
                "one with: use PackingCollator, or mix text-only samples with others"
            )
        processed = reader.read(Image.new("RGB", (SIDE, SIDE)))
        pixels = reader.join([processed])
        encoder = encoder_inputs(reader.config, pixels)
        return cls(processed.tokens, pixels, image_token_id(reader.config), collator.pad, encoder)

    def added_to(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The batch, which has no picture, with the dummy picture as its last row."""
        rows, width = batch["input_ids"].shape
        multiple = plan_of(batch).multiple
        more = max(self.tokens + -self.tokens % multiple - width, 0)
        fillers = {"input_ids": self.pad, "sample": NONE, **FILLERS}
        added = {name: _with_row(batch[name], more, filler) for name, filler in fillers.items()}
        added["input_ids"][rows, : self.tokens] = self.image_token
        added["sample"][rows, : self.tokens] = batch["sample"].max().clamp(min=NONE) + 1
        predicts = batch["predicts"]
        added["predicts"] = predicts + predicts.div(width, rounding_mode="floor") * more  # flat positions in wider rows
        pixels = {name: value.to(batch["input_ids"].device) for name, value in self.pixels.items()}
        return {**batch, **added, **pixels, "plan": self._plan(plan_of(batch), rows, width + more)}

    def _plan(self, plan: BatchPlan, rows: int, width: int) -> BatchPlan:
        """The plan of the batch with the added row."""
        more = width - plan.layout.sample.shape[1]
        layout, draws = vars(plan.layout), {"rank": plan.rank, "dither": plan.dither}
        fields = {name: _with_row(layout.get(name, draws.get(name)), more, filler) for name, filler in {"sample": NONE, **FILLERS}.items()}
        fields["sample"][rows, : self.tokens] = plan.layout.sample.max().clamp(min=NONE) + 1
        dummy = rows * width + torch.arange(self.tokens)[None]
        return replace(BatchPlan.of(fields, plan.multiple, self.encoder), dummy=dummy, num_pairs=plan.num_pairs)


def pictured(batches: Sequence[Mapping[str, Any]]) -> list[int]:
    """1 for each batch that has a picture, else 0."""
    return [int(plan_of(batch).layout.has_pictures) for batch in batches]


def lacking(own: Sequence[int], everyones: Sequence[int]) -> list[int]:
    """The micro-batches without a picture where another process has one, from one's own `pictured` and its sum over processes.

    A process without a picture would skip the encoder, and under FSDP the others would wait for it forever.
    """
    return [number for number, (has, num_having) in enumerate(zip(own, everyones, strict=True)) if num_having and not has]


def _with_row(values: Tensor, more: int, filler: int) -> Tensor:
    """A tensor of (row, token) or (row, token, axis) with `more` tokens on the right and one row at the end, both of `filler`."""
    inner = (0, 0) * (values.ndim - 2)
    return F.pad(values, (*inner, 0, more, 0, 1), value=filler)
