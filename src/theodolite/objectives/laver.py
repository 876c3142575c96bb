"""LaVer: masked latent reconstruction of vision tokens in the language model's own space (arXiv 2512.06281)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from jaxtyping import Float, Int
from torch import Tensor, nn

from theodolite.models.encoder_output import EncoderOutput
from theodolite.models.families import family_of
from theodolite.models.forward import Adaptation, ForwardOutput, base_model, run_forward
from theodolite.models.pass_inputs import PassInputs, part_inputs, plan_of, whole_inputs
from theodolite.models.token_features import TokenFeatures
from theodolite.objectives.auxiliary import (
    AnswerPass,
    AuxiliaryLoss,
    counts_of,
    head_losses,
    prepared_for,
    recording,
    taught_by,
    watched_pass,
)
from theodolite.objectives.gram import Form, gram_loss, gram_pairs
from theodolite.objectives.language import answer_loss
from theodolite.objectives.likeness import summed_cosine
from theodolite.objectives.masked_latent import Centre, HeadInit, MaskEmbedding, VisionHead, masked_latent_loss, target_statistics
from theodolite.objectives.masking import with_masks
from theodolite.objectives.schedules import EMASchedule, scheduled_ratio
from theodolite.objectives.terms import Objective, Term, Terms
from theodolite.records.errors import BadInput, UnknownName

CHOICES = {
    "gram": get_args(Form),
    "gram_reduction": ("entries", "pictures", "picture_mean"),
    "head_init": get_args(HeadInit),
    "mask_ramp": ("cosine", "constant"),
    "branch": ("separate", "joint"),
}
# Logged quantities that are sums over masked tokens, and those of which each micro-batch has one.
PER_TOKEN = ("teacher_entropy", "student_kl", "head_cosine")
PER_BATCH = ("prototypes_used", "centre_norm")


@dataclass(frozen=True)
class LaverConfig:
    """Hyperparameters of LaVer. Defaults are the published ones; docs/reference/papers.md explains the choices that the sources leave open.

    * `head_width` None is the width of the language model. `head_hidden` is 8,192, for language models of width 3,584.
    * `gram_reduction`: *entries* divides the summed squares by the number of token pairs (so that a weight means the same at any number of
      tokens), *pictures* by the number of pictures (the squared Frobenius norm itself); *picture_mean* averages within each picture
      first, so that each picture counts once, whatever its number of tokens.
    * `head_init`: see `VisionHead`; *kaiming* is the reference code's.
    * `branch`: *separate* is the paper's, a pass over the masked pictures alone beside the unmasked one; *joint* is cheaper, one masked
      pass for both losses.
    * `head_learning_rate`: that of the vision head and the mask embedding, scheduled like the others; None is the model's own.
    """

    language_weight: float = 1.0
    masked_latent_weight: float = 1.0
    gram_weight: float = 1.0
    student_temperature: float = 0.1
    teacher_temperature: float = 0.04
    centre_momentum: float = 0.9
    gram: Form = "clipped"
    gram_reduction: Literal["entries", "pictures", "picture_mean"] = "entries"
    mask_ratio: float = 0.05
    mask_ramp: Literal["cosine", "constant"] = "cosine"
    mask_std: float = 0.02
    head_hidden: int = 8192
    head_width: int | None = None
    head_init: HeadInit = "default"
    ema: EMASchedule = field(default_factory=EMASchedule)
    branch: Literal["separate", "joint"] = "separate"
    adaptation: Adaptation = field(default_factory=lambda: Adaptation("mixed", "2d"))
    head_learning_rate: float | None = None

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise UnknownName(f"{name} of LaVer", str(getattr(self, name)), choices)
        if not 0 <= self.mask_ratio <= 1:
            raise BadInput(f"mask_ratio is {self.mask_ratio}; give a fraction from 0 to 1")
        if self.student_temperature <= 0 or self.teacher_temperature <= 0:
            raise BadInput(f"temperatures are {self.student_temperature} and {self.teacher_temperature}; both must be above 0")
        if self.head_learning_rate is not None and self.head_learning_rate < 0:
            raise BadInput(f"head_learning_rate is {self.head_learning_rate}; give 0 or more, or None for the model's own")


@dataclass(frozen=True, eq=False)
class TeacherOutputs:
    """The teacher's pass over a batch: its head's outputs by vision token, their summed likeness (`summed_cosine`), encoder outputs.

    For auxiliary losses: the vision tokens' features, if one reads them, and what `taught_by` gave.
    """

    outputs: Float[Tensor, "vision prototype"]
    cosine: Float[Tensor, ""]
    encoded: EncoderOutput
    features: TokenFeatures | None = None
    taught: Mapping[str, Any] = field(default_factory=dict)


class LaVer(Objective):
    """The LaVer objective: language, masked latent and Gram terms of a student on masked pictures, its teacher on unmasked ones.

    Its modules are trained beside the VLM (vision head, mask embedding) or updated (centre of the teacher's outputs). The auxiliary
    losses `beside` it, by name, read the pass over masked pictures.
    """

    def __init__(self, config: Any, settings: LaverConfig | None = None, beside: Mapping[str, AuxiliaryLoss] | None = None) -> None:
        super().__init__()
        settings = settings or LaverConfig()
        width = config.get_text_config().hidden_size
        self.settings = settings
        self.head = VisionHead(width, settings.head_hidden, settings.head_width or width, settings.head_init)
        self.mask_embedding = MaskEmbedding(width, settings.mask_std)
        self.centre = Centre(settings.head_width or width, settings.centre_momentum)
        self.beside = nn.ModuleDict(beside or {})

    @property
    def ema(self) -> EMASchedule:
        """The teacher's schedule."""
        return self.settings.ema

    def mask_ratio(self, step: int, num_steps: int) -> float:
        """The fraction of vision tokens masked at a step, 0 to 1."""
        return scheduled_ratio(self.settings.mask_ratio, self.settings.mask_ramp, step, num_steps)

    def prepare(self, batch: Mapping[str, Any], step: int, num_steps: int) -> Mapping[str, Any]:
        """The batch with `masked` (row, token) and `masked_index` (positions among the vision tokens), by the mask ratio of the step."""
        return prepared_for(self._beside, with_masks(batch, self.mask_ratio(step, num_steps)))

    def counts(self, batch: Mapping[str, Any]) -> Mapping[str, int]:
        sizes, num_masked = plan_of(batch).layout.sizes(), len(batch["masked_index"])
        num_with_pairs = sum(size > 1 for size in sizes)
        return {
            "language": int(batch["labels"].numel()),
            "masked_latent": num_masked,
            "gram": gram_pairs(sizes) if self.settings.gram_reduction == "entries" else len(sizes),
            "mask_frac": sum(sizes),
            "student_cosine": num_with_pairs,
            "teacher_cosine": num_with_pairs,
            **dict.fromkeys(PER_TOKEN, num_masked),
            **dict.fromkeys(PER_BATCH, int(num_masked > 0)),
            **counts_of(self._beside, batch),
        }

    def teach(self, model: nn.Module, batch: Mapping[str, Any]) -> TeacherOutputs:
        """The teacher's outputs for a batch, unmasked: call it with the teacher's weights in place (`Teacher.teaching`)."""
        inputs = self._inputs(model, batch)
        config = base_model(model).config
        if self.settings.branch == "separate":
            pass_inputs = part_inputs(config, replace(inputs, masked=None), plan_of(batch).pictures)
        elif self.settings.adaptation.attention == "native" and family_of(config).attention == "prefix":
            pass_inputs = replace(inputs, masked=None, wanted=None)  # there vision tokens attend to the question too
        else:
            pass_inputs = part_inputs(config, replace(inputs, masked=None), plan_of(batch).prefix)
        encoded = EncoderOutput()
        # Here, since a frozen connector runs in the first pass alone.
        with recording(model, any(loss.reads_features for loss in self._beside)) as features:
            output = run_forward(model, pass_inputs, self.settings.adaptation, encoded=encoded)
        vision = self._vision(output, pass_inputs)
        taught = taught_by(dict(zip(self.beside, self._beside, strict=True)), model, batch)
        return TeacherOutputs(self.head(vision), summed_cosine(vision, inputs.layout.sizes()), encoded, features, taught)

    def forward(self, model: nn.Module, batch: Mapping[str, Any], step: int) -> Terms:
        """The terms of a batch that holds `masked` and the teacher's `teacher_outputs`."""
        teacher_outputs: TeacherOutputs = batch["teacher_outputs"]
        inputs = self._inputs(model, batch)
        options = (self.settings.adaptation, self.mask_embedding, teacher_outputs.encoded)
        at_head = head_losses(self._beside)
        if self.settings.branch == "joint":
            pass_inputs, answers = inputs, None
        else:
            unmasked = (self.settings.adaptation, None, teacher_outputs.encoded)
            answers = answer_loss(model, replace(inputs, masked=None), batch, *unmasked, beside=at_head)
            pass_inputs = part_inputs(base_model(model).config, inputs, plan_of(batch).pictures)

        def run() -> AnswerPass:
            if answers is None:
                return answer_loss(model, inputs, batch, *options, beside=at_head)
            return replace(answers, output=run_forward(model, pass_inputs, *options))

        total, seen = watched_pass(model, batch, pass_inputs, self._beside, run, teacher_outputs.features, teacher_outputs.taught)
        terms = self._visual_terms(self._vision(seen.output, pass_inputs), seen.sizes, batch["masked_index"], teacher_outputs)
        language = Term(total, int(batch["labels"].numel()), self.settings.language_weight)
        return {"language": language, **terms, **{name: term for each in self._beside for name, term in each(seen).items()}}

    @property
    def _beside(self) -> tuple[AuxiliaryLoss, ...]:
        return tuple(loss for loss in self.beside.values() if isinstance(loss, AuxiliaryLoss))

    def _visual_terms(
        self, vision: Float[Tensor, "vision dim"], sizes: list[int], masked: Int[Tensor, " masked"], teacher_outputs: TeacherOutputs
    ) -> dict[str, Term]:
        """The two visual losses, and the logged terms: likeness of vision tokens and share of masked ones."""
        settings = self.settings
        student = self.head(vision)
        outputs = (student[masked], teacher_outputs.outputs[masked], self.centre.value)
        temperatures = (settings.student_temperature, settings.teacher_temperature)
        latent = masked_latent_loss(*outputs, *temperatures)
        by_picture: Literal["sum", "mean"] = "mean" if settings.gram_reduction == "picture_mean" else "sum"
        gram = gram_loss(student, teacher_outputs.outputs, sizes, settings.gram, by_picture=by_picture)
        pairs = gram_pairs(sizes) if settings.gram_reduction == "entries" else len(sizes)
        num_with_pairs, num_masked = sum(size > 1 for size in sizes), len(masked)
        watched = {**target_statistics(*outputs, *temperatures), "centre_norm": self.centre.value.norm() * (num_masked > 0)}
        return {
            **{name: Term(value, num_masked if name in PER_TOKEN else int(num_masked > 0), None) for name, value in watched.items()},
            "masked_latent": Term(latent, num_masked, settings.masked_latent_weight),
            "gram": Term(gram, pairs, settings.gram_weight),
            "mask_frac": Term(student.new_full((), num_masked), sum(sizes), None),
            "student_cosine": Term(summed_cosine(vision.detach(), sizes), num_with_pairs, None),
            "teacher_cosine": Term(teacher_outputs.cosine, num_with_pairs, None),
        }

    def _inputs(self, model: nn.Module, batch: Mapping[str, Any]) -> PassInputs:
        return whole_inputs(base_model(model).config, batch, masked=batch["masked"])

    def _vision(self, output: ForwardOutput, pass_inputs: PassInputs) -> Float[Tensor, "vision dim"]:
        """The last hidden states of vision tokens, in the dtype of the centre and head (models may be loaded in half precision)."""
        return output.hidden.flatten(0, 1)[pass_inputs.layout.vision_index].to(self.centre.value.dtype)
