"""A training objective of your own: the language loss, and a term that keeps a picture's tokens from growing alike."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import TrainingArguments

import theodolite as th
from theodolite.data.examples import ExampleSet, draw_questions
from theodolite.data.sources import WorldExamples
from theodolite.models.construction.build import DecoderSize, build_vlm
from theodolite.models.forward import base_model, run_forward
from theodolite.models.pass_inputs import layout_in, whole_inputs
from theodolite.objectives.language import next_token_loss
from theodolite.objectives.terms import Objective, Term, Terms
from theodolite.training.objective_module import ObjectiveModule


def squared_cosines(tokens: Tensor, sizes: list[int]) -> Tensor:
    """(token, dim) of several pictures: sum over all pairs of tokens of one picture of their squared cosine."""
    parts = torch.split(F.normalize(tokens.float(), dim=-1), sizes)
    return torch.stack([(part @ part.T).square().sum() for part in parts]).sum()


class Decorrelate(Objective):
    """Language loss plus `weight` times the mean squared cosine of a picture's vision tokens in the last layer."""

    def __init__(self, weight: float = 0.1) -> None:
        super().__init__()
        self.weight = weight

    def counts(self, batch: Mapping[str, Any]) -> Mapping[str, int]:
        """What each term sums over, known before the pass: the trainer adds these over micro-batches and processes."""
        sizes = layout_in(batch).sizes()
        return {"language": int(batch["labels"].numel()), "alike": sum(size * size for size in sizes)}

    def forward(self, model: nn.Module, batch: Mapping[str, Any], step: int) -> Terms:
        """Sums, never means: the trainer divides by the global counts."""
        layout, counts = layout_in(batch), self.counts(batch)
        output = run_forward(model, whole_inputs(base_model(model).config, batch))
        alike = squared_cosines(output.hidden[layout.vision], layout.sizes())
        return {
            "language": Term(next_token_loss(output.logits, batch["labels"]), counts["language"]),
            "alike": Term(alike, counts["alike"], self.weight),  # weight=None: logged, no part of the loss
        }


world = th.Shapes().correlate("shape", "colour", strength=0.8)
scenes = world.sample(32, np.random.default_rng(0))
examples = ExampleSet(world.render(scenes), draw_questions(world, scenes, world.policy("shape,row"), 0))

model, processor = build_vlm(world.texts, seed=0, decoder=DecoderSize(num_layers=2, width=32, num_heads=2))
args = TrainingArguments(
    "runs",
    max_steps=4,
    per_device_train_batch_size=8,
    logging_steps=1,
    save_strategy="no",
    report_to="none",
    use_cpu=True,
)
trainer = th.ObjectiveTrainer(
    ObjectiveModule(model, Decorrelate()),
    args=args,
    train_dataset=WorldExamples(examples),
    processing_class=processor,  # packs the examples, and is saved beside the model
)
trainer.train()
print([entry["loss/alike"] for entry in trainer.state.log_history if "loss/alike" in entry])
trainer.save_model("out")
