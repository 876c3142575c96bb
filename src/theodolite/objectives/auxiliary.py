"""The interface of auxiliary losses: terms on the vision tokens, or at the language head, of a pass that computes the language loss.

An objective runs one pass and hands what it computes to every loss, so a sum of losses costs one pass, and any of them can stand beside
LaVer's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property, reduce
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn

from theodolite.models.forward import ForwardOutput, base_model
from theodolite.models.pass_inputs import BatchPlan, PassInputs, plan_of
from theodolite.models.taps import BlockOutputs, recording_blocks
from theodolite.models.token_features import TokenFeatures, recording_features
from theodolite.objectives.terms import Terms


@dataclass(frozen=True, eq=False)
class VisionPass:
    """One pass of a batch, as auxiliary losses read it: vision tokens in the batch's order, whichever of its tokens the pass ran over.

    `masked` are positions among the vision tokens. `blocks` and `features` hold what the losses asked for (`AuxiliaryLoss.layers`,
    `AuxiliaryLoss.reads_features`), `at_head` what losses have computed at the language head, which may be of another pass (LaVer's
    unmasked one).
    """

    model: nn.Module
    batch: Mapping[str, Any]
    inputs: PassInputs
    output: ForwardOutput
    masked: Int[Tensor, " masked"]
    blocks: BlockOutputs
    features: TokenFeatures | None = None
    # What the losses that teach got from the teacher's weights, by their names.
    taught: Mapping[str, Any] = field(default_factory=dict)
    at_head: Mapping[HeadLoss, Float[Tensor, " value"]] = field(default_factory=dict)

    @cached_property
    def plan(self) -> BatchPlan:
        """The batch's plan, on the host."""
        return plan_of(self.batch)

    @property
    def config(self) -> Any:
        """The model's configuration."""
        return base_model(self.model).config

    @property
    def sizes(self) -> list[int]:
        """The number of vision tokens of each picture."""
        return self.plan.layout.sizes()

    @cached_property
    def last(self) -> Float[Tensor, "vision dim"]:
        """The language model's last hidden states of the vision tokens."""
        return self._vision(self.output.hidden)

    @cached_property
    def target_features(self) -> Float[Tensor, "vision channel"]:
        """The frozen encoder's features that each vision token was made of. Raises `BadInput` as `TokenFeatures.by_token`."""
        if self.features is None:
            raise ValueError("no loss of this pass asked for features; set reads_features")
        return self.features.by_token(self.inputs, len(self.last))

    def layer(self, site: str) -> Float[Tensor, "vision dim"]:
        """Hidden states of the vision tokens behind the block at a site ("layer.1" is the first block's output)."""
        return self._vision(self.blocks.hidden[site])

    def _vision(self, hidden: Float[Tensor, "row token dim"]) -> Float[Tensor, "vision dim"]:
        return hidden.flatten(0, 1)[self.inputs.layout.vision_index]


class AuxiliaryLoss(nn.Module, ABC):
    """A loss on the vision tokens of a pass, with modules of its own that are trained beside the VLM."""

    # Sites of blocks whose outputs it reads, whether it reads what the connector is given, whether it needs masked vision tokens, and
    # whether it has a teacher (`teach`).
    layers: Sequence[str] = ()
    reads_features = False
    masks = False
    teaches = False

    def prepare(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        """The batch with fields of its own, computed from the collator's random draws."""
        return batch

    def teach(self, model: nn.Module, batch: Mapping[str, Any]) -> Any:
        """What the teacher, whose weights are in place, gives for a prepared batch, without gradients."""
        raise NotImplementedError(f"{type(self).__name__} has no teacher")

    @abstractmethod
    def counts(self, batch: Mapping[str, Any]) -> Mapping[str, int]:
        """The number of summands of each term of a prepared batch, with its plan and masks, before any pass."""

    @abstractmethod
    def forward(self, seen: VisionPass) -> Terms:
        """The terms of a pass."""


class HeadLoss(AuxiliaryLoss):
    """A loss on next-token distributions: it runs at the language head, where the head's weights are, also under FSDP2."""

    # Its terms, for each of which it computes a sum at the head.
    names: Sequence[str] = ()

    @abstractmethod
    def positions(self, batch: Mapping[str, Any]) -> Int[Tensor, " position"]:
        """The flat positions whose last hidden states it is given."""

    @abstractmethod
    def at_head(
        self, head: Callable[[Tensor], Tensor], states: Float[Tensor, "position dim"], batch: Mapping[str, Any], vocabulary: int
    ) -> Float[Tensor, " value"]:
        """The sum of each of its terms, from logits (position, vocabulary) by `head`; `forward` finds them in `VisionPass.at_head`."""


@dataclass(frozen=True, eq=False)
class AnswerPass:
    """A pass with its language loss (summed, in nats), and what the losses at the language head have computed there."""

    loss: Float[Tensor, ""]
    output: ForwardOutput
    at_head: Mapping[HeadLoss, Float[Tensor, " value"]]


def watched_pass(
    model: nn.Module,
    batch: Mapping[str, Any],
    inputs: PassInputs,
    losses: Iterable[AuxiliaryLoss],
    run: Callable[[], AnswerPass],
    features: TokenFeatures | None = None,
    taught: Mapping[str, Any] | None = None,
) -> tuple[Float[Tensor, ""], VisionPass]:
    """Runs a pass over `inputs` and gives its loss and what the auxiliary losses read of it. `batch` holds `masked_index`.

    `features` are those of an earlier pass over the same pictures, if that has recorded them; `taught` is what `taught_by` gave.
    """
    losses = tuple(losses)
    sites = sorted({site for loss in losses for site in loss.layers})
    records = features is None and any(loss.reads_features for loss in losses)
    with recording_blocks(model, sites) if sites else nullcontext(BlockOutputs()) as blocks, recording(model, records) as recorded:
        answers = run()
    read = (blocks, features or recorded, taught or {}, answers.at_head)
    return answers.loss, VisionPass(model, batch, inputs, answers.output, batch["masked_index"], *read)


def head_losses(losses: Iterable[AuxiliaryLoss]) -> tuple[HeadLoss, ...]:
    """Those of the losses that run at the language head."""
    return tuple(loss for loss in losses if isinstance(loss, HeadLoss))


def recording(model: nn.Module, records: bool) -> AbstractContextManager[TokenFeatures | None]:
    """`recording_features` if it `records`, else a context without any."""
    return recording_features(model) if records else nullcontext()


def prepared_for(losses: Iterable[AuxiliaryLoss], batch: Mapping[str, Any]) -> Mapping[str, Any]:
    """A batch with masks, prepared for all of the losses."""
    return reduce(lambda before, loss: loss.prepare(before), losses, batch)


def counts_of(losses: Iterable[AuxiliaryLoss], batch: Mapping[str, Any]) -> dict[str, int]:
    """The number of summands of every term of the losses for a prepared batch."""
    return {name: count for loss in losses for name, count in loss.counts(batch).items()}


def taught_by(losses: Mapping[str, AuxiliaryLoss], model: nn.Module, batch: Mapping[str, Any]) -> dict[str, Any]:
    """What the teacher, whose weights are in place, gives for each of the losses that have one."""
    return {name: loss.teach(model, batch) for name, loss in losses.items() if loss.teaches}
