"""Evaluation on held-out examples: each term as a mean over all of them, at the final mask ratio and with the same masks every time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import Trainer

from theodolite.data.drops import Dropped
from theodolite.data.epochs import EpochDataset, FixedOrder, Stream, StreamedEpochs
from theodolite.data.tables import as_source
from theodolite.objectives.terms import Terms, combine
from theodolite.records.errors import BadInput
from theodolite.training.compilation import cpu_products
from theodolite.training.objective_module import ObjectiveModule

FILLER = "filler"


class HeldOut(Dataset[Any]):
    """A data set in its own order, each example as in epoch 0, and None behind its end up to a multiple of `multiple`.

    The processes' shares of it are equally long, and no example is evaluated twice.
    """

    def __init__(self, dataset: Any, multiple: int) -> None:
        self.dataset, self.multiple = dataset, multiple

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.multiple) * self.multiple

    def __getitem__(self, index: int) -> Any:
        if index >= len(self.dataset):
            return None
        return self.dataset[(0, index)] if isinstance(self.dataset, EpochDataset) else self.dataset[index]


def held_out(dataset: Any, batch_size: int, world_size: int) -> Any:
    """The data set as evaluation reads it. Raises `BadInput` for a stream in several processes, which would repeat its first examples."""
    if isinstance(dataset, StreamedEpochs):
        if world_size > 1:
            raise BadInput(
                "several processes would count examples of a stream twice; give an eval_dataset with a length, or evaluate in one process"
            )
        dataset.set_epoch(0)
        return dataset
    return HeldOut(dataset, batch_size * world_size if world_size > 1 else 1)


class HeldOutCollator:
    """Batches without the None of `HeldOut`; one of nothing else holds `first`, marked `FILLER`, and is not counted."""

    def __init__(self, collator: Callable[[Any], Any], first: Any) -> None:
        self.collator, self.first = collator, first

    def __call__(self, items: Sequence[Any]) -> dict[str, Any]:
        real = [item for item in items if item is not None]
        return dict(self.collator(real)) if real else {**self.collator([self.first]), FILLER: True}


class HeldOutSums:
    """Each term's sum and count over the batches of an evaluation."""

    def __init__(self) -> None:
        self.totals: dict[str, float] = {}
        self.counts: dict[str, int] = {}
        self.weights: dict[str, float | None] = {}
        self.dropped = Dropped(max_damaged_frac=1.0)

    def take(self, batch: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
        """The batch for the model, and whether it counts."""
        rest = dict(batch)
        is_real = not rest.pop(FILLER, False)
        rest.pop("noted", None)  # notes are those of training
        dropped, num_seen = rest.pop("dropped", []), rest.pop("num_seen", 0)
        if is_real:
            self.dropped.add(dropped, num_seen)
        return rest, is_real

    def add(self, terms: Terms, is_real: bool) -> None:
        """Adds a batch's terms; those of a batch that does not count as zeros."""
        for name, term in terms.items():
            self.totals[name] = self.totals.get(name, 0.0) + term.total.item() * is_real
            self.counts[name] = self.counts.get(name, 0) + term.count * is_real
            self.weights[name] = term.weight

    def metrics(self, over_processes: Callable[[Tensor], Tensor], device: torch.device) -> dict[str, float]:
        """`loss`, the weighted sum of the terms' means, and each mean: `loss/NAME` in nats, or NAME if the term is only logged.

        `examples_left_out` counts those that could not be read or used. Raises `BadInput` if these are all.
        """
        names = sorted(self.totals)
        totals = over_processes(torch.tensor([self.totals[name] for name in names], dtype=torch.float32, device=device)).tolist()
        numbers = [self.dropped.num_seen, sum(self.dropped.counts.values()), *(self.counts[name] for name in names)]
        num_seen, num_dropped, *counts = over_processes(torch.tensor(numbers, device=device)).tolist()
        if (num_seen and num_dropped == num_seen) or not names:
            first = next(iter(self.dropped.listed.items()), None)
            reason = f" ({first[0]}: {first[1]})" if first else ""
            raise BadInput(f"none of the {num_seen} held-out examples can be used{reason}; check eval_dataset")
        means = {name: total / count for name, total, count in zip(names, totals, counts, strict=True) if count}
        weighted = {name: weight for name in means if (weight := self.weights[name]) is not None}
        metrics = {"loss": sum(weight * means[name] for name, weight in weighted.items())}
        metrics |= {f"loss/{name}" if name in weighted else name: value for name, value in means.items()}
        return {**metrics, "examples_left_out": num_dropped}


class EvaluatedBySums(Trainer):
    """A Trainer whose `evaluate` and `predict` give each term's mean over all held-out examples, and no predictions.

    Neither the centre nor the teacher moves, and the masks are those of epoch 0 at the mask ratio of a run's last step.
    """

    objective_module: ObjectiveModule
    _held_out: HeldOutSums

    def _get_dataloader(self, dataset: Any, description: str, batch_size: int, **options: Any) -> Any:
        """As in the library; for evaluation in the data set's order, each example once over all processes."""
        if options.get("is_training"):
            return super()._get_dataloader(dataset, description, batch_size, **options)
        examples = held_out(with_epochs(dataset), batch_size, self.args.world_size)
        collator = self.data_collator
        if isinstance(examples, HeldOut) and examples.multiple > 1:
            self.data_collator = HeldOutCollator(collator, examples[0])
        try:
            return super()._get_dataloader(examples, description, batch_size, **options)
        finally:
            self.data_collator = collator

    def evaluation_loop(self, dataloader: Any, *args: Any, metric_key_prefix: str = "eval", **options: Any) -> Any:
        """As in the library, with each term's mean over all held-out examples for metrics (see `HeldOutSums.metrics`)."""
        self._held_out = HeldOutSums()
        output = super().evaluation_loop(dataloader, *args, metric_key_prefix=metric_key_prefix, **options)
        means = self._held_out.metrics(self._over_processes, self.args.device)
        output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in means.items()})
        dataset = dataloader.dataset
        return output._replace(num_samples=len(dataset.dataset)) if isinstance(dataset, HeldOut) else output

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> tuple[Tensor, None, None]:
        """The loss of a held-out batch alone, its terms added to those of the evaluation. Masks have the ratio of a run's last step."""
        batch, is_real = self._held_out.take(self._prepare_inputs(inputs))
        batch = self._with_equal_passes(batch)
        step = max(self.state.max_steps, 1)
        products = cpu_products(self.objective_module.vlm, self.accelerator.mixed_precision == "bf16")
        with torch.no_grad(), self.compute_loss_context_manager(), products:
            terms = self._held_out_terms(model, self.objective_module.objective.prepare(batch, step, step), step)
        self._held_out.add(terms, is_real)
        return combine(terms, {name: term.count for name, term in terms.items()}).detach(), None, None

    def _held_out_terms(self, model: nn.Module, batch: Mapping[str, Any], step: int) -> Terms:
        """The terms of a prepared batch, in evaluation mode."""
        terms: Terms = model(batch, step)
        return terms

    def _with_equal_passes(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch, made such that every process runs the same modules."""
        return batch

    def _over_processes(self, values: Tensor) -> Tensor:
        """The sum of a vector over all processes."""
        if self.args.world_size == 1:
            return values
        summed: Tensor = self.accelerator.gather(values).view(self.args.world_size, -1).sum(dim=0)
        return summed


def with_epochs(dataset: Any) -> Any:
    """A data set that yields examples with their epochs. Raises `BadInput` for one that cannot be read as examples."""
    if dataset is None or isinstance(dataset, FixedOrder | EpochDataset | StreamedEpochs):
        return dataset
    source = as_source(dataset)
    return StreamedEpochs(source) if isinstance(source, Stream) else EpochDataset(source)


def each(convert: Callable[[Any], Any], dataset: Any) -> Any:
    """A converted data set, or several by name."""
    return {name: convert(value) for name, value in dataset.items()} if type(dataset) is dict else convert(dataset)
