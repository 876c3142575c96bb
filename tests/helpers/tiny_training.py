"""Trainers of tiny random models on a few examples, for tests of what users do with a Trainer."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import PrinterCallback, TrainingArguments

from helpers.tiny_families import picture, tiny
from theodolite.data.conversations import conversation_of
from theodolite.data.packing import PackingCollator
from theodolite.data.sources import TrainingExample
from theodolite.models.forward import base_model
from theodolite.models.pictures import PictureReader
from theodolite.objectives.laver import LaverConfig
from theodolite.objectives.schedules import EMASchedule
from theodolite.training.laver_trainer import LaverTrainer

LAVER = LaverConfig(head_hidden=16, mask_ratio=0.5, mask_ramp="constant", ema=EMASchedule(every=1))


def example(key: int, answer: str = "red") -> TrainingExample:
    """A picture of noise and a question about it."""
    turns = [{"from": "human", "value": "<image>\nwhat colour"}, {"from": "gpt", "value": answer}]
    return TrainingExample(str(key), (picture(key),), (conversation_of(turns, 1),))


def examples(number: int = 4, first: int = 0) -> list[TrainingExample]:
    """Examples with different answers."""
    answers = ("red", "blue", "round", "yes")
    return [example(key, answers[key % len(answers)]) for key in range(first, first + number)]


def animated(example: TrainingExample) -> TrainingExample:
    """The example with each of its pictures as the first frame of an animation."""
    files = []
    for first in example.pictures:
        assert isinstance(first, Image.Image)
        file = BytesIO()
        first.save(file, "GIF", save_all=True, append_images=[Image.new("RGB", first.size, "blue")])
        files.append(file.getvalue())
    return replace(example, pictures=tuple(files))


def arguments(folder: Path, **options: Any) -> TrainingArguments:
    given: dict[str, Any] = {
        "max_steps": 3,
        "per_device_train_batch_size": 2,
        "per_device_eval_batch_size": 2,
        "learning_rate": 1e-3,
        "save_strategy": "no",
        "logging_steps": 1,
        "seed": 0,
    }
    fixed: dict[str, Any] = {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "dataloader_pin_memory": False}
    return TrainingArguments(output_dir=str(folder), **{**given, **fixed, **options})


def laver_trainer(
    folder: Path, model: Any = None, laver: LaverConfig = LAVER, family: str = "llava", given: dict[str, Any] | None = None, **options: Any
) -> LaverTrainer:
    """A LaVer trainer; `options` are training arguments, `given` the trainer's own arguments beside them."""
    stock, image_processor, tokenizer = tiny(family)
    model = stock if model is None else model
    reader = PictureReader(image_processor, tokenizer, base_model(model).config)
    torch.manual_seed(5)
    own: dict[str, Any] = {"train_dataset": examples(), "data_collator": PackingCollator(tokenizer, reader, max_length=512)}
    trainer = LaverTrainer(model, laver, args=arguments(folder, **options), **{**own, **(given or {})})
    trainer.remove_callback(PrinterCallback)
    return trainer


def losses(trainer: Any) -> list[float]:
    """The loss of each logged step."""
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
