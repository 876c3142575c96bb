"""One training run of a tiny LLaVA, as a process of its own: `python trajectory.py FOLDER JSON`. Writes its losses and final weights.

Options: `objective` (laver, plain, masked), `branch`, `batch` and `accumulation` of each process, `row_length`, `attention`, `sharded`
(FSDP2), `steps`, `save_steps`, `resume`, `die_at` (a step), `die_saving`, and `environment` (WORLD_SIZE, RANK ... of one of several).
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import nn
from transformers import TrainerCallback, TrainingArguments, get_scheduler

from helpers.fork_server import thread_names
from helpers.tiny_llava import TINY, WORLD, examples
from theodolite.data.epochs import EpochDataset, EpochSampler
from theodolite.data.packing import PackingCollator
from theodolite.data.sources import WorldExamples
from theodolite.models.construction.build import build_vlm
from theodolite.models.forward import Adaptation, adapt, run_forward
from theodolite.models.pass_inputs import whole_inputs
from theodolite.models.pictures import PictureReader
from theodolite.objectives.language import Language, next_token_loss
from theodolite.objectives.laver import LaVer, LaverConfig
from theodolite.objectives.schedules import EMASchedule
from theodolite.objectives.teacher import Teacher
from theodolite.objectives.terms import Objective, Term, Terms, combine
from theodolite.training.checkpoint import last_whole
from theodolite.training.launch import leave_together
from theodolite.training.laver_trainer import LaverTrainer
from theodolite.training.objective_module import ObjectiveModule
from theodolite.training.step_metrics import JsonLinesLog
from theodolite.training.teacher_callback import TeacherCallback
from theodolite.training.trainer import ObjectiveTrainer

DEFAULTS: dict[str, Any] = {
    "objective": "laver",
    "branch": "separate",
    "batch": 8,
    "accumulation": 1,
    "row_length": None,
    "attention": "sdpa",
    "sharded": False,
    "steps": 20,
    "save_steps": 0,
    "resume": False,
    "die_at": 0,
    "die_saving": 0,
    "bf16": False,
    "weights": 1.0,
    "lora": 0,
}
MIXED = Adaptation("mixed", "2d")


class Masked(Objective):
    """Next-token prediction on masked pictures, written out: what the joint branch is when its visual losses weigh nothing."""

    def __init__(self, laver: LaVer) -> None:
        super().__init__()
        self.laver = laver

    def prepare(self, batch: Mapping[str, Any], step: int, num_steps: int) -> Mapping[str, Any]:
        return self.laver.prepare(batch, step, num_steps)

    def counts(self, batch: Mapping[str, Any]) -> Mapping[str, int]:
        return {"language": len(batch["labels"])}

    def forward(self, model: nn.Module, batch: Mapping[str, Any], step: int) -> Terms:
        inputs = whole_inputs(model.config, batch, masked=batch["masked"])
        logits = run_forward(model, inputs, MIXED, self.laver.mask_embedding).logits
        return {"language": Term(next_token_loss(logits, batch["labels"]), len(batch["labels"]))}


class Death(TrainerCallback):
    """kill -9 at the end of a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def settings_of(options: Mapping[str, Any]) -> LaverConfig:
    return LaverConfig(
        branch=options["branch"],
        head_hidden=24,
        mask_ratio=0.3,
        mask_ramp="constant",
        ema=EMASchedule(every=3),
        adaptation=MIXED,
        masked_latent_weight=options["weights"],
        gram_weight=options["weights"],
    )


def arguments(folder: Path, options: Mapping[str, Any]) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(folder / "checkpoints"),
        max_steps=options["steps"],
        per_device_train_batch_size=options["batch"],
        gradient_accumulation_steps=options["accumulation"],
        learning_rate=1e-3,
        warmup_steps=4,
        lr_scheduler_type="cosine",
        optim="adamw_torch",
        adam_epsilon=1e-6,
        weight_decay=0.0,
        use_cpu=True,
        bf16=options["bf16"],
        logging_steps=1,
        save_strategy="steps" if options["save_steps"] else "no",
        save_steps=options["save_steps"] or 500,
        save_total_limit=2,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
    )


