"""Runs of tiny models under FSDP2 as accelerate sets it up, on gloo processes: `fsdp2_run.py FOLDER JSON` on each of them.

accelerate takes its FSDP plug-in for accelerators only. On a CPU nothing else of it depends on the device, so `fsdp_on_cpu` makes its state
say FSDP there; the Trainer, accelerate's `_prepare_fsdp2` and checkpoints, and torch's `fully_shard` are the real ones.

Options: `names` (families), `steps` a run, `save_at` (a step, 0: never), `resume` (a folder with runs to go on from),
`state_dict` (SHARDED_STATE_DICT or FULL_STATE_DICT), `low_memory` (`cpu_ram_efficient_loading`), `micro` (examples of a micro-batch),
`best` (evaluate and save at each step of a destructive learning rate, and load the best model at the end), `bf16` (mixed precision),
`auxiliary` (by family, names of losses beside LaVer's, joined by "+").
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType
from torch.distributed.tensor import DTensor
from transformers import TrainingArguments

from helpers import tiny_families
from helpers.collectives import counted_collectives
from helpers.conversations import IMAGE, says
from theodolite.data.packing import PackingCollator
from theodolite.data.sources import TrainingExample
from theodolite.models.export import export_vlm
from theodolite.models.families import family_of
from theodolite.models.forward import Adaptation
from theodolite.models.load import load_vlm, with_memory
from theodolite.models.pictures import PictureReader
from theodolite.objectives.laver import LaverConfig
from theodolite.objectives.schedules import EMASchedule
from theodolite.objectives.visual import auxiliary_named
from theodolite.training.laver_trainer import LaverTrainer
from theodolite.training.step_metrics import JsonLinesLog

BATCH = 6
DEFAULTS: Mapping[str, Any] = {
    "names": tiny_families.NAMES,
    "steps": 3,
    "save_at": 0,
    "resume": "",
    "state_dict": "SHARDED_STATE_DICT",
    "low_memory": False,
    "micro": 1,
    "best": False,
    "bf16": False,
    "auxiliary": {},
}
# More than processes and with different numbers of pictures: of two processes one gets a filler, and one a dummy picture.
NUM_HELD_OUT = 3
# As `accelerate launch` sets them for a configuration made by its questionnaire, apart from the options of a run.
ENVIRONMENT = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_OFFLOAD_PARAMS": "false",
}


class Questions:
    """Examples with 0, 1 and 2 pictures: with micro-batches of one, the processes' differ at most steps."""

    def __init__(self, name: str, number: int = 12) -> None:
        self.name, self.number = name, number

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, number: int) -> TrainingExample:
        num_pictures = number % 3
        pictures = tuple(tiny_families.picture(number, (40, 40)) for _ in range(num_pictures))
        question = "what colour is the shape" if number % 2 else "a b c"
        turns = (says("user", *[IMAGE] * num_pictures, question), says("assistant", ("red", "blue round", "yes")[number % 3]))
        return TrainingExample(str(number), pictures, (turns,))


def trainer_of(name: str, folder: Path, options: Mapping[str, Any], processes: int) -> LaverTrainer:
    model, image_processor, words = tiny_families.tiny(name)
    if options["low_memory"]:
        model = loaded(model, name, folder / "start")
    family = family_of(model.config)
    model.get_submodule(family.encoder).requires_grad_(False)
    for path in family.connector:
        model.get_submodule(path).requires_grad_(True)
    collator = PackingCollator(words, PictureReader(image_processor, words, model.config), max_length=400)
    best = {"eval_strategy": "steps", "eval_steps": 1, "load_best_model_at_end": True, "lr_scheduler_type": "constant"}
    arguments = TrainingArguments(
        output_dir=str(folder / "checkpoints"),
        max_steps=options["steps"],
        per_device_train_batch_size=options["micro"],
        gradient_accumulation_steps=BATCH // (options["micro"] * processes),
        per_device_eval_batch_size=1,
        learning_rate=0.3 if options["best"] else 3e-3,
        optim="adamw_torch",
        adam_epsilon=1e-6,
        use_cpu=True,
        bf16=options["bf16"],
        logging_steps=1,
        save_strategy="steps" if options["save_at"] else "no",
        save_steps=options["save_at"] or 500,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        **(best if options["best"] else {}),
    )
    settings = LaverConfig(
        branch=("joint", "separate")[tiny_families.NAMES.index(name) % 2],
        head_hidden=24,
        mask_ratio=0.3,
        mask_ramp="constant",
        ema=EMASchedule(every=2),
        adaptation=Adaptation("mixed", "2d"),
    )
    torch.manual_seed(1)
    log = JsonLinesLog(folder / "log.jsonl")
    data = {"train_dataset": Questions(name), "eval_dataset": Questions(name, NUM_HELD_OUT)}
    return LaverTrainer(
        model,
        settings,
        auxiliary_named(options["auxiliary"].get(name, "")),
        args=arguments,
        data_collator=collator,
        callbacks=[log],
        **data,
    )


