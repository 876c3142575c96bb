"""Training on the Hugging Face Trainer: trajectories that must coincide, and the facts a record rests on."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from transformers import Trainer

from helpers.tiny_llava import TINY, WORLD, examples, tiny_vlm
from theodolite.data.collate import Collator
from theodolite.data.epochs import FixedOrder
from theodolite.data.examples import ExampleSet, draw_questions, training_order
from theodolite.models.construction.frontends import Pixels
from theodolite.models.conversation_tokenizer import QuestionTokenizer
from theodolite.models.fingerprint import weights_hash
from theodolite.objectives.language import IGNORE, Language, next_token_loss
from theodolite.objectives.laver import LaVer, LaverConfig
from theodolite.objectives.terms import Term, combine
from theodolite.records.errors import BadInput
from theodolite.studies.engine.arms import shapes_arms
from theodolite.training.arguments import training_arguments
from theodolite.training.checkpoint import refuse_other_launcher
from theodolite.training.launch import refuse_broadcast_buffers, refuse_undistributed
from theodolite.training.loss_monitor import LossMonitor, NonFiniteLoss
from theodolite.training.objective_module import ObjectiveModule
from theodolite.training.recipe import Recipe
from theodolite.training.run import Origin, train_on_examples
from theodolite.training.teacher_callback import TeacherCallback
from theodolite.training.trainer import ObjectiveTrainer

RECIPE = Recipe(name="test", steps=4, batch=8, precision="fp32", decoder=TINY)


ORIGIN = Origin(arm="a", comparison="c", world="shapes", strength=0.8, source="policy", policy="shape,row")


def run(recipe: Recipe = RECIPE, seed: int = 0) -> tuple[Any, Any]:
    model, processor = tiny_vlm(seed)
    told: list[int] = []
    data = examples(ORIGIN.policy)
    outcome = train_on_examples(
        model, processor, data, recipe, origin=ORIGIN, seed=seed, progress=lambda done, total, note="": told.append(done)
    )
    assert told == list(range(1, recipe.steps + 1))
    return model, outcome


def accumulated(tmp_path: Any, batch: int, accumulation: int) -> dict[str, torch.Tensor]:
    """Weights after training on the same order in `accumulation` parts of `batch` a step."""
    model, processor = tiny_vlm()
    arguments = training_arguments(RECIPE.staged, RECIPE.stage, tmp_path, 0)
    arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps = batch, accumulation
    trainer = ObjectiveTrainer(
        model=ObjectiveModule(model, Language()),
        args=arguments,
        train_dataset=FixedOrder(training_order(24, 32, 0)),
        data_collator=Collator(examples("shape,row:odd"), QuestionTokenizer(processor, 64), Pixels(processor.image_processor)),
    )
    trainer.train()
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_a_batch_of_8_equals_two_of_4_accumulated(tmp_path: Any) -> None:
    # "shape,row:odd" asks unequal numbers of questions a picture, so a mean of means would differ.
    whole, parts = accumulated(tmp_path / "a", 8, 1), accumulated(tmp_path / "b", 4, 2)
    for name, value in whole.items():
        torch.testing.assert_close(value, parts[name], atol=1e-5, rtol=1e-4)
    untouched = tiny_vlm()[0].state_dict()
    assert not torch.equal(untouched["lm_head.weight"], whole["lm_head.weight"])


def test_the_same_seed_trains_the_same_weights_and_another_does_not() -> None:
    first, again, other = run()[0], run()[0], run(seed=1)[0]
    assert weights_hash(first) == weights_hash(again) != weights_hash(other)


def test_eager_and_sdpa_train_alike() -> None:
    one, other = run()[0].state_dict(), run(replace(RECIPE, attention="sdpa"))[0].state_dict()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], atol=1e-4, rtol=1e-3)


def test_the_frozen_tower_stays_as_it_was() -> None:
    before = tiny_vlm()[0].model.vision_tower.state_dict()
    after = run()[0].model.vision_tower.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_bf16_is_finite_and_learns() -> None:
    recipe = replace(RECIPE, steps=30, precision="bf16", learning_rate=3e-3)
    model, outcome = run(recipe)
    losses = [loss for _, loss in outcome.losses]
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.8 * losses[0]
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
    assert model.dtype == torch.float32


def test_arms_see_the_same_pictures_in_the_same_order_and_answer_as_many_tokens() -> None:
    facts = {}
    for arm in shapes_arms(num_pictures=24):
        model, processor = tiny_vlm()
        scenes = WORLD.sample(24, np.random.default_rng([0, 0]))
        data = ExampleSet(WORLD.render(scenes), draw_questions(WORLD, scenes, WORLD.policy(arm.policy), 0))
        origin = replace(ORIGIN, arm=arm.name, policy=arm.policy, comparison=arm.comparison)
        facts[arm.name] = train_on_examples(model, processor, data, RECIPE, origin=origin, seed=0).facts
    same = ("pictures_sha256", "order_sha256", "num_pictures", "num_steps", "num_questions", "num_answer_tokens", "comparison")
    for name in same:
        assert len({getattr(found, name) for found in facts.values()}) == 1, name
    assert len({found.questions_sha256 for found in facts.values()}) == 3
    assert facts["all"].num_questions == 4 * 8 * 2
    assert facts["all"].num_answer_tokens == 2 * facts["all"].num_questions


def test_a_loss_that_is_no_number_three_times_stops_the_run() -> None:
    with pytest.raises(NonFiniteLoss, match="third time in a row"):
        run(replace(RECIPE, steps=40, learning_rate=float("inf")))


def test_a_run_that_ends_on_no_number_is_refused_however_short() -> None:
    with pytest.raises(NonFiniteLoss, match="when training ended"):
        run(replace(RECIPE, steps=2, learning_rate=float("inf")))


def test_a_launcher_with_several_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(BadInput, match="WORLD_SIZE is 2"):
        run()


def test_processes_that_would_each_train_alone_and_an_fsdp_that_is_not_on_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_undistributed(1, DistributedType.NO)
    monkeypatch.setenv("WORLD_SIZE", "2")
    refuse_undistributed(2, DistributedType.MULTI_CPU)
    with pytest.raises(BadInput, match="started 2 processes, but this one trains in a world of 1"):
        refuse_undistributed(1, DistributedType.NO)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(BadInput, match="FSDP was asked for, but the run is MULTI_CPU"):
        refuse_undistributed(2, DistributedType.MULTI_CPU)
    refuse_undistributed(2, DistributedType.FSDP, FullyShardedDataParallelPlugin(fsdp_version=2))
    with pytest.raises(BadInput, match="set fsdp_version to 2"):
        refuse_undistributed(2, DistributedType.FSDP, FullyShardedDataParallelPlugin(fsdp_version=1))


@pytest.mark.parametrize("stage", [2, 3])
def test_deepspeed_is_refused_by_name(stage: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    with pytest.raises(BadInput, match=rf"ZeRO-{stage} is not supported.*FSDP2.*DDP"):
        refuse_undistributed(1, DistributedType.DEEPSPEED, None, stage)
    # In the constructor: DeepSpeed itself is not installed here, so the state that accelerate would make is set.
    state = SimpleNamespace(deepspeed_plugin=SimpleNamespace(zero_stage=stage))
    stock = Trainer.__init__

    def with_deepspeed(self: Any, *args: Any, **options: Any) -> None:
        stock(self, *args, **options)
        self.is_deepspeed_enabled = True
        self.accelerator = SimpleNamespace(state=state, distributed_type=DistributedType.DEEPSPEED)

    monkeypatch.setattr(Trainer, "__init__", with_deepspeed)
    with pytest.raises(BadInput, match=rf"ZeRO-{stage} is not supported"):
        ObjectiveTrainer(ObjectiveModule(tiny_vlm()[0], Language()), args=training_arguments(RECIPE.staged, RECIPE.stage, tmp_path, 0))


def test_buffers_that_accelerate_cannot_broadcast_are_refused_and_the_centre_is_none_of_them() -> None:
    plugin = SimpleNamespace(cpu_ram_efficient_loading=True)
    model = tiny_vlm()[0]
    module = ObjectiveModule(model, LaVer(model.config, LaverConfig(head_hidden=8)))
    refuse_broadcast_buffers(module, plugin)
    module.vlm.register_buffer("mean", torch.zeros(2))
    with pytest.raises(BadInput, match=r"vlm\.mean first.*fsdp_cpu_ram_efficient_loading to false"):
        refuse_broadcast_buffers(module, plugin)
    refuse_broadcast_buffers(module, SimpleNamespace(cpu_ram_efficient_loading=False))


def test_teacher_and_centre_are_saved_and_resumed_together(tmp_path: Any) -> None:
    model = tiny_vlm()[0]
    callbacks = []
    for _ in range(2):
        objective = LaVer(model.config, LaverConfig(head_hidden=8))
        callbacks.append(TeacherCallback(ObjectiveModule(model, objective), objective))
    saved, resumed = callbacks
    saved.objective.centre.value.fill_(3.0)
    saved.save(tmp_path, write=False)
    assert not list(tmp_path.iterdir())
    saved.save(tmp_path, write=True)
    resumed.resumed = tmp_path
    shadow = resumed._present().shadow
    assert torch.equal(resumed.objective.centre.value, saved.objective.centre.value)
    assert all(torch.equal(value, saved._present().shadow[name]) for name, value in shadow.items())
    other = TeacherCallback(ObjectiveModule(model.requires_grad_(False), saved.objective), saved.objective)
    other.resumed = tmp_path
    with pytest.raises(BadInput, match="resume with the recipe of the original run"):
        other._present()


def test_a_checkpoint_of_another_launcher_is_refused(tmp_path: Any) -> None:
    with pytest.raises(BadInput, match="written under FSDP, resume it under FSDP"):
        refuse_other_launcher(tmp_path, sharded=False)
    refuse_other_launcher(tmp_path, sharded=True)
    (tmp_path / "model.safetensors").touch()
    refuse_other_launcher(tmp_path, sharded=False)
    with pytest.raises(BadInput, match="written without FSDP"):
        refuse_other_launcher(tmp_path, sharded=True)


def test_losses_are_thinned_to_means() -> None:
    watch = LossMonitor()
    watch.language = [(step, float(step)) for step in range(1, 13)]
    assert watch.thinned(5) == ((5, 3.0), (10, 8.0), (12, 11.5))


def test_training_order_is_whole_shuffles_cut_at_the_end() -> None:
    order = training_order(5, 12, seed=3)
    assert sorted(order[:5]) == sorted(order[5:10]) == list(range(5))
    assert len(order) == 12
    assert np.array_equal(order, training_order(5, 12, seed=3))
    assert not np.array_equal(order, training_order(5, 12, seed=4))


def test_next_token_loss_is_the_summed_cross_entropy_written_out() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(5, 7, generator=generator), torch.tensor([3, 0, IGNORE, 6, 2])
    expected = -sum(logits[row].log_softmax(-1)[label] for row, label in enumerate(labels) if label != IGNORE)
    torch.testing.assert_close(next_token_loss(logits, labels), expected)


def test_terms_are_divided_by_global_counts_and_none_gives_zero() -> None:
    total = torch.tensor(6.0, requires_grad=True)
    assert combine({"a": Term(total, 3)}, {"a": 12}).item() == 0.5
    assert combine({"a": Term(total, 3, weight=2.0), "b": Term(total, 1)}, {"a": 3, "b": 6}).item() == 5.0
    nothing = combine({"a": Term(total * 0, 0)}, {"a": 0})
    nothing.backward()
    assert nothing.item() == 0.0
    assert total.grad is not None
    assert total.grad.item() == 0.0
