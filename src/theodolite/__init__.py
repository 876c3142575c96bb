"""theodolite: surveys of vision-language models, and training that extends what they map.

The public names are loaded when first used, so that `import theodolite` imports no torch (PEP 562).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from theodolite.commands.advise import advise as advise
    from theodolite.data.packing import PackingCollator as PackingCollator
    from theodolite.data.sources import LlavaJson as LlavaJson
    from theodolite.measurement.pairs.plan import Plan as Plan
    from theodolite.measurement.survey.callback import SurveyCallback as SurveyCallback
    from theodolite.measurement.survey.compare import compare as compare
    from theodolite.measurement.survey.options import SurveyOptions as SurveyOptions
    from theodolite.measurement.survey.result import SurveyResult as SurveyResult
    from theodolite.measurement.survey.result import load_survey as load_survey
    from theodolite.measurement.survey.session import survey_model as survey_model
    from theodolite.models.export import export_vlm as export_vlm
    from theodolite.models.load import load_vlm as load_vlm
    from theodolite.objectives.laver import LaverConfig as LaverConfig
    from theodolite.questions.coverage import measure_coverage as measure_coverage
    from theodolite.records.errors import BadInput as BadInput
    from theodolite.report.survey.page import write_report as write_report
    from theodolite.training.trainer import LaverTrainer as LaverTrainer
    from theodolite.training.trainer import ObjectiveTrainer as ObjectiveTrainer
    from theodolite.worlds.easy_vqa.world import EasyVQA as EasyVQA
    from theodolite.worlds.gallery import Gallery as Gallery
    from theodolite.worlds.manifest.read import read_manifest as read_manifest
    from theodolite.worlds.shapes.world import Shapes as Shapes
    from theodolite.worlds.world import World as World

# Each public name and the module that defines it.
_HOMES = {
    "BadInput": "records.errors",
    "EasyVQA": "worlds.easy_vqa.world",
    "Gallery": "worlds.gallery",
    "LaverConfig": "objectives.laver",
    "LaverTrainer": "training.trainer",
    "LlavaJson": "data.sources",
    "ObjectiveTrainer": "training.trainer",
    "PackingCollator": "data.packing",
    "Plan": "measurement.pairs.plan",
    "Shapes": "worlds.shapes.world",
    "SurveyCallback": "measurement.survey.callback",
    "SurveyOptions": "measurement.survey.options",
    "SurveyResult": "measurement.survey.result",
    "World": "worlds.world",
    "advise": "commands.advise",
    "compare": "measurement.survey.compare",
    "export_vlm": "models.export",
    "load_survey": "measurement.survey.result",
    "load_vlm": "models.load",
    "measure_coverage": "questions.coverage",
    "read_manifest": "worlds.manifest.read",
    "survey_model": "measurement.survey.session",
    "write_report": "report.survey.page",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'theodolite' has no attribute {name!r}; its names are {', '.join(__all__)}")
    value = getattr(importlib.import_module(f"theodolite.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__} - {"Any", "TYPE_CHECKING", "annotations", "importlib"})
