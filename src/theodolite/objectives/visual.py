"""Next-token prediction with auxiliary losses of the same pass: one of them, or their sum, without LaVer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn

from theodolite.models.forward import Adaptation, base_model
from theodolite.models.pass_inputs import whole_inputs
from theodolite.models.token_features import feature_layer, refuse_trained_encoder
from theodolite.objectives.align import Align, AlignConfig
from theodolite.objectives.auxiliary import AnswerPass, AuxiliaryLoss, counts_of, head_losses, prepared_for, taught_by, watched_pass
from theodolite.objectives.interventional import Interventional, InterventionalConfig
from theodolite.objectives.language import answer_loss
from theodolite.objectives.masked_latent import MaskEmbedding
from theodolite.objectives.masking import with_masks
from theodolite.objectives.pixels import Pixels, PixelsConfig
from theodolite.objectives.predict import Predict, PredictConfig
from theodolite.objectives.schedules import EMASchedule, scheduled_ratio
from theodolite.objectives.terms import Objective, Term, Terms
from theodolite.objectives.views import ViewsConfig, ViewsLoss
from theodolite.records.errors import BadInput, UnknownName

KINDS: Mapping[str, Any] = {
    "pixels": PixelsConfig,
    "align": AlignConfig,
    "predict": PredictConfig,
    "views": ViewsConfig,
    "interventional": InterventionalConfig,
}


@dataclass(frozen=True)
class AuxiliaryConfig:
    """Which auxiliary losses a stage has, each with its settings; None leaves one out.

    The mask ratio (0 to 1) rises along a cosine, as LaVer's, or is constant. Beside LaVer the masks, the language loss's weight and the
    adaptation are LaVer's own.
    """

    pixels: PixelsConfig | None = None
    align: AlignConfig | None = None
    predict: PredictConfig | None = None
    views: ViewsConfig | None = None
    interventional: InterventionalConfig | None = None
    language_weight: float = 1.0
    mask_ratio: float = 0.05
    mask_ramp: Literal["cosine", "constant"] = "cosine"
    mask_std: float = 0.02
    adaptation: Adaptation = field(default_factory=lambda: Adaptation("mixed", "2d"))

    def __post_init__(self) -> None:
        if not 0 <= self.mask_ratio <= 1:
            raise BadInput(f"mask_ratio is {self.mask_ratio}; give a fraction from 0 to 1")
        if all(getattr(self, name) is None for name in KINDS):
            raise BadInput(f"no auxiliary loss is set; give one of {', '.join(KINDS)}, or leave auxiliary out")

    @property
    def pair_frac(self) -> float:
        """The fraction (0 to 1) of a stage's pictures that need a partner."""
        return 0.0 if self.interventional is None else self.interventional.pair_frac


def auxiliary_named(names: str) -> AuxiliaryConfig | None:
    """The losses of these names, joined by "+", at their defaults; None for no name. Raises `UnknownName`."""
    chosen = [name.strip() for name in names.split("+") if name.strip()]
    for name in chosen:
        if name not in KINDS:
            raise UnknownName("auxiliary loss", name, tuple(KINDS))
    return AuxiliaryConfig(**{name: KINDS[name]() for name in chosen}) if chosen else None


def auxiliary_losses(model: nn.Module, settings: AuxiliaryConfig, adaptation: Adaptation | None = None) -> dict[str, AuxiliaryLoss]:
    """The losses that are set, by name, for a model; `adaptation` is that of their passes, None their settings'.

    Raises `BadInput` for a model that one of the losses does not fit.
    """
    text = base_model(model).config.get_text_config()
    losses: dict[str, AuxiliaryLoss] = {}
    if settings.align is not None or settings.predict is not None:
        refuse_trained_encoder(model)
    if settings.pixels is not None:
        losses["pixels"] = Pixels(text.hidden_size, settings.pixels)
    if settings.align is not None:
        losses["align"] = Align(text.hidden_size, text.num_hidden_layers, feature_layer(model).in_features, settings.align)
    if settings.predict is not None:
        losses["predict"] = Predict(text.hidden_size, feature_layer(model).in_features, settings.predict)
    if settings.views is not None:
        losses["views"] = ViewsLoss(text.hidden_size, adaptation or settings.adaptation, settings.views)
    if settings.interventional is not None:
        losses["interventional"] = Interventional(settings.interventional)
    return losses


class VisualObjective(Objective):
    """Language loss and auxiliary losses of one pass, in which vision tokens are masked if one of the losses needs that."""

    def __init__(self, model: nn.Module, settings: AuxiliaryConfig) -> None:
        super().__init__()
        self.settings = settings
        self.losses = nn.ModuleDict(auxiliary_losses(model, settings))
        width = base_model(model).config.get_text_config().hidden_size
        self.mask_embedding = MaskEmbedding(width, settings.mask_std) if any(loss.masks for loss in self._losses) else None

    @property
    def _losses(self) -> tuple[AuxiliaryLoss, ...]:
        return tuple(loss for loss in self.losses.values() if isinstance(loss, AuxiliaryLoss))

    @property
    def ema(self) -> EMASchedule | None:
        """The teacher's schedule; None if no loss has a teacher."""
        return None if self.settings.views is None else self.settings.views.ema

    def teach(self, model: nn.Module, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The teacher's outputs for a batch by loss: call it with the teacher's weights in place (`Teacher.teaching`)."""
        return taught_by(dict(zip(self.losses, self._losses, strict=True)), model, batch)

    def prepare(self, batch: Mapping[str, Any], step: int, num_steps: int) -> Mapping[str, Any]:
        """The batch with `masked` and `masked_index`, by the mask ratio of the step."""
        settings = self.settings
        ratio = 0.0 if self.mask_embedding is None else scheduled_ratio(settings.mask_ratio, settings.mask_ramp, step, num_steps)
        return prepared_for(self._losses, with_masks(batch, ratio))

    def counts(self, batch: Mapping[str, Any]) -> Mapping[str, int]:
        return {"language": int(batch["labels"].numel()), **counts_of(self._losses, batch)}

    def forward(self, model: nn.Module, batch: Mapping[str, Any], step: int) -> Terms:
        """The terms of a prepared batch, which holds the teacher's `teacher_outputs` if a loss has a teacher."""
        masked = None if self.mask_embedding is None else batch["masked"]
        inputs, adaptation = whole_inputs(base_model(model).config, batch, masked=masked), self.settings.adaptation

        def run() -> AnswerPass:
            return answer_loss(model, inputs, batch, adaptation, self.mask_embedding, beside=head_losses(self._losses))

        total, seen = watched_pass(model, batch, inputs, self._losses, run, taught=batch.get("teacher_outputs"))
        terms = {name: term for loss in self._losses for name, term in loss(seen).items()}
        return {"language": Term(total, int(batch["labels"].numel()), self.settings.language_weight), **terms}
