"""Random masks of vision tokens in two steps: ranks are drawn with the sample, the mask follows from the mask ratio of the step.

A data loader does not know the step, so it draws a rank for each token of a picture and one dither for the picture; a ratio then masks
the tokens of lowest rank. The masks of a larger ratio contain those of a smaller one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from theodolite.models.pass_inputs import plan_of
from theodolite.records.errors import BadInput


def draw_ranks(size: int, seed: int, sample: str, epoch: int, picture: int) -> tuple[Int[np.ndarray, " token"], float]:
    """A random order of 0 .. size - 1 for the tokens of a picture, and its dither, uniform in [0, 1).

    They depend only on seed, sample, epoch and the picture's index in its sample, so every machine, process and order of calls gives the
    same. Raises `ValueError` on a negative size.
    """
    if size < 0:
        raise ValueError(f"the picture has {size} tokens; it must have 0 or more")
    key = hashlib.sha256(json.dumps([seed, sample, epoch, picture]).encode()).digest()
    # Raw bits, since numpy guarantees these across versions, but not permutations.
    bits = np.random.PCG64(int.from_bytes(key, "big")).random_raw(size + 1)
    # 24 bits are exact in single precision, so that rounding in a batch never turns a dither into 1.
    return np.argsort(bits[1:], kind="stable"), float(bits[0] >> np.uint64(40)) / 2**24


def masked_tokens(
    rank: Int[Tensor, "*shape"], size: Int[Tensor, "*shape"], dither: Float[Tensor, "*shape"], ratio: float
) -> Bool[Tensor, "*shape"]:
    """Whether each token is masked: those whose rank in their picture is below `floor(ratio * size + dither)`.

    All three tensors are by token: its rank (-1: no vision token, never masked), and its picture's number of tokens and dither. The dither
    rounds at random, so that the expected number of masked tokens of a picture is exactly `ratio * size` (0.05 of 64 tokens: 3.2). Ratio 0
    masks none, ratio 1 all. Raises `BadInput` for a ratio outside 0..1.
    """
    if not 0 <= ratio <= 1:
        raise BadInput(f"the mask ratio is {ratio}; it must be from 0 to 1")
    return (rank >= 0) & (rank < torch.floor(ratio * size.double() + dither.double()))


def with_masks(batch: Mapping[str, Any], ratio: float) -> dict[str, Any]:
    """The batch with its plan, `masked` (row, token) and `masked_index` (positions among vision tokens), at a mask ratio from 0 to 1."""
    plan, device = plan_of(batch), batch["input_ids"].device
    # On the host, where the draws are: the number of masked tokens is needed there before any pass.
    masked = masked_tokens(plan.rank, plan.size, plan.dither, ratio)
    index = masked.flatten()[plan.layout.vision_index].nonzero()[:, 0]
    return {**batch, "plan": plan, "masked": masked.to(device, non_blocking=True), "masked_index": index.to(device, non_blocking=True)}
