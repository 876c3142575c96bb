"""Subclasses of the Hugging Face Trainer: losses as sums over global counts, marked checkpoints, and LaVer's teacher."""

from __future__ import annotations

import warnings
import weakref
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate.utils import TorchDynamoPlugin, gather_object, send_to_device
from torch import Tensor, nn
from torch.utils.data import Sampler, SequentialSampler
from transformers import TrainerCallback, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, rotate_checkpoints

from theodolite.data.drops import MAX_DAMAGED_FRAC, Dropped
from theodolite.data.epochs import EpochDataset, EpochSampler, FixedOrder, StreamedEpochs, stream_position
from theodolite.data.packing import MAX_LENGTH, PackingCollator
from theodolite.models.export import export_vlm, rehearse_export
from theodolite.models.forward import base_model
from theodolite.objectives.terms import combine
from theodolite.records.errors import BadInput
from theodolite.records.machine_faults import naming_disk_faults
from theodolite.training.checkpoint import load_trained, mark_whole, refuse_other_launcher, save_trained, unmark, whole_checkpoint
from theodolite.training.compilation import compile_as_asked, cpu_products
from theodolite.training.dummy_picture import DummyPicture, lacking, pictured
from theodolite.training.evaluation import EvaluatedBySums, each, with_epochs
from theodolite.training.hub import push_while_training
from theodolite.training.interrupts import StopAtSignal
from theodolite.training.launch import refuse_broadcast_buffers, refuse_undistributed
from theodolite.training.loss_monitor import NonFiniteLossStop
from theodolite.training.objective_module import ObjectiveModule
from theodolite.training.refusals import refuse_flex_on_cpu, refuse_reentrant, refuse_unsupported
from theodolite.training.sampling import SequentialEpochs
from theodolite.training.saved_processor import saved_processor
from theodolite.training.step_exchange import Tally, summed_together, without_tallies
from theodolite.training.step_metrics import StepMetrics
from theodolite.training.teacher_callback import TeacherCallback
from theodolite.worlds.decoding import NOTES

Callback = TypeVar("Callback", bound=TrainerCallback)