def loaded(model: Any, name: str, folder: Path) -> Any:
    """The model from a folder, on other processes than the first with empty weights: accelerate has to broadcast the first one's."""
    if dist.get_rank() == 0:
        export_vlm(model, tiny_families.processor(name, tiny_families.tokenizer(name)), folder)
    dist.barrier()
    found = load_vlm(folder)[0].train()
    if dist.get_rank() > 0:
        for module in found.modules():
            for path, parameter in module.named_parameters(recurse=False):
                setattr(module, path, torch.nn.Parameter(parameter.to("meta"), parameter.requires_grad))
        found.tie_weights()
        found = with_memory(found, torch.device("cpu"))
    return found


def run(name: str, folder: Path, options: Mapping[str, Any]) -> None:
    """One family's run; writes its log, and the exported model."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    trainer = trainer_of(name, folder, options, processes)
    sharded = "FSDP_VERSION" in os.environ
    assert trainer.args.world_size == processes
    assert trainer.is_fsdp_enabled == sharded
    resumed = Path(options["resume"]) / name / "checkpoints" / f"checkpoint-{options['save_at']}" if options["resume"] else None
    folder.mkdir(parents=True, exist_ok=True)
    gathered = count_gathered(trainer)
    with counted_collectives() as collectives:
        trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    trained = [parameter for parameter in trainer.objective_module.parameters() if parameter.requires_grad]
    assert all(isinstance(parameter, DTensor) == sharded for parameter in trained)
    if sharded:
        teaches_after_a_forward_alone(trainer, name)
    if not options["resume"]:
        measured = [trainer.evaluate(), *(entry for entry in trainer.state.log_history if "eval_loss" in entry)]
        if name == "llava":
            predicted = trainer.predict(Questions(name, NUM_HELD_OUT)).metrics
            assert all(value == measured[0][f"eval_{key[5:]}"] for key, value in predicted.items() if "loss" in key or "cosine" in key)
        trainer.save_model(str(folder / "model"))
        if trainer.is_world_process_zero():  # two processes that write one file at once leave the end of the longer text in it
            results = {"collectives": collectives, "measured": measured, "gathered": len(gathered)}
            (folder / "results.json").write_text(json.dumps(results))
    AcceleratorState._reset_state(reset_partial_state=False)
    if sharded:
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_CPU


def count_gathered(trainer: LaverTrainer) -> list[None]:
    """A list that grows with each call that gathers the whole model."""
    calls: list[None] = []
    stock = trainer.accelerator.get_state_dict

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(None)
        return stock(*args, **kwargs)

    trainer.accelerator.get_state_dict = counted
    return calls


def teaches_after_a_forward_alone(trainer: LaverTrainer, name: str) -> None:
    """A forward without a backward leaves the weights of FSDP2's root gathered; a teacher must not take these for its parameters."""
    data = Questions(name)
    batch = trainer.objective_module.objective.prepare(trainer.data_collator([data[1], data[2]]), 1, 4)
    before = trainer.teacher_callback.teach(trainer.model, batch, 1, counted=False)
    with torch.no_grad():
        loss = trainer.model(before, 1)["language"].total
    again = trainer.teacher_callback.teach(trainer.model, batch, 1, counted=False)
    assert torch.equal(before["teacher_outputs"].outputs, again["teacher_outputs"].outputs)
    with torch.no_grad():
        assert torch.equal(trainer.model(again, 1)["language"].total, loss)


def fsdp_on_cpu() -> None:
    """accelerate's state says FSDP on a CPU, as it does on an accelerator."""
    stock = AcceleratorState.__init__

    def with_fsdp(self: AcceleratorState, *args: Any, fsdp_plugin: Any = None, **kwargs: Any) -> None:
        stock(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is not None:
            self.fsdp_plugin, self.distributed_type = fsdp_plugin, DistributedType.FSDP
            if self._mixed_precision != "no":
                fsdp_plugin.set_mixed_precision(self._mixed_precision)
            PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    AcceleratorState.__init__ = with_fsdp  # type: ignore[method-assign]


def main() -> None:
    folder, options = Path(sys.argv[1]), {**DEFAULTS, **json.loads(sys.argv[2])}
    torch.set_num_threads(1)
    os.environ |= {
        **ENVIRONMENT,
        "FSDP_STATE_DICT_TYPE": options["state_dict"],
        "FSDP_CPU_RAM_EFFICIENT_LOADING": str(options["low_memory"]).lower(),
    }
    dist.init_process_group("gloo")
    fsdp_on_cpu()
    for name in options["names"]:
        run(name, folder / name, options)
    # torch goes on holding a group that `fully_shard` has seen and its threads: leave out the end of the interpreter, which they break.
    dist.barrier()
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
