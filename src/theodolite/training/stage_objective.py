"""The objective of a stage, from its settings."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from theodolite.models.forward import base_model
from theodolite.objectives.language import Language
from theodolite.objectives.laver import LaVer
from theodolite.objectives.terms import Objective
from theodolite.objectives.visual import VisualObjective, auxiliary_losses
from theodolite.training.recipes import Stage, StagedRecipe


def stage_objective(model: nn.Module, recipe: StagedRecipe, stage: Stage) -> Objective:
    """LaVer, auxiliary losses, both, or the language loss alone, on a prepared model. Raises `BadInput` for a model that does not fit."""
    if stage.laver is not None:
        beside = {} if stage.auxiliary is None else auxiliary_losses(model, stage.auxiliary, recipe.adaptation)
        return LaVer(base_model(model).config, replace(stage.laver, adaptation=recipe.adaptation), beside)
    if stage.auxiliary is not None:
        return VisualObjective(model, replace(stage.auxiliary, adaptation=recipe.adaptation))
    return Language(recipe.adaptation)
