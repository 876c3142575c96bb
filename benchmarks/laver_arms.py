"""What both benchmarks of LaVer's cost measure: models and batches of a shape, one training step of each arm, and its floor in FLOPs.

Arms: `plain` next-token prediction on the stock model; `mixed` the same with mixed attention and 2D positions; `joint` and `separate`
LaVer; those of `AUXILIARY` auxiliary losses, joined by "+", in place of LaVer.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

ARMS = ("plain", "mixed", "joint", "separate")
AUXILIARY = ("pixels", "align", "predict", "views", "pixels+align+predict")
GIB = 2**30
# Ends up in the records, beside the figures.
FLOOR = (
    "FLOPs of an arm over those of plain, counted by matrix product: the decoder's and the head's forward 1 and backward 2, one more "
    "forward where they are recomputed (checkpointing, answers' logits in parts); attention over the pairs that may see each other; "
    "the frozen encoder's forward once; for LaVer the teacher's forward, the vision head and the Gram products. No memory traffic, no "
    "optimizer."
)


@dataclass(frozen=True)
class Tower:
    """A SigLIP tower; `patch` is the side of a token's patch in pixels."""

    num_layers: int
    width: int
    num_heads: int
    feed_forward: int
    patch: int


@dataclass(frozen=True)
class Shape:
    """A LLaVA and its batch: rows of `pictures` pictures of side x side tokens, then `text` tokens that are all predicted."""

    num_layers: int
    width: int
    num_heads: int
    num_key_value_heads: int
    feed_forward: int
    vocabulary: int
    tower: Tower
    side: int
    pictures: int
    text: int
    rows: int
    head_hidden: int
    language_model: Literal["llama", "qwen2"] = "qwen2"
    mask_ratio: float = 0.05
    checkpointing: bool = False

    @property
    def vision(self) -> int:
        """Vision tokens of a row."""
        return self.pictures * self.side**2

    @property
    def tokens(self) -> int:
        """Tokens of a row."""
        return self.vision + self.text


