"""Training on the Hugging Face Trainer: losses as sums over global counts, examples in an order fixed beforehand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import Dataset, SequentialSampler
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from theodolite.objectives.terms import combine
from theodolite.records.errors import BadInput


class Order(Dataset[int]):
    """The indices of examples, in the order in which training sees them."""

    def __init__(self, order: Int[np.ndarray, " draw"]) -> None:
        self.order = order

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, position: int) -> int:
        return int(self.order[position])


class ObjectiveTrainer(Trainer):
    """A Trainer whose loss is the objective's sums, each divided by its count over the whole optimizer step.

    The count is taken over gradient accumulation and over processes, so any way to split a batch gives the same step.
    """

    # Tells the Trainer not to divide by the number of micro-batches once more.
    loss_is_scaled_for_ga = True

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        return SequentialSampler(train_dataset if train_dataset is not None else self.train_dataset)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> tuple[list[Mapping[str, Tensor]], Tensor]:
        """The micro-batches of one step, and how many answer tokens they hold over all processes."""
        batches = []
        for _ in range(num_batches):
            try:
                batches.append(next(epoch_iterator))
            except StopIteration:
                break
        count = torch.tensor(sum(batch["labels"].numel() for batch in batches), device=device)
        if self.args.world_size > 1:
            count = self.accelerator.gather(count).sum()
        return batches, count

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: Mapping[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Tensor:
        if num_items_in_batch is None:
            raise ValueError("the loss needs the step's count of answer tokens; train through this class's get_batch_samples")
        loss = combine(model(inputs, self.state.global_step), {"language": int(num_items_in_batch)})
        # DDP averages gradients over processes; sums over a global count want their sum.
        return loss * self.args.world_size


class NonFiniteLoss(BadInput):
    """The loss was NaN or infinite three times in a row."""


class Watch(TrainerCallback):
    """Tells a progress bar of every step, keeps the losses, and stops a run whose loss is no number three times in a row."""

    def __init__(self, tell: Callable[[int, float | None], None]) -> None:
        self.tell = tell
        self.losses: list[tuple[int, float]] = []
        self.bad = 0

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.tell(state.global_step, self.losses[-1][1] if self.losses else None)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        loss = (logs or {}).get("loss")
        if loss is None:
            return
        self.losses.append((state.global_step, float(loss)))
        self.bad = 0 if np.isfinite(loss) else self.bad + 1
        if self.bad >= 3:
            raise NonFiniteLoss(f"the loss was {loss} at step {state.global_step}, the third time in a row; lower the learning rate")

    def refuse_unfinished(self) -> None:
        """Raises `NonFiniteLoss` if training ended on a loss that is no number: such weights are worth nothing."""
        if self.losses and not np.isfinite(self.losses[-1][1]):
            raise NonFiniteLoss(f"the loss was {self.losses[-1][1]} when training ended; lower the learning rate")

    def thinned(self, every: int = 10) -> tuple[tuple[int, float], ...]:
        """(last step, mean loss in nats a token) of each run of `every` steps."""
        runs = [self.losses[at : at + every] for at in range(0, len(self.losses), every)]
        return tuple((run[-1][0], float(np.mean([loss for _, loss in run]))) for run in runs)
