"""Masked latent reconstruction: a student that sees masked vision tokens predicts what its teacher says of the whole picture.

The masked term L_MIM of LaVer (arXiv 2512.06281), of the form of iBOT and DINO, with the parts that it trains: head and mask embedding.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from theodolite.records.errors import BadInput


def masked_latent_loss(
    student: Float[Tensor, "token prototype"],
    teacher: Float[Tensor, "token prototype"],
    centre: Float[Tensor, " prototype"],
    student_temperature: float = 0.1,
    teacher_temperature: float = 0.04,
) -> Float[Tensor, ""]:
    """Cross-entropy in nats, 0 or more, between teacher and student, summed over the tokens given: the caller passes the masked ones.

    `-sum softmax((teacher - centre) / teacher_temperature) log_softmax(student / student_temperature)` (LaVer, L_MIM; temperatures as
    published). Divide by the number of masked tokens of the whole step for a mean. No token gives 0, on the graph.

    Single precision whatever comes in, autocast or not (float64 stays). Teacher and centre get no gradient, and nothing is changed:
    `Centre.update` is a step of its own. Raises `BadInput` unless both temperatures are above 0.
    """
    if min(student_temperature, teacher_temperature) <= 0:
        raise BadInput(f"temperatures must be above 0; found {student_temperature} (student) and {teacher_temperature} (teacher)")
    with torch.no_grad():
        # Negative already here, in place, so that no token sums to 0 and not to -0.
        minus_target = torch.softmax((_precise(teacher) - centre).div_(teacher_temperature), dim=-1).neg_()
    # Only these two factors are kept for the way back.
    return (minus_target * torch.log_softmax(_precise(student) / student_temperature, dim=-1)).sum()


class Centre(nn.Module):
    """Running mean of the teacher's outputs, `value` of shape (prototype,), from zeros; without it one prototype takes all tokens.

    Published momentum 0.9. Over which tokens the mean runs is left open by the paper; the caller of `update` decides. It is a buffer, so
    that checkpoints hold it; keep it in single precision.
    """

    value: Float[Tensor, " prototype"]

    def __init__(self, prototypes: int, momentum: float = 0.9) -> None:
        super().__init__()
        if not 0 <= momentum < 1:
            raise BadInput(f"the centre's momentum must be at least 0 and below 1; found {momentum}")
        self.momentum = momentum
        self.register_buffer("value", torch.zeros(prototypes))

    @torch.no_grad()
    def update(self, total: Float[Tensor, " prototype"], count: int) -> None:
        """Moves the centre towards `total / count`: teacher outputs summed over a whole step, all micro-batches and processes.

        Once per optimizer step: `value = momentum * value + (1 - momentum) * total / count`; a count of 0 changes nothing. Raises
        `ValueError` on a negative count.
        """
        if count < 0:
            raise ValueError(f"the count of teacher outputs is {count}; it must be 0 or more")
        if count:
            self.value.lerp_(total.to(self.value) / count, 1 - self.momentum)


class VisionHead(nn.Module):
    """From vision tokens' hidden states to prototypes: three linear layers with GELU between them, initialised as `nn.Linear` is.

    Published: three layers, hidden 8192, GELU. Left open by the paper: the number of prototypes (`out`), and any norm within the head or
    before it (none here).
    """

    def __init__(self, width: int, hidden: int, out: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, out))

    def forward(self, states: Float[Tensor, "*shape width"]) -> Float[Tensor, "*shape prototype"]:
        prototypes: Tensor = self.layers(states)
        return prototypes


class MaskEmbedding(nn.Module):
    """The one learned vector `value` (dim,) that stands for every masked vision token, normal with deviation `std` at first.

    The paper says learnable; its released code takes the row of the placeholder token instead. The first deviation is left open.
    """

    def __init__(self, dim: int, std: float = 0.02) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.randn(dim) * std)

    def forward(self, embeddings: Float[Tensor, "*shape dim"], masked: Bool[Tensor, "*shape"]) -> Float[Tensor, "*shape dim"]:
        """The embeddings, in their own dtype, with the vector where `masked`; on the graph even where nothing is, for DDP's sake."""
        return torch.where(masked[..., None], self.value.to(embeddings.dtype), embeddings)


def _precise(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()
