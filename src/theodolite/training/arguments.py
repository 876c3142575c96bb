"""The Hugging Face training arguments of a stage, built only here."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import torch
from transformers import TrainingArguments

from theodolite.records.errors import BadInput
from theodolite.training.recipes import Stage, StagedRecipe


def training_arguments(recipe: StagedRecipe, stage: Stage, folder: str | Path, seed: int, streams: bool = False) -> TrainingArguments:
    """The arguments of a stage: its batch divided among processes and micro-batches, checkpoints every `stage.save_every` steps (0: none).

    Without an accelerator `use_cpu` is set (docs/reference/training.md); with one, worker processes read data that is no stream
    (`streams`), whose order depends on their number. Raises `BadInput` if the batch does not divide.
    """
    accelerated = torch.accelerator.is_available()
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    micro = min(recipe.micro_batch, stage.batch // processes)
    if micro == 0 or stage.batch % (micro * processes):
        raise BadInput(f"a batch of {stage.batch} cannot be divided among {processes} processes in parts of {micro}; change micro_batch")
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=stage.steps,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=stage.batch // (micro * processes),
        learning_rate=stage.learning_rate,
        warmup_steps=stage.warmup_steps,
        lr_scheduler_type="cosine",
        adam_beta2=stage.beta2,
        weight_decay=stage.weight_decay,
        max_grad_norm=stage.clip_norm,
        bf16=recipe.precision == "bf16",
        activation_checkpointing=recipe.gradient_checkpointing,
        use_cpu=not accelerated,
        seed=seed,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="steps" if stage.save_every else "no",
        save_steps=stage.save_every or 1,
        # While the newest is being written, the one before it is the last complete one.
        save_total_limit=2,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=accelerated,
        dataloader_num_workers=_num_workers() if accelerated and not streams else 0,
    )


def _num_workers() -> int:
    """Loader processes for each training process: the cores that are left to it, 1 to 8."""
    cores = len(psutil.Process().cpu_affinity()) if psutil.LINUX else os.cpu_count() or 1
    return min(max(cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")) - 1, 1), 8)
