"""Subclasses of the Hugging Face Trainer: losses as sums over global counts, marked checkpoints, and LaVer's teacher."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.utils.data import Sampler, SequentialSampler
from transformers import Trainer, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from theodolite.data.drops import Dropped
from theodolite.data.epochs import EpochDataset, EpochSampler, FixedOrder, Stream, StreamedEpochs
from theodolite.data.packing import MAX_LENGTH, PackingCollator
from theodolite.models.cpu_products import fast_bf16_products
from theodolite.models.export import export_vlm
from theodolite.models.forward import adapt, base_model
from theodolite.objectives.laver import LaVer, LaverConfig
from theodolite.objectives.terms import combine
from theodolite.records.errors import BadInput
from theodolite.training.checkpoint import load_trained, mark_whole, refuse_other_launcher, save_trained
from theodolite.training.dummy_picture import DummyPicture
from theodolite.training.launch import refuse_broadcast_buffers, refuse_undistributed
from theodolite.training.objective_module import ObjectiveModule
from theodolite.training.step_metrics import StepMetrics
from theodolite.training.teacher_callback import TeacherCallback


class ObjectiveTrainer(Trainer):
    """A Trainer whose loss is the objective's sums, each divided by its count over the whole optimizer step.

    Counts are summed over gradient accumulation and processes, so any split of a batch gives the same step. Checkpoints hold the trained
    state, and complete ones are marked; `save_model` writes a Hugging Face directory of the VLM alone. Without a `data_collator`, the
    `PackingCollator` of the `processing_class` packs examples, at most `max_length` tokens a sample.
    """

    # Keeps the Trainer from dividing by the number of micro-batches again.
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: ObjectiveModule,
        train_dataset: Any = None,
        dropped: Dropped | None = None,
        max_length: int = MAX_LENGTH,
        **options: Any,
    ) -> None:
        self.objective_module = model
        self.dropped = dropped or Dropped()
        self._metrics = StepMetrics()
        self._dummy_picture: DummyPicture | None = None
        _keep_batches_whole(options.get("args"))
        processor = options.get("processing_class")
        if options.get("data_collator") is None and processor is not None:
            options["data_collator"] = PackingCollator.of_processor(processor, base_model(model.vlm).config, max_length=max_length)
        super().__init__(model=model, train_dataset=_with_epochs(train_dataset), **options)
        if self.args.n_gpu > 1:
            self.args._n_gpu = 1  # several GPUs in one process would mean DataParallel, which cuts packed batches apart
        plugin = self.accelerator.state.fsdp_plugin if self.is_fsdp_enabled else None
        zero_stage = self.accelerator.state.deepspeed_plugin.zero_stage if self.is_deepspeed_enabled else None
        refuse_undistributed(self.args.world_size, self.accelerator.distributed_type, plugin, zero_stage)
        if plugin is not None:
            refuse_broadcast_buffers(model, plugin)
        if self.eval_dataset is not None or self.args.eval_strategy != "no":
            raise BadInput("losses are sums over a training step, so evaluation is not supported; leave eval_dataset and eval_strategy out")

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[Any] | None:
        dataset = train_dataset if train_dataset is not None else self.train_dataset
        if isinstance(dataset, FixedOrder):
            return SequentialSampler(dataset)
        return EpochSampler(len(dataset), self.args.seed) if isinstance(dataset, EpochDataset) else None

    def get_batch_samples(
        self, epoch_iterator: Any, num_batches: int, device: torch.device
    ) -> tuple[list[Mapping[str, Any]], Tensor | None]:
        """The prepared micro-batches of one step, and each term's count over all of them and all processes, by sorted name."""
        with self._metrics.timed("data"):
            batches = list(islice(epoch_iterator, num_batches))
        if not batches:
            return [], None
        batches = [self._tallied(batch) for batch in batches]
        objective, state = self.objective_module.objective, self.state
        batches = self._with_equal_passes(batches)
        prepared = [objective.prepare(batch, state.global_step, state.max_steps) for batch in batches]
        micro_counts = [objective.counts(batch) for batch in prepared]
        names = tuple(sorted(micro_counts[0]))
        counts = self._over_processes(torch.tensor([sum(each[name] for each in micro_counts) for name in names], device=device))
        self._metrics.begin_step(dict(zip(names, counts.tolist(), strict=True)))
        return prepared, counts

    def compute_loss(
        self, model: nn.Module, inputs: Mapping[str, Any], return_outputs: bool = False, num_items_in_batch: Tensor | None = None
    ) -> Tensor:
        if num_items_in_batch is None:
            raise ValueError("the loss needs the step's global counts; train through this class's get_batch_samples")
        with self._metrics.timed("student"):
            terms = model(inputs, self.state.global_step)
        self._metrics.add(terms)
        # DDP averages gradients over processes; losses over a global count need their sum.
        return combine(terms, self._metrics.counts) * self.args.world_size

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | None = None) -> Tensor:
        with self._metrics.timed("forward_backward"), fast_bf16_products():
            return super().training_step(model, inputs, num_items_in_batch)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds every term's mean over the steps since the last entry, and the seconds a step of each part."""
        if "loss" in logs:
            logs = {**logs, **self._metrics.entry(self._over_processes)}
        super().log(logs, start_time)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Writes the VLM alone, without head and teacher, as a Hugging Face directory. Internal calls write checkpoints."""
        if _internal_call:
            if not self.is_fsdp_enabled:  # there the weights are written with the optimizer; the stock method gathers them a second time
                super().save_model(output_dir, _internal_call=True)
            return
        state = self.vlm_state()
        if self.args.should_save:
            self.write_vlm(Path(output_dir or self.args.output_dir), state)

    def vlm_state(self) -> dict[str, Tensor] | None:
        """The VLM's full weights under FSDP (call it on every process), else None: the model holds them."""
        if not self.is_fsdp_enabled:
            return None
        state = self.accelerator.get_state_dict(self.model)
        first = {id(tensor): name for name, tensor in reversed(self.objective_module.vlm.state_dict(keep_vars=True).items())}
        tied = {name: first[id(tensor)] for name, tensor in self.objective_module.vlm.state_dict(keep_vars=True).items()}
        return {name: state[f"vlm.{same}"] for name, same in tied.items() if f"vlm.{same}" in state}

    def write_vlm(self, folder: Path, state: dict[str, Tensor] | None) -> None:
        """Writes the Hugging Face directory, on one process, with the `state` of `vlm_state`."""
        export_vlm(self.objective_module.vlm, self.processing_class, folder, state_dict=state)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        if self.args.should_save and not self.is_fsdp_enabled:
            save_trained(self.objective_module, Path(output_dir or self.args.output_dir))

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        folder = Path(self.args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        self._save_beside(folder)
        if self.args.world_size > 1:
            self.accelerator.wait_for_everyone()
        if self.args.should_save:
            mark_whole(folder)

    def _save_beside(self, folder: Path) -> None:
        """Writes other state that a resumed run needs, before the checkpoint is marked complete."""

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        refuse_other_launcher(Path(resume_from_checkpoint), self.is_fsdp_enabled)
        if self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            load_trained(self.objective_module, Path(resume_from_checkpoint))

    def _tallied(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The batch without its list of dropped examples, which are counted over all processes and may stop the run."""
        rest = dict(batch)
        tallies = [(rest.pop("dropped", []), rest.pop("num_seen", 0))]
        for dropped, num_seen in gather_object(tallies) if self.args.world_size > 1 else tallies:
            self.dropped.add(dropped, num_seen)
        return rest

    def _with_equal_passes(self, batches: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Under FSDP, the micro-batches with a dummy picture in each that has none while another process's has one.

        Every process must run the same modules: without a picture, a process would skip the encoder, and the others hang.
        """
        if not self.is_fsdp_enabled:
            return batches
        pictured = torch.stack([(batch["picture"] >= 0).any().long() for batch in batches])
        needed = self._over_processes(pictured) > 0
        lacking = (needed & (pictured == 0)).tolist()
        if any(lacking) and self._dummy_picture is None:
            self._dummy_picture = DummyPicture.of_collator(self.data_collator)
        return [
            self._dummy_picture.added_to(batch) if lacks and self._dummy_picture else batch
            for batch, lacks in zip(batches, lacking, strict=True)
        ]

    def _over_processes(self, values: Tensor) -> Tensor:
        """The sum of a vector over all processes."""
        if self.args.world_size == 1:
            return values
        return self.accelerator.gather(values).view(self.args.world_size, -1).sum(dim=0)


class LaverTrainer(ObjectiveTrainer):
    """A Trainer of a Hugging Face VLM with LaVer (arXiv 2512.06281), on the examples of a LLaVA-format source or data set.

    The model is adapted in place (mixed attention, 2D positions, as configured). Raises `BadInput` for a family or an attention back end
    that does not support it.
    """

    def __init__(self, model: Any, laver: LaverConfig | None = None, **options: Any) -> None:
        laver = laver or LaverConfig()
        adapt(model, laver.adaptation)
        objective = LaVer(base_model(model).config, laver)
        objective_module = ObjectiveModule(model, objective)
        self.teacher_callback = TeacherCallback(objective_module, objective)
        super().__init__(objective_module, **options)
        self.add_callback(self.teacher_callback)

    def compute_loss(
        self, model: nn.Module, inputs: Mapping[str, Any], return_outputs: bool = False, num_items_in_batch: Tensor | None = None
    ) -> Tensor:
        with self._metrics.timed("teacher"):
            inputs = self.teacher_callback.teach(model, inputs, self.state.global_step)
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    def _save_beside(self, folder: Path) -> None:
        self.teacher_callback.save(folder, write=self.args.should_save)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self.teacher_callback.resumed = Path(resume_from_checkpoint)


def _with_epochs(dataset: Any) -> Any:
    """A data set that yields examples with their epochs."""
    if dataset is None or isinstance(dataset, FixedOrder | EpochDataset | StreamedEpochs):
        return dataset
    return StreamedEpochs(dataset) if isinstance(dataset, Stream) else EpochDataset(dataset)


def _keep_batches_whole(arguments: TrainingArguments | None) -> None:
    """Turns accelerate's `dispatch_batches` off, which would cut every tensor of a stream's batch to the number of rows.

    Raises `BadInput` if the arguments set it.
    """
    if arguments is None:
        return
    if arguments.accelerator_config.dispatch_batches:
        raise BadInput("dispatch_batches cuts packed batches apart; leave it out of accelerator_config, and each process reads its own")
    arguments.accelerator_config.dispatch_batches = False
