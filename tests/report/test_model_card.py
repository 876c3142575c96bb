"""A model card: `huggingface_hub` reads back every number of the record, and no text of the record is Markdown."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from helpers import survey_records as made
from theodolite.records.accuracy import Accuracy, ShareRight
from theodolite.records.errors import BadInput
from theodolite.report.model_card import card_of, model_card
from theodolite.report.stored import StoredSurvey

RECORD = made.three_records()[2]
ACCURACY = Accuracy(
    item=ShareRight(rate=made.rate(0.71, 90), chance_frac=0.25, num_unanswered=3),
    pair=ShareRight(rate=made.rate(0.4, 90), chance_frac=0.0625, num_unanswered=0),
    question=None,
    picture=None,
    group=ShareRight(rate=None, chance_frac=0.01, num_unanswered=5),
)


def test_the_hub_reads_back_every_rate_with_its_interval() -> None:
    record = RECORD.model_copy(update={"accuracy": ACCURACY})
    card = ModelCard(model_card(StoredSurvey(record)))
    assert card.data.model_name == record.title and card.data.pipeline_tag == "visual-question-answering"
    read_back = {
        each.metric_name: (each.metric_value, each.metric_args["low"], each.metric_args["high"]) for each in card.data.eval_results
    }
    wanted = {}
    for factor, evidence in record.shadows.evidence.items():
        if evidence.read is not None:
            wanted[f"read of {factor}"] = (evidence.read.frac, evidence.read.low, evidence.read.high)
        if evidence.leak is not None and evidence.leak.adjusted is not None:
            leak = evidence.leak.adjusted
            wanted[f"leak of {factor} above noise"] = (leak.value, leak.low, leak.high)
    for name, share in (("item", ACCURACY.item), ("pair", ACCURACY.pair)):
        assert share is not None and share.rate is not None
        wanted[f"{name} accuracy"] = (share.rate.frac, share.rate.low, share.rate.high)
    assert len(wanted) > 7 and read_back == wanted
    (dataset,) = {each.dataset_name for each in card.data.eval_results}
    assert dataset == "shapes" and card.data.eval_results[0].dataset_args["pictures_sha256"] == record.pictures_sha256


def test_the_text_has_findings_verdicts_accuracy_and_where_they_come_from() -> None:
    text = ModelCard(model_card(StoredSurvey(RECORD.model_copy(update={"accuracy": ACCURACY})))).text
    assert "| shape | entangled | 0.93 \\[0.90, 0.97\\], 200 scenes |" in text
    assert "lets colour leak into answers about shape" in text and "| pair |" in text and "nothing answered, guessing 0.01" in text
    for digest in (RECORD.rows_sha256, RECORD.pictures_sha256, RECORD.model.weights_sha256):
        assert digest is not None and digest in text


def test_hostile_titles_are_neither_markup_nor_yaml() -> None:
    title = "a|b <img src=x> *c*: [d](http://e)\n---\nlicense: mine"
    card = ModelCard(model_card(StoredSurvey(RECORD.model_copy(update={"title": title, "world": None}))))
    assert card.data.model_name == title and card.data.license is None
    assert "\\<img src=x\\>" in card.text and "<img" not in card.text.replace("\\<img", "") and "\n---\nlicense" not in card.text


def test_a_card_is_about_one_survey_and_one_without_rates_is_still_read(tmp_path: Path) -> None:
    folder = made.write(tmp_path / "one", RECORD)
    with pytest.raises(BadInput, match="about one survey, and 2 were given"):
        card_of([folder, folder])
    assert not (tmp_path / "card.md").exists()
    empty = RECORD.model_copy(update={"shadows": RECORD.shadows.model_copy(update={"evidence": {}, "verdicts": {}})})
    assert ModelCard(model_card(StoredSurvey(empty))).data.eval_results is None
