"""How a survey treats a model that brings its own asker."""

from __future__ import annotations

import pytest

from helpers.tiny_llava import WORLD, tiny_vlm
from theodolite.measurement.survey.session import survey_model
from theodolite.measurement.survey.surveyed import SurveyedModel
from theodolite.records.errors import BadInput


def test_a_model_that_brings_its_asker_is_not_asked_otherwise() -> None:
    surveyed = SurveyedModel.of_model(*tiny_vlm(), 8, score="per_token")
    with pytest.raises(BadInput, match=r"'free' with the score 'per_token'.*'free' and 'total'"):
        survey_model(surveyed, WORLD, policy="shape", num_scenes=2)
    record = survey_model(surveyed, WORLD, policy="shape", num_scenes=2, score="per_token").record
    assert record.model.score == "per_token" and record.model.words.endswith("prompt free, choices scored per token")
