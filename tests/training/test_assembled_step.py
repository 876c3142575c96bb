"""Three steps of a `LaverTrainer` against the same steps by hand: a copied teacher, dense Gram matrices, a centre and a ramp written out.

Only one picture or one row at a time passes through the model, so that packing, planning and sharing of encoder outputs are tested too.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PrinterCallback, TrainingArguments

from helpers import tiny_families
from helpers.tiny_training import arguments, losses
from theodolite.data.conversations import conversation_of
from theodolite.data.packing import PackingCollator
from theodolite.data.sources import TrainingExample
from theodolite.models.exported.layout import Layout
from theodolite.models.forward import Adaptation, run_forward
from theodolite.models.pass_inputs import PassInputs
from theodolite.models.pictures import PictureReader
from theodolite.objectives.laver import LaVer, LaverConfig
from theodolite.objectives.schedules import EMASchedule
from theodolite.training.laver_trainer import LaverTrainer

MIXED = Adaptation("mixed", "2d")
STEPS, ACCUMULATION, RATE = 3, 2, 0.05
RATIO, DECAY, EVERY, MOMENTUM = 0.6, 0.7, 2, 0.9


def examples() -> list[TrainingExample]:
    """Twelve examples with one picture, two, or none."""
    made = []
    for number in range(12):
        pictures = (1, 2, 0, 1)[number % 4]
        words = ("a", "b c", "d e f")[number % 3]
        turns = [{"from": "human", "value": "<image>\n" * pictures + f"what {words}"}, {"from": "gpt", "value": "red blue"}]
        made.append(TrainingExample(str(number), tuple(map(tiny_families.picture, range(pictures))), (conversation_of(turns, pictures),)))
    return made


@dataclass
class HandMade:
    """Student, teacher and centre of a run that is recomputed, and its terms by step."""

    student: nn.Module
    teacher: nn.Module
    centre: Tensor
    laver: LaverConfig
    terms: list[dict[str, float]]

    def step(self, number: int, batches: list[dict[str, Any]]) -> None:
        """One optimizer step, from 0: loss of all micro-batches divided by counts of the whole step, plain gradient descent."""
        ratio = RATIO * (1 - math.cos(math.pi * number / STEPS)) / 2
        parts = [self.micro_batch(batch, ratio) for batch in batches]
        language, answers, latent, masked, gram, pairs, vision, tokens = (sum(column) for column in zip(*parts, strict=True))
        terms = {"language": language / answers, "gram": self.laver.gram_weight * gram / pairs}
        terms["masked_latent"] = latent / max(masked, 1)
        self.terms.append({name: float(torch.as_tensor(value).detach()) for name, value in terms.items()})
        sum(terms.values()).backward()  # type: ignore[union-attr]
        with torch.no_grad():
            for parameter in self.student.parameters():
                if parameter.grad is not None:
                    parameter -= RATE * parameter.grad
                    parameter.grad = None
            self.centre = MOMENTUM * self.centre + (1 - MOMENTUM) * vision / tokens
            if (number + 1) % EVERY == 0:
                for old, new in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
                    old.copy_(DECAY * old + (1 - DECAY) * new)

    def micro_batch(self, batch: dict[str, Any], ratio: float) -> tuple[Any, ...]:
        masked = self.masked(batch, ratio)
        language, latent, gram, pairs, vision = 0.0, 0.0, 0.0, 0, torch.zeros_like(self.centre)
        tokens = 0
        for row in range(len(batch["input_ids"])):
            joint = self.laver.branch == "joint"
            hidden, logits = self.row(self.student, batch, row, masked if joint else None)
            language = language + logits
            for picture in batch["picture"][row].unique().tolist():
                if picture < 0:
                    continue
                at = batch["picture"][row] == picture
                with torch.no_grad():
                    teacher = self.teacher.objective.head(
                        self.row(self.teacher, batch, row, None)[0][at] if joint else self.alone(self.teacher, batch, picture, None)
                    )
                seen = hidden[at] if joint else self.alone(self.student, batch, picture, masked[row][at])
                student = self.student.objective.head(seen)
                target = torch.softmax((teacher - self.centre) / 0.04, -1)
                latent = latent - (target * torch.log_softmax(student / 0.1, -1))[masked[row][at]].sum()
                unit, other = F.normalize(student, dim=-1), F.normalize(teacher, dim=-1)
                excess = ((unit @ unit.T - other @ other.T).clamp(min=0) ** 2).sum()
                size = int(at.sum())
                gram = gram + (excess / size**2 if self.laver.gram_reduction == "picture_mean" else excess)
                pairs += size**2 if self.laver.gram_reduction == "entries" else 1
                vision, tokens = vision + teacher.sum(0), tokens + size
        return language, len(batch["labels"]), latent, int(masked.sum()), gram, pairs, vision, tokens

    def masked(self, batch: dict[str, Any], ratio: float) -> Tensor:
        masked = torch.zeros_like(batch["picture"], dtype=torch.bool)
        for picture in range(int(batch["picture"].max()) + 1):
            at = batch["picture"] == picture
            number = math.floor(ratio * int(at.sum()) + float(batch["dither"][at][0]))
            masked |= at & (batch["rank"] < number)
        return masked

    def row(self, module: Any, batch: dict[str, Any], row: int, masked: Tensor | None) -> tuple[Tensor, Tensor]:
        """Hidden states of one row alone, and the summed loss of its answers."""
        width = batch["input_ids"].shape[1]
        mine = batch["predicts"] // width == row
        pictures = sorted(set(batch["picture"][row].tolist()) - {-1})
        fields = [batch[name][row : row + 1] for name in ("sample", "branch", "picture", "cell")]
        fields[2] = torch.where(fields[2] >= 0, fields[2] - min(pictures, default=0), -1)
        fields[0] = torch.where(fields[0] >= 0, fields[0] - int(fields[0].max()), -1).clamp(min=-1)
        pixels = {"pixel_values": batch["pixel_values"][pictures]} if pictures else {}
        inputs = PassInputs(
            batch["input_ids"][row : row + 1],
            Layout(*fields),
            pixels,
            None if masked is None else masked[row : row + 1],
            batch["predicts"][mine] - row * width,
        )
        output = run_forward(module.vlm, inputs, MIXED, None if masked is None else module.objective.mask_embedding)
        return output.hidden[0], F.cross_entropy(output.logits, batch["labels"][mine], reduction="sum")

    def alone(self, module: Any, batch: dict[str, Any], picture: int, masked: Tensor | None) -> Tensor:
        """Hidden states of one picture's tokens without any text."""
        at = batch["picture"] == picture
        size = int(at.sum())
        zeros = torch.zeros(1, size, dtype=torch.long)
        inputs = PassInputs(
            batch["input_ids"][at][None],
            Layout(zeros, zeros, zeros, batch["cell"][at][None]),
            {"pixel_values": batch["pixel_values"][picture : picture + 1]},
            None if masked is None else masked[None],
        )
        return run_forward(module.vlm, inputs, MIXED, None if masked is None else module.objective.mask_embedding).hidden[0]


