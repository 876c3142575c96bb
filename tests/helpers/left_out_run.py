"""A run on two processes whose every example is too long: prints what each process raised. Started by torchrun."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from transformers import PrinterCallback, TrainingArguments

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from helpers.conversations import IMAGE, LINES, picture, says
from helpers.tiny_families import tiny
from theodolite.data.packing import PackingCollator
from theodolite.data.sources import TrainingExample
from theodolite.models.pictures import PictureReader
from theodolite.objectives.language import Language
from theodolite.records.errors import BadInput
from theodolite.training.objective_module import ObjectiveModule
from theodolite.training.trainer import ObjectiveTrainer


def main(folder: Path) -> None:
    torch.manual_seed(0)
    model, image_processor, words = tiny("llava")
    conversation = (says("user", IMAGE, "what"), says("assistant", "red"))
    collator = PackingCollator(words, PictureReader(image_processor, words, model.config), max_length=10, chat_template=LINES)
    trainer = ObjectiveTrainer(
        ObjectiveModule(model, Language()),
        train_dataset=[TrainingExample(str(number), (picture(number),), (conversation,)) for number in range(8)],
        data_collator=collator,
        args=TrainingArguments(
            output_dir=str(folder / "out"),
            max_steps=4,
            per_device_train_batch_size=1,
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
            save_strategy="no",
            remove_unused_columns=False,
            dataloader_pin_memory=False,
        ),
    )
    trainer.remove_callback(PrinterCallback)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    try:
        trainer.train()
        result = "ended"
    except BadInput as error:
        result = str(error)
    same = all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    (folder / f"{trainer.args.process_index}.txt").write_text(f"{trainer.state.global_step} {same} {result}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