def material(options: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    """The model, the data set (two questions of some pictures, one of others) and the collator."""
    model, processor = build_vlm(WORLD.texts, 0, decoder=TINY, frontend="patches")
    model.set_attn_implementation(options["attention"])
    reader = PictureReader(processor.image_processor, processor.tokenizer, model.config)
    collator = PackingCollator(
        processor.tokenizer, reader, max_length=160, row_length=options["row_length"], chat_template=processor.chat_template
    )
    return model, WorldExamples(examples("shape,row:odd", num_pictures=48)), collator


def trained(folder: Path, options: Mapping[str, Any]) -> ObjectiveModule:
    """The run through the Trainer."""
    model, dataset, collator = material(options)
    given: dict[str, Any] = {
        "args": arguments(folder, options),
        "train_dataset": dataset,
        "data_collator": collator,
        "callbacks": [JsonLinesLog(folder / "log.jsonl")],
    }
    if options["lora"]:
        from theodolite.models.freezing import set_trainable

        model = set_trainable(model, ("connector", "language_model"), options["lora"])
    torch.manual_seed(1)
    if options["objective"] == "laver":
        trainer: ObjectiveTrainer = LaverTrainer(model, settings_of(options), **given)
    else:
        adapt(model, MIXED)
        laver = LaVer(model.config, settings_of(options))
        objective = Masked(laver) if options["objective"] == "masked" else Language(MIXED)
        trainer = ObjectiveTrainer(ObjectiveModule(model, objective), **given)
    expected = int(os.environ.get("WORLD_SIZE", "1"))
    assert trainer.args.world_size == expected, (trainer.args.world_size, expected)
    if options["die_at"]:
        trainer.add_callback(Death(options["die_at"]))
    if options["die_saving"]:
        beside = trainer._save_beside

        def dying(where: Path) -> None:
            if trainer.state.global_step == options["die_saving"]:
                os.kill(os.getpid(), signal.SIGKILL)
            beside(where)

        trainer._save_beside = dying  # type: ignore[method-assign]
    last = last_whole(folder / "checkpoints") if options["resume"] else None
    trainer.train(resume_from_checkpoint=str(last) if last else None)
    return trainer.objective_module


def sharded(folder: Path, options: Mapping[str, Any]) -> ObjectiveModule:
    """The same run with FSDP2 on a gloo mesh, as a plain loop: on a CPU accelerate ignores FSDP."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor

    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    assert world == 2
    model, dataset, collator = material(options)
    settings = settings_of(options)
    adapt(model, MIXED)
    torch.manual_seed(1)
    objective = LaVer(model.config, settings)
    objective_module = ObjectiveModule(model, objective)
    mesh = init_device_mesh("cpu", (world,))
    for layer in model.model.language_model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(objective_module, mesh=mesh)
    wanted = [parameter for parameter in objective_module.parameters() if parameter.requires_grad]
    assert all(isinstance(parameter, DTensor) for parameter in wanted)
    optimizer = torch.optim.AdamW(wanted, lr=1e-3, eps=1e-6, weight_decay=0.0)
    schedule = get_scheduler("cosine", optimizer, 4, options["steps"])
    teacher_callback = TeacherCallback(objective_module, objective)
    draws = [draw for epoch in range(20) for draw in epoch_of(len(dataset), epoch)]
    visits = EpochDataset(dataset)
    for step in range(options["steps"]):
        start = (step * world + rank) * options["batch"]
        batch = collator([visits[draw] for draw in draws[start : start + options["batch"]]])
        prepared = objective.prepare(batch, step, options["steps"])
        counted = objective.counts(prepared)
        counts = torch.tensor([counted[name] for name in sorted(counted)])
        dist.all_reduce(counts)
        whole = dict(zip(sorted(counted), counts.tolist(), strict=True))
        loss = combine(objective_module(teacher_callback.teach(objective_module, prepared, step), step), whole) * world
        loss.backward()
        torch.nn.utils.clip_grad_norm_(wanted, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        teacher_callback.follow(step + 1, options["steps"])
        told = loss.detach().clone()
        dist.all_reduce(told)
        if rank == 0:
            with (folder / "log.jsonl").open("a") as file:
                file.write(json.dumps({"step": step + 1, "loss": told.item() / world}) + "\n")
    assert teacher_callback.teacher is not None and all(isinstance(value, DTensor) for value in teacher_callback.teacher.shadow.values())
    state = {name: value.clone() for name, value in teacher_callback.teacher.state_dict().items()}
    teacher_callback.teacher.update(objective_module, 0.0)
    assert any(not torch.equal(value, state[name]) for name, value in teacher_callback.teacher.state_dict().items())
    teacher_callback.teacher.load_state_dict(state)
    assert all(torch.equal(value, state[name]) for name, value in teacher_callback.teacher.state_dict().items())
    return objective_module


def epoch_of(number: int, epoch: int) -> list[tuple[int, int]]:
    sampler = EpochSampler(number, 42)
    sampler.set_epoch(epoch)
    return list(sampler)


def main() -> None:
    folder, options = Path(sys.argv[1]), {**DEFAULTS, **json.loads(sys.argv[2])}
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.update(options.pop("environment", {}))
    torch.set_num_threads(1)
    objective_module = sharded(folder, options) if options["sharded"] else trained(folder, options)
    # Under FSDP2 gathering takes every process.
    state = Teacher.of(objective_module).state_dict()
    if int(os.environ.get("RANK", "0")) == 0:
        save_file({name: value.contiguous() for name, value in state.items()}, folder / "weights.safetensors")
    del objective_module, state
    leave_together()
    if options["sharded"]:
        # torch goes on holding a group that `fully_shard` has seen and its threads: leave out the end of the interpreter, which they break.
        sys.stdout.flush()
        os._exit(0)
    assert not [name for name in thread_names() if "gloo" in name]


if __name__ == "__main__":
    main()
