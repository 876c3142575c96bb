"""What users set on a Trainer is obeyed, or refused by name when the trainer is made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import TrainerCallback

from helpers import tiny_families
from helpers.tiny_training import LAVER, animated, examples, laver_trainer, losses
from theodolite.objectives.laver import LaverConfig
from theodolite.records.errors import BadInput
from theodolite.training.checkpoint import WEIGHTS, WHOLE, last_whole
from theodolite.worlds.decoding import FIRST_FRAME

TRAINER_OPTIONS: dict[str, Any] = {
    "compute_metrics": lambda prediction: {},
    "preprocess_logits_for_metrics": lambda logits, labels: logits,
    "compute_loss_func": lambda outputs, labels, num_items_in_batch: 0.0,
    "model_init": lambda: None,
}
ARGUMENTS: dict[str, Any] = {
    "label_smoothing_factor": 0.1,
    "neftune_noise_alpha": 5.0,
    "use_liger_kernel": True,
    "batch_eval_metrics": True,
    "include_for_metrics": ["inputs"],
}


@pytest.mark.parametrize("name", TRAINER_OPTIONS)
def test_an_option_that_would_be_ignored_is_refused_by_name(name: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=f"^{name} is not supported: "):
        laver_trainer(tmp_path, given={name: TRAINER_OPTIONS[name]})


@pytest.mark.parametrize("name", ARGUMENTS)
def test_an_argument_that_would_be_ignored_is_refused_by_name(name: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=f"^{name}=.* is not supported: "):
        laver_trainer(tmp_path, **{name: ARGUMENTS[name]})


@pytest.mark.parametrize("strategy", ["group_by_length", "batch_rebalance"])
def test_sampling_by_length_is_refused_by_name(strategy: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=f"^train_sampling_strategy={strategy} is not supported: .*row_length"):
        laver_trainer(tmp_path, train_sampling_strategy=strategy)


def seen_by(trainer: Any) -> list[tuple[str, int]]:
    """(key, epoch) of the examples that a training sees, in order."""
    seen: list[tuple[str, int]] = []
    collate = trainer.data_collator

    def watching(visits: Any) -> Any:
        seen.extend((visit.example.key, visit.epoch) for visit in visits)
        return collate(visits)

    trainer.data_collator = watching
    trainer.train()
    return seen


def test_sequential_sampling_takes_the_data_sets_order_in_every_epoch(tmp_path: Path) -> None:
    seen = seen_by(laver_trainer(tmp_path, train_sampling_strategy="sequential", max_steps=4))
    assert seen == [(str(key), epoch) for epoch in (0, 1) for key in range(4)]


def test_the_data_seed_decides_the_order(tmp_path: Path) -> None:
    orders = [seen_by(laver_trainer(tmp_path, max_steps=6, data_seed=seed)) for seed in (3, 3, 4)]
    assert orders[0] == orders[1] != orders[2]


# Checkpoints


class StepsBegun(TrainerCallback):
    """Lists how many steps were done before each step that a run begins."""

    def __init__(self, began: list[int]) -> None:
        self.began = began

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.began.append(state.global_step)


def test_resuming_from_true_takes_the_last_whole_checkpoint(tmp_path: Path) -> None:
    straight = laver_trainer(tmp_path, save_strategy="steps", save_steps=2, max_steps=6)
    straight.train()
    (tmp_path / "checkpoint-6" / WHOLE).unlink()
    (tmp_path / "checkpoint-6" / "teacher.safetensors").unlink()
    (tmp_path / "checkpoint-best").mkdir()  # of the user's own
    resumed = laver_trainer(tmp_path, max_steps=6)
    began: list[int] = []
    resumed.add_callback(StepsBegun(began))
    resumed.train(resume_from_checkpoint=True)
    assert began == [4, 5], "the losses alone would be those that the cut-off checkpoint has noted"
    assert losses(resumed) == losses(straight)
    assert sum("train_runtime" in entry for entry in resumed.state.log_history) == 1
    assert (tmp_path / "checkpoint-best").is_dir()


def test_resuming_from_nothing_and_from_a_checkpoint_that_was_cut_off_are_refused(tmp_path: Path) -> None:
    trainer = laver_trainer(tmp_path)
    with pytest.raises(BadInput, match="holds no complete checkpoint to resume from"):
        trainer.train(resume_from_checkpoint=True)
    (tmp_path / "checkpoint-2").mkdir()
    with pytest.raises(BadInput, match="checkpoint-2 is no complete checkpoint"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))


def as_before_the_centre_moved(checkpoint: Path) -> None:
    """The files of a checkpoint as older versions wrote them: the centre among the weights, the teacher without it."""
    weights, teacher = (load_file(checkpoint / name) for name in (WEIGHTS, "teacher.safetensors"))
    weights["objective.centre.value"] = teacher.pop("objective.centre.value")
    save_file(weights, checkpoint / WEIGHTS)
    save_file(teacher, checkpoint / "teacher.safetensors")


def test_a_checkpoint_of_an_older_version_is_refused_with_the_reason(tmp_path: Path) -> None:
    laver_trainer(tmp_path, save_strategy="steps", save_steps=2, max_steps=2).train()
    as_before_the_centre_moved(tmp_path / "checkpoint-2")
    (tmp_path / "checkpoint-2" / WHOLE).write_text("")  # older versions noted no sizes
    with pytest.raises(BadInput, match=r"checkpoint-2 was written by a version of theodolite that kept LaVer's centre among the weights"):
        laver_trainer(tmp_path, max_steps=4).train(resume_from_checkpoint=True)


def test_with_a_limit_of_one_the_last_whole_checkpoint_outlives_the_writing_of_the_next(tmp_path: Path) -> None:
    trainer = laver_trainer(tmp_path, save_strategy="steps", save_steps=1, save_total_limit=1, max_steps=3)
    there: list[Path | None] = []
    beside = trainer._save_beside

    def watching(folder: Path) -> None:
        there.extend(path for path in tmp_path.glob(f"checkpoint-*/{WHOLE}"))
        beside(folder)

    trainer._save_beside = watching  # type: ignore[method-assign]
    trainer.train()
    assert [path.parent.name for path in there if path] == ["checkpoint-1", "checkpoint-2"]
    assert [path.name for path in sorted(tmp_path.glob("checkpoint-*"))] == ["checkpoint-3"]
    assert last_whole(tmp_path) == tmp_path / "checkpoint-3"


def test_a_run_counts_the_pictures_of_which_the_decoder_noted_something(tmp_path: Path) -> None:
    """Three steps of two examples: of the two animations one is seen twice."""
    one, two, three, four = examples(4)
    data = [animated(one), two, three, animated(four)]
    trainer = laver_trainer(tmp_path, given={"train_dataset": data, "eval_dataset": data}, train_sampling_strategy="sequential")
    trainer.train()
    assert trainer.dropped.lines() == ["3 pictures of 6 examples read with a note: the first of several frames"]
    trainer.evaluate()
    assert trainer.dropped.noted == {FIRST_FRAME: 3}  # those of training


# Data sets of the library


def rows(number: int = 4) -> list[dict[str, Any]]:
    talk = [{"role": "user", "content": "what colour"}, {"role": "assistant", "content": "red"}]
    return [{"messages": talk, "images": [tiny_families.picture(key)]} for key in range(number)]


def test_a_data_set_of_the_library_trains_and_evaluates_as_it_is(tmp_path: Path) -> None:
    dataset = datasets.Dataset.from_list(rows())
    trainer = laver_trainer(tmp_path, given={"train_dataset": dataset, "eval_dataset": dataset})
    trainer.train()
    assert trainer.dropped.num_seen == 6 and not trainer.dropped.counts
    assert trainer.evaluate()["eval_examples_left_out"] == 0


def test_a_data_set_with_other_columns_is_refused_with_the_line_that_makes_examples(tmp_path: Path) -> None:
    dataset = datasets.Dataset.from_list([{"chat": row["messages"], "photo": 1} for row in rows()])
    for name in ("train_dataset", "eval_dataset"):
        with pytest.raises(BadInput, match=r"from_datasets\(dataset, text=\.\.\., pictures=\.\.\.\)"):
            laver_trainer(tmp_path, given={name: dataset})


# Parameter groups


def grouped(trainer: Any) -> dict[int, dict[str, Any]]:
    """The optimizer's group of each parameter."""
    return {id(parameter): group for group in trainer.optimizer.param_groups for parameter in group["params"]}


