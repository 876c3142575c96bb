"""Masked latent reconstruction, L_MIM of LaVer (arXiv 2512.06281): a student with masked vision tokens predicts its teacher's outputs.

The loss has the form of iBOT and DINO. Head, mask embedding and centre are its modules.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from theodolite.objectives.terms import at_least_single
from theodolite.records.errors import BadInput

HeadInit = Literal["default", "kaiming"]


def masked_latent_loss(
    student: Float[Tensor, "token prototype"],
    teacher: Float[Tensor, "token prototype"],
    centre: Float[Tensor, " prototype"],
    student_temperature: float = 0.1,
    teacher_temperature: float = 0.04,
) -> Float[Tensor, ""]:
    """Cross-entropy in nats, 0 or more, between teacher and student, summed over all tokens passed: the caller passes the masked ones.

    `-sum softmax((teacher - centre) / teacher_temperature) log_softmax(student / student_temperature)` (LaVer, L_MIM; temperatures as
    published). Divide by the number of masked tokens of the whole step for a mean. No token gives 0, on the graph.

    Computed in single precision for any input, autocast or not (float64 stays). Teacher and centre get no gradient; the centre is updated
    by `Centre.update` alone. Raises `BadInput` unless both temperatures are above 0.
    """
    if min(student_temperature, teacher_temperature) <= 0:
        raise BadInput(f"temperatures must be above 0; found {student_temperature} (student) and {teacher_temperature} (teacher)")
    with torch.no_grad():
        # Negated here, in place, so that the sum over no tokens is 0 and not -0.
        minus_target = torch.softmax((at_least_single(teacher) - centre).div_(teacher_temperature), dim=-1).neg_()
    # Only these two factors are stored for the backward pass.
    return (minus_target * torch.log_softmax(at_least_single(student) / student_temperature, dim=-1)).sum()


@torch.no_grad()
def target_statistics(
    student: Float[Tensor, "token prototype"],
    teacher: Float[Tensor, "token prototype"],
    centre: Float[Tensor, " prototype"],
    student_temperature: float = 0.1,
    teacher_temperature: float = 0.04,
) -> dict[str, Float[Tensor, ""]]:
    """How the teacher's targets and the student's predictions stand, over the tokens passed: sums by name, and one share.

    * `teacher_entropy`: entropy of the target in nats, 0 to log(prototypes), summed over tokens. Near either end the targets teach nothing.
    * `student_kl`: divergence of the prediction from the target in nats, 0 or more, summed; with the entropy it is the loss.
    * `head_cosine`: cosine of the student's and the teacher's outputs, -1 to 1, summed.
    * `prototypes_used`: share of distinct prototypes among the likeliest of each token's target, of as many as there could be, 0 to 1.
    """
    target = (at_least_single(teacher) - centre) / teacher_temperature
    log_target, log_student = target.log_softmax(-1), (at_least_single(student) / student_temperature).log_softmax(-1)
    entropy = -(log_target.exp() * log_target).sum()
    most = min(target.shape)
    used = target.new_zeros(target.shape[-1]).index_fill_(0, target.argmax(-1), 1.0).sum() / max(most, 1)
    return {
        "teacher_entropy": entropy,
        "student_kl": -(log_target.exp() * log_student).sum() - entropy,
        "head_cosine": torch.cosine_similarity(at_least_single(student), at_least_single(teacher), dim=-1).sum(),
        "prototypes_used": used,
    }


class Centre(nn.Module):
    """Running mean of the teacher's outputs, `value` of shape (prototype,), zeros at first; it keeps one prototype from taking all tokens.

    Published momentum 0.9. The paper does not say which tokens the mean covers; the caller of `update` decides. It is a buffer outside the
    state dict, since accelerate takes each entry of a state dict for a sharded parameter (FSDP2 with `cpu_ram_efficient_loading`);
    checkpoints store it beside the teacher. Keep it in single precision.
    """

    value: Float[Tensor, " prototype"]

    def __init__(self, prototypes: int, momentum: float = 0.9) -> None:
        super().__init__()
        if not 0 <= momentum < 1:
            raise BadInput(f"the centre's momentum must be at least 0 and below 1; found {momentum}")
        self.momentum = momentum
        self.register_buffer("value", torch.zeros(prototypes), persistent=False)

    @torch.no_grad()
    def update(self, total: Float[Tensor, " prototype"], count: int | Float[Tensor, "1"]) -> None:
        """Moves the centre towards `total / count`: teacher outputs summed over a whole step, all micro-batches and processes.

        Once per optimizer step: `value = momentum * value + (1 - momentum) * total / count`; a count of 0 changes nothing. A count that is
        a tensor is not read by the host. Raises `ValueError` on a negative `int`.
        """
        if not isinstance(count, Tensor):
            if count < 0:
                raise ValueError(f"the count of teacher outputs is {count}; it must be 0 or more")
            count = self.value.new_full((1,), count)
        moved = self.value.lerp(total.to(self.value) / count.to(self.value).clamp(min=1), 1 - self.momentum)
        self.value.copy_(torch.where(count > 0, moved, self.value))


class VisionHead(nn.Module):
    """MLP from vision tokens' hidden states to prototypes: three linear layers with GELU between them.

    Published: three layers, hidden 8192, GELU. The paper leaves open the number of prototypes (`out`) and any normalisation in or before
    the head (none here). Initialisation "default" is that of `nn.Linear`; "kaiming" that of the reference code: normal weights (He et al.,
    arXiv 1502.01852), biases 0, the last layer without one. docs/reference/papers.md says what each does to the teacher's targets.
    """

    def __init__(self, width: int, hidden: int, out: int, init: HeadInit = "default") -> None:
        super().__init__()
        last = nn.Linear(hidden, out, bias=init == "default")
        self.layers = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), last)
        if init == "kaiming":
            for layer in self.layers:
                if isinstance(layer, nn.Linear):
                    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                    if layer.bias is not None:
                        nn.init.zeros_(layer.bias)

    def forward(self, states: Float[Tensor, "*shape width"]) -> Float[Tensor, "*shape prototype"]:
        # FSDP2 gathers weights in the precision of its policy, without autocast.
        first = next(self.layers.parameters())
        prototypes: Tensor = self.layers(states.to(first.dtype))
        return prototypes


class MaskEmbedding(nn.Module):
    """The learned vector `value` (dim,) that replaces every masked vision token, initialised normal with standard deviation `std`.

    The paper says learnable; its released code takes the embedding of the placeholder token instead. It leaves the initial deviation open.
    """

    def __init__(self, dim: int, std: float = 0.02) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.randn(dim) * std)

    def forward(self, embeddings: Float[Tensor, "*shape dim"], masked: Bool[Tensor, "*shape"]) -> Float[Tensor, "*shape dim"]:
        """The embeddings, in their own dtype, with the vector where `masked`; on the graph even if nothing is masked, as DDP needs."""
        return torch.where(masked[..., None], self.value.to(embeddings.dtype), embeddings)