def collator_of(model: Any, image_processor: Any, tokenizer: Any, **options: Any) -> PackingCollator:
    """One sample a row, so that a row alone is a sample alone."""
    return PackingCollator(tokenizer, PictureReader(image_processor, tokenizer, model.config), max_length=512, **options)


def arguments_in(folder: Path, **options: Any) -> TrainingArguments:
    plain: dict[str, Any] = {"optim": "sgd", "learning_rate": RATE, "lr_scheduler_type": "constant", "max_grad_norm": 0.0}
    return arguments(folder, max_steps=STEPS, gradient_accumulation_steps=ACCUMULATION, **plain, **options)


def with_double_norms(model: nn.Module) -> nn.Module:
    """The model with norms in its own precision: the library's compute in float32, and rows alone would differ by its rounding."""
    for path, module in list(model.named_modules()):
        if type(module).__name__ == "LlamaRMSNorm":
            norm = nn.RMSNorm(len(module.weight), module.variance_epsilon)
            norm.weight = module.weight
            model.set_submodule(path, norm)
    return model


def trained(folder: Path, laver: LaverConfig) -> tuple[LaverTrainer, HandMade]:
    """A run of three steps by the trainer, and the same by hand from the same start on the same batches."""
    model, image_processor, tokenizer = tiny_families.tiny("llava")
    with_double_norms(model)
    collator = collator_of(model, image_processor, tokenizer)
    batches: list[dict[str, Any]] = []

    def recorded(visits: Any) -> dict[str, Any]:
        batches.append(collator(visits))
        return dict(batches[-1])

    torch.manual_seed(3)
    trainer = LaverTrainer(model, laver, args=arguments_in(folder), train_dataset=examples(), data_collator=recorded)
    trainer.remove_callback(PrinterCallback)
    trainer.objective_module.double()  # so that 1e-6 is far above rounding
    start = copy.deepcopy(trainer.objective_module)
    hand = HandMade(start, copy.deepcopy(start).requires_grad_(False), torch.zeros_like(start.objective.centre.value), laver, [])
    trainer.train()
    for number in range(STEPS):
        hand.step(number, batches[number * ACCUMULATION : (number + 1) * ACCUMULATION])
    return trainer, hand