class ObjectiveTrainer(EvaluatedBySums):
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
        max_damaged_frac: float = MAX_DAMAGED_FRAC,
        **options: Any,
    ) -> None:
        self.objective_module = model
        self.dropped = dropped or Dropped(max_damaged_frac)
        self._metrics = StepMetrics()
        self._dummy_picture: DummyPicture | None = None
        self._pass: weakref.ref[Any] | None = None
        refuse_unsupported(options, options.get("args"))
        _keep_batches_whole(options.get("args"))
        config = base_model(model.vlm).config
        processor = saved_processor(options.get("processing_class"), options.get("data_collator"), config)
        options["processing_class"] = processor
        if options.get("data_collator") is None and processor is not None:
            options["data_collator"] = PackingCollator.of_processor(processor, config, max_length=max_length)
        options["eval_dataset"] = each(with_epochs, options.get("eval_dataset"))
        super().__init__(model=model, train_dataset=with_epochs(train_dataset), **options)
        self.add_callback(NonFiniteLossStop())
        if isinstance(self.train_dataset, EpochDataset) and self.dropped.num_examples is None:
            self.dropped.num_examples = len(self.train_dataset)
        if self.args.n_gpu > 1:
            self.args._n_gpu = 1  # several GPUs in one process would mean DataParallel, which cuts packed batches apart
        plugin = self.accelerator.state.fsdp_plugin if self.is_fsdp_enabled else None
        zero_stage = self.accelerator.state.deepspeed_plugin.zero_stage if self.is_deepspeed_enabled else None
        refuse_undistributed(self.args.world_size, self.accelerator.distributed_type, plugin, zero_stage)
        if plugin is not None:
            refuse_broadcast_buffers(model, plugin)
        compile_as_asked(model.vlm, self._dynamo, self.args.device, self.args.bf16)

    def train(self, resume_from_checkpoint: str | bool | None = None, **options: Any) -> Any:
        """As in the library; True resumes from the last complete checkpoint. Raises `BadInput` for a model that could not be saved."""
        rehearse_export(self.objective_module.vlm, self.processing_class)
        refuse_reentrant(self.objective_module.vlm)
        refuse_flex_on_cpu(self.objective_module.vlm, self.args.device)
        with self.args.main_process_first():
            checkpoint = whole_checkpoint(resume_from_checkpoint, Path(self.args.output_dir))
        return super().train(resume_from_checkpoint=checkpoint, **options)

    def _build_accelerator_args(self, **options: Any) -> dict[str, Any]:
        """As in the library, without `torch.compile`: here decoder layers alone are compiled, in place (`compile_as_asked`)."""
        arguments: dict[str, Any] = super()._build_accelerator_args(**options)
        self._dynamo: TorchDynamoPlugin = arguments["dynamo_plugin"]
        arguments["dynamo_plugin"] = TorchDynamoPlugin(backend="no")
        return arguments

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[Any] | None:
        dataset = train_dataset if train_dataset is not None else self.train_dataset
        if isinstance(dataset, FixedOrder):
            return SequentialSampler(dataset)
        if not isinstance(dataset, EpochDataset):
            return None
        if self.args.train_sampling_strategy == "sequential":
            return SequentialEpochs(len(dataset), self.args.seed)
        return EpochSampler(len(dataset), self.args.seed if self.args.data_seed is None else self.args.data_seed)

    def _load_best_model(self) -> None:
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            super()._load_best_model()
        else:
            load_trained(self.objective_module, Path(str(self.state.best_model_checkpoint)))

    def get_batch_samples(
        self, epoch_iterator: Any, num_batches: int, device: torch.device
    ) -> tuple[list[Mapping[str, Any]], Tensor | None]:
        """The prepared micro-batches of one step, and each term's count over all of them and all processes, by sorted name."""
        with self._metrics.timed("data"):
            batches = list(islice(epoch_iterator, num_batches))
        is_first, self._pass = self._pass is None or self._pass() is not epoch_iterator, weakref.ref(epoch_iterator)
        if not batches:
            self._refuse_empty_pass(is_first)
            return [], None
        batches, tallies, noted = without_tallies([*self._missing(num_batches - len(batches)), *batches])
        prepared = [self._prepared(batch) for batch in batches]
        micro_counts = [self.objective_module.objective.counts(batch) for batch in prepared]
        summed, is_stopped = self._exchange_before_step(micro_counts, tallies, noted, pictured(batches))
        if self.state.global_step + 1 >= self.state.max_steps and not self._initial_global_step:
            self.dropped.refuse_none_kept()  # a resumed run does not know what was kept before
        if is_stopped:
            return [], None
        for number in lacking(pictured(batches), summed["pictured"]) if self.is_fsdp_enabled else ():
            prepared[number] = self._prepared(self._with_dummy_picture(batches[number]))
        self._metrics.begin_step(dict(zip(sorted(micro_counts[0]), summed["counts"], strict=True)))
        return prepared, torch.tensor(summed["counts"])

    def _prepared(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        return self.objective_module.objective.prepare(batch, self.state.global_step, self.state.max_steps)

    def _exchange_before_step(
        self, micro_counts: Sequence[Mapping[str, int]], tallies: Sequence[Tally], noted: Sequence[int], with_picture: Sequence[int]
    ) -> tuple[dict[str, list[int]], bool]:
        """All that the processes must agree on before a step, in one collective: their sums, and whether the run stops before it.

        Dropped examples are counted here, which may stop the run; only a step that has any needs a second collective, for their keys.
        """
        stop, teacher = self._callback(StopAtSignal), self._callback(TeacherCallback)
        numbers = {
            "counts": [sum(each[name] for each in micro_counts) for name in sorted(micro_counts[0])],
            "pictured": with_picture,
            "seen": [sum(num_seen for _, num_seen in tallies), sum(len(dropped) for dropped, _ in tallies)],
            "noted": noted,
            "signals": stop.noted() if stop else [],
        }
        if self.args.world_size == 1:
            summed = numbers
        else:
            sums = teacher.delayed_sums() if teacher else torch.zeros(0, device=self.args.device)
            summed, sums = summed_together(numbers, sums, partial(self.accelerator.reduce, reduction="sum"))
            if teacher:
                teacher.is_delayed = True
                teacher.move_centre(sums)
        self.dropped.noted += Counter(dict(zip(NOTES, summed["noted"], strict=True)))
        num_seen, num_dropped = summed["seen"]
        if num_dropped:
            everyones = gather_object([tallies]) if self.args.world_size > 1 else [tallies]
            for dropped, seen in chain.from_iterable(zip(*everyones, strict=True)):
                self.dropped.add(dropped, seen)
        else:
            self.dropped.add([], num_seen)
        return summed, stop is not None and self.args.world_size > 1 and stop.before_step(summed["signals"], self.state, self.control)

    def _callback(self, kind: type[Callback]) -> Callback | None:
        return next((callback for callback in self.callback_handler.callbacks if isinstance(callback, kind)), None)

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
        if not any(self._metrics.counts.values()) and self.accelerator.scaler is None:
            # Nothing to learn in this step, on any process. Without gradients optimizers change neither weights nor their own state;
            # zero gradients would still move weights by decay and momentum. (The scaler of fp16 cannot step without gradients.)
            return torch.zeros((), device=self.args.device)
        autocast = self.accelerator.mixed_precision == "bf16"
        with self._metrics.timed("forward_backward"), cpu_products(self.objective_module.vlm, autocast):
            return super().training_step(model, inputs, num_items_in_batch)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds every term's mean over the steps since the last entry, and the seconds a step of each part."""
        if "loss" in logs:
            logs = {**logs, **self._metrics.entry(self._over_processes)}
        super().log(logs, start_time)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Writes the VLM alone, without head and teacher, with its processor, as a Hugging Face directory.

        Internal calls write checkpoints; that of `push_to_hub`, which names no folder, writes what is published.
        """
        if _internal_call and output_dir is not None:
            if not self.is_fsdp_enabled:  # there the weights are written with the optimizer; the stock method gathers them a second time
                super().save_model(output_dir, _internal_call=True)
            return
        state = self.vlm_state()
        if self.args.should_save:
            self.write_vlm(Path(output_dir or self.args.output_dir), state)
        if self.args.push_to_hub and not _internal_call:
            self.push_to_hub(commit_message="Model save", revision=self.args.hub_revision)

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
        if self.processing_class is None:
            warnings.warn(f"{folder} gets no processor, so it does not load by itself; give the trainer processing_class=", stacklevel=2)
        export_vlm(self.objective_module.vlm, self.processing_class, folder, state_dict=state)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        if self.args.should_save and not self.is_fsdp_enabled:
            save_trained(self.objective_module, Path(output_dir or self.args.output_dir))

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        folder = Path(self.args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        with naming_disk_faults(folder):
            if self.args.should_save:
                unmark(folder)
            limit, self.args.save_total_limit = self.args.save_total_limit, None
            try:
                super()._save_checkpoint(model, trial)
            finally:
                self.args.save_total_limit = limit
            self._save_beside(folder)
            if self.args.world_size > 1:
                self.accelerator.wait_for_everyone()
            if self.args.should_save:
                mark_whole(folder)
                # Only now: the library deletes older ones before this one is complete.
                rotate_checkpoints(self.args.output_dir, limit, best_model_checkpoint=self.state.best_model_checkpoint, use_mtime=True)
        if self.args.push_to_hub:
            push_while_training(self, folder)

    def _save_beside(self, folder: Path) -> None:
        """Writes other state that a resumed run needs, before the checkpoint is marked complete."""

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Nothing: the library would publish the checkpoint's own weights, and before it is complete (see `push_while_training`)."""

    def create_model_card(self, *args: Any, **options: Any) -> None:
        """As in the library, for the VLM."""
        wrapped, self.model = self.model, base_model(self.objective_module.vlm)
        try:
            super().create_model_card(*args, **options)
        finally:
            self.model = wrapped

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        refuse_other_launcher(Path(resume_from_checkpoint), self.is_fsdp_enabled)
        if self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            load_trained(self.objective_module, Path(resume_from_checkpoint))

    def _init_training_state(self, max_steps: int, num_update_steps_per_epoch: int, *rest: Any) -> tuple[int, int]:
        """Pass and micro-batches at which a resumed run goes on. The Trainer takes a stream's first pass to be as long as the run."""
        done, skipped = super()._init_training_state(max_steps, num_update_steps_per_epoch, *rest)
        resumed = rest[1] if len(rest) > 1 else None
        if resumed is None or not isinstance(self.train_dataset, StreamedEpochs) or self.args.ignore_data_skip:
            return done, skipped
        saved = TrainerState.load_from_json(str(Path(resumed) / TRAINER_STATE_NAME))
        before, steps = stream_position(saved.epoch or 0.0, saved.max_steps)
        return before, steps * self.args.gradient_accumulation_steps

    def _missing(self, number: int) -> list[dict[str, Any]]:
        """Batches without a sample in place of those that are missing at the end of a stream's pass.

        The Trainer steps only after all micro-batches of a step; the others' gradients would be added to those of the next step.
        """
        if number <= 0 or not isinstance(self.train_dataset, StreamedEpochs):
            return []
        return [send_to_device(self.data_collator([]), self.args.device) for _ in range(number)]

    def _refuse_empty_pass(self, is_first: bool) -> None:
        """Raises `BadInput` if a pass of a stream has no example; the Trainer would end the run as if it were done."""
        is_skipped = self.state.global_step == self._initial_global_step > 0  # of a run resumed at the end of a pass
        if is_first and not is_skipped and isinstance(self.train_dataset, StreamedEpochs):
            raise BadInput(
                f"the stream gave no example in a pass, after {self.state.global_step} of {self.state.max_steps} steps; check its filters "
                "and its split, and that it can be iterated repeatedly"
            )

    def _with_dummy_picture(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        if self._dummy_picture is None:
            self._dummy_picture = DummyPicture.of_collator(self.data_collator)
        return self._dummy_picture.added_to(batch)

    def _with_equal_passes(self, batch: dict[str, Any]) -> dict[str, Any]:
        if not self.is_fsdp_enabled:
            return batch
        own = pictured([batch])
        everyones = self._over_processes(torch.tensor(own, device=self.args.device)).tolist()
        return self._with_dummy_picture(batch) if lacking(own, everyones) else batch


def _keep_batches_whole(arguments: TrainingArguments | None) -> None:
    """Turns accelerate's `dispatch_batches` off, which would cut every tensor of a stream's batch to the number of rows.

    Batches are copied to the device without waiting, where the loader pins its memory. Raises `BadInput` if the arguments dispatch.
    """
    if arguments is None:
        return
    if arguments.accelerator_config.dispatch_batches:
        raise BadInput("dispatch_batches cuts packed batches apart; leave it out of accelerator_config, and each process reads its own")
    arguments.accelerator_config.dispatch_batches = False
    arguments.accelerator_config.non_blocking = arguments.dataloader_pin_memory