def test_head_and_mask_embedding_have_their_own_learning_rate(tmp_path: Path) -> None:
    trainer = laver_trainer(tmp_path, laver=replace(LAVER, head_learning_rate=4e-3), weight_decay=0.1, lr_scheduler_type="linear")
    trainer.create_optimizer()
    groups = grouped(trainer)
    visual = {name: groups[id(value)] for name, value in trainer.teacher_callback.objective.named_parameters()}
    language = {name: groups[id(value)] for name, value in trainer.objective_module.vlm.named_parameters() if value.requires_grad}
    assert {group["lr"] for group in visual.values()} == {4e-3}
    assert {group["lr"] for group in language.values()} == {1e-3}
    assert {name for name, group in visual.items() if group["weight_decay"] == 0} == {name for name in visual if "bias" in name}
    assert len(groups) == len(visual) + len(language) == sum(len(group["params"]) for group in trainer.optimizer.param_groups)
    trainer.create_scheduler(4)
    trainer.optimizer.step()
    trainer.lr_scheduler.step()
    assert {group["lr"] for group in visual.values()} == {3e-3}  # scheduled like the others


def test_a_learning_rate_of_the_head_below_zero_is_refused() -> None:
    with pytest.raises(BadInput, match="head_learning_rate is -1"):
        LaverConfig(head_learning_rate=-1.0)


