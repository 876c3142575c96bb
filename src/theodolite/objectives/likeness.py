"""How alike vision tokens are: what next-token prediction alone lets grow (LaVer, arXiv 2512.06281, its motivation)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


@torch.no_grad()
def summed_cosine(tokens: Float[Tensor, "token dim"], sizes: Sequence[int]) -> Float[Tensor, ""]:
    """Sum over pictures of the mean cosine of their pairs of different tokens, each -1 to 1, in memory linear in the tokens.

    `sizes` are the pictures' numbers of tokens, in order; a picture of one token has no pair and adds 0. From
    |sum of unit vectors|^2 = number + sum over pairs.
    """
    unit = F.normalize(tokens.float(), dim=-1)
    total = unit.new_zeros(())
    for part in torch.split(unit, list(sizes)):
        number = len(part)
        if number > 1:
            total = total + (part.sum(dim=0).square().sum() - part.square().sum()) / (number * (number - 1))
    return total
