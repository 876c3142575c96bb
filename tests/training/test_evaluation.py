"""`evaluate` and `predict`: each term's mean over the held-out examples, with nothing moved and the same masks every time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import EarlyStoppingCallback

from helpers import HELPERS, script_environment
from helpers.tiny_training import examples, laver_trainer, losses
from theodolite.data.sources import Malformed
from theodolite.objectives.laver import LaverConfig
from theodolite.objectives.schedules import EMASchedule
from theodolite.records.errors import BadInput

HELD_OUT = examples(5, first=10)
TERMS = ("loss", "loss/language", "loss/masked_latent", "loss/gram", "mask_frac", "student_cosine", "teacher_cosine")


def state_of(trainer: Any) -> dict[str, Tensor]:
    """Everything that training moves: weights, centre, teacher."""
    state = {name: value.clone() for name, value in trainer.objective_module.state_dict().items()}
    return state | {f"teacher.{name}": value.clone() for name, value in trainer.teacher_callback._present().state_dict().items()}


def terms_of(metrics: dict[str, float], prefix: str = "eval") -> dict[str, float]:
    return {name: metrics[f"{prefix}_{name}"] for name in TERMS}


def test_evaluation_gives_every_term_and_moves_nothing(tmp_path: Path) -> None:
    trainer = laver_trainer(tmp_path, given={"eval_dataset": HELD_OUT})
    trainer.train()
    before = state_of(trainer)
    first = terms_of(trainer.evaluate())
    after = state_of(trainer)
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert terms_of(trainer.evaluate()) == first
    assert first["loss"] == pytest.approx(first["loss/language"] + first["loss/masked_latent"] + first["loss/gram"], abs=1e-5)
    assert first["mask_frac"] == pytest.approx(0.5, abs=0.05)


def test_evaluation_between_steps_changes_no_loss(tmp_path: Path) -> None:
    plain = laver_trainer(tmp_path / "plain")
    plain.train()
    evaluated = laver_trainer(tmp_path / "evaluated", eval_strategy="steps", eval_steps=1, given={"eval_dataset": HELD_OUT})
    evaluated.train()
    assert losses(evaluated) == losses(plain)
    assert sum("eval_loss/gram" in entry for entry in evaluated.state.log_history) == 3


def test_the_means_are_over_all_examples_and_not_over_batches(tmp_path: Path) -> None:
    whole, parts = (
        laver_trainer(tmp_path / str(size), per_device_eval_batch_size=size, given={"eval_dataset": HELD_OUT}) for size in (5, 2)
    )
    assert terms_of(whole.evaluate()) == pytest.approx(terms_of(parts.evaluate()), abs=1e-5)
    metrics = whole.evaluate()
    assert metrics["eval_examples_left_out"] == 0
    assert metrics["eval_samples_per_second"] > 0


def test_the_language_term_is_the_mean_written_out(tmp_path: Path) -> None:
    trainer = laver_trainer(tmp_path, given={"eval_dataset": HELD_OUT})
    objective, collator = trainer.teacher_callback.objective, trainer.data_collator
    total, count = 0.0, 0
    trainer.objective_module.eval()
    for example in HELD_OUT:
        batch = {name: value for name, value in collator([example]).items() if name not in ("dropped", "num_seen", "noted")}
        batch = dict(objective.prepare(batch, 7, 7))
        with torch.no_grad():
            terms = trainer.objective_module(trainer.teacher_callback.teach(trainer.objective_module, batch, 0, counted=False), 0)
        total, count = total + terms["language"].total.item(), count + terms["language"].count
    assert trainer.evaluate()["eval_loss/language"] == pytest.approx(total / count, abs=1e-5)


def test_masks_of_evaluation_do_not_depend_on_the_step(tmp_path: Path) -> None:
    """A ramp starts at 0: an evaluation at the first step would mask nothing."""
    laver = LaverConfig(head_hidden=16, mask_ratio=0.5, mask_ramp="cosine", ema=EMASchedule(every=1))
    trainer = laver_trainer(
        tmp_path, laver=laver, eval_strategy="steps", eval_steps=1, eval_on_start=True, given={"eval_dataset": HELD_OUT}
    )
    trainer.train()
    fractions = {entry["eval_mask_frac"] for entry in trainer.state.log_history if "eval_mask_frac" in entry}
    assert len(fractions) == 1 and fractions.pop() == pytest.approx(0.5, abs=0.05)


def test_evaluating_before_training_leaves_the_run_as_it_was(tmp_path: Path) -> None:
    plain = laver_trainer(tmp_path / "plain")
    plain.train()
    evaluated = laver_trainer(tmp_path / "evaluated", given={"eval_dataset": HELD_OUT})
    evaluated.evaluate()
    with torch.no_grad():
        evaluated.objective_module.vlm.lm_head.weight.mul_(1.5)
    evaluated.objective_module.vlm.load_state_dict(laver_trainer(tmp_path / "again").objective_module.vlm.state_dict())
    evaluated.train()
    assert losses(evaluated) == losses(plain)


def test_a_resumed_run_takes_the_checkpoints_teacher_although_it_was_evaluated_first(tmp_path: Path) -> None:
    straight = laver_trainer(tmp_path / "straight", save_strategy="steps", save_steps=2, max_steps=4)
    straight.train()
    resumed = laver_trainer(tmp_path / "resumed", max_steps=4, given={"eval_dataset": HELD_OUT})
    resumed.evaluate()
    resumed.train(resume_from_checkpoint=str(tmp_path / "straight" / "checkpoint-2"))
    assert losses(resumed)[2:] == losses(straight)[2:]


def test_predict_gives_the_terms_as_metrics(tmp_path: Path) -> None:
    trainer = laver_trainer(tmp_path)
    output = trainer.predict(HELD_OUT)
    assert output.predictions is None and output.label_ids is None
    assert terms_of(output.metrics, "test") == terms_of(trainer.evaluate(HELD_OUT))


def test_several_held_out_sets_are_named(tmp_path: Path) -> None:
    trainer = laver_trainer(tmp_path, given={"eval_dataset": {"near": HELD_OUT, "far": examples(2, first=30)}})
    metrics = trainer.evaluate()
    assert {"eval_near_loss/gram", "eval_far_loss/gram"} <= metrics.keys()


def test_what_cannot_be_used_is_counted_and_nothing_at_all_is_refused(tmp_path: Path) -> None:
    trainer = laver_trainer(tmp_path)
    assert trainer.evaluate([*HELD_OUT, Malformed("a", "empty")])["eval_examples_left_out"] == 1
    with pytest.raises(BadInput, match=r"none of the 2 held-out examples can be used \(a: malformed: empty\)"):
        trainer.evaluate([Malformed("a", "empty"), Malformed("b", "empty")])


def test_early_stopping_and_the_best_model(tmp_path: Path) -> None:
    """At a destructive learning rate the first evaluation is the best."""
    trainer = laver_trainer(
        tmp_path,
        max_steps=20,
        learning_rate=0.3,
        lr_scheduler_type="constant",
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model="loss/language",
        greater_is_better=False,
        given={"eval_dataset": HELD_OUT, "callbacks": [EarlyStoppingCallback(2)]},
    )
    trainer.train()
    measured = [entry["eval_loss/language"] for entry in trainer.state.log_history if "eval_loss/language" in entry]
    best = min(range(len(measured)), key=measured.__getitem__)
    assert len(measured) == best + 3 < 20
    assert trainer.state.best_global_step == best + 1
    # Weights, centre and teacher are those of the best checkpoint.
    kept = [entry for entry in trainer.state.log_history if "eval_loss/language" in entry][best]
    assert terms_of(trainer.evaluate()) == pytest.approx({name: kept[f"eval_{name}"] for name in TERMS}, abs=1e-6)


def test_two_processes_evaluate_each_example_once(tmp_path: Path) -> None:
    """Five examples for two processes of two: one gets an example twice, unless it is left out."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    own = script_environment({"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"})
    done = subprocess.run(
        [*command, str(HELPERS / "evaluated_run.py"), str(tmp_path)], capture_output=True, text=True, check=False, env=own, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for number in (1, 5):
        together = json.loads((tmp_path / f"{number}.json").read_text())
        alone = laver_trainer(tmp_path, given={"eval_dataset": examples(number, first=10)}).evaluate()
        assert terms_of(together) == pytest.approx(terms_of(alone), abs=1e-5)
