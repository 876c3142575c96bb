"""Surveys inside a training run: they change nothing of it, and say what a survey of the same weights from disk says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from transformers import TrainerControl, TrainerState, TrainingArguments

from helpers.survey_records import UNTRAINED
from helpers.tiny_llava import TINY, WORLD, examples, tiny_vlm
from theodolite.data.collate import Collator
from theodolite.data.epochs import FixedOrder
from theodolite.data.examples import training_order
from theodolite.measurement.pairs.plan import plan_world
from theodolite.measurement.survey.callback import BATCH, SurveyCallback
from theodolite.measurement.survey.options import SurveyOptions
from theodolite.measurement.survey.result import load_survey
from theodolite.measurement.survey.session import survey_model
from theodolite.models.construction.frontends import Pixels
from theodolite.models.conversation_tokenizer import QuestionTokenizer
from theodolite.models.export import export_vlm
from theodolite.models.fingerprint import weights_hash
from theodolite.models.load import load_vlm
from theodolite.objectives.language import Language
from theodolite.records.survey import read_survey
from theodolite.training.arguments import training_arguments
from theodolite.training.objective_module import ObjectiveModule
from theodolite.training.recipe import Recipe
from theodolite.training.trainer import ObjectiveTrainer

STEPS = 5
RECIPE = Recipe(name="test", steps=STEPS, batch=8, precision="bf16", decoder=TINY)
POLICY = WORLD.policy("shape,row")


def trained(folder: Path, every: int | None, measures: tuple[str, ...] = ()) -> tuple[Any, Any, SurveyCallback | None, Any]:
    model, processor = tiny_vlm()
    callback = None
    if every is not None:
        options = SurveyOptions(policy=POLICY, num_scenes=4, measures=measures, thresholds=UNTRAINED)
        callback = SurveyCallback((model, processor), WORLD, folder / "surveys", every=every, options=options)
    trainer = ObjectiveTrainer(
        model=ObjectiveModule(model, Language()),
        args=training_arguments(RECIPE.staged, RECIPE.stage, folder, 0),
        train_dataset=FixedOrder(training_order(24, STEPS * 8, 0)),
        data_collator=Collator(examples("shape,row:odd"), QuestionTokenizer(processor, 64), Pixels(processor.image_processor)),
        callbacks=[callback] if callback else [],
    )
    trainer.train()
    return model, processor, callback, trainer


def test_surveys_on_the_way_change_nothing_of_the_training(tmp_path: Path) -> None:
    plain = trained(tmp_path / "plain", None)[0]
    model, processor, callback, trainer = trained(tmp_path / "surveyed", 2, ("fisher", "allocation"))
    assert weights_hash(plain) == weights_hash(model)
    assert callback is not None and sorted(callback.records) == [2, 4, 5]
    folders = sorted(path.name for path in (tmp_path / "surveyed" / "surveys").iterdir())
    assert folders == ["step-000002", "step-000004", "step-000005"]
    model.train().model.vision_tower.eval()
    callback.on_train_end(trainer.args, TrainerState(global_step=9), trainer.control)
    assert model.training and not model.model.vision_tower.training, "every module is left in its own mode"
    assert sorted(callback.records) == [2, 4, 5, 9] and callback.records[9].shadows == callback.records[5].shadows
    assert model.config.text_config._attn_implementation == "sdpa"
    logged = [entry for entry in trainer.state.log_history if any(name.startswith("survey/") for name in entry)]
    assert [entry["step"] for entry in logged] == [2, 4, 5]
    hashes = {record.model.weights_sha256 for record in callback.records.values()}
    assert len(hashes) == 3 and len({record.pictures_sha256 for record in callback.records.values()}) == 1

    export_vlm(model, processor, tmp_path / "model")
    again = survey_model(
        load_vlm(tmp_path / "model"), WORLD, policy=POLICY, title="step 5", num_scenes=4, batch=BATCH, thresholds=UNTRAINED
    )
    stored = read_survey(tmp_path / "surveyed" / "surveys" / "step-000005")
    assert stored.shadows == again.record.shadows and stored.rows_sha256 == again.record.rows_sha256


def test_pairs_of_a_plan_serve_too_and_an_interval_of_none_is_refused(tmp_path: Path) -> None:
    model, processor = tiny_vlm()
    plan = plan_world(WORLD, POLICY, 3, 0, 64)
    with pytest.raises(ValueError, match="every is 0"):
        SurveyCallback((model, processor), plan, tmp_path, every=0)
    callback = SurveyCallback((model, processor), plan, tmp_path, every=1)
    before = torch.get_rng_state()
    callback.on_step_end(TrainingArguments(output_dir=str(tmp_path)), TrainerState(global_step=1), TrainerControl())
    assert torch.equal(before, torch.get_rng_state())
    found = load_survey(tmp_path / "step-000001")
    assert found.record.title == "step 1" and found.rows.filter(pl.col("kind") == "intervention").height > 0


def test_rates_go_through_the_trainer_s_own_log_where_it_is_given(tmp_path: Path) -> None:
    model, processor = tiny_vlm()
    logged: list[dict[str, float]] = []
    options = SurveyOptions(policy=POLICY, num_scenes=4, thresholds=UNTRAINED)
    callback = SurveyCallback((model, processor), WORLD, tmp_path, every=1, options=options, log=logged.append)
    state = TrainerState(global_step=7)
    callback.on_step_end(TrainingArguments(output_dir=str(tmp_path)), state, TrainerControl())
    assert state.log_history == [] and len(logged) == 1
    cells = [cell for cell in callback.records[7].shadows.cells if cell.form == "open"]
    assert cells and logged[0] == {
        f"survey/{'read' if cell.truth_moves else 'leak'}/{cell.factor}->{cell.query}": cell.moved_frac for cell in cells
    }
    run = load_survey(tmp_path / "step-000007").run
    assert run.command == "training callback" and run.step == 7
