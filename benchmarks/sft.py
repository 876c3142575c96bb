"""Training against TRL's `SFTTrainer`: loss tokens a second on the same model, pictures, questions, loss tokens and batches.

    pip install 'theodolite[bench]'
    python benchmarks/sft.py [--json] [--questions 1 2 8] [--bf16]

The model is a LLaVA of stock classes: a frozen SigLIP tower, 64 vision tokens a picture, a Llama decoder. Both trainers start from the same
weights and take the same pictures and questions in the same order, with the same optimizer, attention (`sdpa`) and precision, nothing
recomputed in the backward pass. The questions about a picture are independent of each other: TRL's collator takes each with a copy of the
picture, `PackingCollator` lays them into one sequence, where they do not attend to each other. So both minimise the same loss, which is
checked: the losses of the first step must agree. Runs of both alternate; a ratio belongs to two neighbouring runs.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from PIL import Image
from transformers import PrinterCallback, TrainerCallback, TrainingArguments
from transformers.utils import logging

from theodolite.data.examples import ExampleSet, draw_questions
from theodolite.data.sources import WorldExamples
from theodolite.models.construction.build import DecoderSize, build_vlm
from theodolite.models.freezing import set_trainable
from theodolite.objectives.language import Language
from theodolite.training.objective_module import ObjectiveModule
from theodolite.training.trainer import ObjectiveTrainer
from theodolite.worlds.shapes.world import Shapes

DECODER = DecoderSize(num_layers=6, width=192, num_heads=6)
POLICY = "shape,colour,size,column,row,texture,ground,letter"
MOST_QUESTIONS = len(POLICY.split(","))
WARM_UP = 2
# Largest relative difference of the losses of the first step, in float32 and in bf16.
SAME_LOSS = {False: 1e-4, True: 2e-2}
HOW_TO_INSTALL = "TRL is not installed; pip install 'theodolite[bench]' installs it"


@dataclass
class StepTimes(TrainerCallback):
    """Seconds of the clock of every step, and the loss of the first."""

    seconds: list[float] = field(default_factory=list)
    first_loss: float = float("nan")
    started: float = 0.0

    def on_step_begin(self, *unused: Any, **more: Any) -> None:
        self.started = self.started or time.perf_counter()

    def on_step_end(self, *unused: Any, **more: Any) -> None:
        now = time.perf_counter()  # the next step's batch is made before the next `on_step_begin`
        self.seconds.append(now - self.started)
        self.started = now

    def on_log(self, arguments: Any, state: Any, control: Any, logs: Any = None, **more: Any) -> None:
        if state.global_step == 1 and "loss" in logs:
            self.first_loss = logs["loss"]


def has_trl() -> bool:
    return importlib.util.find_spec("trl") is not None


def pictures_and_questions(num_pictures: int, num_questions: int) -> tuple[Shapes, ExampleSet]:
    """Pictures of the shapes world with so many independent questions each, at most `MOST_QUESTIONS`."""
    world = Shapes().correlate("shape", "colour", 0.9)
    scenes = world.sample(num_pictures, np.random.default_rng(0))
    asked = draw_questions(world, scenes, world.policy(POLICY), 0)
    return world, ExampleSet(world.render(scenes, 64), tuple(items[:num_questions] for items in asked))


def model_and_processor(world: Shapes) -> tuple[Any, Any]:
    """The LLaVA; connector and language model are trained."""
    model, processor = build_vlm(world.texts, 0, decoder=DECODER, frontend="patches")
    model.set_attn_implementation("sdpa")
    return set_trainable(model, ("connector", "language_model")), processor


def arguments(kind: type[TrainingArguments], folder: str, steps: int, batch: int, bf16: bool, **more: Any) -> TrainingArguments:
    return kind(
        output_dir=folder,
        max_steps=steps,
        per_device_train_batch_size=batch,
        learning_rate=1e-3,
        train_sampling_strategy="sequential",
        bf16=bf16,
        use_cpu=True,
        seed=0,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        **more,
    )


def trl_trainer(world: Shapes, examples: ExampleSet, steps: int, batch: int, bf16: bool, folder: str, times: StepTimes) -> Any:
    """TRL's trainer with its own collator: one row a question, loss on the completion."""
    from trl import SFTConfig, SFTTrainer

    model, processor = model_and_processor(world)
    rows = [
        {
            "images": [Image.fromarray(picture)],
            "prompt": [{"role": "user", "content": item.question}],
            "completion": [{"role": "assistant", "content": item.answer}],
        }
        for picture, items in zip(examples.pictures, examples.questions, strict=True)
        for item in items
    ]
    num_questions = len(examples.questions[0])
    return SFTTrainer(
        model=model,
        args=arguments(SFTConfig, folder, steps, batch * num_questions, bf16, gradient_checkpointing=False, max_length=None),
        train_dataset=Dataset.from_list(rows),
        processing_class=processor,
        callbacks=[times],
    )


