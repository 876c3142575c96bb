"""The model of a survey: in this process, in several workers, behind an endpoint, or known by logged answers only."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from torch import nn

from theodolite.asking.answer import Asker
from theodolite.asking.local import LocalAsker
from theodolite.asking.local_parts import LocalParts
from theodolite.asking.model_inputs import survey_size
from theodolite.asking.parts import PartAsker
from theodolite.asking.prompts import DEFAULT
from theodolite.measurement.survey.describe import describe_model
from theodolite.measurement.survey.options import SurveyOptions
from theodolite.measurement.survey.unfinished import identity_of
from theodolite.models.families import family_of
from theodolite.models.forward import base_model
from theodolite.models.image_processor import on_pillow, with_pixel_limits
from theodolite.records.answers import AnswersConfig
from theodolite.records.asking import ChoiceScore, PromptStyle
from theodolite.records.endpoint import EndpointConfig
from theodolite.records.survey import ModelConfig
from theodolite.worlds.limits import PixelLimits


@dataclass(frozen=True)
class ModelFacts:
    """What a survey wants to know of a model before it asks: the fields of `SurveyedModel`, and the hash of all that decides answers."""

    size: int
    scales: bool
    description: ModelConfig
    identity: str


@dataclass(frozen=True, eq=False)
class ModelWorkers:
    """The workers that hold a survey's model, with its facts.

    `call` gives what a function gives for a worker's asker, `stop` ends the workers, and `load` loads the model into this process.
    """

    parts: PartAsker
    facts: ModelFacts
    device: str
    call: Callable[[Callable[[Any], Any]], Any]
    stop: Callable[[], None]
    load: Callable[[], LocalAsker]


@dataclass(frozen=True, eq=False)
class SurveyedModel:
    """The model of a survey: its asker, the side in pixels of the pictures it is shown, and its description for the record.

    `describe` is called after asking. `scales`: pictures of files must be brought within the limits of their pixels before the model is
    given them; else its image processor does it. `local` is the asker of a model in this process, so that measures can look inside.
    `workers` hold the model in processes of their own; `asker` is then that of parts of questions.
    """

    asker: Asker
    size: int
    describe: Callable[[], ModelConfig | EndpointConfig | AnswersConfig]
    notices: Sequence[str] = ()
    local: LocalAsker | None = None
    scales: bool = True
    workers: ModelWorkers | None = None

    @cached_property
    def description(self) -> ModelConfig | EndpointConfig | AnswersConfig:
        """What `describe` says; the hash of a large model's weights takes seconds."""
        return self.describe()

    @property
    def shows_pictures(self) -> bool:
        """Whether the survey itself gives the model pictures; not where another tool did."""
        return not isinstance(self.description, AnswersConfig)

    def identity(self, options: SurveyOptions) -> str:
        """SHA-256, in hex, of all of a model that decides its answers. Raises `ValueError` for one behind an endpoint."""
        if self.workers is not None:
            return self.workers.facts.identity
        if self.local is None or not isinstance(self.description, ModelConfig):
            raise ValueError("a model behind an endpoint has no weights to hash")
        return identity_of(self.local, self.description, options.batch)

    @classmethod
    def of_model(
        cls,
        model: nn.Module,
        processor: Any,
        batch: int | None = None,
        prompt: PromptStyle = DEFAULT,
        score: ChoiceScore = "total",
        limits: PixelLimits | None = None,
        workers: int | None = None,
    ) -> SurveyedModel:
        """A model in this process. Raises `UnknownFamily` for one that is not in the families table.

        `limits` of pixels become settings of its image processor where that has some; `workers` threads read pictures of files.
        """
        scales = True
        if limits is not None and limits.ranged:
            family = family_of(base_model(model).config).name
            limited = with_pixel_limits(on_pillow(processor.image_processor), family, limits.min_pixels, limits.max_pixels)
            if limited is not None:
                processor, scales = copy.copy(processor), False
                processor.image_processor = limited
        asker = LocalAsker(model, processor, batch, prompt=prompt, score=score, workers=workers)
        describe = partial(describe_model, model, asker.reader.image_processor, prompt, score)
        return cls(asker, survey_size(processor.image_processor), describe, asker.notices, asker, scales)

    def refuse_different_grids(self, sizes: Sequence[tuple[int, int]]) -> None:
        """Raises `BadInput` if pictures of these (width, height) become different grids of vision tokens."""
        if self.local is not None:
            self.local.refuse_different_grids(sizes)
        elif self.workers is not None:
            self.workers.call(partial(_refuse_different_grids, sizes=sizes))

    @property
    def parts(self) -> PartAsker | None:
        """Who answers parts of questions; None behind an endpoint, which is asked all questions at once."""
        if self.workers is not None:
            return self.workers.parts
        return None if self.local is None else LocalParts(self.local)


def _refuse_different_grids(asker: LocalAsker, sizes: Sequence[tuple[int, int]]) -> None:
    asker.refuse_different_grids(sizes)
