"""Recipes of tours and grids: one stage on a small model, of next-token prediction and what may stand beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from theodolite.models.construction.build import DecoderSize
from theodolite.models.construction.frontends import FrontEnd
from theodolite.models.exported.connectors import Connector
from theodolite.models.forward import Adaptation
from theodolite.models.freezing import Part
from theodolite.objectives.laver import LaverConfig
from theodolite.objectives.visual import AuxiliaryConfig
from theodolite.training.recipes import Attention, Stage, StagedRecipe, TinyModel

# Fields of `Recipe` that runs made before they existed lack, with the value that those runs had.
LATER: Mapping[str, Any] = {"tower": "frozen", "laver": None, "auxiliary": None, "adaptation": asdict(Adaptation())}


@dataclass(frozen=True)
class Recipe:
    """Every setting of a training run except its data.

    `batch` counts pictures, each with all its questions. The learning rate warms up linearly and decays to 0 along a cosine.
    """

    name: str
    steps: int
    batch: int = 64
    learning_rate: float = 1e-3
    warmup_frac: float = 0.1
    beta2: float = 0.999
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    precision: Literal["bf16", "fp32"] = "bf16"
    # On a CPU, at about a hundred tokens, eager takes half the time of sdpa, whose bf16 backward pass is slow there.
    attention: Attention = "eager"
    decoder: DecoderSize = field(default_factory=DecoderSize)
    frontend: FrontEnd = "conv"
    connector: Connector = "mlp"
    # Whether the front end keeps its weights, or is trained with the rest.
    tower: Literal["frozen", "trained"] = "frozen"
    # What stands beside next-token prediction, and the changes to the model; the control of visual losses has the latter alone.
    laver: LaverConfig | None = None
    auxiliary: AuxiliaryConfig | None = None
    adaptation: Adaptation = field(default_factory=Adaptation)

    @property
    def settings(self) -> dict[str, Any]:
        """Every field by name, as records and run keys have it. Fields added later are left out at their default, so that old keys stay."""
        settings = asdict(self)
        return {name: value for name, value in settings.items() if LATER.get(name) != value}

    @property
    def stage(self) -> Stage:
        """The only stage: trains connector, language model and, if set, the front end on a policy's questions, without checkpoints."""
        trained: tuple[Part, ...] = ("connector", "language_model")
        return Stage(
            name="train",
            trains=trained if self.tower == "frozen" else (*trained, "encoder"),
            data="questions",
            steps=self.steps,
            batch=self.batch,
            learning_rate=self.learning_rate,
            warmup_steps=round(self.warmup_frac * self.steps),
            weight_decay=self.weight_decay,
            clip_norm=self.clip_norm,
            save_every=0,
            beta2=self.beta2,
            laver=self.laver,
            auxiliary=self.auxiliary,
        )

    @property
    def staged(self) -> StagedRecipe:
        """The equivalent staged recipe, of one stage."""
        return StagedRecipe(
            self.name,
            TinyModel(self.decoder, self.frontend),
            (self.stage,),
            adaptation=self.adaptation,
            precision=self.precision,
            attention=self.attention,
            micro_batch=self.batch,
        )


def tour_shapes() -> Recipe:
    """The tour of the shapes world: 240 steps of 64 pictures with two questions each, so most pictures are seen once."""
    return Recipe(name="tour-shapes", steps=240)


def tour_easy_vqa() -> Recipe:
    """The tour of easy-VQA with policies: the selection leaves few pictures, so each is seen about twenty times."""
    return Recipe(name="tour-easy-vqa", steps=160)


def easy_vqa_official() -> Recipe:
    """All official easy-VQA training questions.

    Text alone answers 0.825 of the yes/no questions, and a decoder initialised at 0.02 does no better after 500 steps of 64. Matching a
    named value to the picture takes many small steps and a larger initialisation (1 / sqrt(width)).
    """
    decoder = DecoderSize(initial_std=0.088)
    return Recipe(name="easy-vqa-official", steps=1800, batch=16, learning_rate=1.5e-3, beta2=0.98, decoder=decoder)
