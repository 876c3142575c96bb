"""Each factor's way through the model in one sentence, with the record's numbers."""

from __future__ import annotations

from helpers import inside_records, survey_records
from helpers.parsed_page import Page
from theodolite.records.ladder import Step
from theodolite.report.stored import StoredSurvey
from theodolite.report.survey.ladder_words import ladder_sentence
from theodolite.report.survey.page import build_page

INSIDE = inside_records.inside()
assert INSIDE.ladder is not None
LADDER = INSIDE.ladder


def test_a_lost_factor_names_both_sites_and_the_drop() -> None:
    one = LADDER.factors["shape"]
    rungs = {rung.site: rung.normalised.value for rung in one.rungs}
    assert one.loss.drop is not None
    sentence = ladder_sentence("shape", one)
    assert sentence.startswith(f"shape is perceived but not kept: layer.2 with {rungs['layer.2']:.2f} [")
    assert f"and layer.3 with {rungs['layer.3']:.2f} [" in sentence and f"a drop of {one.loss.drop.value:.2f} [" in sentence


def test_other_steps_name_the_site_that_decides() -> None:
    best = max(LADDER.factors["sheen"].rungs, key=lambda rung: rung.normalised.value)
    place = "the spoken answer" if best.site == "spoken" else best.site
    sentence = ladder_sentence("sheen", LADDER.factors["sheen"])
    assert f"not perceived: it is decoded best at {place} with {best.normalised.value:.2f} [" in sentence
    said = LADDER.factors["colour"]
    assert f"said: the spoken answer with {said.rungs[-1].normalised.value:.2f} [" in ladder_sentence("colour", said)
    steps: tuple[Step, ...] = ("no words", "undecided")
    for step in steps:
        changed = said.model_copy(update={"loss": said.loss.model_copy(update={"step": step})})
        assert "decoded best at" in ladder_sentence("colour", changed)


def test_the_page_has_a_sentence_for_every_factor_of_the_ladder() -> None:
    record = survey_records.three_records()[0].model_copy(update={"inside": INSIDE})
    page = Page(build_page([StoredSurvey(record)]))
    assert sorted(found["data-ladder"] for found in page.of("li") if "data-ladder" in found) == sorted(LADDER.factors)
    assert ladder_sentence("shape", LADDER.factors["shape"]) in page.text