def test_a_head_that_does_not_learn_stays(tmp_path: Path) -> None:
    trainer = laver_trainer(tmp_path, laver=replace(LAVER, head_learning_rate=0.0))
    visual = {name: value.clone() for name, value in trainer.teacher_callback.objective.named_parameters()}
    language = trainer.objective_module.vlm.lm_head.weight.clone()
    trainer.train()
    assert all(torch.equal(value, visual[name]) for name, value in trainer.teacher_callback.objective.named_parameters())
    assert not torch.equal(trainer.objective_module.vlm.lm_head.weight, language)


def test_without_a_rate_of_its_own_the_head_has_the_models(tmp_path: Path) -> None:
    trainer = laver_trainer(tmp_path)
    trainer.create_optimizer()
    assert len(trainer.optimizer.param_groups) == 2
    assert {group["lr"] for group in trainer.optimizer.param_groups} == {1e-3}


# LoRA in a vision tower under activation checkpointing


def tower_adapters() -> Any:
    model, _, _ = tiny_families.tiny("qwen3_vl")
    return get_peft_model(model, LoraConfig(r=2, target_modules=r".*visual\.blocks.*(qkv|proj)"))


def gradients(trainer: Any) -> dict[str, float]:
    """The largest gradient of each adapter in one step's last backward pass."""
    found: dict[str, float] = {}
    inside = [(name, value) for name, value in trainer.objective_module.named_parameters() if "lora_B" in name]

    def note(name: str) -> Any:
        return lambda gradient: found.__setitem__(name, gradient.abs().max().item())

    for name, value in inside:
        value.register_hook(note(name))
    trainer.train()
    assert inside
    return {name: found.get(name, 0.0) for name, _ in inside}


@pytest.mark.parametrize("options", [None, {}, {"preserve_rng_state": True}, {"use_reentrant": False}])
def test_adapters_in_the_tower_get_gradients_under_checkpointing(options: Any, tmp_path: Path) -> None:
    trainer = laver_trainer(
        tmp_path, tower_adapters(), family="qwen3_vl", activation_checkpointing=True, activation_checkpointing_kwargs=options, max_steps=1
    )
    assert min(gradients(trainer).values()) > 0


def test_reentrant_checkpointing_is_refused_by_name(tmp_path: Path) -> None:
    options = {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"use_reentrant": True}}
    with pytest.raises(BadInput, match="is reentrant, which leaves trained layers of the vision tower without gradients"):
        laver_trainer(tmp_path, tower_adapters(), family="qwen3_vl", **options).train()
    model: nn.Module = tiny_families.tiny("qwen3_vl")[0]
    model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": True})
    with pytest.raises(BadInput, match="is reentrant"):
        laver_trainer(tmp_path, model, family="qwen3_vl").train()
