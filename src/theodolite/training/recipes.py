"""Recipes of LaVer's stages (arXiv 2512.06281, its table of stages): align the connector, train with visual losses, instruct without.

A recipe is a function that returns its whole configuration; variants change a field or two.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from pydantic import Field

from theodolite.models.construction.build import DecoderSize
from theodolite.models.construction.frontends import FrontEnd
from theodolite.models.exported.attention import FLEX
from theodolite.models.forward import Adaptation
from theodolite.models.freezing import Part
from theodolite.objectives.laver import LaverConfig
from theodolite.objectives.schedules import EMASchedule
from theodolite.objectives.visual import AuxiliaryConfig, auxiliary_named

MIXED = Adaptation("mixed", "2d")
BETA2 = 0.999  # of AdamW
# Back ends that take the prepared masks. Flex attention is for GPUs: PyTorch has no backward pass of it on a CPU.
Attention = Literal["eager", "sdpa", "flex_attention"]
AtLeast0, AtLeast1, AtLeast3 = (Annotated[int, Field(ge=least)] for least in (0, 1, 3))


@dataclass(frozen=True)
class Stage:
    """One training stage: trained parts, name of its data, length and hyperparameters.

    `batch` counts samples per optimizer step, over all processes and accumulated micro-batches. `laver` and `auxiliary` None is plain
    next-token prediction on the adapted model; auxiliary losses stand alone or beside LaVer's. `lora_rank` above 0 trains LoRA adapters of
    that rank instead of the language model, merged at the end of the stage. A checkpoint is written every `save_every` steps; 0 means none.
    """

    name: str
    trains: tuple[Part, ...]
    data: str
    steps: int
    batch: int
    learning_rate: float
    warmup_steps: int
    laver: LaverConfig | None = None
    auxiliary: AuxiliaryConfig | None = None
    max_length: int = 2048
    # Samples are packed into rows of this many tokens; None means one sample per row.
    row_length: int | None = None
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    lora_rank: int = 0
    save_every: int = 500
    beta2: float = BETA2

    @property
    def pair_frac(self) -> float:
        """The fraction (0 to 1) of pictures that need a partner."""
        return 0.0 if self.auxiliary is None else self.auxiliary.pair_frac


@dataclass(frozen=True)
class TinyModel:
    """The small LLaVA of the tours, trained from scratch."""

    decoder: DecoderSize = field(default_factory=DecoderSize)
    frontend: FrontEnd = "conv"


@dataclass(frozen=True)
class WorldQuestions:
    """Query policy and shape-colour correlation strength (0 to 1) of a recipe on the shapes world."""

    policy: str = "shape,row"
    strength: float = 0.8


@dataclass(frozen=True)
class JoinedModel:
    """A LLaVA of pretrained vision tower and language model (folders or hub names) with a new connector."""

    tower: str
    language_model: str


@dataclass(frozen=True)
class WholeModel:
    """A pretrained VLM to fine-tune."""

    name: str


@dataclass(frozen=True)
class StagedRecipe:
    """A model, its adaptation, and its training stages in order."""

    name: str
    model: TinyModel | JoinedModel | WholeModel
    stages: tuple[Stage, ...]
    adaptation: Adaptation = MIXED
    precision: Literal["bf16", "fp32"] = "bf16"
    attention: Attention = "sdpa"
    gradient_checkpointing: bool = False
    # Samples per process and forward pass; gradients of the rest of a batch are accumulated.
    micro_batch: int = 4
    # For recipes that render their own pictures.
    world: WorldQuestions | None = None
    # For recipes whose pictures and questions come from installed packages: the world with the questions.
    questions: Literal["easy_vqa"] | None = None
    # Whether the frozen encoder's features are cached on disk, keyed by picture content.
    remembers_features: bool = False

    @property
    def encoder_attention(self) -> str:
        """The back end of the encoder, whose tokens no mask hides: flex attention is for the language model alone."""
        return "sdpa" if self.attention == FLEX else self.attention


def tiny_laver(laver: bool = True, auxiliary: str = "") -> StagedRecipe:
    """All three stages on the shapes world, in minutes on two cores; `auxiliary` names losses of the second, such as "pixels+align".

    Differs from the paper as a model from scratch requires: stage 1 also trains the untrained decoder, and learning rates suit small
    models. It uses the joint branch, the teacher's period as the published fraction of the run, and eager attention in bf16, the
    fastest for short sequences on a CPU.
    """
    # 62 updates over the run, as in the paper's 6,250 steps with a period of 100; a period of 100 steps would make one.
    ema = EMASchedule(every=0.016)
    visual = LaverConfig(branch="joint", head_hidden=294, ema=ema) if laver else None
    both: tuple[Part, ...] = ("connector", "language_model")
    common = Stage("", both, "", steps=0, batch=64, learning_rate=1e-3, warmup_steps=10, weight_decay=0.01, max_length=512, save_every=20)
    return StagedRecipe(
        name="tiny-laver",
        model=TinyModel(),
        stages=(
            replace(common, name="align", data="captions", steps=80),
            replace(common, name="laver", data="questions", steps=160, laver=visual, auxiliary=auxiliary_named(auxiliary)),
            replace(common, name="instruct", data="questions", steps=80, learning_rate=5e-4),
        ),
        attention="eager",
        micro_batch=64,
        world=WorldQuestions(),
    )


def smol(
    data: Literal["easy_vqa"] = "easy_vqa",
    laver: bool = True,
    auxiliary: str = "",
    lora_rank: AtLeast0 = 0,
    steps: AtLeast3 = 600,
    batch: AtLeast1 = 8,
) -> StagedRecipe:
    """SmolLM2-135M-Instruct with EfficientNet-Lite0, both pretrained, from packages, in under 90 minutes on two cores.

    Stage 1 aligns the connector on captions of OpenMoji and easy-VQA; stages 2 and 3 train on the official training questions, stage 2
    with LaVer. `laver` off is the control, with the same pictures, questions, order and steps; `auxiliary` names further losses of stage
    2. `steps` is the sum over stages 2 and 3. Pictures of 96 pixels give 6 x 6 tokens, since one token costs more in this language model
    than the whole encoder.
    """
    visual = LaverConfig(branch="joint", head_hidden=1316, ema=EMASchedule(every=0.016)) if laver else None
    both: tuple[Part, ...] = ("connector", "language_model")
    common = Stage(
        "", both, "questions", steps=0, batch=batch, learning_rate=3e-4, warmup_steps=10, weight_decay=0.01, max_length=512, save_every=50
    )
    return StagedRecipe(
        name="smol",
        model=JoinedModel("lite0:96/16", "smollm2"),
        stages=(
            replace(common, name="align", trains=("connector",), data="captions", steps=60, batch=4 * batch, learning_rate=2e-3),
            replace(common, name="laver", steps=steps * 2 // 3, laver=visual, auxiliary=auxiliary_named(auxiliary), lora_rank=lora_rank),
            replace(common, name="instruct", steps=steps - steps * 2 // 3, lora_rank=lora_rank),
        ),
        attention="eager",
        micro_batch=batch,
        questions=data,
        remembers_features=True,
    )


def paper_stages(laver: bool = True, auxiliary: str = "") -> tuple[Stage, ...]:
    """The paper's three stages: 558K captions, 800K of FineVision with LaVer, 800K of LLaVA-OneVision; batch 128, cosine, length 2048.

    `laver` off is plain next-token prediction; `auxiliary` names losses of the second stage, alone or beside LaVer's.
    """
    common = Stage("", ("connector", "language_model"), "", steps=6250, batch=128, learning_rate=2e-5, warmup_steps=100)
    return (
        replace(common, name="align", trains=("connector",), data="captions", steps=4360, learning_rate=2e-3, warmup_steps=500),
        replace(common, name="laver", data="visual", laver=LaverConfig() if laver else None, auxiliary=auxiliary_named(auxiliary)),
        replace(common, name="instruct", data="instructions"),
    )


def laver_siglip2(attention: Attention = "sdpa", laver: bool = True, auxiliary: str = "") -> StagedRecipe:
    """The paper's model with SigLIP2 and Qwen2.5-7B, all three stages."""
    model = JoinedModel("google/siglip2-so400m-patch14-384", "Qwen/Qwen2.5-7B-Instruct")
    return StagedRecipe("laver-siglip2", model, paper_stages(laver, auxiliary), attention=attention, gradient_checkpointing=True)


