"""Dry run of a paper's recipe: the real model on the meta device, sharded as on N GPUs, with its memory and FLOPs; and two real steps of
a small twin of the same classes."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from accelerate.utils import FullyShardedDataParallelPlugin
from accelerate.utils.fsdp_utils import fsdp2_prepare_model
from PIL import Image
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from theodolite.data.packing import PackingCollator
from theodolite.data.sources import TrainingExample
from theodolite.models.families import Family, family_of
from theodolite.models.pictures import PictureReader
from theodolite.objectives.auxiliary import AuxiliaryLoss
from theodolite.records.errors import BadInput, UnknownName
from theodolite.training.objective_module import ObjectiveModule
from theodolite.training.paper_models import PAPER_MODELS, PaperModel, build_on_meta, build_twin, paper_model
from theodolite.training.recipes import RECIPES, Stage, StagedRecipe
from theodolite.training.stage_data import StageData
from theodolite.training.stage_objective import stage_objective
from theodolite.training.stage_runner import prepare_model, train_stage

GIB = 2**30
FP32, BF16 = 4, 2
# Share of a sample's text tokens that are answers, whose logits are computed; an assumption.
ANSWER_FRAC = 0.5


@dataclass(frozen=True)
class StageCost:
    """What a stage needs on each GPU, in GiB, and a step's floating-point operations on all GPUs together, in TFLOP.

    Parameters, gradients, optimizer states and teacher are counted from the sharded model; `accumulated`, `gathered` and `activations` are
    estimates: whole gradients in bf16 while micro-batches are accumulated, the largest units that FSDP2 gathers, and what the backward
    pass of a micro-batch of full length keeps.
    """

    stage: str
    num_gpus: int
    accumulation: int
    trained_parameters: int
    all_parameters: int
    units: int
    parameters_gib: float
    gradients_gib: float
    optimizer_gib: float
    teacher_gib: float
    accumulated_gib: float
    gathered_gib: float
    activations_gib: float
    step_tflop: float

    @property
    def total_gib(self) -> float:
        counted = self.parameters_gib + self.gradients_gib + self.optimizer_gib + self.teacher_gib
        return counted + self.accumulated_gib + self.gathered_gib + self.activations_gib


@dataclass(frozen=True)
class DryRun:
    """The costs of a recipe's stages, and the losses of its twin's two steps by stage."""

    recipe: str
    picture: str
    costs: tuple[StageCost, ...]
    twin_losses: Mapping[str, tuple[float, ...]]


def dry_run(name: str, num_gpus: int = 8) -> DryRun:
    """Costs and twin of a paper's recipe. Raises `UnknownName`, and `BadInput` under a launcher or for a batch that does not divide."""
    if name not in PAPER_MODELS:
        raise UnknownName("recipe with a dry run", name, tuple(PAPER_MODELS))
    if dist.is_initialized():
        raise BadInput("a dry run pretends to be one of several processes; start it without a launcher")
    recipe, paper = RECIPES[name](), paper_model(name)
    costs = tuple(stage_cost(recipe, stage, paper, num_gpus) for stage in recipe.stages)
    return DryRun(name, paper.picture, costs, {stage.name: twin_losses(recipe, stage, paper) for stage in recipe.stages})