def flops(shape: Shape) -> dict[str, float]:
    """Floating-point operations of one row by arm (see `FLOOR`)."""
    from theodolite.objectives.language import MOST_LOGITS

    vision, tokens, width, tower, cells = shape.vision, shape.tokens, shape.width, shape.tower, shape.side**2
    projections = 2 * width**2 * (1 + shape.num_key_value_heads / shape.num_heads)
    linear = 2 * shape.num_layers * (projections + 3 * width * shape.feed_forward)
    within = shape.pictures * cells**2
    causal, in_pictures = tokens * (tokens + 1) / 2, shape.pictures * cells * (cells - 1) / 2

    def decoder(num: int, pairs: float) -> float:
        return num * linear + pairs * 4 * shape.num_layers * width

    learning = 4 if shape.checkpointing else 3
    in_parts = shape.rows * shape.text > max(MOST_LOGITS // shape.vocabulary, 1)
    answers = (4 if in_parts else 3) * 2 * shape.text * width * shape.vocabulary
    connector = 2 * vision * (tower.width * width + width**2)
    encoder = tower.num_layers * (2 * vision * (4 * tower.width**2 + 2 * tower.width * tower.feed_forward) + 4 * within * tower.width)
    plain = encoder + 3 * connector + answers + learning * decoder(tokens, causal)
    mixed = encoder + 3 * connector + answers + learning * decoder(tokens, causal + in_pictures)
    # The teacher's prefix ends with the last picture; pictures come first here.
    prefix = connector + decoder(vision, vision * (vision + 1) / 2 + in_pictures)
    alone = connector + decoder(vision, within)
    masked = 3 * connector + learning * decoder(vision, within)
    # Products of student and teacher; backward 2 for the head, and 1 for the Gram matrix, which is symmetric.
    visual = 4 * 2 * vision * (2 * width * shape.head_hidden + shape.head_hidden**2) + 3 * 2 * within * width
    outputs = {"pixels": 3 * tower.patch**2, "align": tower.width, "predict": tower.width}
    heads = {
        name: 3 * 2 * vision * (width * shape.head_hidden + shape.head_hidden**2 + shape.head_hidden * own) for name, own in outputs.items()
    }
    # Both views through the encoder, one through the teacher; the head's three layers 3 times for the student and once for the teacher.
    heads["views"] = 2 * encoder + alone + masked + 4 / 3 * heads["predict"]
    auxiliary = {arm: mixed + sum(heads[name] for name in arm.split("+")) for arm in AUXILIARY}
    return {"plain": plain, "mixed": mixed, "joint": mixed + prefix + visual, "separate": mixed + alone + masked + visual, **auxiliary}


def build(shape: Shape, device: str, dtype: Any, attention: str) -> Any:
    """The LLaVA with random weights in `dtype`, its tower frozen."""
    import torch
    from transformers import LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, Qwen2Config, SiglipVisionConfig

    tower = shape.tower
    vision = SiglipVisionConfig(
        image_size=tower.patch * shape.side,
        patch_size=tower.patch,
        hidden_size=tower.width,
        intermediate_size=tower.feed_forward,
        num_hidden_layers=tower.num_layers,
        num_attention_heads=tower.num_heads,
        vision_use_head=False,
    )
    text = {"llama": LlamaConfig, "qwen2": Qwen2Config}[shape.language_model](
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.feed_forward,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_key_value_heads,
        max_position_embeddings=32768,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=1,
        image_seq_length=shape.side**2,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    torch.manual_seed(0)
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = LlavaForConditionalGeneration._from_config(
                config, attn_implementation={"text_config": attention, "vision_config": "sdpa"}
            )
    finally:
        torch.set_default_dtype(default)
    model.model.vision_tower.requires_grad_(False)
    return model


def batch_of(shape: Shape, dtype: Any, multiple: int = 1) -> dict[str, Any]:
    """A batch as a collator gives it, on the host, with its plan; parts' widths are multiples of `multiple`."""
    import torch

    from theodolite.models.exported.grids import token_grid
    from theodolite.models.exported.layout import mark_pictures
    from theodolite.models.pass_inputs import BatchPlan
    from theodolite.objectives.masking import draw_ranks

    generator = torch.Generator().manual_seed(0)
    cells, vision, total = shape.side**2, shape.vision, shape.rows * shape.pictures
    ids = torch.randint(2, shape.vocabulary, (shape.rows, shape.tokens), generator=generator)
    ids[:, :vision] = 1
    picture, cell = mark_pictures(ids == 1, [token_grid(shape.side, shape.side)] * total)
    draws = [draw_ranks(cells, 0, "sample", 0, number) for number in range(total)]
    rank = torch.full_like(ids, -1)
    rank[ids == 1] = torch.cat([torch.as_tensor(ranks) for ranks, _ in draws])
    dither = torch.zeros(ids.shape, dtype=torch.float64)
    dither[ids == 1] = torch.tensor([value for _, value in draws], dtype=torch.float64).repeat_interleave(cells)
    places = torch.arange(ids.numel()).view_as(ids)[:, vision - 1 : -1]
    pixels = shape.tower.patch * shape.side
    batch = {
        "input_ids": ids,
        "sample": torch.arange(shape.rows)[:, None].repeat(1, shape.tokens),
        "branch": torch.zeros_like(ids),
        "picture": picture,
        "cell": cell,
        "rank": rank,
        "dither": dither,
        "predicts": places.flatten(),
        "labels": ids[:, vision:].flatten(),
        "pixel_values": torch.rand(total, 3, pixels, pixels, generator=generator).to(dtype),
    }
    if torch.cuda.is_available():
        batch = {name: value.pin_memory() for name, value in batch.items()}
    return {**batch, "plan": BatchPlan.of(batch, multiple).ahead()}


def auxiliary_objective(model: Any, arm: str, shape: Shape) -> Any:
    """The objective of an arm of `AUXILIARY`, with LaVer's mask ratio and width of heads."""
    from theodolite.objectives.align import AlignConfig
    from theodolite.objectives.pixels import PixelsConfig
    from theodolite.objectives.predict import PredictConfig
    from theodolite.objectives.views import ViewsConfig
    from theodolite.objectives.visual import AuxiliaryConfig, VisualObjective

    settings: dict[str, Any] = {
        "pixels": PixelsConfig(side=shape.tower.patch, head_hidden=shape.head_hidden),
        "align": AlignConfig(head_hidden=shape.head_hidden),
        "predict": PredictConfig(head_hidden=shape.head_hidden),
        "views": ViewsConfig(head_hidden=shape.head_hidden, head_width=shape.tower.width),
    }
    chosen = {name: settings[name] for name in arm.split("+")}
    return VisualObjective(model, AuxiliaryConfig(mask_ratio=shape.mask_ratio, mask_ramp="constant", **chosen))


class ArmRun:
    """Training of one arm: its model, objective, teacher and AdamW; `step` is one optimizer step, the copy of the batch included.

    `dtype` is that of the weights; with `autocast`, products are computed in bf16.
    """

    def __init__(
        self, shape: Shape, arm: str, *, device: str = "cpu", dtype: Any = None, autocast: bool = False, attention: str = "sdpa"
    ) -> None:
        import torch

        from theodolite.models.exported.attention import FLEX, FLEX_BLOCK
        from theodolite.models.forward import Adaptation, adapt
        from theodolite.objectives.language import Language
        from theodolite.objectives.laver import LaVer, LaverConfig
        from theodolite.training.objective_module import ObjectiveModule
        from theodolite.training.teacher_callback import TeacherCallback

        self.device, self.autocast, dtype = device, autocast, dtype or torch.float32
        self.batch = batch_of(shape, dtype, FLEX_BLOCK if attention == FLEX else 1)
        model = build(shape, device, dtype, attention)
        if arm in ("plain", "mixed"):
            adaptation = Adaptation() if arm == "plain" else Adaptation("mixed", "2d")
            objective: Any = Language(adaptation)
        elif arm in AUXILIARY:
            with torch.device(device):
                objective = auxiliary_objective(model, arm, shape)
            adaptation = objective.settings.adaptation
        else:
            branch: Any = arm
            settings = LaverConfig(branch=branch, mask_ratio=shape.mask_ratio, mask_ramp="constant", head_hidden=shape.head_hidden)
            objective, adaptation = LaVer(model.config, settings), settings.adaptation
        adapt(model, adaptation)
        self.objective = objective.to(device)
        self.module = ObjectiveModule(model, self.objective).train()
        if shape.checkpointing:
            self.module.activation_checkpointing_enable()
        self.trained = [value for value in self.module.parameters() if value.requires_grad]
        teaches = getattr(self.objective, "ema", None) is not None
        self.teacher = TeacherCallback(self.module, self.objective) if teaches else None
        self.optimizer = torch.optim.AdamW(self.trained, lr=1e-5, fused=device == "cuda")

    def compile_layers(self) -> None:
        """Compiles the decoder layers, as training with `torch_compile` does."""
        from theodolite.training.compilation import compile_decoder_layers

        compile_decoder_layers(self.module.vlm, {})

    def step(self, number: int, num_steps: int) -> None:
        """Optimizer step `number` (from 1) of `num_steps`."""
        import torch
        from accelerate.utils import send_to_device

        from theodolite.objectives.terms import combine

        with torch.autocast(self.device, torch.bfloat16, enabled=self.autocast):
            batch = send_to_device(self.batch, self.device, non_blocking=True)
            prepared = self.objective.prepare(batch, number, num_steps)
            counts = self.objective.counts(prepared)
            if self.teacher is not None:
                prepared = self.teacher.teach(self.module, prepared, number)
            loss = combine(self.module(prepared, number), counts)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.teacher is not None:
            self.teacher.follow(number, num_steps)

    @property
    def trained_bytes_in_bf16(self) -> int:
        """The size of one bf16 copy of what is trained."""
        return 2 * sum(value.numel() for value in self.trained)

    @property
    def teacher_bytes(self) -> int:
        """The size of the teacher's average, on the host where the model is on a GPU."""
        teacher = None if self.teacher is None else self.teacher.teacher
        return 0 if teacher is None else sum(value.nbytes for value in teacher.shadow.values())


def resident(field: Literal["VmRSS", "VmHWM"]) -> int:
    """Bytes of this process in memory: now (`VmRSS`), or at most so far (`VmHWM`)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024