@pytest.mark.parametrize("reduction", ["entries", "pictures", "picture_mean"])
@pytest.mark.parametrize("branch", ["separate", "joint"])
def test_three_steps_equal_those_by_hand(branch: Any, reduction: Any, tmp_path: Path) -> None:
    laver = LaverConfig(
        head_hidden=24,
        branch=branch,
        gram_reduction=reduction,
        mask_ratio=RATIO,
        centre_momentum=MOMENTUM,
        ema=EMASchedule(DECAY, EVERY),
        gram_weight=2.0,
        adaptation=MIXED,
    )
    trainer, hand = trained(tmp_path, laver)
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    for log, terms in zip(logs, hand.terms, strict=True):
        logged = {name: log.get(f"loss/{name}", 0.0) for name in terms} | {"gram": laver.gram_weight * log["loss/gram"]}
        assert logged == pytest.approx(terms, abs=1e-6)
    objective = trainer.objective_module.objective
    assert isinstance(objective, LaVer) and trainer.teacher_callback.teacher is not None
    torch.testing.assert_close(objective.centre.value, hand.centre, atol=1e-6, rtol=0)
    assert float(hand.centre.norm()) > 1e-3  # it has moved
    shadow, moved = trainer.teacher_callback.teacher.shadow, 0
    for name, parameter in hand.teacher.named_parameters():
        torch.testing.assert_close(shadow[name], parameter, atol=1e-6, rtol=0)
    for (name, parameter), (_, by_hand) in zip(trainer.objective_module.named_parameters(), hand.student.named_parameters(), strict=True):
        torch.testing.assert_close(parameter, by_hand, atol=1e-6, rtol=0, msg=name)
        moved += not torch.equal(parameter, shadow[name])
    assert moved > 0


def losses_of(folder: Path, laver: LaverConfig, workers: int = 0, **options: Any) -> list[float]:
    """The losses of three steps of a run; `options` are the collator's."""
    model, image_processor, tokenizer = tiny_families.tiny("llava")
    torch.manual_seed(3)
    trainer = LaverTrainer(
        model,
        laver,
        args=arguments_in(folder, dataloader_num_workers=workers),
        train_dataset=examples(),
        data_collator=collator_of(model, image_processor, tokenizer, **options),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return losses(trainer)


def test_worker_processes_give_the_same_steps(tmp_path: Path) -> None:
    """Batches with their plans come from two worker processes as from none."""
    laver = LaverConfig(head_hidden=24, mask_ratio=RATIO, mask_ramp="constant")
    none, two = (losses_of(tmp_path, laver, workers) for workers in (0, 2))
    assert len(none) == STEPS and none == two


@pytest.mark.parametrize("branch", ["separate", "joint"])
def test_padded_widths_give_the_same_steps(branch: Any, tmp_path: Path) -> None:
    """As flex attention wants them: rows, and the parts that the teacher and the masked branch run on."""
    laver = LaverConfig(head_hidden=24, mask_ratio=RATIO, mask_ramp="constant", branch=branch)
    plain, padded = (losses_of(tmp_path, laver, pad_to_multiple_of=multiple) for multiple in (None, 128))
    assert len(plain) == STEPS and plain == pytest.approx(padded, rel=1e-5)


def test_all_widths_are_multiples() -> None:
    model, image_processor, tokenizer = tiny_families.tiny("llava")
    batch = collator_of(model, image_processor, tokenizer, pad_to_multiple_of=128)(examples()[:4])
    plan = batch["plan"]
    assert [each.shape[1] % 128 for each in (batch["input_ids"], plan.prefix.index, plan.pictures.index)] == [0, 0, 0]
    model.set_attn_implementation("flex_attention")
    assert collator_of(model, image_processor, tokenizer).pad_to_multiple_of == 128
