"""Similarity of the tokens of one picture at one layer: mean pairwise cosine and effective rank."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

RANK_EPSILON = 1e-7


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
    tokens are 0. The singular values come from the smaller Gram in double precision, picture by picture: in single precision the square
    root would lift rounding to 3e-4 of the largest value, and hundreds of such values would pass for rank.
    """
    return torch.stack([_rank(each) for each in tokens]) if len(tokens) else tokens.new_zeros(0, dtype=torch.float32)


def _rank(tokens: Float[Tensor, "token dim"]) -> Float[Tensor, ""]:
    exact = tokens.double()
    gram = exact @ exact.T if len(exact) <= exact.shape[1] else exact.T @ exact
    singular = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    share = singular / singular.sum() + RANK_EPSILON
    entropy: Tensor = -(share * share.log()).sum()
    return entropy.exp().float()