def own_trainer(world: Shapes, examples: ExampleSet, steps: int, batch: int, bf16: bool, folder: str, times: StepTimes) -> Any:
    """The package's trainer with its default collator, as a script would use both."""
    model, processor = model_and_processor(world)
    return ObjectiveTrainer(
        ObjectiveModule(model, Language()),
        args=arguments(TrainingArguments, folder, steps, batch, bf16),
        train_dataset=WorldExamples(examples),
        processing_class=processor,
        callbacks=[times],
    )


TRAINERS = {"theodolite": own_trainer, "trl": trl_trainer}


def timed(name: str, world: Shapes, examples: ExampleSet, steps: int, batch: int, bf16: bool) -> StepTimes:
    """One run of so many steps."""
    times = StepTimes()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = TRAINERS[name](world, examples, steps, batch, bf16, folder, times)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return times


def num_loss_tokens(processor: Any, examples: ExampleSet) -> int:
    """Answer tokens, with the end token of each answer."""
    tokenizer = processor.tokenizer
    return sum(len(tokenizer(item.answer)["input_ids"]) + 1 for items in examples.questions for item in items)


def compare(num_questions: int, steps: int, batch: int, repeats: int, bf16: bool) -> dict[str, Any]:
    """Loss tokens a second of both trainers, and their ratio with its range. Raises `RuntimeError` if their losses differ."""
    world, examples = pictures_and_questions(steps * batch, num_questions)
    tokens = num_loss_tokens(model_and_processor(world)[1], examples) / steps
    runs: dict[str, list[StepTimes]] = {name: [] for name in TRAINERS}
    for _ in range(repeats):
        for name in TRAINERS:
            runs[name].append(timed(name, world, examples, steps, batch, bf16))
    losses = {name: each[0].first_loss for name, each in runs.items()}
    if not np.isclose(*losses.values(), rtol=SAME_LOSS[bf16]):
        raise RuntimeError(f"the losses of the first step differ, so the two do not do the same work: {losses}")
    step_s = {name: [statistics.median(run.seconds[WARM_UP:]) for run in each] for name, each in runs.items()}
    ratios = [trl / own for trl, own in zip(step_s["trl"], step_s["theodolite"], strict=True)]
    return {
        "questions": num_questions,
        "precision": "bf16" if bf16 else "fp32",
        "pictures_a_step": batch,
        "loss_tokens_a_step": round(tokens, 1),
        "first_loss": losses,
        "tokens_per_s": {name: round(tokens / statistics.median(seconds), 1) for name, seconds in step_s.items()},
        "ratio": round(statistics.median(ratios), 3),
        "ratio_low": round(min(ratios), 3),
        "ratio_high": round(max(ratios), 3),
        "threads": torch.get_num_threads(),
    }


def measure(questions: Sequence[int], steps: int, batch: int, repeats: int, bf16: bool) -> list[dict[str, Any]]:
    logging.set_verbosity_error()
    return [compare(number, steps, batch, repeats, bf16) for number in questions]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--questions", type=int, nargs="+", default=[1, 2, 8], help=f"a picture, independent; at most {MOST_QUESTIONS}")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch", type=int, default=16, help="pictures a step")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--bf16", action="store_true", help="autocast to bf16 in both; default: float32")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args()
    if not has_trl():
        parser.error(HOW_TO_INSTALL)
    rows = measure(given.questions, given.steps, given.batch, given.repeats, given.bf16)
    if given.json:
        print(json.dumps(rows, indent=1))
        return
    for row in rows:
        print(
            f"{row['questions']} questions a picture, {row['precision']}: {row['tokens_per_s']['theodolite']} loss tokens/s, "
            f"{row['ratio']} times TRL's ({row['ratio_low']} to {row['ratio_high']})"
        )


if __name__ == "__main__":
    main()