def stage_cost(recipe: StagedRecipe, stage: Stage, paper: PaperModel, num_gpus: int) -> StageCost:
    """The cost of one stage. Nothing is allocated: model and gradients exist on the meta device only."""
    micro = min(recipe.micro_batch, stage.batch // num_gpus)
    if micro == 0 or stage.batch % (micro * num_gpus):
        raise BadInput(f"a batch of {stage.batch} cannot be divided among {num_gpus} GPUs in parts of {micro}; give another number of GPUs")
    model = prepare_model(build_on_meta(paper), recipe, stage)
    with torch.device("meta"):
        objective = stage_objective(model, recipe, stage)
    module = ObjectiveModule(model, objective)
    step_flops = stage.batch * sample_flops(module, recipe, stage, paper)
    shard_as_one_of(module, num_gpus)
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    held, own = (sum(_local(each) for each in group) for group in (module.parameters(), trained))
    accumulation = stage.batch // (micro * num_gpus)
    return StageCost(
        stage=stage.name,
        num_gpus=num_gpus,
        accumulation=accumulation,
        trained_parameters=sum(each.numel() for each in trained),
        all_parameters=sum(each.numel() for each in module.parameters()),
        units=sum(isinstance(each, FSDPModule) for each in module.modules()),
        parameters_gib=FP32 * held / GIB,
        gradients_gib=FP32 * own / GIB,
        optimizer_gib=2 * FP32 * own / GIB,
        teacher_gib=0.0 if stage.laver is None else FP32 * own / GIB,
        accumulated_gib=BF16 * sum(each.numel() for each in trained) / GIB if accumulation > 1 and num_gpus > 1 else 0.0,
        gathered_gib=BF16 * _gathered(module) / GIB if num_gpus > 1 else 0.0,
        activations_gib=_activation_bytes(model, recipe, stage, paper, micro) / GIB,
        step_tflop=step_flops / 1e12,
    )


def shard_as_one_of(module: ObjectiveModule, num_gpus: int) -> None:
    """Shards the module in place as accelerate does on the first of so many GPUs, in a process group that sends nothing."""
    dist.init_process_group("fake", rank=0, world_size=num_gpus)
    try:
        plugin = FullyShardedDataParallelPlugin(fsdp_version=2, auto_wrap_policy="transformer_based_wrap")
        plugin.set_mixed_precision("bf16")
        plugin.cpu_ram_efficient_loading = False
        state = SimpleNamespace(fsdp_plugin=plugin)
        accelerator = SimpleNamespace(
            state=state, torch_device_mesh=None, mixed_precision="bf16", is_main_process=True, device=torch.device("cpu")
        )
        fsdp2_prepare_model(accelerator, module)
    finally:
        dist.destroy_process_group()


def sample_flops(module: ObjectiveModule, recipe: StagedRecipe, stage: Stage, paper: PaperModel) -> float:
    """Floating-point operations of one sample of full length with one picture: products with weights, and of attention.

    The passes are the objective's: with the separate branch the teacher's and the masked one over the pictures alone, with the joint
    branch the teacher's over the picture and what stands before it, for which the picture is taken.
    """
    family, model = family_of(module.vlm.config), module.vlm
    text, pictures = stage.max_length, paper.vision_tokens
    answers = int(ANSWER_FRAC * (text - pictures))
    trains_language = "language_model" in stage.trains
    # Forward, and backward to the inputs; recomputed layers run forward twice; gradients of weights cost as much as those of inputs.
    learning = 2.0 + recipe.gradient_checkpointing + trains_language
    passes: list[tuple[int, float]] = [(text, learning)]
    if stage.laver is not None:
        passes += [(pictures, 1.0)] + ([(pictures, learning)] if stage.laver.branch == "separate" else [])
    total = 3.0 * 2 * answers * _weights(model.get_submodule(family.lm_head)) * (1 if trains_language else 2 / 3)
    for tokens, times in passes:
        total += times * layer_flops(model.get_submodule(family.language_model), model.config.get_text_config(), tokens)
    total += len(passes) * 3.0 * 2 * pictures * sum(_weights(model.get_submodule(path)) for path in family.connector)
    encodes = len(passes) if _is_within_encoder(family) else 1  # a trained connector in the encoder makes it run in each pass
    vision = model.config.vision_config
    total += encodes * layer_flops(model.get_submodule(family.encoder), vision, paper.patches, without=family.connector, model=model)
    if stage.laver is not None:
        total += 4.0 * 2 * pictures * _weights(module.objective.head)
    auxiliary = [loss for loss in module.objective.modules() if isinstance(loss, AuxiliaryLoss)]
    return float(total + 3.0 * 2 * pictures * sum(map(_weights, auxiliary)))


def layer_flops(part: nn.Module, config: Any, tokens: int, without: tuple[str, ...] = (), model: nn.Module | None = None) -> float:
    """A forward pass over so many tokens: 2 for each weight of a linear or convolution and token, and 4 x width x tokens^2 a layer.

    Attention counts all pairs of tokens, as kernels with a mask compute them; windows of a window attention count as whole.
    """
    left_out = {id(each) for path in without if model is not None for each in model.get_submodule(path).modules()}
    layers = getattr(config, "num_hidden_layers", None) or config.depth
    products = sum(each.weight.numel() for each in part.modules() if _multiplies(each) and id(each) not in left_out)
    return 2.0 * tokens * products + 4.0 * layers * config.hidden_size * tokens**2


def twin_losses(recipe: StagedRecipe, stage: Stage, paper: PaperModel) -> tuple[float, ...]:
    """The losses of two steps of a stage on the twin, in fp32, with the recipe's objective, adaptation and checkpointing."""
    model, image_processor, tokenizer = build_twin(paper)
    small = None if stage.laver is None else replace(stage.laver, head_hidden=24, mask_ratio=0.3, mask_ramp="constant")
    stage = replace(stage, steps=2, batch=4, warmup_steps=0, laver=small, save_every=0)
    recipe = replace(recipe, micro_batch=2, precision="fp32", stages=(stage,))
    prepared = prepare_model(model, recipe, stage)
    collator = PackingCollator(tokenizer, PictureReader(image_processor, tokenizer, model.config), max_length=stage.max_length)
    with tempfile.TemporaryDirectory() as folder:
        _, monitor = train_stage(prepared, None, recipe, stage, StageData(_examples(), collator), seed=0, folder=folder)
    return tuple(loss for _, loss in monitor.losses)


def _examples() -> list[TrainingExample]:
    """Eight pictures of noise with a question each, and a text without a picture."""
    draw = np.random.default_rng(0)
    found = []
    for number in range(8):
        pictures = (Image.fromarray(draw.integers(0, 256, (40, 40, 3), dtype=np.uint8)),) if number % 4 else ()
        question = {"role": "user", "content": [{"type": "image"}] * len(pictures) + [{"type": "text", "text": "what is in the picture ?"}]}
        answer = {"role": "assistant", "content": [{"type": "text", "text": ("a tree", "a house")[number % 2]}]}
        found.append(TrainingExample(str(number), pictures, ((question, answer),)))
    return found


def _activation_bytes(model: Any, recipe: StagedRecipe, stage: Stage, paper: PaperModel, micro: int) -> float:
    """Estimate for a micro-batch: bf16 inputs of each layer and one layer's own, or all layers' own; and fp32 logits of answers, twice."""
    text = model.config.get_text_config()
    lengths = [stage.max_length] + ([paper.vision_tokens] if stage.laver is not None and stage.laver.branch == "separate" else [])
    own = 8 * text.hidden_size + 3 * text.intermediate_size  # values a token that one layer keeps for its backward pass
    layers = text.num_hidden_layers
    values = layers * text.hidden_size + own if recipe.gradient_checkpointing else layers * own
    logits = 2 * FP32 * ANSWER_FRAC * (stage.max_length - paper.vision_tokens) * text.vocab_size
    return float(micro * (sum(lengths) * values * BF16 + logits))


def _gathered(module: nn.Module) -> int:
    """Parameters of the root, which stays gathered, and of the two largest other units, of which one is fetched ahead."""
    units = [each for each in module.modules() if isinstance(each, FSDPModule)]
    inside = {id(unit): {id(each) for each in unit.parameters()} for unit in units}
    sizes = []
    for unit in units:
        nested = {each for other in unit.modules() if other is not unit and id(other) in inside for each in inside[id(other)]}
        sizes.append(sum(each.numel() for each in unit.parameters() if id(each) not in nested))
    return sizes[0] + sum(sorted(sizes[1:])[-2:])


def _is_within_encoder(family: Family) -> bool:
    return any(path.startswith(f"{family.encoder}.") for path in family.connector)


def _multiplies(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | nn.Conv2d | nn.Conv3d)


def _weights(part: nn.Module) -> int:
    return sum(each.weight.numel() for each in part.modules() if _multiplies(each))


def _local(parameter: nn.Parameter) -> int:
    return parameter.to_local().numel() if isinstance(parameter, DTensor) else parameter.numel()