def laver_clip(attention: Attention = "sdpa", laver: bool = True, auxiliary: str = "") -> StagedRecipe:
    """The paper's model with CLIP and Qwen2.5-7B, all three stages."""
    model = JoinedModel("openai/clip-vit-large-patch14-336", "Qwen/Qwen2.5-7B-Instruct")
    return StagedRecipe("laver-clip", model, paper_stages(laver, auxiliary), attention=attention, gradient_checkpointing=True)


def laver_qwen2_5_vl(attention: Attention = "sdpa", laver: bool = True, auxiliary: str = "") -> StagedRecipe:
    """Fine-tuning of Qwen2.5-VL-7B without the alignment stage, since its connector is trained; M-RoPE is the model's own."""
    model = WholeModel("Qwen/Qwen2.5-VL-7B-Instruct")
    return StagedRecipe(
        "laver-qwen2.5-vl",
        model,
        _any_size(paper_stages(laver, auxiliary)[1:]),
        attention=attention,
        gradient_checkpointing=True,
        micro_batch=1,
    )


def laver_llava_onevision(attention: Attention = "sdpa", laver: bool = True, auxiliary: str = "") -> StagedRecipe:
    """Fine-tuning of LLaVA-OneVision-7B without the alignment stage, since its connector is trained."""
    model = WholeModel("llava-hf/llava-onevision-qwen2-7b-ov-hf")
    return StagedRecipe(
        "laver-llava-onevision",
        model,
        _any_size(paper_stages(laver, auxiliary)[1:]),
        attention=attention,
        gradient_checkpointing=True,
        micro_batch=1,
    )


def _any_size(stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
    """The stages with longer samples, for models whose pictures take thousands of tokens: 2,048 would drop most samples."""
    return tuple(replace(stage, max_length=8192) for stage in stages)


RECIPES = {
    "tiny-laver": tiny_laver,
    "smol": smol,
    "laver-siglip2": laver_siglip2,
    "laver-clip": laver_clip,
    "laver-qwen2.5-vl": laver_qwen2_5_vl,
    "laver-llava-onevision": laver_llava_onevision,
}
