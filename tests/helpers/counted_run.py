"""Collectives of a short training on several processes: `counted_run.py FOLDER OBJECTIVE` writes those of each step, and the losses."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, TrainerCallback

from helpers.collectives import counted_collectives
from helpers.tiny_families import tiny
from helpers.tiny_training import animated, arguments, examples, laver_trainer
from theodolite.data.drops import Dropped
from theodolite.data.packing import PackingCollator
from theodolite.data.sources import Malformed
from theodolite.models.pictures import PictureReader
from theodolite.objectives.language import Language
from theodolite.training.interrupts import StopAtSignal, StopSignals
from theodolite.training.launch import leave_together
from theodolite.training.objective_module import ObjectiveModule
from theodolite.training.trainer import ObjectiveTrainer

# Two micro-batches of one example a step and process; the damaged one is in the last of five steps.
NUM_STEPS = 5


class EachStep(TrainerCallback):
    """The collectives between the starts of steps."""

    def __init__(self, found: Counter[str]) -> None:
        self.found, self.before = found, Counter[str]()
        self.steps: list[dict[str, int]] = []

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self.steps.append(dict(self.found - self.before))
        self.before = Counter(self.found)


def main() -> None:
    folder, objective = Path(sys.argv[1]), sys.argv[2]
    torch.set_num_threads(1)
    first, *more = examples(4 * NUM_STEPS - 1)
    data = [animated(first), *more, Malformed("damaged", "empty")]
    options: dict[str, Any] = {
        "max_steps": NUM_STEPS,
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 2,
        "logging_steps": NUM_STEPS,
        "train_sampling_strategy": "sequential",
    }
    dropped = Dropped(max_damaged_frac=0.5)
    if objective == "laver":
        trainer: ObjectiveTrainer = laver_trainer(folder / "run", given={"train_dataset": data, "dropped": dropped}, **options)
    else:
        model, image_processor, tokenizer = tiny("llava")
        collator = PackingCollator(tokenizer, PictureReader(image_processor, tokenizer, model.config), max_length=512)
        module, own = ObjectiveModule(model, Language()), arguments(folder / "run", **options)
        trainer = ObjectiveTrainer(module, args=own, train_dataset=data, data_collator=collator, dropped=dropped)
        trainer.remove_callback(PrinterCallback)
    assert trainer.args.world_size == 2
    trainer.add_callback(StopAtSignal(StopSignals()))
    with counted_collectives() as found:
        each_step = EachStep(found)
        trainer.add_callback(each_step)
        trainer.train()
    (folder / f"{trainer.args.process_index}.json").write_text(
        json.dumps([each_step.steps, dropped.listed, dropped.num_seen, dropped.noted])
    )
    del trainer
    leave_together()


if __name__ == "__main__":
    main()
