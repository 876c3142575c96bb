"""Likeness of vision tokens, their mean pairwise cosine; it grows under next-token prediction alone (LaVer, arXiv 2512.06281)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


@torch.no_grad()
def summed_cosine(tokens: Float[Tensor, "token dim"], sizes: Sequence[int]) -> Float[Tensor, ""]:
    """Mean cosine over the pairs of different tokens of a picture, -1 to 1, summed over pictures; memory is linear in the tokens.

    `sizes` are the pictures' numbers of tokens, in order; a picture of one token has no pair and adds 0. Computed from
    |sum of unit vectors|^2 = number + sum over pairs.
    """
    unit = F.normalize(tokens.float(), dim=-1)
    total = unit.new_zeros(())
    for picture in torch.split(unit, list(sizes)):
        number = len(picture)
        if number > 1:
            total = total + (picture.sum(dim=0).square().sum() - picture.square().sum()) / (number * (number - 1))
    return total
