"""Similarity of the tokens of one picture at one layer: mean pairwise cosine and effective rank."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

RANK_EPSILON = 1e-7
MOST_NUMBERS = 2**26  # of the tokens of a block, in double precision


def double_device(device: torch.device | str) -> torch.device:
    """The device for products in double precision: the same one, but the CPU in place of MPS, which has none."""
    return torch.device("cpu") if torch.device(device).type == "mps" else torch.device(device)


@torch.no_grad()
def mean_pairwise_cosine(tokens: Float[Tensor, "picture token dim"]) -> Float[Tensor, " picture"]:
    """Mean cosine of a picture's pairs of different tokens, -1 to 1, in memory linear in the tokens; NaN for pictures of one token.

    From |sum of unit vectors|^2 = number + sum over pairs. A token of length 0 counts as orthogonal to all others.
    """
    number = tokens.shape[1]
    if number < 2:
        return tokens.new_full((len(tokens),), torch.nan, dtype=torch.float32)
    unit = F.normalize(tokens.float(), dim=-1)
    own = unit.square().sum(dim=(1, 2))
    return (unit.sum(dim=1).square().sum(dim=-1) - own) / (number * (number - 1))


@torch.no_grad()
def effective_rank(tokens: Float[Tensor, "picture token dim"]) -> Float[Tensor, " picture"]:
    """RankMe of a picture's tokens, 1 to min(token, dim): exp of the entropy of the singular values as shares of their sum.

    Garrido et al. 2023 (arXiv 2210.02885), section 3.2, with its epsilon of 1e-7 for each share; tokens are not centred. NaN where all
    tokens are 0. The singular values come from the smaller Gram in double precision, those of a block of pictures in one decomposition: in
    single precision the square root would lift rounding to 3e-4 of the largest value, and hundreds of such values would pass for rank.
    """
    _, number, dim = tokens.shape
    size = max(1, MOST_NUMBERS // max(number * dim, 1))
    ranks = [_ranks(block) for block in torch.split(tokens, size)] if len(tokens) else [tokens.new_zeros(0, dtype=torch.float32)]
    return torch.cat(ranks).to(tokens.device)


def _ranks(tokens: Float[Tensor, "picture token dim"]) -> Float[Tensor, " picture"]:
    exact = tokens.to(double_device(tokens.device)).double()
    gram = exact @ exact.mT if exact.shape[1] <= exact.shape[2] else exact.mT @ exact
    singular = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    share = singular / singular.sum(dim=1, keepdim=True) + RANK_EPSILON
    ranks: Tensor = (-(share * share.log()).sum(dim=1)).exp().float()
    return ranks
