"""How a model is surveyed: every setting of a survey, in one place."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from theodolite.asking.parts import NUM_QUESTIONS
from theodolite.asking.prompts import DEFAULT
from theodolite.records.asking import ChoiceScore, PromptStyle
from theodolite.records.survey import Thresholds
from theodolite.worlds.limits import PixelLimits
from theodolite.worlds.query import Policy

INSIDE_SCENES = 500


@dataclass(frozen=True)
class SurveyOptions:
    """The settings of a survey.

    `policy` is what a world's verdicts are judged by; None means as the model was trained on that world, else every open question. Base
    scenes of a world are `num_scenes`, drawn by `seed`, which also seeds the measures of the inside. `measures` names these (see
    `internals.registry.MEASURES`); they use the first `inside_scenes` scenes. `sentences` is a UTF-8 text file, a sentence a
    line, for the measure *words* in place of the package's own. `batch` is the number of rows at once; None means as many as
    memory allows. `noise` *perturb* measures the noise of given pairs that bring none on slightly changed pictures; *given* uses no noise
    but their own. Without `official` a world's own test questions are not asked. `prompt` is the style in which questions are written (see
    `asking.prompts`), and `score` what decides between choices: their total log-probability, or that per token; a `SurveyedModel` brings
    its own. Pictures of files are given to the model at their own aspect ratio: with `max_pixels` or `min_pixels`, of at most or least
    about so many pixels (width x height); with `picture_size`, as squares of that side, at which worlds are drawn too (None: as the model's
    image processor wants them). `workers` threads read them. `device`, `dtype` and `attention` are for models that are loaded from a path;
    device and precision None mean as `models.device.Placement` chooses: CUDA or MPS where there is one, in bfloat16, else the CPU in
    float32. `title` None means the training arm's name, else the model folder's. Questions of a
    local model are asked, and stored, `save_every` at a time; batches never span two such
    parts. `devices` are several devices of this machine (numbers of GPUs, or "cpu" for each worker), and `on` *ray* means all GPUs of the
    cluster that RAY_ADDRESS names: workers there load the model and answer the parts.
    """

    policy: str | Policy | None = None
    num_scenes: int = 200
    seed: int = 0
    title: str | None = None
    measures: tuple[str, ...] = ()
    inside_scenes: int = INSIDE_SCENES
    sentences: Path | None = None
    batch: int | None = None
    noise: Literal["perturb", "given"] = "perturb"
    thresholds: Thresholds = field(default_factory=Thresholds)
    official: bool = True
    prompt: PromptStyle = DEFAULT
    score: ChoiceScore = "total"
    picture_size: int | None = None
    max_pixels: int | None = None
    min_pixels: int | None = None
    workers: int | None = None
    device: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    attention: str = "sdpa"
    devices: tuple[str, ...] = ()
    on: Literal["here", "ray"] = "here"
    save_every: int = NUM_QUESTIONS

    @property
    def limits(self) -> PixelLimits:
        """The limits of pictures' pixels. Raises `BadInput` if they contradict each other."""
        return PixelLimits(self.min_pixels, self.max_pixels, self.picture_size)
