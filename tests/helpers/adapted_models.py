"""What tests of adapted models share: views of whole batches, padding moved to the left, and generation by hand."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from theodolite.models.exported.grids import picture_grids
from theodolite.models.exported.layout import layout_of
from theodolite.models.families import family_of, image_token_id
from theodolite.models.forward import Adaptation, base_model, run_forward
from theodolite.models.pass_inputs import PassInputs

MIXED = Adaptation("mixed", "2d")
Given = dict[str, Tensor]


def view_of(config: Any, given: Given, wanted: Tensor | None = None) -> PassInputs:
    """Rows of one sample each, with logits wanted everywhere or at flat places."""
    ids, family = given["input_ids"], family_of(config)
    pixels = {name: given[name] for name in family.pixel_inputs if name in given}
    place = layout_of(ids, image_token_id(config), picture_grids(config, pixels), given.get("attention_mask"))
    suffix = given["token_type_ids"].bool() if family.attention == "prefix" else None
    return PassInputs(ids, place, pixels, wanted=torch.arange(ids.numel()) if wanted is None else wanted, suffix=suffix)


@torch.inference_mode()
def read_logits(model: Any, given: Given, adaptation: Adaptation = MIXED) -> Tensor:
    """(row, token, vocabulary): logits of the pass that training makes."""
    return run_forward(model, view_of(base_model(model).config, given), adaptation).logits.unflatten(0, given["input_ids"].shape)


def by_token(given: Given) -> list[str]:
    """The keyword arguments that have a number for each token."""
    return [name for name in ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids") if name in given]


def padded_left(given: Given) -> Given:
    """The same batch with its padding moved to the left."""
    lengths = given["attention_mask"].sum(dim=1).tolist()
    moved = {name: [row.roll(len(row) - length) for row, length in zip(given[name], lengths, strict=True)] for name in by_token(given)}
    return {**given, **{name: torch.stack(rows) for name, rows in moved.items()}}


def at_prompt(given: Given, family: Any) -> Given:
    """The same batch as nothing but prompts: no token of it counts as an answer."""
    return {**given, "token_type_ids": torch.zeros_like(given["input_ids"])} if family.attention == "prefix" else given


@torch.inference_mode()
def written_by_hand(model: Any, given: Given, num_new: int, adaptation: Adaptation = MIXED) -> Tensor:
    """(row, new token): greedy continuations, each token from a whole pass; never the image token. The batch is padded on the right."""
    rows, width = given["input_ids"].shape
    lengths = given["attention_mask"].sum(dim=1)
    given = {**given, **{name: F.pad(given[name], (0, num_new)) for name in by_token(given)}}
    for step in range(num_new):
        last = torch.arange(rows) * (width + num_new) + lengths + step - 1
        logits = run_forward(model, view_of(model.config, given, last), adaptation).logits
        logits[:, image_token_id(model.config)] = -torch.inf
        given["input_ids"].flatten()[last + 1] = logits.argmax(dim=-1)
        given["attention_mask"].flatten()[last + 1] = 1
        if family_of(model.config).attention == "prefix":
            given["token_type_ids"].flatten()[last + 1] = 1
    return torch.stack([ids[length : length + num_new] for ids, length in zip(given["input_ids"], lengths.tolist(), strict=True)])


def written(model: Any, given: Given, num_new: int, **options: Any) -> Tensor:
    """(row, new token): what `generate` writes, never the image token, with no end token."""
    model.generation_config.eos_token_id = None
    banned = [image_token_id(model.config)]
    ids = model.generate(**given, max_new_tokens=num_new, do_sample=False, suppress_tokens=banned, **options)
    return ids[:, given["input_ids"].shape[1] :]
